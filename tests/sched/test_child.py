"""Child processes on libos's loop: by pidfd, or by a thread where that is refused, with one outcome."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.sched import child
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

NO_PIPES: dict[str, Any] = {"stdin": None, "stdout": None, "stderr": None}


@pytest.fixture(params=["io_uring", "epoll"])
def ours(request: pytest.FixtureRequest, new_loop: Callable[[str], Loop]) -> Loop:
    return new_loop(request.param)


@pytest.fixture
def new_loop() -> Iterator[Callable[[str], Loop]]:
    loops: list[Loop] = []

    def new(kind: str = "auto") -> Loop:
        loops.append(Loop(Reactor(kind, clock=MonotonicClock(10**15)), own_reactor=True))  # type: ignore[arg-type]
        return loops[-1]

    yield new
    for loop in loops:
        loop.close()


def refuse_pidfds(monkeypatch: pytest.MonkeyPatch, code: int = errno.EPERM) -> None:
    def pidfd_open(pid: int, flags: int = 0) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)


@pytest.fixture(params=["pidfd", "thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "thread":
        refuse_pidfds(monkeypatch)
    way: str = request.param
    return way


async def status_of(*args: str) -> int:
    return await (await asyncio.create_subprocess_exec(*args)).wait()


def no_zombies() -> bool:
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return True


class Exits(asyncio.SubprocessProtocol):
    """What a protocol was told, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gone = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.seen.append(f"data {fd}")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self.seen.append(f"lost {fd}")

    def process_exited(self) -> None:
        self.seen.append("exited")

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append("gone")
        self.gone.set_result(None)


# --- what tests/loop asks of every loop, more closely ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9), ("exit 255", 255)]
)
def test_the_status_is_an_exit_code_or_a_negative_signal(ours: Loop, program: str, status: int) -> None:
    async def main() -> int:
        return await (await asyncio.create_subprocess_shell(program)).wait()

    assert ours.run_until_complete(main()) == status
    assert no_zombies()


def test_a_command_that_is_not_there(ours: Loop) -> None:
    with pytest.raises(FileNotFoundError):
        ours.run_until_complete(status_of("/nonexistent/command"))
    assert no_zombies()


def test_the_protocol_hears_of_its_end(ours: Loop) -> None:
    async def main() -> list[str]:
        transport, protocol = await ours.subprocess_shell(Exits, "echo out; echo err >&2", stdin=None)
        await protocol.gone
        assert transport.get_returncode() == 0
        transport.close()
        return protocol.seen

    seen = ours.run_until_complete(main())
    assert sorted(seen) == ["data 1", "data 2", "exited", "gone", "lost 1", "lost 2"]
    assert seen[-1] == "gone"
    assert seen.index("data 1") < seen.index("lost 1")


def test_many_at_once(ours: Loop) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(status_of("sh", "-c", f"exit {n}") for n in range(20)))

    assert ours.run_until_complete(main()) == list(range(20))
    assert no_zombies()


def test_waiting_for_one_may_be_cancelled(ours: Loop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 0.01)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        assert process.returncode == -signal.SIGKILL

    ours.run_until_complete(main())
    assert no_zombies()


# --- on libos's, by a pidfd and by a thread --------------------------------------------------------------------------


def test_the_status_does_not_depend_on_the_way(ours: Loop, way: str) -> None:
    assert ours.run_until_complete(status_of("sh", "-c", "exit 3")) == 3
    assert ours.run_until_complete(status_of("sh", "-c", "kill -TERM $$")) == -signal.SIGTERM
    assert no_zombies()


def test_there_is_neither_a_thread_nor_a_signal(ours: Loop) -> None:
    async def main() -> None:
        before = threading.active_count()
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        assert threading.active_count() == before
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
        process.kill()
        await process.wait()

    ours.run_until_complete(main())


def test_in_threads_that_are_not_the_main_one(new_loop: Callable[..., Loop], way: str) -> None:
    answers: list[list[int]] = []

    def work(loop: Loop) -> None:
        async def main() -> list[int]:
            return await asyncio.gather(*(status_of("sh", "-c", f"exit {n}") for n in range(3)))

        answers.append(loop.run_until_complete(main()))

    threads = [threading.Thread(target=work, args=(new_loop(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [[0, 1, 2]] * 4
    assert no_zombies()


def test_one_that_is_dead_before_the_watch(ours: Loop, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = child.Children._watch

    def late(self: Any, transport: Any) -> None:
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        watch(self, transport)

    monkeypatch.setattr(child.Children, "_watch", late)
    assert ours.run_until_complete(status_of("sh", "-c", "exit 4")) == 4


@pytest.mark.parametrize(("way", "when"), [("pidfd", "before"), ("pidfd", "after"), ("thread", "before")])
def test_one_whose_status_somebody_else_took(
    ours: Loop, way: str, when: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """255 and a warning, as on asyncio."""
    watch = child.Children._watch

    def robbed(self: Any, transport: Any) -> None:
        if when == "after":
            watch(self, transport)
        os.waitpid(transport.get_pid(), 0)
        if when == "before":
            watch(self, transport)

    monkeypatch.setattr(child.Children, "_watch", robbed)
    if way == "thread":
        refuse_pidfds(monkeypatch)
    with caplog.at_level(logging.WARNING, "asyncio"):
        assert ours.run_until_complete(status_of("sh", "-c", "exit 4")) == 255
    assert "will report returncode 255" in caplog.text


def test_when_signals_of_children_are_ignored(ours: Loop, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Then the kernel reaps them, and nobody learns the status."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with caplog.at_level(logging.CRITICAL, "asyncio"):
            assert ours.run_until_complete(status_of("sh", "-c", "exit 4")) == 255
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_one_that_popen_reaped(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport's close() polls: the status that it took is the one that is reported."""
    watch = child.Children._watch

    def then_poll(self: Any, transport: Any) -> None:
        watch(self, transport)
        os.waitid(os.P_PID, transport.get_pid(), os.WEXITED | os.WNOWAIT)
        transport.close()

    async def main() -> None:
        transport, protocol = await ours.subprocess_exec(Exits, "sh", "-c", "exit 5", **NO_PIPES)
        await protocol.gone
        assert transport.get_returncode() == 5
        assert protocol.seen == ["exited", "gone"]

    monkeypatch.setattr(child.Children, "_watch", then_poll)
    ours.run_until_complete(main())


def test_a_cancelled_start_leaves_no_process(ours: Loop, way: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ours.run_until_complete(main())
    assert no_zombies()


def test_no_descriptor_left_for_it(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_pidfds(monkeypatch, errno.EMFILE)
    assert ours.run_until_complete(status_of("sh", "-c", "exit 6")) == 6


def test_no_place_for_it_in_the_reactor(ours: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of epoll watches. The fixture of all tests sees to it that the pidfd is closed."""
    watch = ours.reactor.watch
    refused = []

    def full(fd: int, mask: int, sink: Any) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(("anon_inode:[pidfd", "pidfd:")):
            refused.append(fd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        watch(fd, mask, sink)

    monkeypatch.setattr(ours.reactor, "watch", full)
    assert ours.run_until_complete(status_of("sh", "-c", "exit 6")) == 6
    assert len(refused) == 1


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_the_loop_closes_while_one_runs(ours: Loop) -> None:
    """Its pidfd goes with the loop; the process does not, and the subprocess module reaps it."""

    async def main() -> Any:
        transport, _ = await ours.subprocess_exec(Exits, "sleep", "1000", **NO_PIPES)
        return transport

    transport = ours.run_until_complete(main())
    pid = transport.get_pid()
    ours.close()
    assert not [name for name in descriptors() if "pidfd" in name]
    os.kill(pid, 0)
    transport.close()  # kills it
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    del transport
    gc.collect()
    subprocess.run(["true"], check=True)
    assert no_zombies()


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


# --- asyncio's child watchers ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are none any more")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestWatchers:
    @pytest.fixture(autouse=True)
    def policy(self) -> Iterator[None]:
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())
        yield
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asyncio.set_event_loop_policy(None)

    def test_none_is_made(self, ours: Loop) -> None:
        assert ours.run_until_complete(status_of("sh", "-c", "exit 3")) == 3
        assert getattr(asyncio.get_event_loop_policy(), "_watcher", None) is None

    def test_a_default_one_is_not_asked(self, ours: Loop) -> None:
        watcher = asyncio.PidfdChildWatcher()  # attached to no loop: asyncio's own loop would refuse
        asyncio.set_child_watcher(watcher)
        assert ours.run_until_complete(status_of("sh", "-c", "exit 3")) == 3

    def test_one_that_was_set_is_asked(self, ours: Loop) -> None:
        class Watcher(asyncio.ThreadedChildWatcher):
            asked = 0

            def add_child_handler(self, pid: int, callback: Any, *args: Any) -> None:
                self.asked += 1
                super().add_child_handler(pid, callback, *args)

        watcher = Watcher()
        asyncio.set_child_watcher(watcher)
        assert ours.run_until_complete(status_of("sh", "-c", "exit 3")) == 3
        assert watcher.asked == 1

    def test_one_by_signals(self, ours: Loop) -> None:
        watcher = asyncio.SafeChildWatcher()
        watcher.attach_loop(ours)
        asyncio.set_child_watcher(watcher)
        assert ours.run_until_complete(status_of("sh", "-c", "exit 3")) == 3
        watcher.close()

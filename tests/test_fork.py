"""A process forks while it holds loops and machines: the child can make its own, and the parent notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import libos
from libos.config import configure
from libos.errors import ForkError, HostError, WorldError
from libos.machine import Machine

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

WORLDS = ["host-io_uring", "host-epoll", "user-io_uring", "user-epoll"]


def join(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(child: Callable[[], object]) -> int:
    """Runs ``child`` in a child process: its exit status, which is 0 if it returns."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return join(pid)


class Parent:
    """A machine with a loop, and a connection from it to a socket of the host, which has to work to the end."""

    def __init__(self, world: str) -> None:
        net, _, reactor = world.partition("-")
        self.machine = Machine(configure(net=net, reactor=reactor))
        self.loop = self.machine.new_event_loop()
        self.there = "10.0.2.2" if net == "user" else "127.0.0.1"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.reader, self.writer = self.run(asyncio.open_connection(self.there, port))
            self.peer, _ = listener.accept()
        self.peer.setblocking(False)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(main, 20))

    async def talk(self) -> None:
        """Bytes each way, a timer, a thread's call."""
        self.writer.write(b"ping")
        assert await self.loop.sock_recv(self.peer, 4) == b"ping"
        await self.loop.sock_sendall(self.peer, b"pong")
        assert await self.reader.readexactly(4) == b"pong"
        await asyncio.sleep(0.001)
        called = self.loop.create_future()
        self.loop.call_soon_threadsafe(called.set_result, None)
        await called

    async def part(self) -> None:
        """An orderly end, seen from the other side."""
        self.writer.close()
        await self.writer.wait_closed()
        assert await self.loop.sock_recv(self.peer, 1) == b""

    def close(self) -> None:
        self.writer.transport.abort()
        self.run(asyncio.sleep(0))
        self.peer.close()
        self.loop.close()
        self.machine.close()


@pytest.fixture(params=WORLDS)
def parent(request: pytest.FixtureRequest) -> Iterator[Parent]:
    try:
        parent = Parent(request.param)
    except HostError as error:
        pytest.skip(str(error))
    yield parent
    parent.close()


async def echo_once(host: str = "127.0.0.1") -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()

    async with await asyncio.start_server(serve, host, 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await writer.wait_closed()


# --- what the child may do -------------------------------------------------------------------------------------------


def test_a_child_runs_a_loop_of_its_own(parent: Parent) -> None:
    def child() -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        for net in ("host", "user"):
            libos.run(asyncio.wait_for(echo_once(), 20), net=net)
        asyncio.run(echo_once())

    async def main() -> None:
        await parent.talk()
        assert forked(child) == 0
        await parent.talk()
        await parent.part()

    parent.run(main())


def test_a_child_closes_what_it_inherited(parent: Parent) -> None:
    def child() -> None:
        before = len(os.listdir("/proc/self/fd"))
        parent.loop.close()
        parent.machine.close()
        assert parent.machine.statistics()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) < before
        libos.run(echo_once())

    parent.run(parent.talk())
    for _ in range(2):
        assert forked(child) == 0
        parent.run(parent.talk())
    parent.run(parent.part())


def test_a_child_drops_what_it_inherited(parent: Parent) -> None:
    """By the collector, in whatever order."""

    def child() -> None:
        with contextlib.suppress(AttributeError):
            parent.__dict__.clear()
        gc.collect()

    parent.run(parent.talk())
    assert forked(child) == 0
    parent.run(parent.talk())
    parent.run(parent.part())


def test_a_child_of_a_child(parent: Parent) -> None:
    def grandchild() -> None:
        assert parent.machine.reactor.inherited
        parent.loop.close()
        libos.run(echo_once())

    def child() -> None:
        with asyncio.Runner(loop_factory=libos.new_event_loop) as runner:
            runner.run(echo_once())
            assert forked(grandchild) == 0
            runner.run(echo_once())

    parent.run(parent.talk())
    assert forked(child) == 0
    parent.run(parent.talk())


def test_what_it_may_not_do_is_refused(parent: Parent) -> None:
    def child() -> None:
        assert parent.machine.reactor.inherited
        loop = parent.loop
        a, b = socket.socketpair()
        with a, b:
            with pytest.raises(ForkError):
                loop.add_reader(a, print)
            assert not loop.remove_reader(a)
            with pytest.raises(ForkError, match="make a new one here"):
                loop.run_until_complete(asyncio.sleep(10))
            assert loop.run_until_complete(asyncio.sleep(0, "needs no wait")) == "needs no wait"

    parent.run(parent.talk())
    assert not parent.machine.reactor.inherited
    assert forked(child) == 0
    parent.run(parent.talk())


def test_connections_are_the_parents(parent: Parent) -> None:
    """What a child writes, reads, ends or aborts of its parent's, the peer does not hear of."""

    def child() -> None:
        parent.writer.write(b"from the child")
        parent.writer.write_eof()
        parent.loop.run_until_complete(asyncio.sleep(0))
        parent.writer.transport.abort()
        parent.loop.run_until_complete(asyncio.sleep(0))

    async def waiting() -> None:
        await parent.loop.sock_sendall(parent.peer, b"for the parent")
        assert forked(reads) == 0
        assert await parent.reader.readexactly(14) == b"for the parent"

    def reads() -> None:
        with pytest.raises(RuntimeError):
            parent.loop.run_until_complete(parent.reader.read(1))

    parent.run(parent.talk())
    assert forked(child) == 0
    parent.run(parent.talk())
    parent.run(waiting())
    parent.run(parent.talk())
    parent.run(parent.part())


def test_a_machine_that_was_inherited_gives_loops_beside_it(parent: Parent) -> None:
    """In world host they are like any other; elsewhere they have no network."""

    def child() -> None:
        if parent.machine.network is None:
            parent.machine.run(echo_once())
        else:
            assert parent.machine.run(asyncio.sleep(0.001, "slept")) == "slept"
            with pytest.raises(WorldError, match="forked"):
                parent.machine.run(echo_once())

    async def main() -> None:
        assert forked(child) == 0
        await parent.talk()

    parent.run(main())


# --- what the parent must not notice ---------------------------------------------------------------------------------


def test_signals_of_the_child_are_its_own(parent: Parent) -> None:
    seen: list[int] = []

    def child() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    async def main() -> None:
        parent.loop.add_signal_handler(signal.SIGUSR1, seen.append, signal.SIGUSR1)
        assert forked(child) == 0
        await parent.talk()
        assert seen == []
        os.kill(os.getpid(), signal.SIGUSR1)
        await parent.talk()
        assert seen == [signal.SIGUSR1]
        assert parent.loop.remove_signal_handler(signal.SIGUSR1)

    parent.run(main())


def test_children_that_live_on_while_the_parent_works(parent: Parent) -> None:
    """Each side closes descriptors that the other still has, under numbers that are used again."""
    release, held = os.pipe()

    def child() -> None:
        os.close(held)
        parent.loop.close()
        os.read(release, 1)

    pids = []
    for _ in range(5):
        if not (pid := os.fork()):
            with contextlib.suppress(BaseException):
                child()
                os._exit(0)
            os._exit(1)
        pids.append(pid)
        for _ in range(5):
            parent.run(parent.talk())
        parent.run(echo_once())
    os.close(held)
    assert [join(pid) for pid in pids] == [0] * 5
    os.close(release)
    parent.run(parent.talk())


def test_connections_that_a_gateway_relays_are_not_set_to_reset() -> None:
    """SO_LINGER is the connection's and not the descriptor's: set in a child it would hold for the parent."""
    with contextlib.closing(Parent("user-epoll")) as parent:
        parent.run(parent.talk())
        assert parent.machine.gateway is not None
        (relay,) = parent.machine.gateway.connections
        host_side: Any = getattr(relay, "_far")._sock  # noqa: B009
        before = host_side.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert forked(parent.machine.close) == 0
        assert host_side.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == before
        parent.run(parent.part())


@pytest.mark.root
def test_a_child_says_nothing_on_the_wire() -> None:
    """No frame leaves through the TAP device that both processes hold."""
    with contextlib.closing(Machine(configure(net="tap", ip="10.77.0.2/24"))) as machine:
        loop = machine.new_event_loop()
        counter = Path(f"/sys/class/net/{machine.tap}/statistics/rx_packets")

        async def main() -> None:
            await asyncio.start_server(lambda reader, writer: None, None, 7)

        loop.run_until_complete(main())

        def child() -> None:
            before = counter.read_text()
            loop.close()
            machine.close()
            assert counter.read_text() == before

        assert forked(child) == 0
        loop.close()


PROGRAM = """
import asyncio, os, sys
import libos

async def main():
    reader, writer = await connect()
    async def reads():  # waits for good: cancelled in whichever process ends
        await reader.read(1)
    task = asyncio.create_task(reads())
    await asyncio.sleep(0)
    pid = os.fork()
    if pid == 0:
        {leave}
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    task.cancel()
    writer.write(b"x")
    print("parent", status, await peer(), flush=True)

async def connect():
    global listener
    listener = asyncio.Queue()
    class Serve(asyncio.Protocol):
        def data_received(self, data):
            listener.put_nowait(data)
    server = await asyncio.get_running_loop().create_server(Serve, "127.0.0.1", 0)
    return await asyncio.open_connection(*server.sockets[0].getsockname()[:2])

async def peer():
    return await asyncio.wait_for(listener.get(), 20)

libos.run(main(), net=sys.argv[1])
"""


@pytest.mark.parametrize("net", ["host", "user"])
@pytest.mark.parametrize(("leave", "status"), [("sys.exit(7)", 7), ("os._exit(8)", 8), ("raise KeyError", 1)])
def test_a_child_leaves_from_within_a_coroutine(net: str, leave: str, status: int, tmp_path: Path) -> None:
    """By whichever door: finalizers run, and nothing waits for what will never come."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(leave=leave))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), net], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"parent {status} b'x'" in done.stdout.splitlines()[0]
    assert ("KeyError" in done.stderr) == (status == 1)
    if status != 1:
        assert done.stderr == ""


def test_nothing_is_left_undone_at_the_end_of_an_interpreter(tmp_path: Path) -> None:
    """A main() that raises leaves open connections to the last garbage collection."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("pid = os.fork()", "pid = 0").format(leave="raise KeyError"))
    for net in ("host", "user"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(program), net], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "KeyError")


# --- multiprocessing -------------------------------------------------------------------------------------------------

POOL = """
import asyncio, concurrent.futures, multiprocessing, os, sys
import libos

async def work(n):
    await asyncio.sleep(0.001)
    return n * n

def job(n):
    return libos.run(work(n)), os.getpid()

def put(queue):
    queue.put(libos.run(work(12), net=sys.argv[1]))

async def main():
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context(sys.argv[2])
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        answers = await asyncio.gather(*(loop.run_in_executor(pool, job, n) for n in range(4)))
    assert [answer for answer, _ in answers] == [0, 1, 4, 9], answers
    assert os.getpid() not in {pid for _, pid in answers}
    queue = context.SimpleQueue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    assert queue.get() == 144
    process.join()
    assert process.exitcode == 0
    print("ok")

if __name__ == "__main__":
    libos.run(main(), net=sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("net", ["host", "user"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(net: str, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(POOL)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), net, method], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("ok\n", "")

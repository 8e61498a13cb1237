"""Subprocesses: shell and exec, their pipes, signals and ends, also in a thread that is not the main one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Any

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def test_it_is_asked_and_answers(loop: AnyLoop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("rev", stdin=PIPE, stdout=PIPE)
        out, err = await process.communicate(b"abc\n")
        assert out == b"cba\n"
        assert err is None
        assert process.returncode == 0
        process = await asyncio.create_subprocess_shell("cat >&2; exit 3", stdin=PIPE, stderr=PIPE)
        out, err = await process.communicate(b"to stderr")
        assert (out, err, process.returncode) == (None, b"to stderr", 3)

    loop.run_until_complete(main())


def test_streams_to_and_from_it(loop: AnyLoop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        for i in range(20):
            process.stdin.write(b"line %d\n" % i)
            await process.stdin.drain()
            assert await process.stdout.readline() == b"line %d\n" % i
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    loop.run_until_complete(main())


def test_a_megabyte_through_it(loop: AnyLoop) -> None:
    async def main() -> None:
        data = bytes(range(256)) * 4096
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert (await process.communicate(data))[0] == data

    loop.run_until_complete(main())


@pytest.mark.parametrize("how", ["terminate", "kill", "send_signal"])
def test_signals_end_it(loop: AnyLoop, how: str) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        number = {"terminate": signal.SIGTERM, "kill": signal.SIGKILL, "send_signal": signal.SIGHUP}[how]
        getattr(process, how)(*([number] if how == "send_signal" else []))
        assert await process.wait() == -number
        assert process.returncode == -number
        for late in (process.terminate, process.kill, lambda: process.send_signal(signal.SIGHUP)):
            with pytest.raises(ProcessLookupError):
                late()

    loop.run_until_complete(main())


def test_its_arguments(loop: AnyLoop, tmp_path: Path) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        process = await asyncio.create_subprocess_shell(
            f"pwd; echo $WORD; echo passed >/dev/fd/{writing}; echo error >&2",
            cwd=tmp_path,
            env={"WORD": "of the environment"},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        out, _ = await process.communicate()
        assert out.decode().splitlines() == [str(tmp_path), "of the environment", "error"]
        assert os.read(reading, 100) == b"passed\n"
        os.close(reading)

    loop.run_until_complete(main())


def test_output_to_a_file(loop: AnyLoop, tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "out").open("wb") as file:
            process = await asyncio.create_subprocess_exec("echo", "written", stdout=file)
            assert await process.wait() == 0
        assert (tmp_path / "out").read_text() == "written\n"

    loop.run_until_complete(main())


class Watcher(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = {1: b"", 2: b""}
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.data[fd] += data

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.calls.append(f"pipe {fd} lost")

    def process_exited(self) -> None:
        self.calls.append("exited")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)


def test_its_protocol(loop: AnyLoop) -> None:
    async def main() -> None:
        transport, protocol = await loop.subprocess_exec(Watcher, "/bin/sh", "-c", "cat; echo err >&2; exit 5")
        assert transport.get_pid() > 0
        assert transport.get_returncode() is None
        assert transport.get_protocol() is protocol
        assert transport.get_pipe_transport(1) is not None
        assert transport.get_pipe_transport(3) is None
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"in")  # type: ignore[union-attr]
        stdin.close()  # type: ignore[union-attr]
        assert await protocol.lost is None
        assert protocol.data == {1: b"in", 2: b"err\n"}
        assert protocol.calls[0] == "made"
        assert protocol.calls[-1] == "lost"
        assert sorted(protocol.calls[1:-1]) == ["exited", "pipe 0 lost", "pipe 1 lost", "pipe 2 lost"]
        assert transport.get_returncode() == 5
        transport.close()

    loop.run_until_complete(main())


def test_closing_the_transport_kills_it(loop: AnyLoop) -> None:
    async def main() -> None:
        transport, protocol = await loop.subprocess_exec(Watcher, "sleep", "1000")
        transport.close()
        assert transport.is_closing()
        await protocol.lost
        assert transport.get_returncode() == -signal.SIGKILL

    loop.run_until_complete(main())


def test_closing_its_stdin_early_is_no_error(loop: AnyLoop) -> None:
    """It exits without having read what it was sent."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        assert (await process.communicate(bytes(1 << 20)))[0] == b""
        assert process.returncode == 0
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # else nobody retrieves it
            await process.stdin.wait_closed()

    loop.run_until_complete(main())


def test_a_program_that_is_not_there(loop: AnyLoop) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await asyncio.create_subprocess_exec("/does/not/exist", stdin=PIPE, stdout=PIPE)
        with pytest.raises(PermissionError):
            await asyncio.create_subprocess_exec("/etc/passwd")

    loop.run_until_complete(main())


def test_waiting_for_one_is_cancelled(loop: AnyLoop) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        waiting = [asyncio.ensure_future(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        process.kill()
        assert [await task for task in waiting[1:]] == [-signal.SIGKILL] * 2

    loop.run_until_complete(main())


def test_many_at_once(loop: AnyLoop) -> None:
    async def one(number: int) -> bytes:
        process = await asyncio.create_subprocess_exec("echo", str(number), stdout=PIPE)
        return (await process.communicate())[0]

    async def main() -> None:
        assert await asyncio.gather(*map(one, range(20))) == [b"%d\n" % i for i in range(20)]

    loop.run_until_complete(main())


def test_in_a_thread(world: World) -> None:
    """Nothing of it needs the main thread."""
    found: list[object] = []

    def work() -> None:
        other = world.another_loop()

        async def main() -> None:
            process = await asyncio.create_subprocess_exec("rev", stdin=PIPE, stdout=PIPE)
            found.append((await process.communicate(b"abc\n"))[0])
            found.append(process.returncode)
            process = await asyncio.create_subprocess_exec("sleep", "1000")
            process.kill()
            found.append(await process.wait())

        other.run_until_complete(main())
        other.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [b"cba\n", 0, -signal.SIGKILL]

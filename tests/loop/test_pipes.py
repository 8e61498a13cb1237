"""``connect_read_pipe`` and ``connect_write_pipe``: the host's pipes, beside every network."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .peers import closed
from .worlds import World, until

AnyLoop = asyncio.AbstractEventLoop


class Pipe(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)


def files() -> tuple[Any, Any]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb", 0), os.fdopen(writing, "wb", 0)


def test_streams_over_a_pipe(loop: AnyLoop) -> None:
    async def main() -> None:
        reading, writing = files()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), reading)
        writer, _ = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, writing)
        data = bytes(200_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        assert await reader.read() == b""
        await closed(transport)

    loop.run_until_complete(main())


def test_the_order_of_callbacks(world: World) -> None:
    async def main() -> None:
        reading, writing = files()
        source, reader = await world.loop.connect_read_pipe(Pipe, reading)
        sink, writer = await world.loop.connect_write_pipe(Pipe, writing)
        assert source.get_extra_info("pipe") is reading
        assert sink.get_extra_info("pipe") is writing
        assert source.get_protocol() is reader
        sink.write(b"data")
        sink.write_eof()
        assert sink.can_write_eof()
        assert await reader.lost is None
        assert await writer.lost is None
        assert reader.data == b"data"
        assert reader.calls == ["made", "eof", "lost"]
        assert writer.calls == ["made", "lost"]
        assert source.is_closing()
        assert sink.is_closing()

    world.run(main())


def test_a_reader_that_goes_ends_the_writer(world: World) -> None:
    async def main() -> None:
        reading, writing = files()
        sink, writer = await world.loop.connect_write_pipe(Pipe, writing)
        reading.close()
        await writer.lost
        assert sink.is_closing()
        assert writer.calls == ["made", "lost"]

    world.run(main())


def test_writing_is_paused_while_nobody_reads(world: World) -> None:
    async def main() -> None:
        reading, writing = files()
        sink, writer = await world.loop.connect_write_pipe(Pipe, writing)
        sink.set_write_buffer_limits(high=1000, low=10)
        assert sink.get_write_buffer_limits() == (10, 1000)
        sink.write(bytes(500_000))
        assert sink.get_write_buffer_size() > 1000
        assert "pause" in writer.calls
        source, reader = await world.loop.connect_read_pipe(Pipe, reading)
        await until(lambda: len(reader.data) == 500_000)
        await until(lambda: "resume" in writer.calls)
        assert sink.get_write_buffer_size() == 0
        sink.close()
        await reader.lost
        await writer.lost
        await closed(source)

    world.run(main())


def test_reading_is_paused_and_resumed(world: World) -> None:
    async def main() -> None:
        reading, writing = files()
        source, reader = await world.loop.connect_read_pipe(Pipe, reading)
        source.pause_reading()
        writing.write(b"early")
        await asyncio.sleep(0.002)
        assert reader.data == b""
        source.resume_reading()
        await until(lambda: reader.data == b"early")
        source.close()
        assert await reader.lost is None
        writing.close()

    world.run(main())


def test_abort_forgets_what_was_queued(world: World) -> None:
    async def main() -> None:
        reading, writing = files()
        sink, writer = await world.loop.connect_write_pipe(Pipe, writing)
        sink.write(bytes(1 << 20))
        sink.abort()
        assert await writer.lost is None
        with reading:
            assert len(reading.read()) < 1 << 20

    world.run(main())


def test_fifos_and_sockets_are_pipes_too(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        file = os.fdopen(os.open(path, os.O_RDWR), "wb", 0)
        os.set_blocking(file.fileno(), False)
        reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        source, reader = await world.loop.connect_read_pipe(Pipe, reading)
        file.write(b"through the fifo")
        await until(lambda: reader.data == b"through the fifo")
        file.close()
        await reader.lost
        await closed(source)
        a, b = socket.socketpair()
        sink, writer = await world.loop.connect_write_pipe(Pipe, a)
        sink.write(b"through the socket")
        b.setblocking(False)
        assert await world.loop.sock_recv(b, 100) == b"through the socket"
        sink.close()
        await writer.lost
        b.close()

    world.run(main())


def test_a_regular_file_is_no_pipe(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()

    async def main() -> None:
        with path.open("r+b") as file, pytest.raises(ValueError, match="is for pipes/sockets only"):
            await world.loop.connect_read_pipe(Pipe, file)
        with path.open("r+b") as file, pytest.raises(ValueError, match="is only for pipes, sockets and character"):
            await world.loop.connect_write_pipe(Pipe, file)

    world.run(main())

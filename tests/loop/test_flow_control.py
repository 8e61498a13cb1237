"""Flow control of stream transports: watermarks, pause_writing and resume_writing, and what drain() makes of them."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest

from .peers import Recorder, connected, port_of
from .worlds import World, until


def test_writing_is_paused_while_the_peer_does_not_read(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        transport, client, peer = connection.transport, connection.client, connection.peer
        transport.set_write_buffer_limits(high=100_000, low=10_000)
        peer.transport.pause_reading()
        chunk = bytes(65536)
        sent = 0
        while "pause" not in client.calls:
            transport.write(chunk)
            sent += len(chunk)
            await asyncio.sleep(0)
            assert sent < 64 << 20
        assert transport.get_write_buffer_size() > 100_000
        peer.transport.resume_reading()
        await until(lambda: "resume" in client.calls)
        assert transport.get_write_buffer_size() <= 10_000
        transport.close()
        await peer.lost
        assert len(peer.data) == sent
        await connection.end()

    world.run(main())


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (16384, 65536)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 100, "low": 50}, (50, 100)),
        ({"high": 0}, (0, 0)),
        ({"high": 7, "low": 7}, (7, 7)),
    ],
)
def test_limits(world: World, given: dict[str, int], limits: tuple[int, int]) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.transport.set_write_buffer_limits(**given)
        assert connection.transport.get_write_buffer_limits() == limits
        assert connection.transport.get_write_buffer_size() == 0
        await connection.end()

    world.run(main())


def test_each_crossing_of_a_limit_is_told_once(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        transport, client = connection.transport, connection.client
        connection.peer.transport.pause_reading()
        transport.set_write_buffer_limits(high=0)
        for _ in range(5):
            transport.write(bytes(4 << 20))
        assert client.calls == ["made", "pause"]
        connection.peer.transport.resume_reading()
        await until(lambda: "resume" in client.calls)
        assert transport.get_write_buffer_size() == 0
        assert client.calls == ["made", "pause", "resume"]
        await connection.end()

    world.run(main())


def test_a_protocol_writes_on_when_it_may(world: World) -> None:
    """resume_writing() itself writes, and closes at last."""
    piece, pieces = bytes(1 << 20), 20

    class Source(Recorder):
        left = pieces

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.resume_writing()

        def resume_writing(self) -> None:
            while self.left and self.calls[-1] != "pause":
                self.left -= 1
                self.transport.write(piece)
            if not self.left:
                asyncio.get_running_loop().call_soon(self.transport.close)
            else:
                self.calls.append("resumed")

    async def main() -> None:
        connection = await connected(world, serving=Source)
        await connection.client.lost
        assert len(connection.client.data) == pieces * len(piece)
        await connection.end()

    world.run(main())


def test_a_paused_writer_that_loses_its_peer_is_let_go(world: World) -> None:
    async def main() -> None:
        async def ignore(reader: Any, writer: Any) -> None:
            await gone
            writer.transport.abort()

        gone = world.loop.create_future()
        server = await asyncio.start_server(ignore, world.host, 0)
        _, writer = await asyncio.open_connection(world.host, port_of(server))
        writer.write(bytes(64 << 20))
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.005)
        assert not draining.done()
        gone.set_result(None)
        with pytest.raises(ConnectionError):
            await draining
        writer.close()
        with pytest.raises(ConnectionError):
            await writer.wait_closed()
        server.close()

    world.run(main())


@pytest.mark.parametrize("size", [1, 8 << 20])
def test_a_reader_that_says_nothing(world: World, size: int) -> None:
    """Nothing happens in this loop but that there is room again, and at the end the end is to be told."""

    def read_all(peer: socket.socket) -> int:
        with peer:
            return sum(iter(lambda: len(peer.recv(65536)), 0))

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
        reading = asyncio.ensure_future(asyncio.to_thread(read_all, peer))
        writer.write(bytes(size))
        await writer.drain()
        writer.write_eof()
        assert await reading == size
        writer.close()
        await writer.wait_closed()

    world.run(main())


def test_several_tasks_drain_one_writer(world: World) -> None:
    async def main() -> None:
        received = world.loop.create_future()

        async def count(reader: Any, writer: Any) -> None:
            total = 0
            while data := await reader.read(1 << 20):
                total += len(data)
            received.set_result(total)
            writer.close()
            await writer.wait_closed()

        async def send(times: int) -> None:
            for _ in range(times):
                writer.write(bytes(100_000))
                await writer.drain()

        server = await asyncio.start_server(count, world.host, 0)
        _, writer = await asyncio.open_connection(world.host, port_of(server))
        await asyncio.gather(*(send(10) for _ in range(5)))
        writer.write_eof()
        assert await received == 5_000_000
        writer.close()
        await writer.wait_closed()
        server.close()

    world.run(main())


def test_pieces_of_any_size_arrive_in_order(world: World) -> None:
    rng = random.Random(4)
    pieces = [rng.randbytes(rng.choice((1, 10, 1000, 70_000, 300_000))) for _ in range(60)]

    async def main() -> None:
        connection = await connected(world)
        for number, piece in enumerate(pieces):
            if number % 3:
                connection.transport.write(piece)
            else:
                connection.transport.writelines([piece[:5], piece[5:]])
            if number % 7 == 0:
                await asyncio.sleep(0)
        connection.transport.close()
        await connection.peer.lost
        assert connection.peer.data == b"".join(pieces)
        await connection.end()

    world.run(main())

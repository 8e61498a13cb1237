"""What a stream transport promises its protocol: order of callbacks, half-close, close, abort, pause and resume."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import Any

import pytest

from .peers import Recorder, connected, port_of
from .worlds import World, until

BLOB = hashlib.shake_128(b"seed").digest(10_000_000)


def test_the_order_of_callbacks(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        client, peer, transport = connection.client, connection.peer, connection.transport
        transport.write(b"x")
        transport.close()
        assert transport.is_closing()
        assert client.calls == ["made"]  # connection_lost is never called from within close()
        await client.lost
        await peer.lost
        assert client.calls == ["made", "lost"]
        assert client.error is None
        assert peer.calls == ["made", "data", "eof", "lost"]
        assert peer.error is None
        transport.close()
        transport.abort()
        await connection.end()

    world.run(main())


def test_writing_after_close_is_forgotten(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.transport.close()
        connection.transport.write(b"into the void")
        await connection.client.lost
        connection.transport.write(b"into the void")
        connection.transport.writelines([b"into", b"the void"])
        await connection.end()
        assert connection.peer.data == b""

    world.run(main())


def test_half_close(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        client, peer, transport = connection.client, connection.peer, connection.transport
        peer.keep_open = True
        assert transport.can_write_eof()
        transport.write(b"question")
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"^Cannot call write\(\) after write_eof\(\)$"):
            transport.write(b"more")
        await peer.ended
        assert peer.data == b"question"
        peer.transport.write(b"answer")
        await until(lambda: client.data == b"answer")
        peer.transport.close()
        await client.lost
        await connection.end()

    world.run(main())


def test_write_eof_waits_for_what_is_queued(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.transport.write(BLOB)
        assert connection.transport.get_write_buffer_size() > 0
        connection.transport.write_eof()
        await connection.peer.ended
        assert connection.peer.data == BLOB
        await connection.end()

    world.run(main())


def test_close_sends_what_is_queued(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.transport.write(BLOB)
        connection.transport.close()
        assert not connection.transport.is_reading()
        await connection.peer.lost
        await connection.client.lost
        assert connection.peer.data == BLOB
        assert connection.client.error is None
        await connection.end()

    world.run(main())


def test_abort_forgets_what_is_queued(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.peer.transport.pause_reading()
        connection.transport.write(BLOB * 2)
        connection.transport.abort()
        assert connection.transport.is_closing()
        await connection.client.lost
        assert connection.client.error is None
        assert connection.transport.get_write_buffer_size() == 0
        connection.peer.transport.resume_reading()
        await connection.peer.lost
        assert len(connection.peer.data) < 2 * len(BLOB)
        await connection.end()

    world.run(main())


def test_abort_after_close_waits_for_nothing(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        client, transport = connection.client, connection.transport
        connection.peer.transport.pause_reading()
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.set_write_buffer_limits(high=1 << 30)
        for _ in range(100):  # more than is under way at once, and less than makes a queue of its own everywhere
            transport.write(bytes(2000))
            await asyncio.sleep(0)
        transport.close()
        transport.abort()
        await asyncio.wait_for(client.lost, 5)
        connection.peer.transport.resume_reading()
        await connection.end()

    world.run(main())


def test_all_kinds_of_bytes_are_copied(world: World) -> None:
    """The caller may change a buffer as soon as write() has returned, whether it was sent or queued."""

    async def main() -> None:
        connection = await connected(world)
        transport = connection.transport
        small, large = bytearray(b"small"), bytearray(BLOB)
        transport.write(small)
        small[:] = b"gone!"
        transport.write(memoryview(b"xxviewxx")[2:6])
        transport.write(b"")
        transport.write(large)
        large[:] = bytes(len(large))
        transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        transport.writelines([])
        transport.close()
        await connection.peer.lost
        assert connection.peer.data == b"smallview" + BLOB + b"abc"
        await connection.end()

    world.run(main())


def test_ten_megabytes_each_way(world: World) -> None:
    async def swap(reader: Any, writer: Any) -> bytes:
        async def send() -> None:
            writer.write(BLOB)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        digest = hashlib.sha256()
        while data := await reader.read(1 << 20):
            digest.update(data)
        await sending
        writer.close()
        await writer.wait_closed()
        return digest.digest()

    async def main() -> None:
        done = world.loop.create_future()

        async def serve(reader: Any, writer: Any) -> None:
            done.set_result(await swap(reader, writer))

        server = await asyncio.start_server(serve, world.host, 0)
        mine = await swap(*await asyncio.open_connection(world.host, port_of(server)))
        assert mine == await done == hashlib.sha256(BLOB).digest()
        server.close()
        await server.wait_closed()

    world.run(main())


def test_reading_is_paused_and_resumed(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        peer = connection.peer
        assert peer.transport.is_reading()
        peer.transport.pause_reading()
        peer.transport.pause_reading()
        assert not peer.transport.is_reading()
        connection.transport.write(b"early")
        await asyncio.sleep(0.005)
        assert peer.data == b""
        peer.transport.resume_reading()
        peer.transport.resume_reading()
        assert peer.transport.is_reading()
        await until(lambda: peer.data == b"early")
        await connection.end()

    world.run(main())


def test_a_paused_protocol_gets_no_data_that_had_come_before(world: World) -> None:
    """It pauses in data_received; nothing follows until it resumes, then all of it, then the end."""

    class Pausing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()

    async def main() -> None:
        connection = await connected(world, serving=Pausing)
        peer = connection.peer
        connection.transport.write(BLOB)
        connection.transport.write_eof()
        await until(lambda: peer.data)
        pieces = 0
        while len(peer.data) < len(BLOB):
            before = len(peer.data)
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(peer.data) == before
            assert not peer.ended.done()
            peer.transport.resume_reading()
            await until(lambda: len(peer.data) > before)  # noqa: B023
            pieces += 1
        assert pieces > 3
        assert peer.data == BLOB
        assert not peer.ended.done()
        peer.transport.resume_reading()
        await peer.ended
        await connection.end()

    world.run(main())


def test_pausing_another_connection_from_a_callback(world: World) -> None:
    """An event that is already in the batch must not reach a protocol that has been paused meanwhile."""

    async def main() -> None:
        ends: list[Any] = []

        class Pausing(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                for other in ends:
                    if other is not self and other.transport is not None:
                        other.transport.pause_reading()

        server = await world.loop.create_server(lambda: ends.append(Pausing()) or ends[-1], world.host, 0)
        clients = [await world.loop.create_connection(Recorder, world.host, port_of(server)) for _ in range(2)]
        await until(lambda: len(ends) == 2 and all(end.made.done() for end in ends))
        for transport, _ in clients:
            transport.write(b"x")
        await asyncio.sleep(0.01)
        assert sorted(len(end.data) for end in ends) == [0, 1]
        for transport, protocol in clients:
            transport.abort()
            await protocol.lost
        for end in ends:
            if end.transport is not None:
                end.transport.resume_reading()
            await end.lost
        server.close()

    world.run(main())


def test_a_connection_closed_from_a_callback_of_another(world: World) -> None:
    async def main() -> None:
        ends: list[Any] = []

        class Closing(Recorder):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                for other in ends:
                    if other is not self and other.transport is not None:
                        other.transport.abort()

        server = await world.loop.create_server(lambda: ends.append(Closing()) or ends[-1], world.host, 0)
        clients = [await world.loop.create_connection(Recorder, world.host, port_of(server)) for _ in range(3)]
        await until(lambda: len(ends) == 3 and all(end.made.done() for end in ends))
        for transport, _ in clients:
            transport.write(b"x")
        await until(lambda: sum(end.lost.done() for end in ends) >= 2)
        assert sum(len(end.data) for end in ends) == 1
        for transport, protocol in clients:
            transport.close()
            await protocol.lost
        for end in ends:
            await end.lost
        server.close()

    world.run(main())


def test_closing_in_connection_made(world: World) -> None:
    class Rude(Recorder):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.write(b"bye")
            transport.close()

    async def main() -> None:
        connection = await connected(world, serving=Rude)
        await connection.client.lost
        assert connection.client.data == b"bye"
        assert connection.client.calls == ["made", "data", "eof", "lost"]
        await connection.end()
        connection = await connected(world, connecting=Rude)
        await connection.peer.lost
        await connection.end()
        assert connection.peer.data == b"bye"

    world.run(main())


def test_data_and_end_that_came_at_once(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.peer.transport.pause_reading()
        connection.transport.write(b"all of it")
        connection.transport.close()
        await connection.client.lost
        await asyncio.sleep(0.002)
        connection.peer.transport.resume_reading()
        await connection.peer.lost
        assert connection.peer.calls == ["made", "data", "eof", "lost"]
        await connection.end()

    world.run(main())

"""What a protocol may be: one that raises, one with its own buffer, one that takes another's place."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .peers import Recorder, connected, port_of
from .worlds import World, until


@pytest.mark.parametrize("method", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_a_protocol_that_raises_costs_only_its_connection(world: World, method: str) -> None:
    async def main() -> None:
        loop = world.loop
        ends: list[Any] = []

        class Broken(Recorder):
            pass

        def broken(self: Any, *args: Any) -> None:
            getattr(Recorder, method)(self, *args)
            raise ZeroDivisionError(method)

        setattr(Broken, method, broken)

        def factory() -> Recorder:
            ends.append(Recorder() if ends else Broken())
            return ends[-1]  # type: ignore[no-any-return]

        server = await loop.create_server(factory, world.host, 0)
        bad, bad_protocol = await loop.create_connection(Recorder, world.host, port_of(server))
        await until(lambda: ends)
        good, good_protocol = await loop.create_connection(Recorder, world.host, port_of(server))
        bad.write(b"1")
        bad.write_eof()
        good.write(b"2")
        await until(lambda: len(ends) == 2 and ends[1].data == b"2")
        if method == "connection_made":  # which asyncio only reports
            await ends[0].ended
        else:
            await ends[0].lost
        if ends[0].transport is not None:
            ends[0].transport.close()
        await ends[0].lost
        assert not good_protocol.lost.done()
        assert not ends[1].lost.done()
        bad.abort()
        good.close()
        await ends[1].lost
        await good_protocol.lost
        await bad_protocol.lost
        server.close()

    world.run(main())
    assert [type(context["exception"]) for context in world.errors] == [ZeroDivisionError]
    context = world.errors.pop()
    if method in ("data_received", "eof_received"):
        assert context["message"] == f"Fatal error: protocol.{method}() call failed."
        assert isinstance(context["protocol"], Recorder)
        assert "transport" in context


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_flow_control_that_raises_is_only_reported(world: World, method: str) -> None:
    class Broken(Recorder):
        pass

    def broken(self: Any) -> None:
        getattr(Recorder, method)(self)
        raise ZeroDivisionError(method)

    setattr(Broken, method, broken)

    async def main() -> None:
        connection = await connected(world, connecting=Broken)
        connection.peer.transport.pause_reading()
        connection.transport.write(bytes(16 << 20))
        assert "pause" in connection.client.calls
        connection.peer.transport.resume_reading()
        await until(lambda: "resume" in connection.client.calls)
        connection.transport.write(b"alive")
        await until(lambda: connection.peer.data.endswith(b"alive"))
        await connection.end()

    world.run(main())
    assert [type(context["exception"]) for context in world.errors] == [ZeroDivisionError]
    assert world.errors.pop()["message"] == f"protocol.{method}() failed"


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, size: int = 1000) -> None:
        loop = asyncio.get_running_loop()
        self.buffer = bytearray(size)
        self.calls: list[str] = []
        self.data = b""
        self.transport: Any = None
        self.made: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.set_result(None)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.data += self.buffer[:count]

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.transport = None
        self.lost.set_result(exc)


def test_a_buffered_protocol(world: World) -> None:
    async def main() -> None:
        connection = await connected(world, serving=Buffered)
        blob = bytes(range(256)) * 1000
        connection.transport.write(blob)
        connection.transport.close()
        assert await connection.peer.lost is None
        assert connection.peer.data == blob
        assert connection.peer.calls == ["eof"]
        await connection.end()

    world.run(main())


def test_a_buffered_protocol_pauses(world: World) -> None:
    class Pausing(Buffered):
        def buffer_updated(self, count: int) -> None:
            super().buffer_updated(count)
            self.transport.pause_reading()

    async def main() -> None:
        connection = await connected(world, serving=Pausing)
        connection.transport.write(bytes(5000))
        for expected in range(1000, 5001, 1000):
            await until(lambda: len(connection.peer.data) >= expected)  # noqa: B023
            await asyncio.sleep(0)
            assert len(connection.peer.data) == expected
            connection.peer.transport.resume_reading()
        await connection.end()

    world.run(main())


@pytest.mark.parametrize("fault", ["get_buffer raises", "it is empty", "buffer_updated raises"])
def test_a_buffered_protocol_that_fails(world: World, fault: str) -> None:
    class Faulty(Buffered):
        def get_buffer(self, sizehint: int) -> bytearray:
            if fault == "get_buffer raises":
                raise ZeroDivisionError
            return bytearray() if fault == "it is empty" else self.buffer

        def buffer_updated(self, count: int) -> None:
            if fault == "buffer_updated raises":
                raise ZeroDivisionError

    async def main() -> None:
        connection = await connected(world, serving=Faulty)
        connection.transport.write(b"x")
        error = await connection.peer.lost
        assert isinstance(error, RuntimeError if fault == "it is empty" else ZeroDivisionError)
        await connection.client.lost
        await connection.end()

    world.run(main())
    (context,) = world.errors
    assert isinstance(context["exception"], RuntimeError if fault == "it is empty" else ZeroDivisionError)
    world.errors.clear()


def test_another_protocol_takes_over(world: World) -> None:
    """From one kind to the other and back, in the middle of the stream."""

    class Second(Recorder):
        pass

    async def main() -> None:
        connection = await connected(world)
        transport, first = connection.peer.transport, connection.peer
        connection.transport.write(b"first")
        await until(lambda: first.data == b"first")
        buffered = Buffered(3)
        buffered.transport = transport
        transport.set_protocol(buffered)
        assert transport.get_protocol() is buffered
        connection.transport.write(b"buffered")
        await until(lambda: buffered.data == b"buffered")
        second = Second()
        transport.set_protocol(second)
        connection.transport.write(b"second")
        await until(lambda: second.data == b"second")
        assert first.data == b"first"
        connection.transport.close()
        await second.lost
        assert first.calls == ["made", "data"]
        first.lost.set_result(None)
        first.transport = None
        await connection.end()

    world.run(main())


def test_it_is_taken_over_from_within_a_callback(world: World) -> None:
    class Switching(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.second = Recorder()
            self.transport.set_protocol(self.second)

    async def main() -> None:
        connection = await connected(world, serving=Switching)
        connection.transport.write(b"first")
        await until(lambda: connection.peer.data == b"first")
        connection.transport.write(b"second")
        connection.transport.close()
        await connection.peer.second.lost
        assert connection.peer.second.data == b"second"
        assert connection.peer.data == b"first"
        connection.peer.lost.set_result(None)
        connection.peer.transport = None
        await connection.end()

    world.run(main())


def test_a_protocol_without_any_method_of_its_own(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(asyncio.Protocol, world.host, 0)
        transport, client = await world.loop.create_connection(Recorder, world.host, port_of(server))
        transport.write(b"to nobody")
        transport.write_eof()
        await client.lost
        server.close()

    world.run(main())

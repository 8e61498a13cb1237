"""UDP endpoints over a wire."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

CLIENT = {"10.0.0.2": "10.0.0.1", "fd00::2": "fd00::1"}


class Recorder(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class Echo(Recorder):
    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2"])
@pytest.mark.parametrize("connected", [True, False])
def test_echo(wire, host, connected):
    async def main():
        server, _ = await wire.server.create_datagram_endpoint(wire.loop, Echo, (host, 7))
        assert server.get_extra_info("sockname")[:2] == (host, 7)
        if connected:
            client, protocol = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=(host, 7))
            assert client.get_extra_info("peername")[:2] == (host, 7)
        else:
            client, protocol = await wire.loop.create_datagram_endpoint(Recorder, (CLIENT[host], 0))
        for size in (1, 1000, 20_000, 0):
            client.sendto(bytes(size), None if connected else (host, 7))
            data, addr = await protocol.received.get()
            assert data == bytes(size)
            assert addr[:2] == (host, 7)
        client.close()
        assert await protocol.lost is None
        server.close()
        client.sendto(b"late")

    wire.run(main())
    assert wire.errors == []


def test_many_to_one_is_answered_in_order(wire):
    async def main():
        server, _ = await wire.server.create_datagram_endpoint(wire.loop, Echo, ("10.0.0.2", 7))
        client, protocol = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=("10.0.0.2", 7))
        client.sendto(b"0")
        await protocol.received.get()  # they know each other's MAC addresses now, so that no queue for those overflows
        for number in range(200):
            client.sendto(b"%d" % number)
        assert [int((await protocol.received.get())[0]) for _ in range(200)] == list(range(200))
        client.close()
        server.close()

    wire.run(main())


def test_connected_endpoint_refuses_other_addresses(wire):
    async def main():
        client, _ = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=("10.0.0.2", 7))
        with pytest.raises(ValueError, match="Invalid address"):
            client.sendto(b"x", ("10.0.0.9", 7))
        with pytest.raises(TypeError):
            client.sendto("text")
        client.close()

    wire.run(main())


def test_port_unreachable_is_an_error_received(wire):
    async def main():
        client, protocol = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=("10.0.0.2", 9))
        client.sendto(b"x")
        assert isinstance(await protocol.errors.get(), ConnectionRefusedError)
        assert not protocol.lost.done()
        client.close()

    wire.run(main())


def test_too_long_and_unroutable_are_errors_received(wire):
    async def main():
        client, protocol = await wire.loop.create_datagram_endpoint(Recorder, ("0.0.0.0", 0))
        client.sendto(bytes(65_600), ("10.0.0.2", 7))
        client.sendto(b"x", ("192.0.2.1", 7))
        errors = [await protocol.errors.get() for _ in range(2)]
        assert all(isinstance(exc, OSError) for exc in errors)
        client.close()

    wire.run(main())


def test_exception_of_the_protocol_goes_to_the_handler_and_it_lives_on(wire):
    class Broken(Echo):
        def datagram_received(self, data, addr):
            if data == b"bad":
                raise ZeroDivisionError
            super().datagram_received(data, addr)

    async def main():
        server, _ = await wire.server.create_datagram_endpoint(wire.loop, Broken, ("10.0.0.2", 7))
        client, protocol = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=("10.0.0.2", 7))
        client.sendto(b"bad")
        client.sendto(b"good")
        assert (await protocol.received.get())[0] == b"good"
        client.close()
        server.abort()

    wire.run(main())
    assert [type(context["exception"]) for context in wire.errors] == [ZeroDivisionError]


def test_address_in_use(wire):
    async def main():
        first, _ = await wire.loop.create_datagram_endpoint(Recorder, ("10.0.0.1", 7))
        with pytest.raises(OSError, match="in use"):
            await wire.loop.create_datagram_endpoint(Recorder, ("10.0.0.1", 7))
        first.close()
        await asyncio.sleep(0)
        again, _ = await wire.loop.create_datagram_endpoint(Recorder, ("10.0.0.1", 7))
        again.close()

    wire.run(main())


def test_nothing_is_read_while_closed(wire):
    async def main():
        server, protocol = await wire.server.create_datagram_endpoint(wire.loop, Recorder, ("10.0.0.2", 7))
        client, _ = await wire.loop.create_datagram_endpoint(Recorder, remote_addr=("10.0.0.2", 7))
        client.sendto(b"x")
        server.close()
        await protocol.lost
        assert protocol.received.empty()
        client.close()

    wire.run(main())

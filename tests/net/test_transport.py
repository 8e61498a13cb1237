"""TCP transports over a wire: what is the stack's of asyncio's promises. The others are tested in tests/loop."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket
from typing import Any

import pytest

from libos.net.transport import StackTransport

from .conftest import until

SERVER = "10.0.0.2"


class Recorder(asyncio.Protocol):
    """Writes down what happens to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.transport: Any = None
        self.error: BaseException | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self.made = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()
        self.arrived = asyncio.Event()
        self.keep_open = False

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport
        self.made.set_result(self)

    def data_received(self, data: bytes) -> None:
        self.calls.append("data")
        self.data += data
        self.arrived.set()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.ended.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.error = exc
        self.lost.set_result(None)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


async def connected(loop, host=SERVER, server_protocol=Recorder, client_protocol=Recorder, **kwargs):
    """A server, and both ends of a connection to it."""
    ends = []

    def factory():
        ends.append(server_protocol())
        return ends[-1]

    server = await loop.create_server(factory, host, 0)
    transport, client = await loop.create_connection(
        client_protocol, host, server.sockets[0].getsockname()[1], **kwargs
    )
    await until(lambda: ends)
    await ends[0].made
    return server, transport, client, ends[0]


async def read_all(reader, writer):
    return await reader.read()


@pytest.mark.parametrize("host", ["10.0.0.2", "fd00::2"])
def test_echo_through_streams(wire, host):
    async def echo(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, host, 8000)
        reader, writer = await asyncio.open_connection(host, 8000)
        writer.write(b"hello ")
        writer.writelines([b"from ", bytearray(b"the "), memoryview(b"other end")])
        writer.write_eof()
        assert await reader.read() == b"hello from the other end"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    wire.run(main())
    assert wire.errors == []
    assert wire.sockets() == []


@pytest.mark.parametrize("mtu", [1500, 65520])
def test_ten_megabytes_each_way(new_wire, mtu):
    wire = new_wire(mtu=mtu)
    blob = hashlib.shake_128(b"seed").digest(10_000_000)

    async def swap(reader, writer):
        async def send():
            writer.write(blob)
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

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        async def serve(reader, writer):
            done.set_result(await swap(reader, writer))

        server = await asyncio.start_server(serve, SERVER, 8000)
        mine = await swap(*await asyncio.open_connection(SERVER, 8000))
        assert mine == await done == hashlib.sha256(blob).digest()
        server.close()
        await server.wait_closed()

    wire.run(main(), timeout=60)
    assert wire.errors == []


def test_extra_info_is_complete(wire):
    async def main():
        server, transport, client, peer = await connected(wire.loop)
        sock = transport.get_extra_info("socket")
        assert transport.get_extra_info("peername") == (SERVER, server.sockets[0].getsockname()[1])
        assert transport.get_extra_info("sockname") == peer.transport.get_extra_info("peername")
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert sock.getpeername() == transport.get_extra_info("peername")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert sock.fileno() == -1
        assert isinstance(transport, StackTransport)
        transport.close()
        await client.lost
        await peer.lost
        server.close()
        assert transport.get_extra_info("peername")[0] == SERVER  # also afterwards

    wire.run(main())


def test_half_close(wire):
    async def main():
        server, transport, client, peer = await connected(wire.loop)
        peer.keep_open = True
        transport.write(b"question")
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"more")
        await peer.ended
        assert peer.data == b"question"
        peer.transport.write(b"answer")
        await client.arrived.wait()
        assert client.data == b"answer"
        peer.transport.pause_reading()
        peer.transport.resume_reading()
        await asyncio.sleep(0.01)
        assert peer.calls.count("eof") == 1
        peer.transport.close()
        await client.lost
        server.close()

    wire.run(main())
    assert wire.errors == []


def test_abort_resets_the_peer(wire):
    async def main():
        server, transport, client, peer = await connected(wire.loop)
        transport.write(bytes(10_000_000))
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        await client.lost
        await peer.lost
        assert client.error is None
        assert isinstance(peer.error, ConnectionResetError)
        assert client.calls.count("lost") == peer.calls.count("lost") == 1
        server.close()

    wire.run(main())
    assert wire.errors == []


@pytest.mark.parametrize("paused", [False, True])
def test_what_came_before_a_reset_is_delivered(wire, paused):
    async def main():
        server, transport, client, peer = await connected(wire.loop)
        if paused:
            peer.transport.pause_reading()
        transport.write(bytes(100_000))
        await until(lambda: sum(info.rx_queue for info in wire.stacks[1].sockets()) + len(peer.data) == 100_000)
        transport.abort()
        await client.lost
        if paused:
            for _ in range(10):
                await asyncio.sleep(0)
            assert peer.data == b""
            peer.transport.resume_reading()
        await peer.lost
        assert len(peer.data) == 100_000
        assert isinstance(peer.error, ConnectionResetError)
        server.close()

    wire.run(main())


def test_connection_refused(wire):
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await wire.loop.create_connection(Recorder, SERVER, 9)
        with pytest.raises(OSError, match="Multiple exceptions"):
            await wire.loop.create_connection(Recorder, "server.test", 9)
        with pytest.raises(OSError, match="Multiple exceptions"):
            await wire.loop.create_connection(Recorder, "server.test", 9, happy_eyeballs_delay=0.25)
        with pytest.raises(OSError, match=r"unreachable"):
            await wire.loop.create_connection(Recorder, "192.0.2.1", 9)

    wire.run(main())


@pytest.mark.slow
def test_host_that_does_not_answer(wire):
    async def main():
        with pytest.raises(OSError, match="Connect call failed") as info:
            await wire.loop.create_connection(Recorder, "10.0.0.77", 9)
        assert info.value.errno == errno.EHOSTUNREACH

    wire.run(main())


def test_cancelled_connect_leaves_nothing(wire):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await wire.loop.create_connection(Recorder, "10.0.0.77", 9)

    wire.run(main())
    assert [info for info in wire.stacks[0].sockets() if info.state != "CLOSED"] == []


def test_local_address(wire):
    async def main():
        server, transport, client, peer = await connected(wire.loop, local_addr=("10.0.0.1", 40123))
        assert peer.transport.get_extra_info("peername") == ("10.0.0.1", 40123)
        transport.close()
        await client.lost
        server.close()
        with pytest.raises(OSError, match="bind"):
            await wire.loop.create_connection(Recorder, SERVER, 1, local_addr=("10.9.9.9", 0))

    wire.run(main())


def test_a_factory_that_raises_costs_only_its_connection(wire):
    async def main():
        def factory():
            raise ZeroDivisionError

        server = await wire.loop.create_server(factory, SERVER, 8000)
        _, protocol = await wire.loop.create_connection(Recorder, SERVER, 8000)
        await protocol.lost
        assert isinstance(protocol.error, ConnectionResetError)
        server.close()

    wire.run(main())
    assert [type(context["exception"]) for context in wire.errors] == [ZeroDivisionError]


def test_network_that_goes_down(new_wire, reactor):
    wire = new_wire()

    async def main():
        server, transport, client, peer = await connected(wire.loop)
        wire.client.close()
        await client.lost
        assert isinstance(client.error, OSError)
        transport.write(b"x")
        transport.close()
        with pytest.raises(OSError, match="Network is down"):
            await wire.loop.create_connection(Recorder, SERVER, 8000)
        peer.transport.abort()
        await peer.lost
        server.close()

    wire.run(main())

"""StackSocket and the loop.sock_* calls on it."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import struct

import pytest

from libos.errors import WorldError

SERVER = "10.0.0.2"


async def pair(wire):
    """Two connected sockets, by hand."""
    listener = wire.server.socket()
    listener.setblocking(False)
    listener.bind((SERVER, 0))
    listener.listen()
    client = wire.client.socket()
    client.setblocking(False)
    accepting = asyncio.ensure_future(wire.loop.sock_accept(listener))
    await wire.loop.sock_connect(client, listener.getsockname())
    server, address = await accepting
    assert address == client.getsockname()
    listener.close()
    return client, server


def test_connect_accept_send_receive(wire):
    async def main():
        loop = wire.loop
        client, server = await pair(wire)
        await loop.sock_sendall(client, b"there")
        assert await loop.sock_recv(server, 100) == b"there"
        receiving = asyncio.ensure_future(loop.sock_recv(client, 100))
        await asyncio.sleep(0)
        await loop.sock_sendall(server, bytearray(b"and back"))
        assert await receiving == b"and back"
        buffer = bytearray(4)
        await loop.sock_sendall(client, b"into")
        assert await loop.sock_recv_into(server, buffer) == 4
        assert buffer == b"into"
        client.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(server, 1) == b""
        client.close()
        server.close()

    wire.run(main())


def test_sendall_of_more_than_fits(wire):
    async def main():
        client, server = await pair(wire)
        blob = bytes(range(256)) * 40_000
        sending = asyncio.ensure_future(wire.loop.sock_sendall(client, blob))
        received = b""
        while len(received) < len(blob):
            received += await wire.loop.sock_recv(server, 1 << 20)
        await sending
        assert received == blob
        client.close()
        server.close()

    wire.run(main())


def test_both_directions_wait_at_once(wire):
    async def main():
        client, server = await pair(wire)
        receiving = asyncio.ensure_future(wire.loop.sock_recv(client, 10))
        sending = asyncio.ensure_future(wire.loop.sock_sendall(client, bytes(10_000_000)))
        await asyncio.sleep(0.01)
        await wire.loop.sock_sendall(server, b"x")
        assert await receiving == b"x"
        assert not sending.done()
        sending.cancel()
        client.close()
        server.close()

    wire.run(main())


def test_reset_is_told_after_what_came_before(wire):
    async def main():
        client, server = await pair(wire)
        receiving = asyncio.ensure_future(wire.loop.sock_recv(client, 10))
        await asyncio.sleep(0)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        with pytest.raises(ConnectionResetError):
            await receiving
        with pytest.raises(OSError, match=r"pipe|reset"):
            client.send(b"x")
        client.close()

    wire.run(main())


def test_close_wakes_who_waits(wire):
    async def main():
        client, server = await pair(wire)
        receiving = asyncio.ensure_future(wire.loop.sock_recv(client, 10))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await receiving
        server.close()

    wire.run(main())


def test_datagrams(wire):
    async def main():
        server = wire.server.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        server.bind(("::", 5353))
        client = wire.client.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        receiving = asyncio.ensure_future(wire.loop.sock_recvfrom(server, 100))
        assert await wire.loop.sock_sendto(client, b"ping", ("fd00::2", 5353)) == 4
        data, address = await receiving
        assert data == b"ping"
        assert address == ("fd00::1", client.getsockname()[1], 0, 0)
        client.close()
        server.close()

    wire.run(main())


def test_adopted_by_transports(wire):
    async def main():
        client, server = await pair(wire)
        reader, writer = await asyncio.open_connection(sock=client)
        transport, _ = await wire.loop.connect_accepted_socket(asyncio.Protocol, server)
        transport.write(b"x")
        assert await reader.readexactly(1) == b"x"
        transport.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    wire.run(main())


def test_server_on_a_socket_of_ones_own(wire):
    async def main():
        listener = wire.server.socket(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::", 8000))
        server = await wire.loop.create_server(asyncio.Protocol, sock=listener)
        assert server.sockets[0].getsockname() == ("::", 8000, 0, 0)
        _reader, writer = await asyncio.open_connection("fd00::2", 8000)
        writer.close()
        server.close()
        assert listener.id == -1

    wire.run(main())


def test_blocking_use_is_refused_clearly(wire):
    sock = wire.client.socket()
    with pytest.raises(WorldError, match=r"blocking connect\(\).*loop.sock_connect"):
        sock.connect((SERVER, 80))
    with pytest.raises(WorldError, match="timeout"):
        sock.settimeout(3)
    udp = wire.client.socket(type=socket.SOCK_DGRAM)
    with pytest.raises(WorldError, match=r"blocking recvfrom\(\)"):
        udp.recvfrom(10)
    udp.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp.recvfrom(10)
    sock.set_inheritable(True)  # which servers do that never start a process
    assert not sock.get_inheritable()
    for refused in (sock.detach, sock.dup, sock.makefile):
        with pytest.raises(WorldError):
            refused()
    sock.close()
    udp.close()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.getsockname()

    async def main():
        with wire.client.socket() as blocking, pytest.raises(ValueError, match="non-blocking"):
            await wire.loop.sock_connect(blocking, (SERVER, 80))

    wire.run(main())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((socket.AF_UNIX,), errno.EAFNOSUPPORT),
        ((socket.AF_INET, socket.SOCK_RAW), errno.ESOCKTNOSUPPORT),
        ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP), errno.EPROTONOSUPPORT),
    ],
)
def test_sockets_that_there_are_not(wire, arguments, code):
    with pytest.raises(OSError, match=r".") as info:
        wire.client.socket(*arguments)
    assert info.value.errno == code


def test_names_and_options(wire):
    with wire.client.socket(socket.AF_INET6) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET6
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        with pytest.raises(OSError, match="Protocol not available"):
            sock.setsockopt(socket.IPPROTO_TCP, 999, 1)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        with pytest.raises(socket.gaierror):
            sock.bind(("nobody.test", 1))
        with pytest.raises(OverflowError):
            sock.bind(("::", 65536))
        sock.bind(("client.test", 4000))  # from the hosts table
        assert sock.getsockname() == ("fd00::1", 4000, 0, 0)
        assert "AF_INET6 SOCK_STREAM" in repr(sock)


def test_forgotten_socket_warns_and_is_closed(wire):
    before = len(wire.client.sinks)
    with pytest.warns(ResourceWarning, match="unclosed <StackSocket"):
        wire.client.socket()  # dropped at once
    gc.collect()
    assert len(wire.client.sinks) == before


def test_fast_open(wire):
    """tcp(7), MSG_FASTOPEN: the first time it asks for a cookie, the second time its data is in the SYN."""

    async def main():
        listener = wire.server.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        listener.bind((SERVER, 0))
        listener.listen()
        for turn in range(2):
            client = wire.client.socket()
            client.setblocking(False)
            assert client.sendto(b"hello", socket.MSG_FASTOPEN, listener.getsockname()) == 5
            server, _ = await wire.loop.sock_accept(listener)
            assert await wire.loop.sock_recv(server, 100) == b"hello"
            await wire.loop.sock_sendall(server, b"and back")
            assert await wire.loop.sock_recv(client, 100) == b"and back"
            assert wire.stacks[0].counters()["TcpExtTCPFastOpenActive"] == turn
            client.close()
            server.close()
        listener.close()

    wire.run(main())

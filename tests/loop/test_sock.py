"""``loop.sock_*`` on sockets of the world's network, and on UNIX sockets of the host beside it."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from .worlds import World

FAMILIES = [socket.AF_INET, socket.AF_INET6]


async def both_ends(world: World, family: int = socket.AF_INET) -> tuple[Any, Any]:
    """A connected pair: where the client is, where the server is."""
    listener = world.new_listener(family)
    client = world.new_socket(family)
    accepting = asyncio.ensure_future(world.loop.sock_accept(listener))
    await world.loop.sock_connect(client, listener.getsockname())
    server, address = await accepting
    assert address == client.getsockname()
    listener.close()
    return client, server


def close(*socks: Any) -> None:
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_streams(world: World, family: int) -> None:
    async def main() -> None:
        loop = world.loop
        client, server = await both_ends(world, family)
        data = bytes(range(256)) * 8000
        sending = asyncio.ensure_future(loop.sock_sendall(client, data))
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(server, 65536)
        await sending
        assert got == data
        buffer = bytearray(10)
        waiting = asyncio.ensure_future(loop.sock_recv_into(client, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendall(server, b"abc")
        assert await waiting == 3
        assert buffer[:3] == b"abc"
        server.shutdown(socket.SHUT_WR)
        assert await loop.sock_recv(client, 10) == b""
        close(client, server)

    world.run(main())


def test_both_directions_at_once(world: World) -> None:
    blob = hashlib.shake_128(b"seed").digest(1_000_000)

    async def main() -> None:
        async def read(sock: Any) -> bytes:
            digest, left = hashlib.sha256(), len(blob)
            while left:
                piece = await world.loop.sock_recv(sock, 50_000)
                digest.update(piece)
                left -= len(piece)
            return digest.digest()

        client, server = await both_ends(world)
        results = await asyncio.gather(
            world.loop.sock_sendall(client, blob),
            world.loop.sock_sendall(server, memoryview(bytearray(blob))),
            read(client),
            read(server),
        )
        assert results[2:] == [hashlib.sha256(blob).digest()] * 2
        close(client, server)

    world.run(main())


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams(world: World, family: int) -> None:
    async def main() -> None:
        loop = world.loop
        server = world.new_socket(family, socket.SOCK_DGRAM, serving=True)
        server.bind((world.host if family == socket.AF_INET else world.host6, 0))
        client = world.new_socket(family, socket.SOCK_DGRAM)
        waiting = asyncio.ensure_future(loop.sock_recvfrom(server, 100))
        await asyncio.sleep(0)
        assert await loop.sock_sendto(client, b"question", server.getsockname()) == 8
        data, address = await waiting
        assert data == b"question"
        assert address[1] == client.getsockname()[1]
        await loop.sock_sendto(server, b"answer", address)
        buffer = bytearray(100)
        count, source = await loop.sock_recvfrom_into(client, buffer)
        assert buffer[:count] == b"answer"
        assert source[:2] == server.getsockname()[:2]
        await loop.sock_connect(client, server.getsockname())
        await loop.sock_sendall(client, b"connected")
        assert await loop.sock_recv(server, 100) == b"connected"
        await loop.sock_sendto(server, b"cut off here", client.getsockname())
        count, _ = await loop.sock_recvfrom_into(client, buffer, 3)
        assert buffer[:count] == b"cut"
        close(client, server)

    world.run(main())


def test_unix_sockets(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        loop = world.loop
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await loop.sock_connect(client, str(tmp_path / "socket"))
        server, _ = await accepting
        await loop.sock_sendall(client, b"hello")
        assert await loop.sock_recv(server, 100) == b"hello"
        close(listener, client, server)

    world.run(main())


async def cancelled(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    for _ in range(3):
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_waiting_is_cancelled_and_loses_nothing(world: World) -> None:
    async def main() -> None:
        loop = world.loop
        listener = world.new_listener()
        await cancelled(lambda: loop.sock_accept(listener))
        client = world.new_socket()
        await loop.sock_connect(client, listener.getsockname())
        server, _ = await loop.sock_accept(listener)
        await cancelled(lambda: loop.sock_recv(server, 100))
        await loop.sock_sendall(client, b"data")
        assert await loop.sock_recv(server, 100) == b"data"
        await cancelled(lambda: loop.sock_recv_into(server, bytearray(100)))
        await loop.sock_sendall(client, b"more")
        assert await loop.sock_recv_into(server, bytearray(100)) == 4
        close(listener, client, server)

    world.run(main())


def test_waiting_for_datagrams_is_cancelled_and_loses_nothing(world: World) -> None:
    async def main() -> None:
        loop = world.loop
        server = world.new_socket(type=socket.SOCK_DGRAM, serving=True)
        server.bind((world.host, 0))
        client = world.new_socket(type=socket.SOCK_DGRAM)
        await cancelled(lambda: loop.sock_recvfrom(server, 100))
        await loop.sock_sendto(client, b"data", server.getsockname())
        assert (await loop.sock_recvfrom(server, 100))[0] == b"data"
        await cancelled(lambda: loop.sock_recvfrom_into(server, bytearray(100)))
        await loop.sock_sendto(client, b"more", server.getsockname())
        assert (await loop.sock_recvfrom_into(server, bytearray(100)))[0] == 4
        close(client, server)

    world.run(main())


def test_sending_is_cancelled(world: World) -> None:
    async def main() -> None:
        client, server = await both_ends(world)
        task = asyncio.ensure_future(world.loop.sock_sendall(client, bytes(64 << 20)))
        await asyncio.sleep(0.001)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await world.loop.sock_recv(server, 100) == bytes(100)
        await world.loop.sock_sendall(server, b"the other way works")
        assert await world.loop.sock_recv(client, 100) == b"the other way works"
        close(client, server)
        await asyncio.sleep(0.01)

    world.run(main())


def test_refused(world: World) -> None:
    async def main() -> None:
        sock = world.new_socket()
        with pytest.raises(ConnectionRefusedError):
            await world.loop.sock_connect(sock, (world.host, await world.unused_port()))
        sock.close()

    world.run(main())


def test_a_reset_is_an_error(world: World) -> None:
    async def main() -> None:
        client, server = await both_ends(world)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        waiting = asyncio.ensure_future(world.loop.sock_recv(client, 10))
        await asyncio.sleep(0)
        server.close()
        with pytest.raises(ConnectionResetError):
            await waiting
        client.close()

    world.run(main())


def test_a_blocking_socket_is_refused_in_debug_mode(world: World) -> None:
    async def main() -> None:
        loop = world.loop
        loop.set_debug(True)
        loop.slow_callback_duration = 100
        sock = world.new_socket()
        sock.setblocking(True)
        for call in (
            loop.sock_recv(sock, 1),
            loop.sock_recv_into(sock, bytearray(1)),
            loop.sock_recvfrom(sock, 1),
            loop.sock_recvfrom_into(sock, bytearray(1)),
            loop.sock_sendall(sock, b"x"),
            loop.sock_sendto(sock, b"x", (world.host, 9)),
            loop.sock_connect(sock, (world.host, 9)),
            loop.sock_accept(sock),
        ):
            with pytest.raises(ValueError, match=r"^the socket must be non-blocking$"):
                await call
        sock.close()

    world.run(main())


def test_sendfile(world: World, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 100_000)

    async def main() -> None:
        client, server = await both_ends(world)

        async def read(count: int) -> bytes:
            got = bytearray()
            while len(got) < count:
                got += await world.loop.sock_recv(server, 100_000)
            return bytes(got)

        with path.open("rb") as file:
            sending = asyncio.ensure_future(world.loop.sock_sendfile(client, file))
            assert await read(700_000) == path.read_bytes()
            assert await sending == 700_000
            sending = asyncio.ensure_future(world.loop.sock_sendfile(client, file, 7, 14))
            assert await read(14) == b"contentcontent"
            assert await sending == 14
            assert file.tell() == 21
        close(client, server)

    world.run(main())


def test_many_waiters_on_many_sockets(world: World) -> None:
    async def main() -> None:
        pairs = [await both_ends(world) for _ in range(30)]
        waiting = [asyncio.ensure_future(world.loop.sock_recv(server, 10)) for _, server in pairs]
        await asyncio.sleep(0)
        for number, (client, _) in enumerate(pairs):
            await world.loop.sock_sendall(client, b"%d" % number)
        assert [await task for task in waiting] == [b"%d" % number for number in range(30)]
        for client, server in pairs:
            close(client, server)

    world.run(main())

"""UNIX sockets: streams and datagrams of the host, beside every network."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from .peers import Recorder, closed, echo, exchange
from .worlds import World, until


def test_streams(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(echo, path)
        async with server:
            streams = await asyncio.gather(*(asyncio.open_unix_connection(path) for _ in range(5)))
            await asyncio.gather(*(exchange(*stream, 100_000) for stream in streams))

    world.run(main())


def test_tls(world: World, tmp_path: Path, tls: Any) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(echo, path, ssl=tls[0])
        async with server:
            streams = await asyncio.open_unix_connection(path, ssl=tls[1], server_hostname="localhost")
            await exchange(*streams, 100_000)

    world.run(main())


def test_paths_and_sockets(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        loop = world.loop
        path = tmp_path / "socket"
        server = await loop.create_unix_server(Recorder, path)
        assert server.sockets[0].family == socket.AF_UNIX
        transport, client = await loop.create_unix_connection(Recorder, path)
        assert transport.get_extra_info("peername") == str(path)
        assert transport.get_extra_info("socket").family == socket.AF_UNIX
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await loop.sock_connect(sock, str(path))
        other, second = await loop.create_unix_connection(Recorder, sock=sock)
        await closed(transport, other)
        await client.lost
        await second.lost
        server.close()
        await server.wait_closed()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "other"))
        server = await loop.create_unix_server(Recorder, sock=sock, backlog=1)
        transport, client = await loop.create_unix_connection(Recorder, str(tmp_path / "other"))
        await closed(transport)
        await client.lost
        server.close()

    world.run(main())


def test_an_abstract_address(world: World) -> None:
    async def main() -> None:
        path = f"\0libos-test-{os.getpid()}-{world.kind}"
        server = await asyncio.start_unix_server(echo, path)
        async with server:
            await exchange(*await asyncio.open_unix_connection(path), 1000)

    world.run(main())


def test_a_socket_that_is_in_the_way(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        server = await world.loop.create_unix_server(Recorder, str(path))  # a stale one is replaced
        server.close()
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(OSError, match=r"Address .* is already in use"):
            await world.loop.create_unix_server(Recorder, str(file))
        with pytest.raises(FileNotFoundError):
            await world.loop.create_unix_connection(Recorder, str(tmp_path / "nothing"))
        with pytest.raises(ConnectionRefusedError):
            await world.loop.create_unix_connection(Recorder, str(path))

    world.run(main())


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.got.append((data, address))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)


def test_datagrams(world: World, tmp_path: Path) -> None:
    async def main() -> None:
        loop = world.loop
        paths = str(tmp_path / "server"), str(tmp_path / "client")
        sending, server = await loop.create_datagram_endpoint(Datagrams, paths[0], family=socket.AF_UNIX)
        transport, client = await loop.create_datagram_endpoint(
            Datagrams, local_addr=paths[1], remote_addr=paths[0], family=socket.AF_UNIX
        )
        transport.sendto(b"question")
        await until(lambda: server.got)
        assert server.got == [(b"question", paths[1])]
        sending.sendto(b"answer", paths[1])
        await until(lambda: client.got)
        assert client.got == [(b"answer", paths[0])]
        await closed(sending, transport)

    world.run(main())

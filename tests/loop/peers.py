"""Protocols that write down what happens to them, and the small servers and exchanges that many tests need."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from .worlds import World, until


class Recorder(asyncio.Protocol):
    """``calls``: its callbacks in order, runs of data as one. Futures for what tests wait for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.data = bytearray()
        self.transport: Any = None
        self.error: BaseException | None = None
        self.keep_open = False
        loop = asyncio.get_running_loop()
        self.made: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.calls[-1:] != ["data"]:
            self.calls.append("data")
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.ended.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.error = exc
        self.transport = None
        for future in (self.made, self.ended, self.lost):
            if not future.done():
                future.set_result(None)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Connection(NamedTuple):
    """Both ends of one connection, and the server that it came from."""

    server: Any
    transport: Any
    client: Any
    peer: Any

    async def end(self) -> None:
        """Close both ends and the server."""
        self.transport.close()
        await self.client.lost
        if self.peer.transport is not None:
            self.peer.transport.close()
        await self.peer.lost
        self.server.close()
        await self.server.wait_closed()


async def connected(
    world: World,
    serving: Callable[[], Any] = Recorder,
    connecting: Callable[[], Any] = Recorder,
    *,
    host: str | None = None,
    **options: Any,
) -> Connection:
    """A server, and one connection to it."""
    ends: list[Any] = []

    def factory() -> Any:
        ends.append(serving())
        return ends[-1]

    host = host or world.host
    server = await world.loop.create_server(factory, host, 0)
    port = server.sockets[0].getsockname()[1]
    transport, client = await world.loop.create_connection(connecting, host, port, **options)
    await until(lambda: ends)
    await ends[0].made
    return Connection(server, transport, client, ends[0])


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Send `size` random bytes, see them come back, and close."""
    data = random.Random(size).randbytes(size)

    async def read() -> str:
        digest, left = hashlib.sha256(), size
        while left:
            piece = await reader.read(65536)
            assert piece
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest()

    task = asyncio.ensure_future(read())
    writer.write(data)
    await writer.drain()
    assert await task == hashlib.sha256(data).hexdigest()
    writer.close()
    await writer.wait_closed()


async def closed(*transports: Any) -> None:
    """Close them and let them tell their protocols."""
    for transport in transports:
        transport.close()
    for _ in range(3):
        await asyncio.sleep(0)

"""What a server of the benchmarks does with its connections: one asyncio program for each role, the same on every loop.

A role is started with where to listen, as ``create_server`` takes it (``sock``, or ``host`` and ``port``), and
returns when connections are welcome. What a role keeps alive for that is its result's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, cast

__all__ = ["HTTP_BODY", "ROLES", "Role"]

Role = Callable[..., Awaitable[object]]  # (size=bytes of a message, sock= | host=, port=) -> what to hold on to

BACKLOG = 1024
HTTP_BODY = b"hello\n"


class Echo(asyncio.Protocol):
    """Every piece goes back as it came; while the peer does not read, we do not either."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Sink(asyncio.Protocol):
    """Takes what comes."""

    def data_received(self, data: bytes) -> None:
        pass


class Source(asyncio.Protocol):
    """Writes 64 KiB at a time, for as long as the transport takes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self.chunk = bytes(65536)
        self.paused = False
        self.loop.call_soon(self.write)

    def write(self) -> None:
        while not self.paused and not self.transport.is_closing():
            self.transport.write(self.chunk)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.paused = True


def _protocol(kind: type[asyncio.Protocol]) -> Role:
    async def start(size: int, **where: Any) -> object:
        return await asyncio.get_running_loop().create_server(kind, **where, backlog=BACKLOG)

    return start


async def _streams(size: int, **where: Any) -> object:
    """Echo by asyncio's streams, a message of ``size`` bytes at a time. Nobody waits for ``drain()``: each client has
    one message under way, so there is never more than that to send."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(await reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(serve, **where, backlog=BACKLOG)


async def _aiohttp(size: int, **where: Any) -> object:
    from aiohttp import web

    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=HTTP_BODY, content_type="text/plain")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    if (sock := where.get("sock")) is not None:
        await web.SockSite(runner, sock, backlog=BACKLOG).start()
    else:
        await web.TCPSite(runner, where["host"], where["port"], backlog=BACKLOG).start()
    return runner


async def _uvicorn(size: int, **where: Any) -> object:
    import uvicorn

    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(HTTP_BODY))]

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HTTP_BODY})

    up = asyncio.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            up.set()

    place = {name: where[name] for name in ("host", "port") if name in where}
    config = uvicorn.Config(
        hello,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        backlog=BACKLOG,
        **place,
    )
    sockets = [where["sock"]] if "sock" in where else None
    server = asyncio.ensure_future(Server(config).serve(sockets))
    waiting = asyncio.ensure_future(up.wait())
    await asyncio.wait({server, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        waiting.cancel()
        server.result()
        raise RuntimeError("uvicorn ended as soon as it had begun")
    return server


ROLES: Mapping[str, Role] = MappingProxyType(
    {
        "echo": _protocol(Echo),
        "sink": _protocol(Sink),
        "source": _protocol(Source),
        "streams": _streams,
        "aiohttp": _aiohttp,
        "uvicorn": _uvicorn,
    }
)

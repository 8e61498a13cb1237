"""Real programs over the wire: aiohttp, uvicorn with starlette, httpx. They stand for all that the protocols' unit
tests did not think of."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from libos.shim import socket as socket_shim

from .conftest import until

SERVER = "10.0.0.2"
BLOB = hashlib.shake_128(b"seed").digest(900_000)


@pytest.fixture
def aiohttp():
    pytest.importorskip("aiohttp")
    import aiohttp
    import aiohttp.web

    return aiohttp


@pytest.mark.parametrize("secure", [False, True])
def test_aiohttp(wire, aiohttp, tls, secure):
    async def upload(request):
        return aiohttp.web.Response(body=(await request.read())[::-1])

    async def chat(request):
        socket = aiohttp.web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    async def main():
        app = aiohttp.web.Application(client_max_size=1 << 24)
        app.add_routes([aiohttp.web.post("/", upload), aiohttp.web.get("/chat", chat)])
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        await aiohttp.web.TCPSite(runner, SERVER, 8000, ssl_context=tls[0] if secure else None).start()
        base = f"http{'s' * secure}://server.test:8000"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls[1])) as session:
            for _ in range(3):
                async with session.post(base, data=BLOB) as response:
                    assert response.status == 200
                    assert await response.read() == BLOB[::-1]
            async with session.ws_connect(f"{base}/chat") as chatting:
                await chatting.send_str("hello")
                assert await chatting.receive_str() == "HELLO"
            answers = await asyncio.gather(*(session.post(base, data=b"%d!" % n) for n in range(50)))
            assert [await answer.read() for answer in answers] == [(b"%d!" % n)[::-1] for n in range(50)]
        await runner.cleanup()

    with socket_shim.installed(wire.client):  # aiohttp's client makes sockets of its own
        wire.run(main(), timeout=30)
    assert wire.errors == []


def test_uvicorn_and_httpx(wire):
    uvicorn, httpx = pytest.importorskip("uvicorn"), pytest.importorskip("httpx")
    applications, responses = pytest.importorskip("starlette.applications"), pytest.importorskip("starlette.responses")
    routing = pytest.importorskip("starlette.routing")

    async def reverse(request):
        assert request.client.host == "10.0.0.1"
        return responses.Response((await request.body())[::-1])

    async def main():
        app = applications.Starlette(routes=[routing.Route("/", reverse, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, host=SERVER, port=8000, log_config=None))
        server.capture_signals = contextlib.nullcontext  # the loop of a test keeps its handlers
        serving = asyncio.ensure_future(server.serve())
        await until(lambda: server.started)
        async with httpx.AsyncClient() as client:
            for _ in range(3):
                response = await client.post(f"http://{SERVER}:8000/", content=BLOB)
                assert response.content == BLOB[::-1]
        server.should_exit = True
        await serving

    with socket_shim.installed(wire.client):
        wire.run(main(), timeout=30)
    assert wire.errors == []

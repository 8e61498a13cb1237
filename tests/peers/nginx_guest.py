"""aiohttp and httpx against nginx, in cases. Arguments: the server, and the authority of its certificate, or `plain`.

What the server's paths do stands in test_nginx.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import cases
import httpx

BLOB = hashlib.shake_128(b"seed").digest(10 << 20)
DIGEST = hashlib.sha256(BLOB).hexdigest()


def base(host: str, security: str) -> str:
    return f"http://{host}" if security == "plain" else f"https://{host}"


def trust(security: str) -> ssl.SSLContext | bool:
    return True if security == "plain" else ssl.create_default_context(cafile=security)


def session(host: str, security: str, *, limit: int = 100) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=trust(security), limit=limit)
    return aiohttp.ClientSession(base(host, security), connector=connector)


def client(host: str, security: str, *, http2: bool = False) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base(host, security), verify=trust(security), http2=http2)


async def digest_of(portions: AsyncIterator[bytes]) -> str:
    digest = hashlib.sha256()
    async for portion in portions:
        digest.update(portion)
    return digest.hexdigest()


async def in_portions(body: bytes) -> AsyncIterator[bytes]:
    """Cut at odd places; of no known length, so it goes out chunked."""
    for start in range(0, len(body), 99_991):
        yield body[start : start + 99_991]


async def ten_mebibytes_each_way(host: str, security: str) -> None:
    async with session(host, security) as http:
        for body in (BLOB, in_portions(BLOB)):
            async with http.post("/post/aiohttp", data=body) as response:
                assert response.status in (201, 204), response
            async with http.get("/files/aiohttp") as response:
                assert response.content_length == len(BLOB)
                assert await digest_of(response.content.iter_any()) == DIGEST
            await http.delete("/files/aiohttp")


async def eight_at_a_time(host: str, security: str) -> None:
    """Up and down at once, a mebibyte each, on connections that share the way."""

    async def there_and_back(http: aiohttp.ClientSession, n: int) -> bytes:
        async with http.put(f"/files/{n}", data=BLOB[n << 20 : (n + 1) << 20]) as response:
            assert response.status == 201
        async with http.get(f"/files/{n}") as response:
            return await response.read()

    async with session(host, security) as http:
        assert b"".join(await asyncio.gather(*(there_and_back(http, n) for n in range(8)))) == BLOB[: 8 << 20]


async def keepalive(host: str, security: str) -> None:
    """One connection for many requests; and ten for each where the server closes it then."""
    async with session(host, security, limit=1) as http:

        async def connection(path: str) -> str:
            async with http.get(path) as response:
                return (await response.text()).split()[0]

        assert len({await connection("/who") for _ in range(50)}) == 1
        async with http.get("/who", headers={"Connection": "close"}) as response:
            assert response.headers["Connection"] == "close"
        assert len({await connection("/ten") for _ in range(50)}) == 5


async def two_hundred_at_once(host: str, security: str) -> None:
    async with session(host, security) as http:

        async def ask(n: int) -> str:
            async with http.get(f"/echo?{n}") as response:
                return await response.text()

        assert await asyncio.gather(*map(ask, range(200))) == [f"{n}\n" for n in range(200)]


async def chunked_and_compressed(host: str, security: str) -> None:
    async with session(host, security) as http, http.get("/text") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert response.headers["Content-Encoding"] == "gzip"
        assert (await response.text()).splitlines() == [f"line {n}" for n in range(50_000)]


async def slow_readers(host: str, security: str) -> None:
    """The server waits for one that pauses, and is rid of one that goes."""
    async with session(host, security) as http, http.get("/blob") as response:
        start = await response.content.readexactly(1 << 20)
        await asyncio.sleep(0.05)
        assert hashlib.sha256(start + await response.read()).hexdigest() == DIGEST
    async with session(host, security) as http, http.get("/blob") as response:
        await response.content.readexactly(1 << 20)
        response.close()  # with nine mebibytes to come


async def what_fails(host: str, security: str) -> None:
    """Each as aiohttp names it: no answer, a body cut short, an upload that is refused on its way, impatience."""
    async with session(host, security) as http:
        try:
            await http.get("/nothing")
        except aiohttp.ServerDisconnectedError:
            pass
        else:
            raise AssertionError("there was an answer")
        async with http.post("/small", data=in_portions(BLOB)) as response:
            assert response.status == 413
        started = time.monotonic()
        try:
            async with http.get("/slow", timeout=aiohttp.ClientTimeout(total=0.1)) as response:
                await response.read()
        except TimeoutError:
            assert time.monotonic() - started < 2
        else:
            raise AssertionError("it was fast")
        try:
            await http.get(f"{base(host, security)}:1/")
        except aiohttp.ClientConnectorError:
            pass
        else:
            raise AssertionError("who accepted this?")


async def certificates_are_verified(host: str, security: str) -> None:
    if security == "plain":
        return
    async with aiohttp.ClientSession(base(host, security)) as http:
        try:
            await http.get("/who")
        except aiohttp.ClientConnectorCertificateError:
            pass
        else:
            raise AssertionError("nobody vouches for it")
    async with session(host, security) as http:
        try:
            await http.get("/who", server_hostname="other.test")
        except aiohttp.ClientConnectorCertificateError:
            pass
        else:
            raise AssertionError("this is not its name")


async def httpx_each_way(host: str, security: str) -> None:
    async with client(host, security) as http:
        await httpx_exchanges(http, BLOB, "HTTP/1.1")


async def httpx_on_http2(host: str, security: str) -> None:
    """With all requests on one connection."""
    if security == "plain":
        return
    async with client(host, security, http2=True) as http:
        await httpx_exchanges(http, BLOB[: 1 << 20], "HTTP/2")
        answers = await asyncio.gather(*(http.get("/who") for n in range(50)))
        assert len({answer.text.split()[0] for answer in answers}) == 1


async def httpx_exchanges(http: httpx.AsyncClient, body: bytes, version: str) -> None:
    assert (await http.put("/files/httpx", content=body)).status_code == 201
    async with http.stream("GET", "/files/httpx") as response:
        assert response.http_version == version
        assert await digest_of(response.aiter_bytes()) == hashlib.sha256(body).hexdigest()
    assert (await http.put("/files/httpx", content=in_portions(body))).status_code == 204
    assert (await http.get("/files/httpx")).content == body
    await http.delete("/files/httpx")
    answers = await asyncio.gather(*(http.get(f"/echo?{n}") for n in range(50)))
    assert [answer.text for answer in answers] == [f"{n}\n" for n in range(50)]


cases.run(
    ten_mebibytes_each_way,
    eight_at_a_time,
    keepalive,
    two_hundred_at_once,
    chunked_and_compressed,
    slow_readers,
    what_fails,
    certificates_are_verified,
    httpx_each_way,
    httpx_on_http2,
)

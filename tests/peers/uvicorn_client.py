"""A client of uvicorn_app.py, on the kernel's sockets. Arguments: the URL, the authority of its certificate or
`plain`."""

import asyncio
import hashlib
import ssl
import sys

import httpx
from websockets.asyncio.client import connect

SIZE = 8 << 20


async def everything(http: httpx.AsyncClient, url: str, tls: ssl.SSLContext | None) -> None:
    made = await http.post("/items", json={"name": "pen", "price": 2.5, "tags": ["blue"]})
    assert (made.status_code, made.json()) == (201, {"name": "pen", "price": 2.5, "tags": ["blue"]})
    assert (await http.post("/items", json={"name": "pen", "price": -1})).status_code == 409
    assert (await http.post("/items", json={"name": "pen"})).status_code == 422
    answers = await asyncio.gather(*(http.get(f"/threads?skip={n}&limit=5") for n in range(50)))
    assert [answer.json() for answer in answers] == [list(range(n, n + 5)) for n in range(50)]

    body = hashlib.shake_128(b"seed").digest(SIZE)
    digest = {"bytes": SIZE, "sha256": hashlib.sha256(body).hexdigest()}
    assert (await http.post("/digest", content=body)).json() == digest

    async def portions():
        for start in range(0, SIZE, 99_991):
            yield body[start : start + 99_991]

    assert (await http.post("/digest", content=portions())).json() == digest
    assert (await http.get(f"/bytes/{SIZE}")).content == bytes(range(256)) * (SIZE // 256)
    async with http.stream("GET", f"/bytes/{SIZE}") as response:  # of which we want but the beginning
        await anext(response.aiter_bytes())

    async with connect(f"{url.replace('http', 'ws', 1)}/shout", ssl=tls) as socket:
        for n in range(100):
            await socket.send(f"hello {n}")
            assert await socket.recv() == f"HELLO {n}"


async def main(url: str, authority: str) -> None:
    tls = None if authority == "plain" else ssl.create_default_context(cafile=authority)
    async with httpx.AsyncClient(base_url=url, verify=tls or False, timeout=20) as http:
        await everything(http, url, tls)
    print("done")


asyncio.run(main(*sys.argv[1:]))

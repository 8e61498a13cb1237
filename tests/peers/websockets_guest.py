"""websockets, both ends. Arguments: `serve` or `connect`, the other's or the own address, and the certificate's files
(its authority's to connect; its chain's and its key's to serve), or nothing for connections without TLS.

One end runs on libos, the other under python alone, and it makes no difference which.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any

import cases
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_to
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

PORT = 8765
BLOB = hashlib.shake_128(b"seed").digest(8 << 20)
LIMIT = len(BLOB)  # bytes of a message


# --- the server ------------------------------------------------------------------------------------------------------


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


async def fragments(socket: ServerConnection) -> None:
    """Each message comes back in the pieces it came in, and a ping after each: whose answer is not waited for, since it
    may stand behind more pieces than the library takes unread."""
    while True:
        pieces = [piece async for piece in socket.recv_streaming()]
        await socket.send(pieces)
        await socket.ping()


async def farewell(socket: ServerConnection) -> None:
    await socket.close(4321, "as agreed")


async def rude(socket: ServerConnection) -> None:
    """Asked for anything, it is gone without a word."""
    await socket.recv()
    socket.transport.abort()


async def counted(socket: ServerConnection) -> None:
    """As much as there is room for, to somebody who may not be listening."""
    for n in range(2000):
        await socket.send(b"%08d" % n * 512)


async def serve_here(address: str, chain: str = "", key: str = "") -> None:
    routes = {f"/{route.__name__}": route for route in (echo, fragments, farewell, rude, counted)}
    context = None
    if chain:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key)

    async def handle(socket: ServerConnection) -> None:
        assert socket.request is not None
        await routes[socket.request.path](socket)

    async with serve(handle, address, PORT, ssl=context, max_size=LIMIT) as server:
        await server.serve_forever()


# --- the client, in cases --------------------------------------------------------------------------------------------


def open_socket(route: str, address: str, authority: str = "", **options: Any) -> connect_to:
    """To the path ``route``."""
    if authority:
        context = ssl.create_default_context(cafile=authority)
        return connect_to(f"wss://{address}:{PORT}/{route}", ssl=context, max_size=LIMIT, **options)
    return connect_to(f"ws://{address}:{PORT}/{route}", max_size=LIMIT, **options)


async def end_of(socket: ClientConnection) -> tuple[int | None, str | None]:
    """How it was closed, in the middle of everything: the code and the reason; 1006 where the server gave none."""
    try:
        raise AssertionError(f"a message: {await socket.recv()!r:.50}")
    except ConnectionClosedError:
        return socket.close_code, socket.close_reason


async def messages_of_all_sizes(*where: str) -> None:
    """Around what changes the header's form, and with compression and without."""
    for compression in ("deflate", None):
        async with open_socket("echo", *where, compression=compression) as socket:
            for size in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20):
                for message in (BLOB[:size], "é" * (size // 2)):
                    await socket.send(message)
                    assert await socket.recv() == message
    async with open_socket("echo", *where, compression=None) as socket:
        await socket.send(BLOB)
        assert await socket.recv() == BLOB


async def too_large(*where: str) -> None:
    async with open_socket("echo", *where, compression=None) as socket:
        await socket.send([BLOB, b"!"])  # it is the last byte that is too much
        assert (await end_of(socket))[0] == 1009


async def in_fragments(*where: str) -> None:
    async def pieces() -> AsyncIterator[str]:
        for n in range(100):
            yield f"piece {n};"
            await asyncio.sleep(0)

    async with open_socket("fragments", *where) as socket:
        for _ in range(10):
            await socket.send(pieces())
            assert [piece async for piece in socket.recv_streaming()][:100] == [f"piece {n};" for n in range(100)]


async def pings(*where: str) -> None:
    """Many under way at once; and those that the library sends by itself, as often as it can."""
    async with open_socket("echo", *where, ping_interval=0.01) as socket:
        waiters = [await socket.ping() for _ in range(50)]
        assert all(latency >= 0 for latency in await asyncio.gather(*waiters))
        await asyncio.sleep(0.05)
        assert socket.latency > 0


async def closes(*where: str) -> None:
    """With a code of the server's, of ours, and without one."""
    async with open_socket("farewell", *where) as socket:
        assert await end_of(socket) == (4321, "as agreed")
    socket = await open_socket("echo", *where)
    await socket.close(1000, "done")
    assert (socket.close_code, socket.close_reason) == (1000, "done")
    async with open_socket("rude", *where) as socket:
        await socket.send("well?")
        assert await end_of(socket) == (1006, "")


async def a_handler_that_fails(*where: str) -> None:
    """Its connection is closed with 1011; the server serves on."""
    async with open_socket("nowhere", *where) as socket:
        assert (await end_of(socket))[0] == 1011


async def one_that_does_not_listen(*where: str) -> None:
    """8 MiB and nobody reads: whoever sends has to wait. Then all of it is there, in order."""
    async with open_socket("counted", *where, compression=None) as socket:
        await asyncio.sleep(0.1)
        received = [message async for message in socket]
    assert received == [b"%08d" % n * 512 for n in range(2000)]


async def a_hundred_at_once(*where: str) -> None:
    async def talk(n: int) -> None:
        async with open_socket("echo", *where) as socket:
            for k in range(20):
                await socket.send(f"{n} {k}")
                assert await socket.recv() == f"{n} {k}"

    await asyncio.gather(*map(talk, range(100)))


if sys.argv.pop(1) == "serve":
    asyncio.run(serve_here(*sys.argv[1:]))
else:
    cases.run(
        messages_of_all_sizes,
        too_large,
        in_fragments,
        pings,
        closes,
        a_handler_that_fails,
        one_that_does_not_listen,
        a_hundred_at_once,
    )

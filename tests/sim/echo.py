"""Programs that the tests of the world run."""

from __future__ import annotations

import asyncio
import contextlib

PORT = 7


async def serve() -> None:
    """Sends back what it gets, until somebody ends it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    server = await asyncio.start_server(handle, port=PORT)
    await server.serve_forever()


async def ask(host: str, size: int = 10_000, times: int = 10) -> int:
    """Bytes that came back as they were sent."""
    reader, writer = await asyncio.open_connection(host, PORT)
    right = 0
    with contextlib.closing(writer):
        for i in range(times):
            data = bytes([i % 256]) * size
            writer.write(data)
            assert await reader.readexactly(size) == data
            right += size
    await writer.wait_closed()
    print(f"{right} bytes")
    return right

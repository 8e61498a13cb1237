"""A client that asks the next of three servers when one is silent, in a simulated world full of faults.

    libos sim examples/failover.py --seeds 0..199 --jobs 2 --shrink --out failures

Most seeds go well. In some the faults come so that none of the three answers in time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libos.sim import World

SETTINGS = {"until": "30s"}
SERVERS = ("a", "b", "c")
PORT = 7


async def serve() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(handle, port=PORT)
    await server.serve_forever()


async def ask(host: str, line: bytes) -> bool:
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(host, PORT)
            writer.write(line)
            answer = await reader.readline()
            writer.close()
    except (OSError, TimeoutError) as error:
        print(f"{host} does not answer: {error!r}")
        return False
    return answer == line


async def work() -> None:
    for i in range(100):
        for host in SERVERS:
            if await ask(host, b"%d\n" % i):
                break
        else:
            raise RuntimeError("nobody answers")
        await asyncio.sleep(0.2)


def scenario(world: World) -> None:
    world.network(wire="delay=5ms,jitter=2ms")
    for name in SERVERS:
        world.machine(name, serve, daemon=True)
    world.machine("client", work)
    world.profile("chaos")

"""Connections in great number, one after the other and all at once: nothing of them is left.

The small runs are part of every suite; ``-m soak`` makes 24,000 cycles and 10,000 connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .peers import port_of
from .worlds import World, until

KINDS = ["io_uring", "epoll", "pair"]
AT_ONCE = 50


class Answer(asyncio.Protocol):
    """Says again what it heard, and counts how many of it there are."""

    open = 0

    def connection_made(self, transport: Any) -> None:
        type(self).open += 1
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        type(self).open -= 1


class Ask(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.answered.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(None)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # root may raise the hard limit, too
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11_000), max(hard, 11_000)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def run_cycles(world: World, cycles: int) -> None:
    Answer.open = 0

    async def one(port: int, number: int) -> None:
        _, protocol = await world.loop.create_connection(Ask, world.host, port)
        question = b"%d" % number
        protocol.transport.write(question)
        await protocol.answered
        assert protocol.heard == question
        protocol.transport.close()
        await protocol.lost

    async def batch(port: int, count: int) -> tuple[int, int, int]:
        """What there is after `count` cycles: descriptors, objects, timers."""
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(*(one(port, first + i) for i in range(AT_ONCE)))
        await until(lambda: Answer.open == 0)
        await asyncio.sleep(0.01)
        gc.collect()
        timers = len([h for h in getattr(world.loop, "_scheduled", ()) if not h.cancelled()])
        return len(os.listdir("/proc/self/fd")), len(gc.get_objects()), timers

    async def main() -> None:
        server = await world.loop.create_server(Answer, world.host, 0, backlog=AT_ONCE)
        before = await batch(port_of(server), AT_ONCE * 2)
        after = await batch(port_of(server), cycles)
        assert after[0] == before[0]
        assert after[1] - before[1] < 100
        assert after[2] == before[2]
        server.close()
        await server.wait_closed()

    world.run(main(), timeout=300)


def run_connections(world: World, connections: int) -> None:
    Answer.open = 0

    async def main() -> None:
        server = await world.loop.create_server(Answer, world.host, 0, backlog=AT_ONCE * 2)
        clients: list[Ask] = []
        while len(clients) < connections:
            dialled = (world.loop.create_connection(Ask, world.host, port_of(server)) for _ in range(AT_ONCE))
            clients += [protocol for _, protocol in await asyncio.gather(*dialled)]
        for number, client in enumerate(clients):
            client.transport.write(b"%d" % number)
        for number, client in enumerate(clients):
            await client.answered
            assert client.heard == b"%d" % number
        assert Answer.open == connections
        for first in range(0, connections, AT_ONCE):  # all at once would be too much for a wire: a RST is sent once
            ending = clients[first : first + AT_ONCE]
            for client in ending[::2]:
                client.transport.close()
            for client in ending[1::2]:
                client.transport.abort()
            for client in ending:
                await client.lost
        await until(lambda: Answer.open == 0)
        server.close()
        await server.wait_closed()

    world.run(main(), timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("world", KINDS, indirect=True)
def test_cycles(world: World) -> None:
    run_cycles(world, 2400)


@pytest.mark.slow
@pytest.mark.parametrize("world", KINDS, indirect=True)
def test_connections(world: World, many_descriptors: None) -> None:
    run_connections(world, 1000)


@pytest.mark.soak
@pytest.mark.parametrize("world", KINDS, indirect=True)
def test_24000_cycles(world: World) -> None:
    run_cycles(world, 24_000)


# A process has not descriptors enough for both ends of 10,000 connections.
FAR_END = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
address, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
sockets = [socket.create_connection(address) for _ in range(count)]
for number, sock in enumerate(sockets):
    sock.sendall(b"%d" % number)
print(all(sock.recv(64) == b"%d" % number for number, sock in enumerate(sockets)), flush=True)
sys.stdin.read()
"""


def run_connections_from_outside(world: World, connections: int) -> None:
    Answer.open = 0

    async def main() -> None:
        server = await world.loop.create_server(Answer, world.host, 0, backlog=1024)
        far = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FAR_END, world.host, str(port_of(server)), str(connections)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert far.stdin is not None
        assert far.stdout is not None
        assert await far.stdout.readline() == b"True\n"
        assert Answer.open == connections
        far.stdin.close()
        assert await far.wait() == 0
        await until(lambda: Answer.open == 0)
        server.close()
        await server.wait_closed()

    world.run(main(), timeout=300)


@pytest.mark.soak
@pytest.mark.parametrize("world", KINDS, indirect=True)
def test_10000_connections(world: World, many_descriptors: None) -> None:
    if world.kind == "pair":
        run_connections(world, 10_000)
    else:
        run_connections_from_outside(world, 10_000)

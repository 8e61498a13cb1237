"""Two machines on one wire, in one loop: what most tests of net/ run on.

``wire.client`` and ``wire.server`` are networks of two stacks with a pair between them. The loop sends what an
application asks of it to the one or the other: servers stand on ``server``, connections start from ``client``.
"""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

CLIENT = ("10.0.0.1", "fd00::1")
SERVER = ("10.0.0.2", "fd00::2")


class TwoEnds:
    """A network that serves on one machine and connects from the other."""

    def __init__(self, client: StackNetwork, server: StackNetwork) -> None:
        self.client = client
        self.server = server
        self.create_server = server.create_server
        self.connect_accepted_socket = server.connect_accepted_socket

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)


class Wire:
    """Two stacks and what is between them. ``errors``: what the loop's exception handler was told."""

    def __init__(self, reactor: Reactor, **options: Any) -> None:
        rng = Rng(1)
        self.reactor = reactor
        self.errors: list[dict[str, Any]] = []
        self.stacks: list[Stack] = []
        networks = []
        for link, addresses in zip(Link.pair(rng, **options), (CLIENT, SERVER), strict=True):
            stack = Stack(rng.fork(), reactor.now())
            self.ifindex = stack.add_link(link)
            for address, prefix in zip(addresses, (24, 64), strict=True):
                stack.add_address(self.ifindex, f"{address}/{prefix}")
            hosts = {"server.test": SERVER, "client.test": CLIENT, "four.test": SERVER[:1]}
            networks.append(StackNetwork(stack, reactor, resolver=Resolver(rng.fork(), hosts=hosts)))
            self.stacks.append(stack)
        self.client, self.server = networks
        self.loop = Loop(reactor, TwoEnds(self.client, self.server))
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))

    def run(self, main: Coroutine[Any, Any, Any], timeout: float = 10) -> Any:
        """Run to the end; it must not hang."""

        async def bounded() -> Any:
            async with asyncio.timeout(timeout):
                return await main

        return self.loop.run_until_complete(bounded())

    def sockets(self) -> list[Any]:
        """What is left of connections and listeners, lingering ones aside."""
        return [info for stack in self.stacks for info in stack.sockets() if info.state in ("ESTABLISHED", "LISTEN")]

    def close(self) -> None:
        finish_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.client.close()
        self.server.close()
        self.loop.close()
        for stack in self.stacks:
            stack.close()


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until it holds; who calls bounds it in time."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def finish_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let the handlers of a test's servers end, which hear of the client's end only now. None is to be left."""

    async def finish() -> None:
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            _, forgotten = await asyncio.wait(tasks, timeout=2)
            assert not forgotten
        for _ in range(5):
            await asyncio.sleep(0)

    loop.run_until_complete(finish())


@pytest.fixture(params=["io_uring", "epoll"])
def reactor(request: pytest.FixtureRequest) -> Iterator[Reactor]:
    try:
        reactor = Reactor(request.param, clock=MonotonicClock(5))
    except HostError as exc:
        pytest.skip(f"no {request.param} here: {exc}")
    yield reactor
    reactor.close()


@pytest.fixture
def new_wire(reactor: Reactor) -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def new(**options: Any) -> Wire:
        wires.append(Wire(reactor, **options))
        return wires[-1]

    yield new
    for wire in wires:
        wire.close()
    gc.collect()  # ResourceWarnings of this test belong to this test
    assert not [token for token in reactor.sinks if token >> 40], "sinks left behind"


@pytest.fixture
def wire(new_wire: Callable[..., Wire]) -> Wire:
    return new_wire()


@pytest.fixture(scope="session")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server called server.test, and for a client that trusts it."""
    pem = Path(__file__).with_name("server.pem")  # self-signed, of no use anywhere else
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cafile=pem)
    return server, client

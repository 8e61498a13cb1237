"""Where the body of loop tests runs: stock asyncio, uvloop, libos on the kernel's sockets, libos on its own TCP/IP.

A :class:`World` is a loop with what a test needs to know of its network: the address that servers stand on, and how to
make a socket that ``loop.sock_*`` takes. In ``pair`` two stacks are joined by a pair link: servers, and endpoints that
have no peer, are on the one, whatever connects is on the other; descriptors, UNIX sockets, pipes, subprocesses and
signals are the host's, as everywhere.

It owns the loop and all below it until :meth:`World.close`. ``errors`` is what the loop's exception handler was told: a
test that expects some takes them away, the others must leave none.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import weakref
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import libos
from libos.clock import MonotonicClock
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

KINDS = ("asyncio", "uvloop", "io_uring", "epoll", "pair")

Told = list[dict[str, Any]]


class World:
    """On the kernel's sockets. Raises ImportError (no uvloop) and HostError (no io_uring)."""

    host = "127.0.0.1"
    host6 = "::1"
    name = "both.test"  # of both addresses (the fixture `names` tells the host's resolver)
    client = "127.0.0.1"  # where connections come from

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.errors: Told = []
        self._sockets: list[weakref.ref[Any]] = []  # those that new_socket() made: a test that fails leaves them open
        self.loop = self._new_loop()
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        return new_host_loop(self.kind)

    @property
    def ours(self) -> bool:
        """Whether the loop is libos's."""
        return self.kind in ("io_uring", "epoll", "pair")

    def another_loop(self) -> asyncio.AbstractEventLoop:
        """A loop of the same kind beside this one, on the host's sockets; the caller closes it."""
        return new_host_loop("epoll" if self.kind == "pair" else self.kind)

    def run(self, main: Coroutine[Any, Any, Any], timeout: float = 20) -> Any:
        """Run to the end; it must not hang."""

        async def bounded() -> Any:
            async with asyncio.timeout(timeout):
                return await main

        return self.loop.run_until_complete(bounded())

    def new_socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, *, serving: bool = False, proto: int = 0
    ) -> Any:
        """A non-blocking socket, on the side where clients or where servers are."""
        sock = self._new_socket(family, type, proto, serving)
        self._sockets.append(weakref.ref(sock))
        return sock

    def _new_socket(self, family: int, type: int, proto: int, serving: bool) -> Any:
        sock = socket.socket(family, type, proto)
        sock.setblocking(False)
        return sock

    def new_listener(self, family: int = socket.AF_INET) -> Any:
        """A socket that listens on a free port of the serving side."""
        sock = self.new_socket(family, serving=True)
        sock.bind((self.host if family == socket.AF_INET else self.host6, 0))
        sock.listen(100)
        return sock

    async def unused_port(self) -> int:
        """A port of ``host`` that refuses: nobody has had it, and for as long as a test runs nobody will."""
        sock = self.new_listener()
        port: int = sock.getsockname()[1]
        sock.close()
        return port

    def leftovers(self) -> list[str]:
        """What the network still holds that a finished test should not have left. Asked before :meth:`close`."""
        return []

    def close(self) -> None:
        self.loop.close()
        for reference in self._sockets:
            if (sock := reference()) is not None:
                sock.close()


class PairWorld(World):
    """On two stacks of libos, one wire, one loop."""

    host = "10.0.0.2"
    host6 = "fd00::2"
    client = "10.0.0.1"

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        rng = Rng(1)
        with ExitStack() as undo:
            self.reactor = Reactor(clock=MonotonicClock(10**15))
            undo.callback(self.reactor.close)
            self.stacks: list[Stack] = []
            networks = []
            for link, number in zip(Link.pair(rng), (1, 2), strict=True):
                stack = Stack(rng.fork(), self.reactor.now())
                undo.callback(stack.close)
                ifindex = stack.add_link(link)
                stack.add_address(ifindex, f"10.0.0.{number}/24")
                stack.add_address(ifindex, f"fd00::{number}/64")
                hosts = {self.name: (self.host, self.host6), "localhost": ("127.0.0.1", "::1")}
                network = StackNetwork(stack, self.reactor, resolver=Resolver(rng.fork(), hosts=hosts))
                undo.callback(network.close)
                self.stacks.append(stack)
                networks.append(network)
            self.connecting, self.serving = networks
            loop = Loop(self.reactor, BothEnds(self.connecting, self.serving))
            self._undo = undo.pop_all()
        return loop

    def _new_socket(self, family: int, type: int, proto: int, serving: bool) -> Any:
        network = self.serving if serving else self.connecting
        return network.socket(family, type | socket.SOCK_NONBLOCK, proto)

    def leftovers(self) -> list[str]:
        left = [
            f"{info.type} {info.state} of stack {number}"
            for number, stack in enumerate(self.stacks)
            for info in stack.sockets()
            if info.state not in ("TIME-WAIT", "TIME_WAIT")
        ]
        left += [f"{n} bytes of buffers in stack {i}" for i, s in enumerate(self.stacks) if (n := s.memory()["in_use"])]
        return left + [f"sink {token:#x}" for token in self.reactor.sinks if token >> 40 and token & 0xFFFFFFFFFF]

    def close(self) -> None:
        super().close()
        self._undo.close()


class BothEnds:
    """A network that serves on one machine and connects from the other."""

    def __init__(self, connecting: StackNetwork, serving: StackNetwork) -> None:
        self._connecting = connecting
        self._serving = serving
        self.create_server = serving.create_server
        self.connect_accepted_socket = serving.connect_accepted_socket

    async def create_datagram_endpoint(
        self, loop: Any, factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> Any:
        network = self._connecting if remote_addr or options.get("allow_broadcast") else self._serving
        return await network.create_datagram_endpoint(loop, factory, local_addr, remote_addr, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connecting, name)


def new_host_loop(kind: str) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop
    if kind == "asyncio":
        loop = asyncio.SelectorEventLoop()
    elif kind == "uvloop":
        loop = importlib.import_module("uvloop").new_event_loop()
    else:
        loop = libos.new_event_loop("host", reactor=kind)
    return loop


def new_world(kind: str) -> World:
    return PairWorld(kind) if kind == "pair" else World(kind)


async def until(condition: Callable[[], object]) -> None:
    """Turn the loop until it holds; World.run() bounds it in time."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)

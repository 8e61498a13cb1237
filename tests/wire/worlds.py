"""Where two endpoints meet: over the kernel's loopback, over a wire in real time, or on a virtual clock.

A world has one connection, ``a`` to ``b``; everything in it is driven by this thread: ``advance()`` lets time pass
until something may have happened. All of them are context managers and leave nothing.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from libos._native import lib
from libos.clock import MonotonicClock
from libos.errors import check
from libos.net.link.impairment import Impairment
from libos.net.link.netns import Namespace
from libos.net.link.tap import open_tap
from libos.net.link.wire import Wire
from libos.net.stack import Link, Stack, pack_address
from libos.rand import Rng
from libos.sched.reactor import Reactor

from .endpoints import Endpoint, KernelEndpoint, StackEndpoint

__all__ = ["Kind", "Loopback", "Virtual", "Wired", "World"]

Kind = Literal["kernel", "libos"]
ADDRESSES = ("198.18.4.1", "198.18.4.2")
PORT = 5001
MS = 10**6
CONNECT_LIMIT, ACCEPT_LIMIT = 150 * 10**9, 70 * 10**9  # ns
ESTABLISHED, CLOSED, CLOSE_WAIT = 1, 7, 8  # include/net/tcp_states.h


class World:
    """What they have in common: the two ends, and a stack of things to take down."""

    a: Endpoint
    b: Endpoint
    limit = 60 * 10**9  # ns that a schedule may take

    def __init__(self) -> None:
        self.undo = contextlib.ExitStack()

    def now(self) -> int:
        raise NotImplementedError

    def advance(self) -> None:
        raise NotImplementedError

    def _until(self, ready: Callable[[], bool]) -> None:
        give_up = self.now() + CONNECT_LIMIT
        while not ready():
            assert self.now() < give_up, "no connection"
            self.advance()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.undo.close()


class Loopback(World):
    """The kernel to itself, on 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            a = self.undo.enter_context(socket.create_connection(listener.getsockname()))
            b = self.undo.enter_context(listener.accept()[0])
        self.a, self.b = KernelEndpoint(a), KernelEndpoint(b)

    def now(self) -> int:
        return time.monotonic_ns()

    def advance(self) -> None:
        time.sleep(50e-6)  # the kernel works in our calls; only pauses of the schedule take time


class _Ends:
    """Listens and connects on either kind of host."""

    def __init__(self, world: World, stack: Stack | None, namespace: Namespace | None) -> None:
        self.world, self.stack, self.namespace = world, stack, namespace

    def listen(self, address: str) -> None:
        if self.stack is None:
            assert self.namespace is not None
            with self.namespace.entered():
                self.listener = self.world.undo.enter_context(socket.create_server((address, PORT)))
            self.listener.setblocking(False)
        else:
            self.id = check(lib.sock_open(self.stack.handle, socket.SOCK_STREAM, socket.AF_INET))
            check(lib.sock_bind(self.stack.handle, self.id, pack_address(address), PORT))
            check(lib.sock_listen(self.stack.handle, self.id, 4, 0))

    def accept(self) -> Endpoint | None:
        if self.stack is None:
            try:
                return KernelEndpoint(self.world.undo.enter_context(self.listener.accept()[0]))
            except BlockingIOError:
                return None
        id = lib.sock_accept(self.stack.handle, self.id)
        if id < 0:
            return None
        check(lib.sock_free(self.stack.handle, self.id))
        return StackEndpoint(self.stack, id)

    def connect(self, address: str) -> Endpoint:
        """Again and again: where ARP is lost, a host is unreachable for a while."""
        found: list[Endpoint] = []
        while not found:
            self.world._until(functools.partial(self._decided, self._attempt(address), found))
        return found[0]

    def _attempt(self, address: str) -> Endpoint:
        if self.stack is None:
            assert self.namespace is not None
            with self.namespace.entered():
                sock = self.world.undo.enter_context(socket.socket())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
            sock.setblocking(False)
            sock.connect_ex((address, PORT))
            return KernelEndpoint(sock)
        id = check(lib.sock_open(self.stack.handle, socket.SOCK_STREAM, socket.AF_INET))
        check(lib.sock_connect(self.stack.handle, id, pack_address(address), PORT))
        return StackEndpoint(self.stack, id)

    @staticmethod
    def _decided(endpoint: Endpoint, found: list[Endpoint]) -> bool:
        """Whether it is connected (then it is ``found``), or has failed (then it is closed)."""
        state = endpoint.state()
        if state in (ESTABLISHED, CLOSE_WAIT):
            found.append(endpoint)
        elif state == CLOSED:
            endpoint.close()
        return bool(found) or state == CLOSED


def _meet(world: World, a: _Ends, b: _Ends) -> None:
    """Connect, until both know it: b may give up what a takes for established, if its ACKs are lost."""
    b.listen(ADDRESSES[1])
    found: list[Endpoint] = []
    while not found:
        world.a = a.connect(ADDRESSES[1])
        give_up = world.now() + ACCEPT_LIMIT
        while not found and world.now() < give_up:
            world.advance()
            found += [endpoint] if (endpoint := b.accept()) is not None else []
        if not found:
            world.a.abort()
    world.b = found[0]


class Wired(World):
    """Two hosts in real time, joined by ``libos wire``'s own wire (root, where one is the kernel's)."""

    def __init__(self, kinds: tuple[Kind, Kind], how: Impairment, seed: int = 1, mtu: int = 1500) -> None:
        super().__init__()
        with self.undo:
            rng = Rng(seed)
            self.reactor = Reactor("auto", clock=MonotonicClock(0))
            self.undo.callback(self.reactor.close)
            hosts = [self._host(kind, address, rng, mtu) for kind, address in zip(kinds, ADDRESSES, strict=True)]
            self.wire = Wire(hosts[0][1], hosts[1][1], how, how, rng=rng)
            self.undo.callback(self.wire.close)
            self.reactor.attach(self.wire.poller)
            self.undo.callback(self.reactor.detach, self.wire.poller)
            _meet(self, hosts[0][0], hosts[1][0])
            self.undo = self.undo.pop_all()

    def _host(self, kind: Kind, address: str, rng: Rng, mtu: int) -> tuple[_Ends, Link]:
        """The host, and the wire's end of the link to it."""
        if kind == "libos":
            stack = Stack(rng.fork(), self.reactor.now())
            self.undo.callback(stack.close)
            ours, far = Link.pair(rng, mtu=mtu, caps=Link.CSUM)
            self.undo.callback(far.close)
            stack.add_address(stack.add_link(ours), f"{address}/24")
            self.reactor.attach(stack.poller)
            self.undo.callback(self.reactor.detach, stack.poller)
            return _Ends(self, stack, None), far
        namespace = self.undo.enter_context(Namespace.new())
        with namespace.entered():
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            tap = open_tap("w0", addresses=[f"{address}/24"], mtu=mtu, segments=False, queue=16384)
        link = Link.tap(self.reactor.handle, tap.fd, rng, mtu=tap.mtu, caps=tap.caps)
        self.undo.callback(link.close)
        return _Ends(self, None, namespace), link

    def now(self) -> int:
        return self.reactor.now()

    def advance(self) -> None:
        self.reactor.turn(MS // 2)


class Virtual(World):
    """Two stacks on a clock that jumps from deadline to deadline."""

    limit = 3600 * 10**9

    def __init__(self, how: Impairment, seed: int = 1) -> None:
        super().__init__()
        rng = Rng(seed)
        self.time = 10**9
        self.stacks = [Stack(rng.fork(), self.time) for _ in range(2)]
        links = [Link.pair(rng, mtu=1500, caps=Link.CSUM) for _ in range(2)]
        for stack, (ours, _), address in zip(self.stacks, links, ADDRESSES, strict=True):
            self.undo.callback(stack.close)
            stack.add_address(stack.add_link(ours), f"{address}/24")
        self.wire = Wire(links[0][1], links[1][1], how, how, rng=rng)
        self.undo.callback(self.wire.close)
        _meet(self, *(_Ends(self, stack, None) for stack in self.stacks))

    def now(self) -> int:
        return self.time

    def advance(self) -> None:
        due = min(*(stack.run(self.time) for stack in self.stacks), self.wire.run(self.time))
        self.time = min(
            max(due, self.time + 1000), self.time + 20 * MS
        )  # a schedule's pauses are no deadline of theirs

    def settle(self) -> None:
        """Run out the last timers (TIME_WAIT): no socket and no buffer must be left."""
        end = self.time + 400 * 10**9
        while any(stack.memory()["sockets"] + stack.memory()["buffers"] for stack in self.stacks) and self.time < end:
            due = min(*(stack.run(self.time) for stack in self.stacks), self.wire.run(self.time))
            self.time = min(max(due, self.time + 1000), self.time + 10**9)
        for stack in self.stacks:
            memory = stack.memory()
            assert (memory["sockets"], memory["buffers"]) == (0, 0), (memory, stack.sockets())

"""The small costs, one at a time: descriptors' events through the boundary, callbacks, timers, checksums.

``pytest bench --benchmark-enable`` measures (and ``--benchmark-compare`` compares with what was saved); the ordinary
test run goes through each once. Where asyncio and uvloop have the same thing, they stand beside libos in one group.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from libos.bench.loop_cases import CASES, LoopCase
from libos.bench.loops import new_loop
from libos.clock import MonotonicClock
from libos.errors import HostError

READY = 200  # descriptors a round: a reactor's turn takes them all


@pytest.fixture(params=["asyncio", "uvloop", "libos-host", "libos-host-epoll"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    if request.param == "uvloop" and importlib.util.find_spec("uvloop") is None:
        pytest.skip("uvloop is not installed")
    try:
        loop = new_loop(request.param)
    except HostError as error:
        pytest.skip(str(error))
    yield loop
    loop.close()


@pytest.mark.benchmark(group="the Internet checksum of a packet")
@pytest.mark.parametrize("size", [20, 1500, 65535])
def test_checksum(benchmark: BenchmarkFixture, size: int) -> None:
    from libos._native import lib

    packet = bytes(range(256)) * 256
    # RFC 1071 2: the sum over data and its own checksum is all ones, so its complement is 0.
    even = packet[: size & ~1]
    assert lib.inet_checksum(even + lib.inet_checksum(even, len(even)).to_bytes(2, "big"), len(even) + 2) == 0
    benchmark(lib.inet_checksum, packet, size)


@pytest.mark.benchmark(group="add_reader: a byte through each of READY socket pairs")
def test_readable_descriptors(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
    left = 0

    def readable(end: socket.socket) -> None:
        nonlocal left
        end.recv(1)
        left -= 1
        if not left:
            loop.stop()

    def round_trip() -> None:
        nonlocal left
        left = len(pairs)
        for far, _ in pairs:
            far.send(b"x")
        loop.run_forever()

    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(READY)]
        for pair in pairs:
            for end in pair:
                stack.callback(end.close)
                end.setblocking(False)
            loop.add_reader(pair[1], readable, pair[1])
            stack.callback(loop.remove_reader, pair[1])
        benchmark(round_trip)
    assert left == 0


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_loop(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, case: LoopCase) -> None:
    """What ``libos bench loop`` measures."""
    benchmark.group = f"{case.name}: {case.what}, {case.count:,} times"
    benchmark(case.prepare(loop))


@pytest.mark.benchmark(group="one wait with READY descriptors ready, a callable each")
@pytest.mark.parametrize("kind", ["selectors", "io_uring", "epoll"])
def test_events_through_the_boundary(benchmark: BenchmarkFixture, kind: str) -> None:
    seen: set[int] = set()
    with contextlib.ExitStack() as stack:
        ready = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(READY)]
        for fd in ready:
            stack.callback(os.close, fd)
        turn = _selector(ready, seen, stack) if kind == "selectors" else _reactor(kind, ready, seen, stack)
        benchmark(turn)
    assert len(seen) == READY


def _selector(ready: list[int], seen: set[int], stack: contextlib.ExitStack) -> Callable[[], None]:
    """The standard library's way."""
    selector = stack.enter_context(selectors.DefaultSelector())
    for fd in ready:
        selector.register(fd, selectors.EVENT_READ, seen.add)

    def turn() -> None:
        for key, _ in selector.select(0):
            key.data(key.fd)

    return turn


def _reactor(kind: str, ready: list[int], seen: set[int], stack: contextlib.ExitStack) -> Callable[[], None]:
    """libos's: level-triggered like the other, so every turn reports all of them."""
    from libos.sched.reactor import EV_READ, Reactor

    try:
        reactor = Reactor("epoll" if kind == "epoll" else "io_uring", clock=MonotonicClock())
    except OSError as error:
        pytest.skip(str(error))
    stack.callback(reactor.close)
    for fd in ready:
        reactor.watch(fd, EV_READ, _seer(seen, fd))
    return lambda: reactor.turn(0)


def _seer(seen: set[int], fd: int) -> Callable[[int], None]:
    return lambda mask: seen.add(fd)

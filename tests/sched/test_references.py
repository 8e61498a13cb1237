"""No operation of the C half keeps anything: each is done thousands of times, and as many objects are there as before.

Counted are the blocks of Python's allocator, which has every object and the agenda's tables too, the objects that the
collector knows, and the references to what each operation is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

CALLS = 10_000
CONNECTIONS = 60


@pytest.fixture(params=["io_uring", "epoll"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    try:
        reactor = Reactor(request.param, clock=MonotonicClock())
    except HostError as error:
        pytest.skip(str(error))
    loop = Loop(reactor, own_reactor=True)
    loop.set_exception_handler(lambda loop, context: None)
    yield loop
    loop.close()


def callback(*args: object) -> None:
    pass


def fail(*args: object) -> None:
    raise ZeroDivisionError


def interrupt() -> None:
    raise KeyboardInterrupt


CONTEXT = contextvars.copy_context()
GIVEN = (callback, fail, interrupt, CONTEXT, contextvars.Context, asyncio.Handle, asyncio.TimerHandle)


def counts(loop: Loop) -> list[int]:
    for _ in range(3):
        gc.collect()
    return [sys.getallocatedblocks(), len(gc.get_objects()), *map(sys.getrefcount, (loop, loop.reactor, *GIVEN))]


def keeps_nothing(loop: Loop, times: int, many: Callable[[], None]) -> None:
    """What is kept is kept each time; the interpreter's own stores fill up, too, but they end."""
    gc.freeze()  # what is there already need not be looked at each time
    try:
        many()  # what is made once is made now
        for _ in range(8):
            before = counts(loop)
            many()
            grown = [now - then for now, then in zip(counts(loop), before, strict=True)]
            assert min(grown[2:]) > -times // 4, grown  # a reference too few
            if max(grown) < times // 4:
                return
    finally:
        gc.unfreeze()
    raise AssertionError(f"it grows each time: {grown}")


# --- calls -----------------------------------------------------------------------------------------------------------


def run_all(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def refused(call: Callable[..., object], *args: object, **options: object) -> None:
    with contextlib.suppress(TypeError, OverflowError):
        call(*args, **options)
        raise AssertionError("it was taken")


def cancels_itself(loop: Loop) -> None:
    def cancel() -> None:
        handle.cancel()

    handle = loop.call_later(0, cancel)


def is_interrupted(loop: Loop) -> None:
    loop.call_soon(interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run_forever()


class OwnHandle(asyncio.Handle):
    pass


CALL: dict[str, Callable[[Any], object]] = {
    "soon": lambda loop: loop.call_soon(callback, 1, "2"),
    "soon, cancelled": lambda loop: loop.call_soon(callback, 1, "2").cancel(),
    "soon, in a context": lambda loop: loop.call_soon(callback, context=CONTEXT),
    "soon, by name": lambda loop: loop.call_soon(callback=callback),
    "soon, failing": lambda loop: loop.call_soon(fail, object()),
    "soon, wrong context": lambda loop: loop.call_soon(callback, context=object()),
    "soon, refused": lambda loop: refused(loop.call_soon, callback, nothing=object()),
    "from a thread": lambda loop: loop.call_soon_threadsafe(callback, object()),
    "later": lambda loop: loop.call_later(0, callback, object()),
    "later, cancelled": lambda loop: loop.call_later(1000, callback, object()).cancel(),
    "later, by name": lambda loop: loop.call_later(delay=1000, callback=callback).cancel(),
    "later, failing": lambda loop: loop.call_later(-1, fail, object()),
    "later, refused": lambda loop: refused(loop.call_later, "1", callback, object()),
    "later, too late": lambda loop: refused(loop.call_later, 10**400, callback, object()),
    "later, itself cancelled": cancels_itself,
    "at": lambda loop: loop.call_at(loop.time(), callback, object()),
    "at, cancelled": lambda loop: loop.call_at(10**30, callback, object()).cancel(),
    "at, refused": lambda loop: refused(loop.call_at, 1, when=2, callback=object()),
    "handle": lambda loop: loop._add_callback(asyncio.Handle(callback, (object(),), loop)),
    "handle, of a subclass": lambda loop: loop._add_callback(OwnHandle(fail, (object(),), loop)),
    "handle, refused": lambda loop: refused(loop._add_callback, object()),
    "views": lambda loop: (loop._ready, loop._scheduled),
    "interrupted": is_interrupted,
}


@pytest.mark.parametrize("name", CALL)
def test_calls(loop: Loop, name: str) -> None:
    def many() -> None:
        for _ in range(CALLS):
            CALL[name](loop)
        run_all(loop)

    keeps_nothing(loop, CALLS, many)


def test_calls_in_debug_mode(loop: Loop) -> None:
    times = 300

    def many() -> None:
        for _ in range(times):
            loop.call_soon(callback, object()).cancel()
            loop.call_soon(fail)
            loop.call_later(1000, callback, object()).cancel()
            loop.call_later(0, callback)
        run_all(loop)

    loop.set_debug(True)
    keeps_nothing(loop, times, many)


def test_loops(loop: Loop) -> None:
    times = 60

    def many() -> None:
        for _ in range(times):
            other = Loop(Reactor(loop.reactor.kind, clock=MonotonicClock()), own_reactor=True)  # type: ignore[arg-type]
            other.call_soon(callback, other)
            other.call_later(1000, callback, other)
            other.call_soon(other.stop)
            other.run_forever()
            other.close()

    keeps_nothing(loop, times, many)


# --- transports ------------------------------------------------------------------------------------------------------


class Echo(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class BufferedEcho(asyncio.BufferedProtocol):
    transport: Any

    def __init__(self) -> None:
        self.buffer = bytearray(4096)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, size: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, count: int) -> None:
        self.transport.write(memoryview(self.buffer)[:count])


async def pair(loop: Loop, near: asyncio.BaseProtocol, far: asyncio.BaseProtocol) -> tuple[Any, Any]:
    ends = socket.socketpair()
    return tuple([  # type: ignore[return-value]
        (await loop.connect_accepted_socket(lambda protocol=protocol: protocol, end))[0]
        for end, protocol in zip(ends, (near, far), strict=True)
    ])  # fmt: skip


class Pitcher(asyncio.Protocol):
    """Sends each answer back until there were enough."""

    transport: Any

    def __init__(self, times: int, done: asyncio.Future[None]) -> None:
        self.left, self.done = times, done

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(b"x" * 1000)

    def data_received(self, data: bytes) -> None:
        self.left -= 1
        if self.left > 0:
            self.transport.write(bytearray(data) if self.left % 2 else data)
        elif not self.done.done():
            self.done.set_result(None)


@pytest.mark.parametrize("echo", [Echo, BufferedEcho])
def test_data(loop: Loop, echo: Callable[[], asyncio.BaseProtocol]) -> None:
    times = 3000

    async def main() -> None:
        done: asyncio.Future[None] = loop.create_future()
        near, far = await pair(loop, Pitcher(times, done), echo())
        await done
        near.close()
        far.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    keeps_nothing(loop, times, lambda: loop.run_until_complete(main()))


def ends_in(method: str, how: Callable[[Any], object]) -> Callable[[], asyncio.BaseProtocol]:
    """A protocol that does something unfriendly in one of its methods."""

    def make() -> asyncio.BaseProtocol:
        protocol = BufferedEcho() if method in ("get_buffer", "buffer_updated") else Echo()
        ordinary = getattr(protocol, method)

        def own(*args: Any) -> Any:
            result = ordinary(*args)
            how(protocol)
            return result

        setattr(protocol, method, own)
        return protocol

    return make


UNFRIENDLY: dict[str, Callable[[Any], object]] = {
    "fails": lambda protocol: fail(),
    "closes": lambda protocol: protocol.transport.close(),
    "aborts": lambda protocol: protocol.transport.abort(),
    "sets another": lambda protocol: protocol.transport.set_protocol(Echo()),
    "sets a buffered one": lambda protocol: protocol.transport.set_protocol(BufferedEcho()),
    "pauses": lambda protocol: protocol.transport.pause_reading(),
    "forgets its buffer": lambda protocol: setattr(protocol, "buffer", bytearray(1)),
    "interrupts": lambda protocol: interrupt(),
    "closes the loop": lambda protocol: protocol.transport._loop.close(),
    "turns": lambda protocol: protocol.transport._loop.reactor.turn(0),
}


def to_the_end(loop: Loop, main: Coroutine[Any, Any, Any]) -> None:
    """Whoever interrupts it."""
    task = loop.create_task(main)
    while not task.done():
        with contextlib.suppress(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait([task]))
    task.result()


@pytest.mark.parametrize("how", UNFRIENDLY)
@pytest.mark.parametrize(
    "method", ["connection_made", "data_received", "get_buffer", "buffer_updated", "eof_received", "connection_lost"]
)
def test_unfriendly_protocols(loop: Loop, method: str, how: str) -> None:
    make = ends_in(method, UNFRIENDLY[how])

    async def main() -> None:
        for _ in range(CONNECTIONS):
            near, far = await pair(loop, asyncio.Protocol(), make())
            near.write(b"hello")
            await asyncio.sleep(0)
            near.write_eof()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            far.abort()
            near.abort()
            await asyncio.sleep(0)

    if (method, how) == ("connection_made", "interrupts"):
        pytest.skip("the future that waits for the connection is never told, as with asyncio")
    if (method, how) == ("get_buffer", "interrupts"):
        pytest.skip("what arrived is still there, and each turn is interrupted by it again")
    keeps_nothing(loop, CONNECTIONS, lambda: to_the_end(loop, main()))

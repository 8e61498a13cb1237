"""The corners of the C half of the loop (``sched/objects/``): races, wrong types, objects at the end of their lives."""

from __future__ import annotations

import asyncio
import copy
import fractions
import gc
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libos import _loop
from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

AnyLoop = asyncio.AbstractEventLoop


@pytest.fixture
def ours(reactor: Reactor) -> Iterator[Loop]:
    loop = Loop(reactor)
    yield loop
    loop.close()


@pytest.fixture(params=["io_uring", "epoll", "asyncio"])
def loop(request: pytest.FixtureRequest) -> Iterator[AnyLoop]:
    """The loop, and the one whose contract it has to meet."""
    loop: AnyLoop
    if request.param == "asyncio":
        loop = asyncio.SelectorEventLoop()
    else:
        try:
            loop = Loop(Reactor(request.param, clock=MonotonicClock()), own_reactor=True)
        except HostError as error:
            pytest.skip(str(error))
    yield loop
    loop.close()


def in_a_thread(call: Any, *args: Any) -> None:
    thread = threading.Thread(target=call, args=args)
    thread.start()
    thread.join()


class Interposed:
    """A socket whose recv() is preceded, once, by ``first()``."""

    def __init__(self, sock: Any, first: Any) -> None:
        self.sock, self.first = sock, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def recv(self, size: int) -> bytes:
        first, self.first = self.first, lambda: None
        first()
        data: bytes = self.sock.recv(size)
        return data


def test_a_call_while_the_self_pipe_is_emptied_costs_no_later_one_its_wake_up(ours: Loop) -> None:
    seen: list[str] = []
    calls = ours._ssock  # type: ignore[attr-defined]
    ours._ssock = Interposed(  # type: ignore[attr-defined]
        calls, lambda: in_a_thread(ours.call_soon_threadsafe, seen.append, "while it was emptied")
    )
    ours.call_soon_threadsafe(ours.call_later, 0.001, ours.stop)
    ours.run_forever()
    assert seen == ["while it was emptied"]
    thread = threading.Timer(0.01, ours.call_soon_threadsafe, (ours.stop,))
    late = ours.call_later(5, ours.stop)
    thread.start()
    ours.run_forever()
    thread.join()
    assert ours.time() < late.when()
    late.cancel()


@pytest.mark.parametrize("first", ["loop", "reactor"])
def test_what_is_open_at_the_end_outlives_the_loop_and_its_reactor(reactor: Reactor, first: str) -> None:
    loop = Loop(reactor)

    async def main() -> list[Any]:
        accepted: asyncio.Future[Any] = loop.create_future()
        server = await loop.create_server(lambda: Greeter(accepted), "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        return [server, transport, await accepted]

    kept = loop.run_until_complete(main())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for owner in (loop, reactor) if first == "loop" else (reactor, loop):
            owner.close()
        for transport in kept[1:]:
            transport.write(b"more")
            assert transport.get_extra_info("socket").fileno() >= 0
        for sock in kept[0].sockets:
            sock._sock.close()
        kept.pop(0).close()
        del transport, sock
        kept.clear()
        gc.collect()
    assert sum("unclosed transport" in str(warning.message) for warning in told) == 2


def test_a_reactor_cannot_be_closed_in_a_turn(reactor: Reactor, new_probe: Any) -> None:
    probe = new_probe()
    told: list[BaseException] = []

    def sink(mask: int) -> None:
        try:
            reactor.close()
        except RuntimeError as exc:
            told.append(exc)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    while not told:
        reactor.turn(0)
    assert "in a turn" in str(told[0])
    reactor.turn(0)


# --- what is given to it ---------------------------------------------------------------------------------------------


def test_arguments_may_come_by_name(loop: AnyLoop) -> None:
    seen: list[str] = []
    any_loop: Any = loop
    any_loop.call_soon(callback=lambda: seen.append("soon"))
    any_loop.call_soon_threadsafe(callback=lambda: seen.append("from a thread"))
    any_loop.call_at(when=loop.time(), callback=lambda: seen.append("at"))
    any_loop.call_later(0, callback=lambda: seen.append("later"), context=None)
    any_loop.call_later(delay=0.02, callback=loop.stop)
    loop.run_forever()
    assert sorted(seen) == ["at", "from a thread", "later", "soon"]


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(),
        lambda loop: loop.call_soon(print, callback=print),
        lambda loop: loop.call_soon(print, surprise=1),
        lambda loop: loop.call_soon_threadsafe(context=None),
        lambda loop: loop.call_later(1),
        lambda loop: loop.call_later(1, delay=1),
        lambda loop: loop.call_later(callback=print),
        lambda loop: loop.call_later(None, print),
        lambda loop: loop.call_later("1", print),
        lambda loop: loop.call_at(1, when=1, callback=print),
    ],
)
def test_other_arguments_are_type_errors(loop: AnyLoop, call: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        call(loop)


def test_delays_of_every_kind(ours: Loop) -> None:
    seen: list[object] = []
    past = [True - 1, -1, -(10**30), float("-inf"), float("nan"), fractions.Fraction(-1, 3), False, 0.0]
    for delay in past:
        ours.call_later(delay, seen.append, delay)  # type: ignore[arg-type]
    never = [
        ours.call_later(10**30, seen.append, "never"),
        ours.call_later(2**64, seen.append, "never"),
        ours.call_later(float("inf"), seen.append, "never"),
        ours.call_at(10**300, seen.append, "never"),
    ]
    with pytest.raises(OverflowError):
        ours.call_later(10**400, seen.append, "never")
    ours.call_later(0.001, ours.stop)
    ours.run_forever()
    assert len(seen) == len(past)
    assert "never" not in seen
    assert never[3].when() == 10**300
    assert len(ours._scheduled) == len(never)
    for handle in never:
        handle.cancel()
    assert not ours._scheduled


def test_a_clock_may_be_put_into_a_loop_and_taken_out(ours: Loop) -> None:
    now = 1000.0
    seen: list[str] = []
    ours.time = lambda: now  # type: ignore[method-assign]
    assert ours.call_later(5, seen.append, "a").when() == 1005
    ours.call_soon(ours.stop)
    ours.run_forever()
    assert not seen
    now = 1005.0
    ours.call_soon(ours.stop)
    ours.run_forever()
    assert seen == ["a"]
    del ours.time
    assert abs(ours.call_later(5, seen.append, "b").when() - ours.time() - 5) < 1


def test_a_subclass_may_have_its_own_time_and_call_at(reactor: Reactor) -> None:
    class Slow(Loop):
        def time(self) -> float:
            return super().time() / 2

        def call_at(self, when: float, callback: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
            seen.append((args, sorted(options)))
            return super().call_at(when, callback, *args, **options)  # type: ignore[misc,no-any-return]

    seen: list[object] = []
    loop = Slow(reactor)
    assert abs(loop.call_later(1, print, 2, 3).when() - loop.time() - 1) < 0.5
    assert seen == [((2, 3), ["context"])]
    loop.close()


def test_a_loop_without_its_constructor_is_closed_and_safe() -> None:
    loop: Any = Loop.__new__(Loop)
    for call in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError, match="closed"):
            call(print)
    loop._closed = False
    assert loop.time() == 0
    loop.call_later(1, print).cancel()
    with pytest.raises(RuntimeError, match="no reactor"):
        loop._run_once()
    loop._closed = True


def test_loops_and_their_timers_are_not_copied(ours: Loop) -> None:
    timer = ours.call_later(1, print)
    for thing in (ours, ours.reactor, timer):
        for how in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                how(thing)


# --- exceptions ------------------------------------------------------------------------------------------------------


def test_an_exception_is_being_handled_while_it_is_reported(loop: AnyLoop) -> None:
    seen: list[object] = []
    loop.set_exception_handler(lambda loop, context: seen.append(sys.exc_info()[1]))
    error = ZeroDivisionError("mine")

    def fail() -> None:
        raise error

    loop.call_soon(fail)
    loop.call_soon(lambda: seen.append(sys.exc_info()[1]))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [error, None]


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, fails: str) -> None:
        self.fails = fails

    def get_buffer(self, size: int) -> bytearray:
        if self.fails == "get_buffer":
            raise ZeroDivisionError
        return bytearray(0 if self.fails == "empty" else 16)

    def buffer_updated(self, count: int) -> None:
        raise ZeroDivisionError


class Unbuffered(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("fails", ["data_received", "get_buffer", "empty", "buffer_updated"])
def test_a_failing_protocol_is_named(loop: AnyLoop, fails: str) -> None:
    told: list[dict[str, Any]] = []

    async def main() -> None:
        failed = asyncio.Event()
        loop.set_exception_handler(lambda loop, context: (told.append(context), failed.set()))
        protocol = Unbuffered() if fails == "data_received" else Buffered(fails)
        accepted: asyncio.Future[Any] = loop.create_future()
        server = await loop.create_server(lambda: Greeter(accepted), "127.0.0.1", 0)
        transport, _ = await loop.create_connection(lambda: protocol, *server.sockets[0].getsockname())
        await asyncio.wait_for(failed.wait(), 5)
        assert transport.is_closing()
        (await accepted).abort()
        server.close()
        await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    what = "get_buffer" if fails == "empty" else fails
    assert told[0]["message"] == f"Fatal error: protocol.{what}() call failed."
    assert len(told) == 1


class Greeter(asyncio.Protocol):
    def __init__(self, made: asyncio.Future[Any]) -> None:
        self.made = made

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        self.made.set_result(transport)


# --- the end of their lives ------------------------------------------------------------------------------------------

LAST_WORDS = """
import gc, importlib.util, sys

spec = importlib.util.spec_from_file_location("libos._loop", sys.argv[1])  # one that nothing else holds
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
class Loop:
    def get_debug(self):
        return False
things = []
for make in (lambda: module.Handle(print, (things, module), Loop()),
             lambda: module.TimerHandle(1.0, print, (things, module), Loop()),
             lambda: type("Subclass", (module.Turns,), {})(),
             lambda: type("Subclass", (module.Scheduler,), {})(),
             lambda: type("Subclass", (module.Stream,), {})({}, Loop())):
    for _ in range(3):
        things.append(make())
last = things[0].cancel
if sys.argv[2] == "collected":
    del things[6:], last # the others keep the module
    del module, spec, make, things
    assert gc.collect() > 10
print("alive")
"""


@pytest.mark.parametrize("how", ["collected", "left"])
def test_objects_outlive_their_class_and_module(how: str) -> None:
    """The collector takes classes apart before their objects, and the end of the program all that is left."""
    command = [sys.executable, "-X", "faulthandler", "-c", LAST_WORDS, _loop.__file__, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

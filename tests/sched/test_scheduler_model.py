"""Random programs of callbacks on libos's loop and on asyncio's own: the same calls in one order, the same reports.

A program is a list of callbacks, each a list of things to do when it is called: schedule others, cancel what was
scheduled, raise, stop. Both loops have a clock of the program's, which a callback in each iteration moves on; so no run
waits, and none depends on the machine. Times are all different, for asyncio leaves the order of equal ones open.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

CALLBACKS = 6
ITERATIONS = 25
HANDLES_MAX = 120  # of one run: programs may schedule themselves

Action = tuple[Any, ...]
Program = list[list[Action]]

index = st.integers(0, CALLBACKS - 1)
delay = st.integers(-2, 5) | st.sampled_from([0.5, True, -1e4, float("inf"), 2**70])
actions = st.one_of(
    st.tuples(st.sampled_from(["soon", "threadsafe", "foreign", "shared"]), index),
    st.tuples(st.sampled_from(["later", "at"]), index, delay),
    st.tuples(st.just("cancel"), st.integers(0, HANDLES_MAX)),
    st.tuples(st.sampled_from(["raise", "set", "stop", "interrupt", "exit", "cancel me"])),
    st.tuples(st.just("debug"), st.booleans()),
    st.tuples(st.just("handler"), st.sampled_from(["default", "mine", "fails"])),
)
programs = st.lists(st.lists(actions, max_size=5), min_size=CALLBACKS, max_size=CALLBACKS)


class ForeignHandle(asyncio.Handle):
    """As a library makes that has its own idea of running."""

    note: Callable[[str], None]

    def _run(self) -> None:
        self.note("foreign")
        super()._run()  # type: ignore[misc]


class Run:
    """One run of a program on one loop. What it did is in ``seen``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, program: Program) -> None:
        self.loop: Any = loop
        self.program = program
        self.seen: list[Any] = []
        self.handles: list[asyncio.Handle] = []
        self.now = 1000.0
        self.iteration = 0
        self.variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)
        self.shared = contextvars.copy_context()
        self.loop.time = lambda: self.now
        self.loop.set_exception_handler(self.handler)

    def run(self) -> None:
        logger = logging.getLogger("asyncio")
        watcher = logging.Handler()
        watcher.emit = lambda record: self.seen.append(("log", record.getMessage().split("\n")[0]))  # type: ignore[method-assign]
        logger.addHandler(watcher)
        propagated, logger.propagate = logger.propagate, False
        try:
            self.loop.call_soon(self.tick)
            for number in range(CALLBACKS):
                self.schedule(self.loop.call_soon, number)
            while self.iteration < ITERATIONS:
                try:
                    self.loop.run_forever()
                    self.seen.append("stopped")
                except (KeyboardInterrupt, SystemExit) as exc:
                    self.seen.append(repr(exc))
            for left in (self.loop._ready, self.loop._scheduled):
                mine = [handle for handle in left if isinstance(handle._callback, Callback)]
                self.seen.append(sorted(map(repr, mine)))
        finally:
            logger.removeHandler(watcher)
            logger.propagate = propagated

    def tick(self) -> None:
        self.now += 1
        self.iteration += 1
        if self.iteration < ITERATIONS:
            self.loop.call_soon(self.tick)
        else:
            self.loop.stop()

    def handler(self, loop: Any, context: dict[str, Any]) -> None:
        exc = context["exception"]
        what = sorted(set(context) - {"source_traceback"})
        self.seen.append((what, context["message"], repr(exc), repr(context["handle"]), sys.exc_info()[1] is exc))
        self.seen.append("source_traceback" in context)

    def failing_handler(self, loop: Any, context: dict[str, Any]) -> None:
        raise LookupError("handler")

    def schedule(self, how: Callable[..., asyncio.Handle], number: int, *before: Any, **options: Any) -> None:
        if len(self.handles) < HANDLES_MAX:
            self.handles.append(how(*before, Callback(self, number, len(self.handles)), self.now, **options))

    def do(self, action: Action, me: int) -> None:
        loop, kind = self.loop, action[0]
        if kind == "soon":
            self.schedule(loop.call_soon, action[1])
        elif kind == "threadsafe":
            self.schedule(loop.call_soon_threadsafe, action[1])
        elif kind == "shared":
            self.schedule(loop.call_soon, action[1], context=self.shared)
        elif kind == "foreign":
            self.schedule(self.add_foreign, action[1])
        elif kind == "later":
            self.schedule(loop.call_later, action[1], action[2] + len(self.handles) / 1000)
        elif kind == "at":
            self.schedule(loop.call_at, action[1], self.now + action[2] + len(self.handles) / 1000)
        elif kind == "cancel":
            self.handles[action[1] % len(self.handles)].cancel()
        elif kind == "cancel me":
            self.handles[me].cancel()
        elif kind == "set":
            self.variable.set(me)
        elif kind == "stop":
            loop.stop()
        elif kind == "debug":
            loop.set_debug(action[1])
        elif kind == "handler":
            handlers = {"default": None, "mine": self.handler, "fails": self.failing_handler}
            loop.set_exception_handler(handlers[action[1]])
        else:
            raise {"raise": ValueError, "interrupt": KeyboardInterrupt, "exit": SystemExit}[kind](f"of {me}")

    def add_foreign(self, callback: Any, *args: Any) -> asyncio.Handle:
        handle = ForeignHandle(callback, args, self.loop)
        handle.note = self.seen.append
        self.loop._add_callback(handle)
        return handle


class Callback:
    """What is scheduled. Its text is the same in each run."""

    def __init__(self, run: Run, number: int, me: int) -> None:
        self.run, self.number, self.me = run, number, me

    def __repr__(self) -> str:
        return f"<callback {self.number}, handle {self.me}>"

    def __call__(self, made: float) -> None:
        run = self.run
        handle = run.handles[self.me]
        run.seen.append((self.me, self.number, made, run.now, run.variable.get(), repr(handle)))
        for action in run.program[self.number]:
            run.do(action, self.me)


@pytest.fixture(scope="module", params=["io_uring", "epoll"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    try:
        Reactor(kind, clock=MonotonicClock()).close()  # type: ignore[arg-type]
    except HostError as error:
        pytest.skip(str(error))
    return kind


def check(kind: Any, program: Program) -> None:
    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        model = Run(loop, program)
        model.run()
    with contextlib.closing(Loop(Reactor(kind, clock=MonotonicClock()), own_reactor=True)) as loop:
        ours = Run(loop, program)
        ours.run()
    assert ours.seen == model.seen


@settings(max_examples=150, deadline=None)
@given(program=programs)
def test_random_programs_run_as_on_asyncio(kind: str, program: Program) -> None:
    check(kind, program)

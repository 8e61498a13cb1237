"""What an event loop itself costs, one thing at a time, without any I/O: the cases of ``libos bench loop`` and of
``pytest bench``.

A case is made for a loop and gives a round: a function that does its one thing ``count`` times and returns when all
of it has happened. Rounds neither sleep nor wait for longer than the work in them takes: timers are due while
others are still being set. They use nothing that is not in ``asyncio.AbstractEventLoop``.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["CASES", "LoopCase"]

Loop = asyncio.AbstractEventLoop
Round = Callable[[], object]

MANY = 10_000
SPREAD_MS = 5  # deadlines of timers lie in so many ms; in whole ones, for uvloop knows no others


@dataclass(frozen=True)
class LoopCase:
    """``what`` is a line for people; ``make(loop, count)`` gives the round."""

    name: str
    what: str
    count: int
    make: Callable[[Loop, int], Round]

    def prepare(self, loop: Loop) -> Round:
        return self.make(loop, self.count)


def nothing(*args: object) -> None:
    """The callback that a loop is to call."""


def _then_run(loop: Loop, schedule: Callable[[], None]) -> Round:
    """Rounds of a batch: all is scheduled, then the loop runs until it has been called."""

    def run() -> None:
        schedule()
        loop.call_soon(loop.stop)
        loop.run_forever()

    return run


# --- callbacks ---


def soon_chain(loop: Loop, count: int) -> Round:
    left = 0

    def callback() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(callback)
        else:
            loop.stop()

    def run() -> None:
        nonlocal left
        left = count
        loop.call_soon(callback)
        loop.run_forever()

    return run


def soon_batch(loop: Loop, count: int) -> Round:
    def schedule() -> None:
        for _ in range(count):
            loop.call_soon(nothing)

    return _then_run(loop, schedule)


def soon_args(loop: Loop, count: int) -> Round:
    def schedule() -> None:
        for i in range(count):
            loop.call_soon(nothing, i, schedule)

    return _then_run(loop, schedule)


def soon_context(loop: Loop, count: int) -> Round:
    context = contextvars.copy_context()

    def schedule() -> None:
        for _ in range(count):
            loop.call_soon(nothing, context=context)

    return _then_run(loop, schedule)


def threadsafe(loop: Loop, count: int) -> Round:
    """All from the loop's own thread, so that no other one's luck is in the figure."""

    def schedule() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(nothing)

    return _then_run(loop, schedule)


# --- timers ---


def _mixed(count: int) -> list[float]:
    return [(1 + i * 7919 % SPREAD_MS) / 1000 for i in range(count)]


def _timers(loop: Loop, delays: list[float], set_timer: Callable[[float, Callable[[], None]], object]) -> Round:
    """Timers of these delays; a round ends with the last of them."""
    left = 0

    def due() -> None:
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    def run() -> None:
        nonlocal left
        left = len(delays)
        for delay in delays:
            set_timer(delay, due)
        loop.run_forever()

    return run


def later_due(loop: Loop, count: int) -> Round:
    return _timers(loop, _mixed(count), loop.call_later)


def at_due(loop: Loop, count: int) -> Round:
    def set_timer(delay: float, due: Callable[[], None]) -> None:
        loop.call_at(loop.time() + delay, due)

    return _timers(loop, _mixed(count), set_timer)


def later_zero(loop: Loop, count: int) -> Round:
    return _timers(loop, [0] * count, loop.call_later)


def later_cancel(loop: Loop, count: int) -> Round:
    """Each is cancelled before the next is set, as the timeouts of requests that are answered in time are."""

    def schedule() -> None:
        for i in range(count):
            loop.call_later(60 + i % 64, nothing).cancel()

    return _then_run(loop, schedule)


def later_cancel_batch(loop: Loop, count: int) -> Round:
    """All are pending before the first is cancelled."""

    def schedule() -> None:
        for timer in [loop.call_later(60 + i % 64, nothing) for i in range(count)]:
            timer.cancel()

    return _then_run(loop, schedule)


# --- tasks and futures ---


def _until_complete(loop: Loop, main: Callable[[], Coroutine[Any, Any, object]]) -> Round:
    return lambda: loop.run_until_complete(main())


def tasks(loop: Loop, count: int) -> Round:
    async def main() -> None:
        for _ in range(count):
            await asyncio.create_task(asyncio.sleep(0))

    return _until_complete(loop, main)


def yields(loop: Loop, count: int) -> Round:
    async def main() -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    return _until_complete(loop, main)


def ping_pong(loop: Loop, count: int) -> Round:
    """Two tasks that wake each other by the result of a future."""
    waiting: list[asyncio.Future[None]] = []

    async def player(me: int) -> None:
        for _ in range(count // 2):
            await waiting[me]
            waiting[me] = loop.create_future()
            waiting[1 - me].set_result(None)

    async def main() -> None:
        waiting[:] = loop.create_future(), loop.create_future()
        waiting[0].set_result(None)
        await asyncio.gather(player(0), player(1))

    return _until_complete(loop, main)


def gather(loop: Loop, count: int) -> Round:
    async def one() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(count)))

    return _until_complete(loop, main)


CASES: Mapping[str, LoopCase] = MappingProxyType(
    {
        case.name: case
        for case in (
            LoopCase("soon-chain", "call_soon: each callback schedules the next", MANY, soon_chain),
            LoopCase("soon-batch", "call_soon: all scheduled, then run", MANY, soon_batch),
            LoopCase("soon-args", "call_soon with two arguments", MANY, soon_args),
            LoopCase("soon-context", "call_soon with context=", MANY, soon_context),
            LoopCase("threadsafe", "call_soon_threadsafe", MANY, threadsafe),
            LoopCase(
                "later-due", f"call_later, mixed deadlines within {SPREAD_MS} ms, until all were due", MANY, later_due
            ),
            LoopCase("at-due", "call_at: the same", MANY, at_due),
            LoopCase("later-zero", "call_later(0)", MANY, later_zero),
            LoopCase("cancel", "call_later, cancelled at once", MANY, later_cancel),
            LoopCase("cancel-batch", "call_later, cancelled when all are pending", MANY, later_cancel_batch),
            LoopCase("task", "create_task, and wait for it", MANY, tasks),
            LoopCase("yield", "sleep(0) in a task", MANY, yields),
            LoopCase("ping-pong", "two tasks that wake each other by a Future", MANY, ping_pong),
            LoopCase("gather", "gather of 1,000 coroutines, for each", 1000, gather),
        )
    }
)

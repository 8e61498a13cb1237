"""Happy eyeballs (RFC 8305 5): attempts with staggered starts, of which the first to succeed wins.

The order of things is that of asyncio's ``staggered_race``: the next attempt starts when the one started last has
failed, or when it has been under way for the delay, whichever comes first. This one also minds what that leaves to
chance: of two that succeed at once the earlier wins and the other is thrown away, and whatever still comes to a good
end after the race is thrown away too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

__all__ = ["race"]

T = TypeVar("T")


async def race(
    loop: asyncio.AbstractEventLoop,
    attempts: Iterable[Callable[[], Coroutine[Any, Any, T]]],
    delay: float,
    discard: Callable[[T], object],
) -> T | None:
    """The winner's result; None when every attempt raised OSError (each keeps its own account of that).

    ``delay``: seconds. ``discard`` gets each result that nobody wants. Another exception than OSError ends the race.
    """
    waiting = iter(attempts)
    tasks: list[asyncio.Task[T]] = []
    winner: asyncio.Task[T] | None = None
    try:
        while True:
            attempt = next(waiting, None)
            if attempt is not None:
                tasks.append(loop.create_task(attempt()))
            winner = await _first(loop, tasks, delay if attempt is not None else None)
            if winner is not None:
                return winner.result()
            if attempt is None:
                return None
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(partial(_throw_away, discard))


async def _first(
    loop: asyncio.AbstractEventLoop, tasks: list[asyncio.Task[T]], delay: float | None
) -> asyncio.Task[T] | None:
    """The first of the tasks that succeeded. None: it is time for the next attempt (with a delay: the last has failed,
    or the delay is over; without: all have failed)."""
    end = None if delay is None else loop.time() + delay
    while True:
        for task in tasks:
            if task.done() and not isinstance(task.exception(), OSError):
                return task
        running = [task for task in tasks if not task.done()]
        if not running or (end is not None and (tasks[-1].done() or loop.time() >= end)):
            return None
        timeout = None if end is None else end - loop.time()
        await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _throw_away(discard: Callable[[T], object], task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        discard(task.result())

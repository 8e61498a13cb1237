"""What happened in a run, event by event, and whether it happens again."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING

from libos.sched.sim import EVENT_BYTES, VISITED, unpack_events
from libos.sim.errors import NotDeterministic
from libos.sim.times import show

if TYPE_CHECKING:
    from libos.sim.world import World

__all__ = [
    "DRAWN",
    "ENDED",
    "EVENT_NAMES",
    "FAULT",
    "OUTPUT",
    "STARTED",
    "TIMER",
    "check_determinism",
    "hash_seed_is_fixed",
]

# Kinds of events, beside VISITED.
STARTED, ENDED, OUTPUT, TIMER, DRAWN, FAULT = range(1, 7)

EVENT_NAMES = MappingProxyType(
    {
        VISITED: "visited",
        STARTED: "a program started",
        ENDED: "a program ended",
        OUTPUT: "a line was written",
        TIMER: "an action of the world",
        DRAWN: "drew random numbers",
        FAULT: "a fault",
    }
)

EVENTS_MAX = 1 << 20


def hash_seed_is_fixed() -> bool:
    """Whether sets of strings have the same order in each process."""
    return not sys.flags.hash_randomization or os.environ.get("PYTHONHASHSEED", "random") != "random"


def check_determinism(make: Callable[[], World], *, events: int = EVENTS_MAX) -> str:
    """Make a world and run it to its end, twice. Their digest, if it is one.

    ``make`` gives a new world, which is run with :meth:`World.run` until its programs have ended. Raises
    NotDeterministic with the first event that differs, if it is among the first ``events``.
    """
    first, second = _recorded(make, events), _recorded(make, events)
    if first[0] == second[0]:
        return first[0]
    raise NotDeterministic(_difference(first, second))


def _recorded(make: Callable[[], World], events: int) -> tuple[str, bytes, list[str]]:
    with make() as world:
        world.sim.record(events)
        world.run()
        return world.digest, world.sim.events(), world.names


def _difference(first: tuple[str, bytes, list[str]], second: tuple[str, bytes, list[str]]) -> str:
    hint = "" if hash_seed_is_fixed() else " (PYTHONHASHSEED is not set: other processes may differ for that alone)"
    a, b = first[1], second[1]
    common = min(len(a), len(b)) // EVENT_BYTES
    if a[: common * EVENT_BYTES] == b[: common * EVENT_BYTES]:
        if len(a) == len(b):
            return f"two runs differ, after the {common} events that were recorded{hint}"
        which, longer = ("first", first) if len(a) > len(b) else ("second", second)
        event = _show(longer[1][common * EVENT_BYTES :][:EVENT_BYTES], longer[2])
        return f"two runs are the same for {common} events, then only the {which} goes on: {event}{hint}"
    at = next(i for i in range(0, len(a), EVENT_BYTES) if a[i : i + EVENT_BYTES] != b[i : i + EVENT_BYTES])
    shown = [_show(raw[at : at + EVENT_BYTES], names) for _, raw, names in (first, second)]
    return f"two runs differ, first in event {at // EVENT_BYTES}{hint}:\n  first:  {shown[0]}\n  second: {shown[1]}"


def _show(raw: bytes, names: list[str]) -> str:
    when, value, who, kind = unpack_events(raw)[0]
    return f"{show(when)} {names[who]}: {EVENT_NAMES.get(kind, kind)} ({value:016x})"

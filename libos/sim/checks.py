"""What must hold in a world at every step, what must come about, and what is to be done as soon as something holds.

A check is called after each visit of a machine and each action of the world, many times a virtual second: it should
look at a few variables. It holds if it returns anything true, or None (so that it may be made of ``assert``). It is
code of the world, not of a machine: it must not run anybody's loop, and draw nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libos.sim.errors import CheckFailed
from libos.sim.times import show

if TYPE_CHECKING:
    from libos.sim.world import World

__all__ = ["Check", "Checks"]

Check = Callable[[], Any]
FAULTS_SHOWN = 10


class Checks:
    """Those of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._always: list[tuple[str, Check]] = []
        self._pending: dict[int, tuple[str, Check]] = {}  # that must come about
        self._conditions: list[tuple[Check, Callable[[], object]]] = []
        self._count = 0
        self.idle = True  # nothing to look at

    @property
    def pending(self) -> int:
        return len(self._pending)

    def always(self, check: Check, name: str) -> None:
        self._always.append((name, check))
        self.idle = False

    def eventually(self, check: Check, name: str, deadline: int) -> None:
        number = self._count
        self._count += 1
        self._pending[number] = name, check
        self.idle = False
        self._world.call_at(deadline, lambda: self._expire(number))

    def when(self, condition: Check, then: Callable[[], object]) -> None:
        self._conditions.append((condition, then))
        self.idle = False

    def look(self) -> None:
        """After a step."""
        for name, check in self._always:
            self._demand(check, f"always {name!r} does not hold")
        for number, (_, check) in tuple(self._pending.items()):
            if check():
                del self._pending[number]
        for each in tuple(self._conditions):
            if each[0]():
                self._conditions.remove(each)
                each[1]()
        self.idle = not (self._always or self._pending or self._conditions)

    def _expire(self, number: int) -> None:
        name, check = self._pending.pop(number, ("", None))
        if check is not None and not check():
            raise self._fail(f"eventually {name!r} has not come about")

    def _demand(self, check: Check, what: str) -> None:
        try:
            result = check()
        except AssertionError as error:
            raise self._fail(f"{what}: {error}" if str(error) else what) from error
        if result is not None and not result:
            raise self._fail(what)

    def _fail(self, what: str) -> CheckFailed:
        world = self._world
        lines = [f"{what}, at {show(world.now)} s, seed {world.seed}"]
        applied = world.applied[-FAULTS_SHOWN:]
        if applied:
            lines.append(f"the last of {len(world.applied)} faults:")
            lines += [f"  {show(when)} {fault}" for when, fault in applied]
        return CheckFailed("\n".join(lines))

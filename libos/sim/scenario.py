"""What a scenario tells its world: what happens when, which faults come, what must hold.

It is the part of :class:`~libos.sim.world.World` that makes plans; the rest carries them out. The calls for faults are
those of ``inject.py``: on the world itself they mean at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from libos.rand import Rng
from libos.sim.checks import Check, Checks
from libos.sim.faults import Fault, Faults, Schedule, check_subjects, when_ns
from libos.sim.inject import Injector, Moment
from libos.sim.profiles import apply_profile
from libos.sim.times import Duration, to_ns

if TYPE_CHECKING:
    from libos.sim.machine import SimMachine
    from libos.sim.network import SimWire

__all__ = ["ACTION", "Scenario"]

ACTION = 2  # among what comes at one time: after the ends of faults, and their beginnings


class Scenario(Injector):
    """The attributes are the World's."""

    machines: dict[str, SimMachine]
    wires: dict[str, SimWire]
    fault_rng: Rng
    checks: Checks
    faults: Faults
    _spinning: bool

    @property
    def now(self) -> int:
        raise NotImplementedError

    def call_at(self, when: int, action: Callable[[], object], rank: int = ACTION) -> None:
        raise NotImplementedError

    def wires_of(self, name: str) -> list[SimWire]:
        raise NotImplementedError

    def at(self, when: Duration, action: Callable[[], object] | None = None) -> Moment:
        """Call ``action`` when virtual time has come to ``when``, before anything else happens then. What is given back
        has the calls for faults (``inject.py``), which then come at that time."""
        return self._at(max(to_ns(when), self.now), action)

    def after(self, delay: Duration, action: Callable[[], object] | None = None) -> Moment:
        """The same, from now on."""
        return self._at(self.now + to_ns(delay), action)

    def _at(self, when: int, action: Callable[[], object] | None) -> Moment:
        if action is not None:
            self.call_at(when, action)
        return Moment(self, lambda fault, delay: self.faults.plan(max(when, self._soon()) + delay, fault))

    # --- faults and checks -------------------------------------------------------------------------------------------

    def inject(self, fault: Fault, delay: int = 0) -> None:
        """It, as soon as it may come: see ``faults.py``."""
        self.faults.plan(self._soon() + delay, check_subjects(self, fault))

    def _soon(self) -> int:
        """Faults come before anything else at their time, and this one has begun."""
        return self.now + 1 if self.now or self._spinning else 0

    def _draws(self) -> tuple[Scenario, Rng]:
        return self, self.fault_rng

    def plan(self, faults: Schedule) -> None:
        """Several, each with its time."""
        for when, fault in faults:
            self.faults.plan(max(when_ns(when), self._soon()), check_subjects(self, fault))

    @property
    def applied(self) -> list[tuple[int, Fault]]:
        """The faults so far, with the times (ns) at which they began."""
        return self.faults.applied

    @property
    def schedule(self) -> list[tuple[int, Fault]]:
        """The same, and those to come."""
        return self.faults.schedule

    def profile(
        self,
        name: str,
        *,
        machines: Iterable[str] | None = None,
        kinds: Iterable[str] | None = None,
        begin: Duration = 0,
        until: Duration = "30s",
    ) -> None:
        """Wires as the profile has them from now on, and random faults from ``begin`` to ``until``, when the last one
        has ended. ``machines``: whom they concern (all that there are), ``kinds``: those allowed. See ``profiles.py``.
        """
        chosen = tuple(self.machines if machines is None else machines)
        apply_profile(self, name, chosen, None if kinds is None else set(kinds), to_ns(begin), to_ns(until))

    def always(self, check: Check, name: str | None = None) -> None:
        """``check`` must hold after every step, or ``run`` raises CheckFailed. See ``checks.py``."""
        self.checks.always(check, name or _name_of(check))

    def eventually(self, check: Check, within: Duration, name: str | None = None) -> None:
        """``check`` must come to hold within this time from now. ``run`` goes on until it does."""
        self.checks.eventually(check, name or _name_of(check), self.now + to_ns(within))

    def when(self, condition: Check, then: Callable[[], object] | None = None) -> Moment:
        """As soon as ``condition`` holds after a step, once: call ``then``, and inject what is asked for here."""
        asked: list[tuple[Fault, int]] = []

        def come() -> None:
            for fault, delay in asked:
                self.inject(fault, delay)
            if then is not None:
                then()

        self.checks.when(condition, come)
        return Moment(self, lambda fault, delay: asked.append((fault, delay)))


def _name_of(check: Check) -> str:
    return getattr(check, "__qualname__", type(check).__name__)

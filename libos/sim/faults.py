"""Faults: values that say what goes wrong, to whom, and for how long; and the part of the world that makes them true.

A :class:`Fault` prints as one line and can be kept: the world knows which ones it applied when (``world.applied``), and
another run that is given this list, or a part of it (``World(seed, faults=[...])``), does the same with it whatever its
scenario and profile would inject. For this to be exact, a fault always comes at a time of its own, before anything else
happens then: what is asked for at once, by a program or a condition, comes a nanosecond later.

What holds at a moment follows from the faults that are active and from nothing else: when one begins or ends, whatever
it concerns is worked out anew. So they may overlap in any way, and a machine that starts again finds those that last.

    partition  frames of `a` do not reach `b` and back; one-way: only there. Without `b`: everybody else
    down       cables are pulled: what is under way is lost too
    clog       nothing comes out of wires; then all of it does
    impair     wires are as bad as `value` says ("loss=30%,delay=1s"), in what it says
    pause      machines stand still, and frames wait for them; their clocks go on
    slow       each visit of a machine takes `value` ns
    skew       the time of day is wrong by `value` ns more
    drift      clocks gain `value` ns a second more
    crash      programs and memory are gone, and nobody is told; at its end they start again with their disks
    heal       ends those that are active: of the kind `value` if there is one, on `a` if there is one
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from libos.config import parse_impairment
from libos.errors import WorldError
from libos.sim.record import FAULT
from libos.sim.times import to_ns

if TYPE_CHECKING:
    from libos.sim.machine import SimMachine
    from libos.sim.network import SimWire
    from libos.sim.scenario import Scenario
    from libos.sim.world import World

__all__ = ["KINDS", "Fault", "Faults", "Schedule"]

LINKS = frozenset(("down", "clog", "impair"))  # their subjects may be wires as well as machines
KINDS = LINKS | {"partition", "one-way", "pause", "slow", "skew", "drift", "crash", "heal"}
BEGIN, END = 0, 1
FOREVER = (1 << 64) - 1

Schedule = Sequence[tuple[str | int, "Fault"]]  # times as text, or in ns as ``world.applied`` has them


class Fault(NamedTuple):
    """``duration``: ns; 0: until it is healed."""

    kind: str
    a: tuple[str, ...] = ()
    b: tuple[str, ...] = ()
    value: str | int = 0
    duration: int = 0

    def __str__(self) -> str:
        words = [self.kind, ",".join(self.a) or "*"]
        if self.kind in ("partition", "one-way"):
            words += ["->" if self.kind == "one-way" else "|", ",".join(self.b) or "*"]
        if self.value:
            words.append(str(self.value))
        if self.duration:
            words.append(f"for {self.duration / 1e9:g} s")
        return " ".join(words)


class Faults:
    """Those of a world. ``fixed``: these and no others."""

    def __init__(self, world: World, fixed: Schedule | None) -> None:
        self.world = world
        self.applied: list[tuple[int, Fault]] = []
        self.planned: dict[int, tuple[int, Fault]] = {}
        self._active: dict[int, Fault] = {}  # in the order in which they began
        self._fixed = False
        self._count = 0
        self._settle: Mapping[str, Callable[[Fault], None]] = MappingProxyType(
            {
                "partition": self._settle_partition,
                "one-way": self._settle_partition,
                "down": self._settle_down,
                "clog": self._settle_clog,
                "impair": self._settle_impairment,
                "pause": self._settle_machines,
                "slow": self._settle_machines,
                "skew": self._settle_machines,
                "drift": self._settle_machines,
                "crash": self._settle_crash,
            }
        )
        for when, fault in fixed or ():
            self.plan(when_ns(when), fault)
        self._fixed = fixed is not None

    @property
    def schedule(self) -> list[tuple[int, Fault]]:
        """Those that were applied and those that will be."""
        return self.applied + sorted(self.planned.values(), key=lambda each: each[0])

    @property
    def active(self) -> list[Fault]:
        return list(self._active.values())

    def plan(self, when: int, fault: Fault) -> None:
        """Apply it when virtual time has come to ``when``. A run with a fixed schedule takes no others."""
        if fault.kind not in KINDS:
            raise ValueError(f"no fault {fault.kind!r}: {', '.join(sorted(KINDS))}")
        if self._fixed:
            return
        number = self._count
        self._count += 1
        self.planned[number] = when, fault
        self.world.call_at(when, lambda: self._begin(number), rank=BEGIN)

    # --- its time has come -------------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        world, (_, fault) = self.world, self.planned.pop(number)
        self.applied.append((world.now, fault))
        self._note(fault, BEGIN)
        if fault.kind == "heal":
            for each in [n for n, active in self._active.items() if is_healed(active, fault)]:
                self._end(each)
            return
        self._active[number] = fault
        self._settle[fault.kind](fault)
        if fault.duration:
            world.call_at(world.now + fault.duration, lambda: self._end(number), rank=END)

    def _end(self, number: int) -> None:
        fault = self._active.pop(number, None)
        if fault is not None:  # else it was healed
            self._note(fault, END)
            self._settle[fault.kind](fault)

    def _note(self, fault: Fault, what: int) -> None:
        self.world.sim.note(FAULT, what, zlib.crc32(str(fault).encode()))

    def _of(self, kind: str, subject: str) -> Iterator[Fault]:
        return (fault for fault in self._active.values() if fault.kind == kind and subject in self._subjects(fault))

    def _subjects(self, fault: Fault) -> tuple[str, ...]:
        return fault.a or tuple(self.world.machines)

    def restore(self, machine: SimMachine) -> None:
        """It has started again: the faults that last hold for it too."""
        for fault in self.active:
            if fault.kind != "crash":
                self._settle[fault.kind](fault)

    # --- what holds now ----------------------------------------------------------------------------------------------

    def _settle_partition(self, fault: Fault) -> None:
        world = self.world
        parted = [_pairs(each, world) for each in self._active.values() if each.kind in ("partition", "one-way")]
        for source, target in _pairs(fault, world):
            world.block(source, target, any((source, target) in pairs for pairs in parted))

    def _links(self, fault: Fault) -> Iterator[tuple[str, SimWire]]:
        for name in self._subjects(fault):
            for wire in self.world.wires_of(name):
                yield name, wire

    def _settle_down(self, fault: Fault) -> None:
        for name, wire in self._links(fault):
            wire.set_down(any(self._of("down", name)))

    def _settle_clog(self, fault: Fault) -> None:
        for name, wire in self._links(fault):
            clogged = any(self._of("clog", name))
            for direction in range(2):
                wire.clog(direction, FOREVER if clogged else 0)

    def _settle_impairment(self, fault: Fault) -> None:
        for name, wire in self._links(fault):
            worse = [parse_impairment(str(each.value)) for each in self._of("impair", name)]
            for direction in range(2):
                wire.worsen(direction, worse)

    def _settle_machines(self, fault: Fault) -> None:
        for name in self._subjects(fault):
            of = {kind: [int(each.value) for each in self._of(kind, name)] for kind in ("slow", "skew", "drift")}
            self.world.machines[name].disturb(
                paused=any(self._of("pause", name)),
                cost=max(of["slow"], default=0),
                skew=sum(of["skew"]),
                drift_ppb=sum(of["drift"]),
            )

    def _settle_crash(self, fault: Fault) -> None:
        for name in self._subjects(fault):
            machine, crashed = self.world.machines[name], any(self._of("crash", name))
            if crashed and machine.up:
                machine.crash(back=bool(fault.duration))
            elif not crashed and not machine.up:
                machine.restart()
                self.restore(machine)


def when_ns(when: str | int) -> int:
    return to_ns(when) if isinstance(when, str) else when


def is_healed(fault: Fault, heal: Fault) -> bool:
    return (not heal.value or fault.kind == heal.value) and (not heal.a or bool({*heal.a} & {*fault.a, *fault.b}))


def _pairs(fault: Fault, world: World) -> set[tuple[str, str]]:
    """Who cannot send to whom."""
    others = fault.b or tuple(name for name in world.machines if name not in fault.a)
    pairs = {(a, b) for a in fault.a for b in others if a != b}
    return pairs if fault.kind == "one-way" else pairs | {(b, a) for a, b in pairs}


def names(subjects: str | SimMachine | SimWire | Iterable[str | SimMachine | SimWire] | None) -> tuple[str, ...]:
    """Of machines or wires, given as themselves, by name, or several of them; sorted, for sets have no order."""
    if subjects is None:
        return ()
    if isinstance(subjects, str):
        return (subjects,)
    if isinstance(subjects, Iterable):
        return tuple(sorted(each if isinstance(each, str) else each.name for each in subjects))
    return (subjects.name,)


def check_subjects(world: Scenario, fault: Fault) -> Fault:
    """It, if its subjects are there. Raises WorldError."""
    for name in (*fault.a, *fault.b):
        if name not in world.machines and not (fault.kind in LINKS and name in world.wires):
            raise WorldError(f"{fault}: there is no {name!r}")
    return fault

"""The calls by which a scenario asks for faults: of the world at once, of ``world.at("3s")`` then, and of
``world.when(condition)`` as soon as the condition holds. See ``faults.py`` for what each fault is.

    world.at("3s").partition("a", {"b", "c"}, lasts="2s")
    world.when(lambda: leader() == "a").crash("a", lasts="1s")
    world.at("20s").heal()

Subjects are machines (wires between two as well, where cables are meant), by name or as themselves, one or several.
``lasts``: for how long; without it until they are healed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from libos.config import parse_impairment
from libos.rand import Rng
from libos.sim.faults import Fault, check_subjects, names
from libos.sim.times import Duration, to_ns

if TYPE_CHECKING:
    from libos.sim.machine import SimMachine
    from libos.sim.network import SimWire
    from libos.sim.scenario import Scenario

    Machines = str | SimMachine | Iterable[str | SimMachine]
    Links = Machines | SimWire | Iterable[str | SimMachine | SimWire]

__all__ = ["Injector", "Moment", "swizzle"]


class Injector:
    def inject(self, fault: Fault, delay: int = 0) -> None:
        """It, ``delay`` ns after the moment that this stands for."""
        raise NotImplementedError

    def _draws(self) -> tuple[Scenario, Rng]:
        raise NotImplementedError

    def partition(self, a: Machines, b: Machines | None = None, *, lasts: Duration = 0, both: bool = True) -> None:
        """Nothing that ``a`` send reaches ``b`` (by default: anybody else), and nothing comes back if ``both``."""
        self.inject(Fault("partition" if both else "one-way", names(a), names(b), 0, to_ns(lasts)))

    def flap(self, links: Links, *, lasts: Duration = "100ms", times: int = 1, every: Duration = "1s") -> None:
        """Cables are pulled, and put back; as often as ``times`` says."""
        for i in range(times):
            self.inject(Fault("down", names(links), (), 0, to_ns(lasts)), i * to_ns(every))

    def clog(self, links: Links, *, lasts: Duration = 0) -> None:
        """Nothing comes out of these wires; afterwards all of it does."""
        self.inject(Fault("clog", names(links), (), 0, to_ns(lasts)))

    def swizzle(self, links: Links | None = None, *, lasts: Duration = "2s") -> None:
        """A random part of the wires is clogged one after the other, and let go in another order."""
        world, rng = self._draws()
        for delay, fault in swizzle(rng, names(links) or tuple(world.machines), to_ns(lasts)):
            self.inject(fault, delay)

    def impair(self, links: Links, how: str, *, lasts: Duration = 0) -> None:
        """Both ways the wires are as ``how`` says (as ``--impair`` takes it); in what it leaves out, as before."""
        parse_impairment(how)  # raises what there is to raise now
        self.inject(Fault("impair", names(links), (), how, to_ns(lasts)))

    def pause(self, machines: Machines, *, lasts: Duration = 0) -> None:
        """They stand still; frames wait for them, and time passes."""
        self.inject(Fault("pause", names(machines), (), 0, to_ns(lasts)))

    def slow(self, machines: Machines, cost: Duration, *, lasts: Duration = 0) -> None:
        """Each of their visits (an iteration of a loop, say, or the arrival of frames) takes ``cost``."""
        self.inject(Fault("slow", names(machines), (), to_ns(cost), to_ns(lasts)))

    def skew(self, machines: Machines, by: float, *, lasts: Duration = 0) -> None:
        """The time of day jumps ``by`` seconds, and back in the end."""
        self.inject(Fault("skew", names(machines), (), round(by * 1e9), to_ns(lasts)))

    def drift(self, machines: Machines, ppb: int, *, lasts: Duration = 0) -> None:
        """Their clocks gain ``ppb`` ns each second."""
        self.inject(Fault("drift", names(machines), (), ppb, to_ns(lasts)))

    def crash(self, machines: Machines, *, lasts: Duration = 0) -> None:
        """They are gone, and nobody is told. In the end they start again, with disks and the programs that ran."""
        self.inject(Fault("crash", names(machines), (), 0, to_ns(lasts)))

    def restart(self, machines: Machines) -> None:
        """Those that crashed start again."""
        self.inject(Fault("heal", names(machines), (), "crash"))

    def heal(self, machines: Links | None = None, kind: str = "") -> None:
        """The faults that are active end: all of them, those that these are part of, those of a kind."""
        self.inject(Fault("heal", names(machines), (), kind or 0))


class Moment(Injector):
    """A time that is known now or later: ``reach`` gets what is to be done then."""

    def __init__(self, world: Scenario, reach: Callable[[Fault, int], None]) -> None:
        self._world = world
        self._reach = reach

    def _draws(self) -> tuple[Scenario, Rng]:
        return self._world, self._world.fault_rng

    def inject(self, fault: Fault, delay: int = 0) -> None:
        self._reach(check_subjects(self._world, fault), delay)


def swizzle(rng: Rng, links: Iterable[str], lasts: int) -> list[tuple[int, Fault]]:
    """As FoundationDB's: the order in which wires are clogged is not the one in which they are let go."""
    chosen = [link for link in links if rng.below(2)] or list(links)[:1]
    begins, ends = shuffled(rng, range(len(chosen))), shuffled(rng, range(len(chosen)))
    step = lasts // (2 * len(chosen) + 1)
    found = []
    for link, begin, end in zip(chosen, begins, ends, strict=True):
        found.append((begin * step, Fault("clog", (link,), (), 0, lasts - (end + 1) * step - begin * step)))
    return sorted(found)


def shuffled(rng: Rng, items: Iterable[int]) -> list[int]:
    left = list(items)
    return [left.pop(rng.below(len(left))) for _ in range(len(left))]

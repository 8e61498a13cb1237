"""Profiles: how bad the wires are, and which faults come at random. All draws are made when the profile is asked for,
from the world's seed: what a run then does cannot shift them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from libos.rand import Rng
from libos.sim.faults import Fault
from libos.sim.inject import shuffled, swizzle
from libos.sim.network import as_impairment

if TYPE_CHECKING:
    from libos.sim.scenario import Scenario

__all__ = ["PROFILES", "Profile", "apply_profile"]

MS, S = 10**6, 10**9


class Profile(NamedTuple):
    """``wire``: each machine's, each way. ``every``: mean time between two faults, ns; 0: none. ``kinds``: how often
    each one comes in proportion. ``lasts``: the shortest and the longest, ns."""

    wire: str
    every: int = 0
    kinds: Mapping[str, int] = MappingProxyType({})
    lasts: tuple[int, int] = (0, 0)


_ALL = MappingProxyType(
    {
        **{"partition": 4, "one-way": 2, "down": 2, "clog": 2, "swizzle": 2, "impair": 2},
        **{"pause": 2, "crash": 4, "slow": 1, "skew": 1, "drift": 1},
    }
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "calm": Profile("delay=50us,jitter=50us,order=keep"),
        "lan": Profile(
            "delay=100us,jitter=200us,order=keep,loss=0.01%",
            20 * S,
            MappingProxyType({"down": 1, "impair": 1, "pause": 1}),
            (10 * MS, 500 * MS),
        ),
        "wan": Profile(
            "delay=20ms,jitter=10ms,distribution=pareto,loss=0.5%,burst=3,reorder=0.2%,duplicate=0.1%",
            8 * S,
            MappingProxyType({"partition": 1, "one-way": 1, "down": 1, "clog": 2, "impair": 3}),
            (100 * MS, 3 * S),
        ),
        "chaos": Profile(
            "delay=1ms,jitter=5ms,loss=1%,reorder=1%,duplicate=1%,corrupt=0.1%", 1500 * MS, _ALL, (50 * MS, 4 * S)
        ),
    }
)

_WORSE = ("loss=30%", "loss=20%,burst=10", "delay=200ms,jitter=200ms", "duplicate=30%,reorder=30%", "rate=256kbit")


def apply_profile(
    world: Scenario, name: str, machines: tuple[str, ...], kinds: set[str] | None, begin: int, until: int
) -> None:
    """See :meth:`World.profile <libos.sim.world.World.profile>`."""
    if name not in PROFILES:
        raise ValueError(f"no profile {name!r}: {', '.join(PROFILES)}")
    if not machines:
        raise ValueError("a profile is for machines that are there")
    profile = PROFILES[name]
    how = as_impairment(profile.wire)
    for machine in machines:
        for wire in world.wires_of(machine):
            wire.impair(0, how)
            wire.impair(1, how)
    weights = [(kind, weight) for kind, weight in profile.kinds.items() if kinds is None or kind in kinds]
    rng = world.fault_rng.fork()
    now = begin
    while profile.every and weights:
        now += 1 + rng.below(2 * profile.every)
        shortest, longest = profile.lasts
        lasts = min(shortest + rng.below(longest - shortest + 1), until - now)
        if lasts <= 0:
            return
        world.plan([(now + delay, fault) for delay, fault in _draw(rng, _choose(rng, weights), machines, lasts)])


def _choose(rng: Rng, weights: list[tuple[str, int]]) -> str:
    at = rng.below(sum(weight for _, weight in weights))
    for kind, weight in weights:
        at -= weight
        if at < 0:
            return kind
    raise AssertionError


def _draw(rng: Rng, kind: str, machines: tuple[str, ...], lasts: int) -> list[tuple[int, Fault]]:
    """Of this kind, with the delay of each."""
    if kind == "swizzle":
        return swizzle(rng, machines, lasts)
    subject = (machines[rng.below(len(machines))],)
    if kind in ("partition", "one-way"):
        order = [machines[i] for i in shuffled(rng, range(len(machines)))]
        cut = 1 + rng.below(max(len(order) // 2, 1))
        return [(0, Fault(kind, tuple(sorted(order[:cut])), tuple(sorted(order[cut:])), 0, lasts))]
    value: str | int = 0
    if kind == "impair":
        value = _WORSE[rng.below(len(_WORSE))]
    elif kind == "slow":
        value = MS * (1 + rng.below(20))
    elif kind == "skew":
        value = rng.below(20 * S) - 10 * S
    elif kind == "drift":
        value = rng.below(20 * MS) - 10 * MS
    return [(0, Fault(kind, subject, (), value, lasts))]

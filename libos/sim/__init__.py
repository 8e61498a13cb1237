"""Many machines in one process, one seed, real TCP between them.

    from libos.sim import World

    with World(seed=1) as world:
        world.machine("server", serve)
        world.machine("client", fetch, args=("server",))
        world.run(until="60s")

A :class:`World` runs unmodified asyncio programs, each on its own machine with its own TCP/IP stack; the wires between
them and the clock are simulated. Time is virtual: it jumps to whatever happens next. The same seed does the same again.

The names are loaded when they are first used: pytest imports this package (``plugin.py``) whoever's tests it runs.
Layer 4, as the rest of ``libos/``; nothing imports it but its users.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libos.sim.errors import CheckFailed, Deadlock, LimitReached, NotDeterministic, ProgramFailed
    from libos.sim.faults import Fault
    from libos.sim.machine import SimMachine
    from libos.sim.network import Network
    from libos.sim.output import Line
    from libos.sim.program import Module, Program
    from libos.sim.record import check_determinism
    from libos.sim.world import World

__all__ = [
    "CheckFailed",
    "Deadlock",
    "Fault",
    "LimitReached",
    "Line",
    "Module",
    "Network",
    "NotDeterministic",
    "Program",
    "ProgramFailed",
    "SimMachine",
    "World",
    "check_determinism",
]

_HOMES = MappingProxyType(
    {
        **dict.fromkeys(("CheckFailed", "Deadlock", "LimitReached", "NotDeterministic", "ProgramFailed"), "errors"),
        "Fault": "faults",
        "Line": "output",
        "Module": "program",
        "Network": "network",
        "Program": "program",
        "SimMachine": "machine",
        "World": "world",
        "check_determinism": "record",
    }
)


def __getattr__(name: str) -> object:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'libos.sim' has no attribute {name!r}")
    return getattr(importlib.import_module(f"libos.sim.{_HOMES[name]}"), name)

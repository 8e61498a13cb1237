"""libos: a library operating system. One process is one machine.

The names that a program needs, loaded when they are first used (``import libos`` alone costs nothing):

- ``run(main, *, net="host", debug=None, **settings)``, ``new_event_loop(net)``, ``Loop``, ``EventLoopPolicy``,
  ``install()``: an asyncio loop on io_uring, or asyncio on a TCP/IP of its own. uvloop's names, plus ``net``.
- ``Machine``, ``MachineConfig``, ``configure``: a machine to hold in one's hands.
- ``LibosError``, ``ConfigError``, ``HostError``, ``WorldError``, ``ForkError``: what goes wrong, by whose fault it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libos.config import MachineConfig, configure
    from libos.errors import ConfigError, ForkError, HostError, LibosError, WorldError
    from libos.machine import Machine
    from libos.machine import MachineLoop as Loop
    from libos.policy import EventLoopPolicy, install, new_event_loop, run

__all__ = [
    "ConfigError",
    "EventLoopPolicy",
    "ForkError",
    "HostError",
    "LibosError",
    "Loop",
    "Machine",
    "MachineConfig",
    "WorldError",
    "configure",
    "install",
    "new_event_loop",
    "run",
]


def __getattr__(name: str) -> object:
    import importlib

    match name:
        case "EventLoopPolicy" | "install" | "new_event_loop" | "run":
            home = "policy"
        case "MachineConfig" | "configure":
            home = "config"
        case "Machine":
            home = "machine"
        case "Loop":
            home, name = "machine", "MachineLoop"
        case "ConfigError" | "ForkError" | "HostError" | "LibosError" | "WorldError":
            home = "errors"
        case "__version__":
            import importlib.metadata

            return importlib.metadata.version("libos")
        case _:
            raise AttributeError(f"module 'libos' has no attribute {name!r}")
    return getattr(importlib.import_module(f"libos.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

"""libos as an event loop policy: uvloop's names, with the world as an argument.

``net`` is ``"host"`` (the kernel's sockets, on io_uring or epoll), another world by name, or a
:class:`~libos.machine.Machine` that exists already. A machine that was made here for a loop goes when that loop is
closed.

asyncio deprecates policies in 3.14 and removes them in 3.16; :func:`run` and :func:`new_event_loop` do without them,
and ``asyncio.Runner(loop_factory=libos.new_event_loop)`` is the way that stays.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Coroutine
from typing import Any, TypeVar

from libos.config import configure
from libos.machine import Machine, MachineLoop

__all__ = ["EventLoopPolicy", "install", "new_event_loop", "run"]

T = TypeVar("T")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    _Policy: Any = asyncio.DefaultEventLoopPolicy if sys.version_info < (3, 16) else object


def new_event_loop(net: str | Machine = "host", **settings: object) -> MachineLoop:
    """A new loop in the world ``net``; ``settings`` are keys of ``machine.toml``. Raises ConfigError, HostError."""
    if isinstance(net, Machine):
        if settings:
            raise TypeError("a machine that exists takes no settings")
        return net.new_event_loop()
    machine = Machine(configure(net=net, **settings))
    try:
        return MachineLoop(machine, own_machine=True)
    except BaseException:
        machine.close()
        raise


def run(
    main: Coroutine[Any, Any, T], *, net: str | Machine = "host", debug: bool | None = None, **settings: object
) -> T:
    """``asyncio.run(main)`` in the world ``net``."""
    try:
        with asyncio.Runner(loop_factory=lambda: new_event_loop(net, **settings), debug=debug) as runner:
            return runner.run(main)
    finally:
        if asyncio.iscoroutine(main):
            main.close()  # if the loop could not be made: no "never awaited" beside the real error


class EventLoopPolicy(_Policy):  # type: ignore[misc]
    """Makes libos loops wherever asyncio asks for one."""

    def __init__(self, net: str | Machine = "host", **settings: object) -> None:
        super().__init__()
        self._net = net
        self._settings = settings

    def new_event_loop(self) -> MachineLoop:
        return new_event_loop(self._net, **self._settings)


def install(net: str | Machine = "host", **settings: object) -> None:
    """Make :class:`EventLoopPolicy` the process's policy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(EventLoopPolicy(net, **settings))

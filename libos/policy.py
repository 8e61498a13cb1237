"""libos by uvloop's names, with the world as an argument.

``net`` is ``"host"`` (the kernel's sockets, on io_uring or epoll), another world by name, or a
:class:`~libos.machine.Machine` that exists already. A machine that was made here for a loop goes when that loop is
closed. What uvloop's functions take, these take too; ``run`` is as strict as uvloop's about whose loop it runs on.

asyncio deprecates policies in 3.14 and removes them in 3.16; :func:`run` and :func:`new_event_loop` do without them,
and ``asyncio.Runner(loop_factory=libos.new_event_loop)`` is the way that stays.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from libos.config import configure
from libos.machine import Machine, MachineLoop

__all__ = ["BasePolicy", "EventLoopPolicy", "install", "new_event_loop", "run", "run_on"]

T = TypeVar("T")

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    BasePolicy: Any = asyncio.DefaultEventLoopPolicy if sys.version_info < (3, 16) else object


def new_event_loop(net: str | Machine = "host", **settings: object) -> MachineLoop:
    """A new loop in the world ``net``; ``settings`` are keys of ``machine.toml``. Raises ConfigError, HostError."""
    if isinstance(net, Machine):
        if settings:
            raise TypeError("a machine that exists takes no settings")
        return net.new_event_loop()
    return MachineLoop(Machine(configure(net=net, **settings)), own_machine=True)


def run(
    main: Awaitable[T],
    *,
    net: str | Machine = "host",
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    debug: bool | None = None,
    **settings: object,
) -> T:
    """``asyncio.run(main)`` in the world ``net``, or on the loop that ``loop_factory`` makes.

    Raises TypeError when that is not a loop of libos.
    """

    def factory() -> asyncio.AbstractEventLoop:
        if loop_factory is None:
            return new_event_loop(net, **settings)
        if net != "host" or settings:
            raise TypeError("loop_factory makes the loop: neither net nor settings go with it")
        return loop_factory()

    return run_on(factory, main, debug=debug)


def run_on(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    main: Awaitable[T],
    *,
    debug: bool | None = None,
    loop_class: type[asyncio.AbstractEventLoop] = MachineLoop,
) -> T:
    """Run ``main``, and nothing is left of the loop afterwards, which must be a ``loop_class``."""
    try:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("run() cannot be called from a running event loop")
        with asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
            if not isinstance(runner.get_loop(), loop_class):
                raise TypeError("run() was given a loop_factory that makes no loop of libos")
            result: T = runner.run(main if asyncio.iscoroutine(main) else _awaited(main))
            return result
    finally:
        if asyncio.iscoroutine(main):
            main.close()  # if it did not come to that: no "never awaited" beside the real error


async def _awaited(main: Awaitable[T]) -> T:
    return await main


class EventLoopPolicy(BasePolicy):  # type: ignore[misc]
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

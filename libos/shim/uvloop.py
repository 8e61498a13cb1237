"""A module with uvloop's public names whose loops are a machine's.

Programs that call ``uvloop.install()`` or ``uvloop.run()``, and servers that take uvloop whenever it can be imported
(uvicorn), get libos's loop under ``libos run``, which is what they want: the fastest loop that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import TypeVar

from libos.policy import BasePolicy, run_on

__all__ = ["installed", "make_module"]

T = TypeVar("T")

VERSION = "0.22.0"  # the uvloop whose interface this is


def make_module(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop], loop_class: type[asyncio.AbstractEventLoop]
) -> ModuleType:
    """A module ``uvloop``. ``new_event_loop`` makes the machine's loops, which are instances of ``loop_class``."""

    class EventLoopPolicy(BasePolicy):  # type: ignore[misc]
        def _loop_factory(self) -> asyncio.AbstractEventLoop:
            return new_event_loop()

    def install() -> None:
        asyncio.set_event_loop_policy(EventLoopPolicy())

    def run(
        main: Awaitable[T],
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        debug: bool | None = None,
    ) -> T:
        return run_on(loop_factory or new_event_loop, main, debug=debug, loop_class=loop_class)

    module = ModuleType("uvloop", "libos's event loop, under uvloop's name.")
    module.__dict__.update(
        EventLoopPolicy=EventLoopPolicy,
        Loop=loop_class,
        __all__=("EventLoopPolicy", "Loop", "install", "new_event_loop", "run"),
        __version__=VERSION,
        install=install,
        new_event_loop=new_event_loop,
        run=run,
    )
    return module


@contextlib.contextmanager
def installed(
    new_event_loop: Callable[[], asyncio.AbstractEventLoop], loop_class: type[asyncio.AbstractEventLoop]
) -> Iterator[ModuleType]:
    """``import uvloop`` finds the module of :func:`make_module` meanwhile."""
    before = sys.modules.get("uvloop")
    module = sys.modules["uvloop"] = make_module(new_event_loop, loop_class)
    try:
        yield module
    finally:
        if before is None:
            del sys.modules["uvloop"]
        else:
            sys.modules["uvloop"] = before

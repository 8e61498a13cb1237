"""What one process has once and many machines want: put in place while a world runs, and put back afterwards.

asyncio's policy and loop classes, uvloop    a loop of the program that asks
time, randomness, sockets, threads …         the machine's, of the program that asks (owned.py)
sys.stdout, sys.stderr                       lines with the machine's name and the time (output.py)
logging                                      set up as the world's programs did (logs.py)
SIGINT                                       ends the run between two steps; the second one at once
the garbage collector                        at steps that are always the same, not when it likes
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from libos.errors import WorldError
from libos.launch import attributes_replaced, policy_installed
from libos.policy import EventLoopPolicy
from libos.shim import uvloop as uvloop_shim
from libos.sim.loop import SimLoop
from libos.sim.output import Output
from libos.sim.owned import owned

if TYPE_CHECKING:
    from libos.sim.program import Program
    from libos.sim.world import World

__all__ = ["Collector", "shared"]


def _running(world: World) -> Program:
    if world.running is None:
        raise WorldError("outside of its machines a simulated world has no loops")
    return world.running


@contextmanager
def shared(world: World) -> Iterator[None]:
    class SelectorEventLoop(SimLoop):
        def __init__(self, selector: object = None) -> None:
            super().__init__(_running(world))

    class Policy(EventLoopPolicy):
        def new_event_loop(self) -> SimLoop:
            return SelectorEventLoop()

    names: dict[str, type] = {"SelectorEventLoop": SelectorEventLoop, "DefaultEventLoopPolicy": Policy}
    if sys.version_info >= (3, 13):
        names["EventLoop"] = SelectorEventLoop
    with ExitStack() as stack:
        stack.enter_context(policy_installed(Policy()))
        stack.enter_context(attributes_replaced(asyncio, names))
        stack.enter_context(uvloop_shim.installed(SelectorEventLoop, SimLoop))
        stack.enter_context(_output(world))
        stack.enter_context(world.log_setup.installed())
        stack.enter_context(_interrupts(world))
        stack.enter_context(_collector_off())
        stack.callback(sys.set_asyncgen_hooks, *sys.get_asyncgen_hooks())
        stack.enter_context(owned(world.ownership))
        yield


@contextmanager
def _output(world: World) -> Iterator[None]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(world, "stdout", before[0]), Output(world, "stderr", before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def _interrupts(world: World) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if world.interrupted:
            raise KeyboardInterrupt
        world.interrupted = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Collector:
    """Collects after so many steps: what finalizers do (close a transport, say) happens at one time in all runs."""

    YOUNG, OLD, ALL = 1 << 10, 1 << 14, 1 << 18

    def __init__(self) -> None:
        self._steps = 0

    def step(self, steps: int) -> None:
        before, self._steps = self._steps, self._steps + steps
        for every, generation in ((self.ALL, 2), (self.OLD, 1), (self.YOUNG, 0)):
            if before // every != self._steps // every:
                gc.collect(generation)
                return

"""What a program of a simulated world sees itself as: the Owner of what would be its process's.

Its clocks are the machine's, its randomness, number and environment its own. What other threads would do is done by
timers of its loop; without a loop, when the program waits for it or ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from libos.net.network import StackNetwork

if TYPE_CHECKING:
    from libos.sim.loop import SimLoop
    from libos.sim.program import Program

__all__ = ["Process"]


class Process:
    """Of ``program``; ``env`` is added to the environment that each finds."""

    def __init__(self, program: Program, env: Mapping[str, str]) -> None:
        machine = program.machine
        self.name = machine.name
        self.pid = next(machine.pids)
        self.rng = machine.rng.fork()
        self.environ = {
            "HOME": "/root",
            "HOSTNAME": machine.name,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            **env,
        }
        self.network: StackNetwork | None = machine.network
        self.now_ns = machine.reactor.now
        self.sleep = program.sleep
        self._clock = machine.reactor.clock
        self._program = program
        self._calls: dict[int, tuple[int, Callable[[], None]]] = {}  # still to be made: when, what
        self._numbers = itertools.count()

    def epoch_ns(self) -> int:
        return self.now_ns() + self._clock.epoch_offset

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> None:
        number = next(self._numbers)
        self._calls[number] = self.now_ns() + delay_ns, callback
        if self._program.loop is not None:
            self._program.loop.call_later(delay_ns / 1e9, self._call, number)

    def attach(self, loop: SimLoop) -> None:
        """It runs from now on: what the one before had still to do, it does."""
        for number, (when, _) in self._calls.items():
            loop.call_at(when / 1e9, self._call, number)

    def _call(self, number: int) -> None:
        _, callback = self._calls.pop(number, (0, None))
        if callback is not None:
            callback()

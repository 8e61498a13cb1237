"""Virtual time: reactors of many machines in one process, on one clock that jumps. The cffi face of ``sim.c``.

A :class:`Sim` says whose turn it is; a :class:`SimReactor` is a Reactor that never waits and that no descriptor of the
host can wake. Virtual time counts from 0, in ns; a reactor's own clock starts elsewhere and may drift.

Ownership: whoever makes the reactors closes them, and the Sim after them.
"""

from __future__ import annotations

from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.sched.reactor import NEVER, Reactor, address

__all__ = ["BUSY", "EVENT_BYTES", "IDLE", "UNTIL", "VISITED", "Sim", "SimClock", "SimReactor", "unpack_events"]

UNTIL: int = lib.SIM_UNTIL
IDLE: int = lib.SIM_IDLE
BUSY: int = lib.SIM_BUSY
VISITED: int = lib.SIM_VISITED
EVENT_BYTES: int = ffi.sizeof("struct sim_event")


class SimClock:
    """One machine's clock. ``epoch_offset`` makes a time of day of it, and may be set: to be wrong about the day."""

    offset = 0  # C that reads the host's clock has no business here

    def __init__(self, reactor: Any, epoch_offset: int) -> None:
        self._reactor = reactor
        self._last = 0
        self.epoch_offset = epoch_offset

    def now(self) -> int:
        if self._reactor is not None:
            self._last = lib.reactor_now(self._reactor)
        return self._last

    def stop(self) -> None:
        """Its reactor goes; the clock stands still."""
        self.now()
        self._reactor = None


class SimReactor(Reactor):
    """A reactor of ``sim``, which names it ``id``. Its clock shows ``shown`` now and gains ``drift_ppb`` ns a second;
    ``epoch`` is the time of day now (ns since 1970)."""

    clock: SimClock

    def __init__(self, sim: Sim, id: int, *, shown: int = 0, drift_ppb: int = 0, epoch: int = 0) -> None:
        out = ffi.new("struct reactor **")
        check(lib.reactor_new_sim(out, sim.handle, id, shown, drift_ppb), "a clock that drifts so much")
        self.handle: Any = out[0]
        self.clock = SimClock(self.handle, epoch - shown)
        self.now = self.clock.now
        self.fell_back = None
        self.kind = "sim"
        self._hosts = None
        self._bind(address(self.handle), address(lib.sim_turn_ops()))

    def want(self, when: int = 0) -> None:
        """Its loops must run when its clock shows ``when`` at the latest; 0: at once."""
        lib.sim_want(self.handle, when)

    def set_drift(self, drift_ppb: int) -> None:
        lib.sim_set_drift(self.handle, drift_ppb)

    def pause(self, paused: bool = True) -> None:
        """It is not visited until it goes on; its clock runs."""
        lib.sim_pause(self.handle, paused)

    def set_cost(self, ns: int) -> None:
        """Each visit takes so much virtual time from now on."""
        lib.sim_set_cost(self.handle, ns)

    def close(self) -> None:
        if self.handle is not None:
            self.clock.stop()
        super().close()


class Sim:
    """Who runs when is drawn from ``seed`` (64 bits)."""

    def __init__(self, seed: int) -> None:
        out = ffi.new("struct sim **")
        check(lib.sim_new(out, seed))
        self.handle: Any = out[0]

    def next(self, until: int = NEVER) -> int:
        """Let time pass until the loops of a reactor are to run: its id. Or UNTIL, IDLE, BUSY; see ``api.h``."""
        return int(lib.sim_next(self.handle, until))

    def now(self) -> int:
        return int(lib.sim_now(self.handle))

    def note(self, kind: int, who: int, value: int) -> None:
        """Something that happened, for the digest and the record. ``kind``: 1 to 255."""
        lib.sim_note(self.handle, kind, who, value & (1 << 64) - 1)

    def record(self, most: int) -> None:
        """Keep the events from now on, ``most`` at most."""
        check(lib.sim_record(self.handle, most), "a record")

    def events(self) -> bytes:
        """What was recorded: EVENT_BYTES each."""
        out = ffi.new("struct sim_event **")
        count = lib.sim_events(self.handle, out)
        return bytes(ffi.buffer(out[0], count * EVENT_BYTES)) if count else b""

    def counters(self) -> tuple[int, int, int]:
        """Visits of reactors, those in which Python took part, the digest."""
        out = ffi.new("uint64_t[]", lib.SIM_COUNTERS)
        lib.sim_counters(self.handle, out)
        return out[0], out[1], out[2]

    def close(self) -> None:
        if self.handle is not None:
            lib.sim_free(self.handle)
            self.handle = None


def unpack_events(raw: bytes) -> list[tuple[int, int, int, int]]:
    """Of :meth:`Sim.events`: when, which value, who, what kind."""
    events = ffi.from_buffer("struct sim_event[]", raw)
    return [(each.at, each.value, each.who, each.kind) for each in events]

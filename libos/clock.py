"""Where a machine gets its time: integer nanoseconds, monotonic, from an object it was given.

The real clock starts at a random offset, so that a mix-up with wall time or with another machine's time shows at
once. Nothing else in libos reads a clock (``tests/test_layers.py`` looks).
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "MonotonicClock"]


class Clock(Protocol):
    """A source of time."""

    def now(self) -> int:
        """Nanoseconds, never less than the answer before."""
        ...

    @property
    def offset(self) -> int:
        """What this clock adds to the host's ``CLOCK_MONOTONIC``, in ns, for C that reads that itself."""
        ...

    @property
    def epoch_offset(self) -> int:
        """What makes a time of this clock a time of day (ns since 1970), for stamps that people read (pcap)."""
        ...


class MonotonicClock:
    """The host's ``CLOCK_MONOTONIC`` (clock_gettime(2)) plus an offset in ns."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def epoch_offset(self) -> int:
        return time.time_ns() - self.now()

    def now(self) -> int:
        return time.monotonic_ns() + self._offset


class ManualClock:
    """A clock that moves when told to: tests, and later the simulation."""

    offset = 0
    epoch_offset = 0

    def __init__(self, start: int = 1_000_000_000) -> None:
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, ns: int) -> int:
        """Move ``ns`` on (never back) and return the new time."""
        if ns < 0:
            raise ValueError("a clock does not go back")
        self._now += ns
        return self._now

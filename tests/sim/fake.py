"""Machines that are nothing but what a program sees of them: for tests of what it sees."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libos.rand import Rng
from libos.sim.owned import Owner, Ownership, owned

START = 1_700_000_000_000_000_000  # 14 November 2023, 22:13:20 UTC


class FakeOwner:
    """Its time moves when :meth:`advance` moves it."""

    network = None
    sleep: Callable[[int], None] | None = None

    def __init__(self, name: str = "alpha", pid: int = 100, *, seed: int = 1) -> None:
        self.name = name
        self.pid = pid
        self.rng = Rng(seed)
        self.environ = {"HOST": name}
        self.now = pid * 1_000_000_000
        self._timers: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now_ns(self) -> int:
        return self.now

    def epoch_ns(self) -> int:
        return START + self.now

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> None:
        assert delay_ns > 0
        heapq.heappush(self._timers, (self.now + delay_ns, next(self._numbers), callback))

    def advance(self, ns: int = 10_000_000) -> int:
        """What is due is called, in order. Returns how many."""
        end, called = self.now + ns, 0
        while self._timers and self._timers[0][0] <= end:
            self.now, _, callback = heapq.heappop(self._timers)
            callback()
            called += 1
        self.now = end
        return called


class FakeWorld:
    """Two machines, of which one runs, or none."""

    def __init__(self, seed: int = 1) -> None:
        self.alpha = FakeOwner("alpha", 100, seed=seed)
        self.beta = FakeOwner("beta", 200, seed=seed + 1)
        self.current: Owner | None = None
        self.ownership = Ownership(lambda: self.current)

    @contextmanager
    def __call__(self, owner: Owner | None) -> Iterator[None]:
        """``owner`` runs meanwhile."""
        before, self.current = self.current, owner
        try:
            yield
        finally:
            self.current = before


@contextmanager
def world(seed: int = 1) -> Iterator[FakeWorld]:
    fake = FakeWorld(seed)
    with owned(fake.ownership):
        yield fake

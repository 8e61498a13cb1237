"""Stacks and an asyncio loop on one virtual clock: time passes only when everybody waits, and then at once.

``VirtualLoop`` is asyncio's own selector loop; its selector turns the stacks, and when nothing is left to do moves the
clock to the next timer, of the loop or of a stack. Nothing sleeps, and every time in a test is exact.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from libos.clock import ManualClock
from libos.net.stack import Link, Stack
from libos.rand import Rng

NEVER = 2**64 - 1


class VirtualReactor:
    """What a StackNetwork needs of a reactor. ``stacks`` are turned by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.now = self.clock.now
        self.sinks: dict[int, Callable[[int], object]] = {}
        self.stacks: dict[int, Stack] = {}
        self.links: list[Link] = []

    def new_stack(self, **options: Any) -> Stack:
        stack = Stack(Rng(len(self.stacks)), self.now(), **options)
        self.stacks[len(self.stacks) + 1] = stack
        return stack

    def attach(self, poller: Any) -> int:
        return next(number for number, stack in self.stacks.items() if stack.poller == poller) << 40

    def detach(self, poller: Any) -> None:
        pass

    def turn(self) -> tuple[bool, int]:
        """Whether something happened, and when something will."""
        moved, before = 0, -1
        while moved != before:  # who ran first may have been sent something since, by who ran after it
            before = moved
            deadline = min((stack.run(self.now()) for stack in self.stacks.values()), default=NEVER)
            moved = sum(sum(link.stats().values()) for link in self.links)
        happened = False
        for number, stack in self.stacks.items():
            for id, mask in stack.events():
                sink = self.sinks.get(number << 40 | id)
                if sink is not None:
                    happened = True
                    sink(mask)
        return happened, deadline


class _Selector(selectors.SelectSelector):
    def __init__(self, reactor: VirtualReactor) -> None:
        super().__init__()
        self._reactor = reactor

    def select(self, timeout: float | None = None) -> list[Any]:
        clock = self._reactor.clock
        end = NEVER if timeout is None else clock.now() + max(0, -int(-timeout * 1e9 // 1))
        while True:
            happened, deadline = self._reactor.turn()
            if happened or end <= clock.now():
                return []
            at = min(deadline, end)
            assert at != NEVER, "everybody waits, and for nothing"
            clock.advance(at - clock.now())


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, reactor: VirtualReactor) -> None:
        self._reactor = reactor
        self._start = reactor.now()
        super().__init__(_Selector(reactor))

    def time(self) -> float:
        return self._reactor.now() * 1e-9

    def elapsed(self) -> float:
        """Seconds since the start, to the microsecond."""
        return round((self._reactor.now() - self._start) * 1e-9, 6)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return self.run_until_complete(main)


def pair_of_stacks(reactor: VirtualReactor, addresses: tuple[tuple[str, ...], tuple[str, ...]]) -> list[Stack]:
    """Two stacks on one wire."""
    stacks = []
    for link, own in zip(Link.pair(Rng(9)), addresses, strict=True):
        stack = reactor.new_stack()
        index = stack.add_link(link)
        reactor.links.append(link)
        for interface in own:
            stack.add_address(index, interface)
        stacks.append(stack)
    return stacks

"""What libos's loop does with its reactor. What every loop owes to programs is tested in tests/loop."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from libos.clock import MonotonicClock
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor


def test_time_is_the_reactors(reactor: Reactor) -> None:
    loop = Loop(reactor)
    before = reactor.now()
    assert before <= loop.time() * 1e9 + 1e3
    assert abs(loop.time() - before * 1e-9) < 1
    loop.close()


def test_closing_leaves_a_reactor_that_is_not_its_own(reactor: Reactor) -> None:
    loop = Loop(reactor)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert reactor.sinks == {}
    reactor.turn(0)
    owner = Loop(Reactor("epoll", clock=MonotonicClock()), own_reactor=True)
    owner.close()
    assert owner.reactor.handle is None


def test_a_signal_just_before_the_wait_is_not_lost(reactor: Reactor) -> None:
    """While it runs, signals write to its self-pipe, whether or not anyone has asked asyncio for them."""
    loop = Loop(reactor)
    found: list[int] = []

    async def main() -> None:
        found.append(signal.set_wakeup_fd(-1))
        signal.set_wakeup_fd(found[0])

    assert signal.set_wakeup_fd(-1) == -1
    loop.run_until_complete(main())
    assert found[0] >= 0
    assert signal.set_wakeup_fd(-1) == -1
    loop.close()


def test_events_of_sockets_go_to_their_sinks_in_the_same_iteration(reactor: Reactor, new_probe: Any) -> None:
    loop = Loop(reactor)
    probe = new_probe()
    seen: list[object] = []

    def sink(mask: int) -> None:
        seen.append(("sink", mask, asyncio.get_running_loop() is loop))
        loop.call_soon(seen.append, "callback")
        loop.call_soon(loop.stop)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert seen == [("sink", 1, True), "callback"]
    loop.close()


def test_a_descriptor_replaced_within_a_turn_is_not_mistaken(reactor: Reactor, new_probe: Any) -> None:
    """A socket's sink closes a descriptor that was ready in the same turn, and opens another with its number."""
    loop = Loop(reactor)
    probe = new_probe()
    seen: list[str] = []
    first = os.eventfd(1)

    def sink(mask: int) -> None:
        loop.remove_reader(first)
        os.close(first)
        second = os.eventfd(0)
        assert second == first
        loop.add_reader(second, seen.append, "second")
        loop.call_soon(loop.stop)

    loop.add_reader(first, seen.append, "first")
    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert seen == []
    os.eventfd_write(first, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["second"]
    loop.remove_reader(first)
    os.close(first)
    loop.close()


def test_a_sink_may_set_timers_while_the_loop_stays_in_the_reactor(reactor: Reactor, new_probe: Any) -> None:
    loop = Loop(reactor)
    probe = new_probe()
    late = loop.call_later(1000, print)

    def sink(mask: int) -> None:
        for _ in range(1000):
            loop.call_later(2000, print).cancel()
        loop.call_later(0.001, loop.stop)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert not late.cancelled()
    late.cancel()
    loop.close()


def test_cancelled_timers_do_not_pile_up(reactor: Reactor, new_probe: Any) -> None:
    """As when each piece of data sets the idle timeout anew: the first timer stays the first."""
    loop = Loop(reactor)
    probe = new_probe()
    late = loop.call_later(1000, print)
    calls = 0

    def sink(mask: int) -> None:
        nonlocal calls
        calls += 1
        loop.call_later(2000, print).cancel()
        assert len(loop._scheduled) < 500  # type: ignore[attr-defined]
        if calls == 3000:
            loop.stop()
        else:
            reactor.sinks[probe.base | calls] = sink
            probe.raise_events(1)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert calls == 3000
    late.cancel()
    loop.close()

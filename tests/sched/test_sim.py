"""Virtual time: whose turn it is, when, and by which clock."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libos.sched.sim import IDLE, UNTIL, VISITED, Sim, SimReactor, unpack_events

SECOND = 10**9


@pytest.fixture
def sim() -> Iterator[Sim]:
    sim = Sim(1)
    yield sim
    sim.close()


def turns(sim: Sim, reactors: list[SimReactor], until: int) -> list[tuple[int, int]]:
    """When whose turn it was, up to ``until``. Nobody wants another."""
    found = []
    while (who := sim.next(until)) >= 0:
        found.append((sim.now(), who))
        reactors[who].turn(0)
    assert who == UNTIL
    return found


def test_time_goes_from_deadline_to_deadline(sim: Sim) -> None:
    reactors = [SimReactor(sim, id) for id in range(3)]
    for reactor, when in zip(reactors, (3, 1, 2), strict=True):
        reactor.want(when * SECOND)
    assert turns(sim, reactors, 10 * SECOND) == [(SECOND, 1), (2 * SECOND, 2), (3 * SECOND, 0)]
    assert sim.now() == 10 * SECOND
    for reactor in reactors:
        reactor.close()


def test_what_is_due_at_the_end_has_not_happened(sim: Sim) -> None:
    reactor = SimReactor(sim, 0)
    reactor.want(SECOND)
    assert turns(sim, [reactor], SECOND) == []
    assert sim.now() == SECOND
    assert turns(sim, [reactor], SECOND + 1) == [(SECOND, 0)]
    reactor.close()


def test_idle_is_when_nothing_is_left(sim: Sim) -> None:
    assert sim.next() == IDLE
    reactor = SimReactor(sim, 0)
    assert sim.next() == IDLE
    reactor.want()
    assert sim.next() == 0
    assert sim.next() == IDLE
    assert sim.now() == 0
    reactor.close()


def test_the_earliest_wish_counts(sim: Sim) -> None:
    reactor = SimReactor(sim, 0)
    assert turns(sim, [reactor], 1) == []
    for when in (5, 3, 4):
        reactor.want(when)
    assert turns(sim, [reactor], 10) == [(3, 0)]
    reactor.close()


def test_a_wish_from_its_own_turn_counts(sim: Sim) -> None:
    reactor = SimReactor(sim, 0)
    reactor.want()
    assert sim.next(100) == 0
    reactor.want(40)
    reactor.want(50)
    assert turns(sim, [reactor], 100) == [(40, 0)]
    reactor.close()


def test_who_goes_first_is_drawn() -> None:
    def order(seed: int) -> tuple[int, ...]:
        sim = Sim(seed)
        reactors = [SimReactor(sim, id) for id in range(5)]
        for reactor in reactors:
            reactor.want(SECOND)
        found = tuple(who for _, who in turns(sim, reactors, 2 * SECOND))
        for reactor in reactors:
            reactor.close()
        sim.close()
        return found

    orders = {order(seed) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(each) == list(range(5)) for each in orders)
    assert order(3) == order(3)


@given(
    shown=st.integers(0, 1 << 51),
    drift=st.integers(-400_000_000, 900_000_000),
    waits=st.lists(st.integers(1, 1 << 45), min_size=1, max_size=5),
)
def test_a_deadline_never_comes_early_nor_late(shown: int, drift: int, waits: list[int]) -> None:
    sim = Sim(0)
    reactor = SimReactor(sim, 0, shown=shown, drift_ppb=drift)
    assert reactor.now() == shown
    for wait in waits:
        when = reactor.now() + wait
        reactor.want(when)
        assert sim.next(1 << 62) == 0
        tick = 2 if drift > 0 else 1  # what its clock shows may skip a number
        assert when <= reactor.now() < when + tick
    reactor.close()
    sim.close()


def test_drift_changes_from_now_on(sim: Sim) -> None:
    reactor = SimReactor(sim, 0, drift_ppb=0)
    assert turns(sim, [reactor], SECOND) == []
    assert reactor.now() == SECOND
    reactor.set_drift(100_000_000)
    assert turns(sim, [reactor], 2 * SECOND) == []
    assert reactor.now() == 2 * SECOND + SECOND // 10
    with pytest.raises(OSError, match="drifts"):
        SimReactor(sim, 1, drift_ppb=-(10**9))
    reactor.close()
    assert reactor.clock.now() == 2 * SECOND + SECOND // 10  # it stands still


def test_it_has_nothing_of_the_host(sim: Sim) -> None:
    before = len(os.listdir("/proc/self/fd"))
    reactor = SimReactor(sim, 0)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="not supported"):
        reactor.watch(0, 1, print)
    with pytest.raises(OSError, match="not supported"):
        reactor.embed()
    with pytest.raises(OSError, match="not supported"):
        reactor.hosts  # noqa: B018
    reactor.turn(10**12)  # does not wait
    reactor.close()


def test_reactors_go_whatever_they_are_doing(sim: Sim) -> None:
    """Resting with and without a deadline, runnable, in their turn."""
    reactors = [SimReactor(sim, id) for id in range(12)]
    assert sim.next(1) == UNTIL
    for reactor in reactors[:8]:
        reactor.want(100)
    reactors[8].want()
    reactors[2].close()  # in the heap
    reactors[9].close()  # without a deadline
    reactors[8].close()  # runnable
    first = sim.next(200)
    assert first in range(8)
    reactors[first].close()  # in its turn
    while (who := sim.next(200)) >= 0:
        reactors[who].turn(0)
        reactors[who].want(150)
        reactors[(who + 1) % 8].close()  # whatever it is doing
        reactors[who].close()
    for reactor in reactors:
        reactor.close()
    assert sim.next() == IDLE


def test_the_record_and_the_digest(sim: Sim) -> None:
    sim.record(3)
    empty = sim.counters()[2]
    sim.note(7, 1, 1 << 64 | 5)
    noted = sim.counters()[2]
    assert noted != empty
    reactor = SimReactor(sim, 4)
    assert turns(sim, [reactor], 10) == []
    for _ in range(5):
        sim.note(1, 2, 3)
    (first, second, third) = unpack_events(sim.events())
    assert first == (0, 5, 1, 7)
    assert (second[0], second[2], second[3]) == (0, 4, VISITED)
    assert third == (10, 3, 2, 1)
    reactor.close()


def test_the_digest_is_of_all_that_it_is_told() -> None:
    def digest(*events: tuple[int, int, int]) -> int:
        sim = Sim(0)
        for event in events:
            sim.note(*event)
        found = sim.counters()[2]
        sim.close()
        return found

    told = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2)]
    digests = {digest(*events) for events in ([], *([event] for event in told), told, told[::-1], told * 2)}
    assert len(digests) == 8

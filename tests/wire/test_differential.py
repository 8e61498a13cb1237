"""The same schedule of calls over our stack and over the kernel's: the same bytes, and the same kind of end.

What a schedule must lead to is said without any network (schedule.expected), so a difference names the one who is
wrong. Where hypothesis finds one it shrinks it; over a real wire the schedule is printed, to be tried again on the
virtual clock.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from libos.net.link.impairment import Impairment

from .schedule import ENDS, Schedule, Side, Turn, expected, play
from .worlds import Loopback, Virtual, Wired

MS = 10**6
WIRES = (
    Impairment(),
    Impairment(delay=20 * MS),
    Impairment(delay=2 * MS, loss=0.05),
    Impairment(delay=2 * MS, loss=0.2),
    Impairment(delay=5 * MS, loss=0.03, burst=4),
    Impairment(delay=5 * MS, jitter=4 * MS, reorder=0.1),
    Impairment(delay=2 * MS, duplicate=0.2, corrupt=0.02),
    Impairment(delay=2 * MS, rate=20_000_000, buffer=10 * MS, loss=0.01),
)


def sizes(most: int) -> st.SearchStrategy[int]:
    """Around the sizes at which something changes: none, one, a segment, a buffer."""
    edges = [n for edge in (1, 536, 1448, 1460, 16384, 65536) for n in (edge - 1, edge, edge + 1)]
    return st.one_of(st.sampled_from([n for n in edges if n <= most]), st.integers(0, most))


def schedules(most: int = 100_000, pause: int = 300) -> st.SearchStrategy[Schedule]:
    side = st.builds(
        Side,
        writes=st.lists(sizes(most), max_size=4).map(tuple),
        piece=st.sampled_from([1 << 16, 1 << 14, 1461, 999]),
        pause=st.one_of(st.just(0), st.integers(0, pause)),
    )
    return st.builds(
        Schedule,
        turns=st.lists(st.builds(Turn, side, side), max_size=3).map(tuple),
        end=st.sampled_from(ENDS),
        tail=sizes(20_000),
    )


def check_virtual(schedule: Schedule, how: Impairment, seed: int) -> None:
    with Virtual(how, seed) as world:
        assert play(schedule, world) == expected(schedule)
        world.settle()  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", WIRES, ids=range(len(WIRES)))
def test_every_end_over_every_wire(how, end):
    turn = Turn(Side((1, 5000, 70_000), pause=5), Side((30_000, 3), piece=1461))
    check_virtual(Schedule((turn, turn), end), how, 1)


@given(schedules(), st.sampled_from(WIRES), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ours_to_ours(schedule, how, seed):
    check_virtual(schedule, how, seed)


@given(schedules(pause=3))
@settings(max_examples=60, deadline=None)
def test_the_kernel_to_itself(schedule):
    """What is expected of us is what the kernel does."""
    with Loopback() as world:
        assert play(schedule, world) == expected(schedule)


PAIRS = (("kernel", "kernel"), ("kernel", "libos"), ("libos", "kernel"))


@pytest.mark.root
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
@given(schedules(most=20_000, pause=10), st.sampled_from(WIRES), st.integers(0, 1000))
@settings(max_examples=8, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_with_the_kernel(kinds, schedule, how, seed):
    with_the_kernel(kinds, schedule, how, seed)


@pytest.mark.root
@pytest.mark.soak
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
@given(schedules(most=300_000, pause=100), st.sampled_from(WIRES), st.integers(0, 1000))
@settings(max_examples=100, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_with_the_kernel_for_longer(kinds, schedule, how, seed):
    with_the_kernel(kinds, schedule, how, seed)


def with_the_kernel(kinds, schedule, how, seed):
    note(f"try it on the virtual clock: check_virtual({schedule!r}, {how!r}, {seed})")
    with Wired(kinds, how, seed) as world:
        assert play(schedule, world) == expected(schedule)


def test_a_fifth_lost_costs_seconds():
    """Both ways at once over 20 % of loss, on the virtual clock: time-outs do not grow by what was waited for them."""
    took = []
    for seed in range(20):
        with Virtual(Impairment(delay=MS, loss=0.2), seed) as world:
            begin = world.now()
            schedule = Schedule((Turn(Side((100_000,)), Side((100_000,))),), "both")
            assert play(schedule, world) == expected(schedule)
            took.append((world.now() - begin) / 10**9)
    assert sorted(took)[10] < 6
    assert max(took) < 100

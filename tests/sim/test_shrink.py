"""Delta debugging: what is left fails, nothing of it can be left out, and the runs are counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.sim.shrink import shrink


def needs(*guilty: int) -> Callable[[list[int]], bool]:
    return lambda items: {*guilty} <= {*items}


@pytest.mark.parametrize("guilty", [(), (0,), (99,), (3, 4), (0, 50, 99), (7, 21, 22, 70, 71)])
def test_what_is_left_is_what_is_needed(guilty: tuple[int, ...]) -> None:
    found = shrink(range(100), needs(*guilty))
    assert found.items == list(guilty)
    assert found.minimal
    assert found.runs <= 140


def test_any_of_several_will_do() -> None:
    found = shrink(range(20), lambda items: 3 in items or {5, 6} <= {*items})
    assert found.items in ([3], [5, 6])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=3))
def test_no_single_item_can_be_left_out(causes: list[set[int]]) -> None:
    def fails(items: list[int]) -> bool:
        return any(cause <= {*items} for cause in causes)

    found = shrink(range(12), fails, most=10_000)
    assert fails(found.items)
    assert not any(fails(found.items[:i] + found.items[i + 1 :]) for i in range(len(found.items)))
    assert found == shrink(range(12), fails, most=10_000)


def test_what_can_go_only_together_goes() -> None:
    found = shrink(range(8), lambda items: 7 in items and (0 in items) == (1 in items) and 2 in items)
    assert found.items == [2, 7]
    together = shrink(range(3), lambda items: tuple(items) in {(0, 1, 2), (2,)} or len(items) == 3)
    assert together.items == [2]


def test_it_also_ends_where_more_is_not_worse() -> None:
    """A predicate as a race has it: whether it fails follows no rule at all."""
    answers = itertools.cycle([True, False, False, True, False])
    found = shrink(range(30), lambda items: len(items) == 30 or next(answers))
    assert found.runs <= 200


def test_no_question_is_asked_twice() -> None:
    asked: list[tuple[int, ...]] = []

    def fails(items: list[int]) -> bool:
        asked.append(tuple(items))
        return {2, 9} <= {*items}

    found = shrink(range(16), fails)
    assert len(asked) == len({*asked}) == found.runs


def test_the_number_of_runs_is_bounded() -> None:
    calls = 0

    def fails(items: list[int]) -> bool:
        nonlocal calls
        calls += 1
        return {*range(0, 100, 7)} <= {*items}

    found = shrink(range(100), fails, most=25)
    assert calls == found.runs == 25
    assert not found.minimal
    assert fails(found.items)


def test_what_does_not_fail_again_stays_as_it_is() -> None:
    found = shrink([1, 2, 3], lambda items: False)
    assert (found.items, found.runs, found.reproduced) == ([1, 2, 3], 1, False)


def test_nothing_to_leave_out() -> None:
    assert shrink([], lambda items: True).items == []
    assert shrink([5], lambda items: items == [5]).items == [5]

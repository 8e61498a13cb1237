"""check.py: histories by hand, and all small ones against the definition."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft import messages
from raft.check import Operation, TooHard, check
from raft.messages import Cas, Get, Put


def history(*operations: tuple[float, float, Get | Put | Cas, messages.Value]) -> list[Operation]:
    return [Operation(i, op, called, returned, value) for i, (called, returned, op, value) in enumerate(operations)]


READ, NEVER = Get("x"), math.inf

GOOD = {
    "nothing": (),
    "one after the other": ((0, 1, Put("x", 1), None), (2, 3, READ, 1)),
    "a read beside a write sees either": ((0, 9, Put("x", 1), None), (1, 2, READ, None), (3, 4, READ, 1)),
    "what got no answer may have happened": ((0, NEVER, Put("x", 1), None), (5, 6, READ, 1)),
    "or not": ((0, NEVER, Put("x", 1), None), (5, 6, READ, None)),
    "or later": ((0, NEVER, Put("x", 1), None), (5, 6, READ, None), (7, 8, READ, 1)),
    "two at once, one wins": ((0, 9, Cas("x", None, 1), True), (0, 9, Cas("x", None, 2), False), (10, 11, READ, 1)),
    "keys do not mix": ((0, 1, Put("x", 1), None), (2, 3, Get("y"), None)),
}
BAD = {
    "a stale read": ((0, 1, Put("x", 1), None), (2, 3, READ, None)),
    "a value from nowhere": ((0, 1, READ, 1),),
    "back in time": ((0, 9, Put("x", 1), None), (1, 2, READ, 1), (3, 4, READ, None)),
    "both win": ((0, 9, Cas("x", None, 1), True), (0, 9, Cas("x", None, 2), True)),
    "applied twice": ((0, 1, Put("x", 1), None), (2, 9, Cas("x", 1, 2), False), (10, 11, READ, 2)),
    "again after another": (
        (0, 9, Put("x", 1), None),
        (1, 2, READ, 1),
        (3, 4, Put("x", 2), None),
        (5, 6, READ, 2),
        (7, 8, READ, 1),
    ),
    "true is not one": ((0, 1, Put("x", True), None), (2, 3, READ, 1)),
}


@pytest.mark.parametrize("name", GOOD)
def test_linearizable(name: str) -> None:
    assert check(history(*GOOD[name])) is None


@pytest.mark.parametrize("name", BAD)
def test_not_linearizable(name: str) -> None:
    violation = check(history(*BAD[name]))
    assert violation is not None
    assert violation.stuck
    assert "none of these fits" in str(violation)


def by_trying_all(operations: list[Operation]) -> bool:
    """The definition: an order of the answered and of some others that respects time and the sequential store."""
    answered = [o for o in operations if o.returned < NEVER]
    others = [o for o in operations if o.returned == NEVER]
    for count in range(len(others) + 1):
        for chosen in itertools.combinations(others, count):
            for order in itertools.permutations([*answered, *chosen]):
                if any(b.returned < a.called for a, b in itertools.combinations(order, 2)):
                    continue
                value: messages.Value = None
                for o in order:
                    match o.op:
                        case Get():
                            answer: messages.Value = value
                        case Put():
                            answer, value = None, o.op.value
                        case Cas():
                            answer = value == o.op.expected
                            value = o.op.value if answer else value
                    if o.returned < NEVER and answer != o.value:
                        break
                else:
                    return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    few = st.sampled_from((None, 2, 3))
    operations = []
    for client in range(draw(st.integers(1, 5))):
        op = draw(st.one_of(st.just(READ), st.builds(Put, st.just("x"), few), st.builds(Cas, st.just("x"), few, few)))
        called = draw(st.integers(0, 8))
        returned = draw(st.one_of(st.just(NEVER), st.integers(called, 9)))
        value = draw({Get: few, Put: st.none(), Cas: st.booleans()}[type(op)])
        operations.append(Operation(client, op, called, returned, value))
    return operations


@settings(max_examples=200, deadline=None)
@given(histories())
def test_the_checker_agrees_with_the_definition(operations: list[Operation]) -> None:
    assert (check(operations) is None) == by_trying_all(operations)


def test_the_checker_remembers_and_gives_up() -> None:
    """Fourteen writes at once and then a value that nobody wrote: some 2**15 steps, not 14! orders."""
    writes = [(0, 9, Put("x", i % 2), None) for i in range(14)]
    assert check(history(*writes, (10, 11, READ, 5))) is not None
    with pytest.raises(TooHard):
        check(history(*writes, (10, 11, READ, 5)), limit=1000)

"""Whether a history of requests and answers is linearizable: whether there is one order of them, each at some moment
between its request and its answer, in which a store with one copy of the data would have answered so.

The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993): take any operation that may come
first, see whether its answer fits, go on with the rest, come back if that leads nowhere. Lowe's addition ("Testing for
Linearizability", 2017) is to remember which sets of operations with which state have led nowhere. Keys are independent
of each other, so that each has a search of its own (Herlihy and Wing's locality). It is NP-complete all the same;
``limit`` bounds the steps.

An operation without an answer may have happened at any time after its request, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .messages import Cas, Get, Put, Value
from .store import same

LIMIT = 1_000_000  # steps of the search for one key


@dataclass(slots=True)
class Operation:
    """``called`` and ``returned`` are moments on any one clock; of two with equal ones nobody knows the order."""

    client: object
    op: Get | Put | Cas
    called: float
    returned: float = math.inf  # no answer
    value: Value = None  # the answer

    def __str__(self) -> str:
        end = "no answer" if self.returned == math.inf else f"{self.returned}: {self.value!r}"
        return f"[{self.called} .. {end}] {self.client} {self.op}"


class History:
    """Records operations in the order in which they begin and end, which one process sees without any clock."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._moment = 0

    def call(self, client: object, op: Get | Put | Cas) -> Operation:
        self._moment += 1
        operation = Operation(client, op, self._moment)
        self.operations.append(operation)
        return operation

    def answer(self, operation: Operation, value: Value) -> None:
        self._moment += 1
        operation.returned, operation.value = self._moment, value


@dataclass
class Violation:
    """No order of the operations on ``key`` explains their answers. ``order`` is the longest that went well;
    ``stuck`` are those that could have come next, none of which fits."""

    key: str
    order: list[Operation]
    state: Value
    stuck: list[Operation] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.key!r}: not linearizable; in this order it is {self.state!r}:"]
        lines += [f"    {operation}" for operation in self.order[-8:]]
        return "\n".join([*lines, "  and then none of these fits:", *(f"    {operation}" for operation in self.stuck)])


class TooHard(Exception):
    """The search was given up."""


def check(history: Iterable[Operation], *, initial: Value = None, limit: int = LIMIT) -> Violation | None:
    """None if the history is linearizable. Raises TooHard."""
    keys: dict[str, list[Operation]] = {}
    for operation in history:
        if isinstance(operation.op, Get) and operation.returned == math.inf:
            continue  # it says nothing, and changes nothing
        keys.setdefault(operation.op.key, []).append(operation)
    for key, operations in keys.items():
        if violation := check_key(key, operations, initial, limit):
            return violation
    return None


def step(state: Value, operation: Operation) -> tuple[bool, Value]:
    """Whether the answer fits if this happens now, and the value afterwards."""
    unknown = operation.returned == math.inf
    match operation.op:
        case Get():
            return unknown or same(operation.value, state), state
        case Put(_, value):
            return True, value
        case Cas(_, expected, value):
            fits = same(state, expected)
            return unknown or operation.value is fits, value if fits else state


def check_key(key: str, operations: list[Operation], initial: Value, limit: int) -> Violation | None:
    operations = sorted(operations, key=lambda operation: operation.called)
    answered = sum(1 << i for i, operation in enumerate(operations) if operation.returned < math.inf)

    def may_be_next(done: int, low: int) -> Iterator[int]:
        """Of those not done, the ones that began before any of these ended; none below ``low`` is left."""
        first_end = math.inf
        for i in range(low, len(operations)):
            if operations[i].called > first_end:
                return
            if not done >> i & 1:
                first_end = min(first_end, operations[i].returned)
                yield i

    # One level of the search: operations done, as bits; all below this one are; the value; what is still to be tried.
    stack: list[tuple[int, int, Value, Iterator[int]]] = [(0, 0, initial, may_be_next(0, 0))]
    order: list[int] = []
    seen: set[tuple[int, int, type, Value]] = set()
    deepest = Violation(key, [], initial, [operations[i] for i in may_be_next(0, 0)])
    while stack:
        done, low, state, candidates = stack[-1]
        if done & answered == answered:
            return None
        for i in candidates:
            fits, after = step(state, operations[i])
            if not fits:
                continue
            now, lowest = done | 1 << i, low
            while now >> lowest & 1:
                lowest += 1
            memo = (now >> lowest, lowest, type(after), after)
            if memo in seen:
                continue
            if len(seen) == limit:
                raise TooHard(f"{key!r}: {len(operations)} operations, {limit} steps")
            seen.add(memo)
            order.append(i)
            stack.append((now, lowest, after, may_be_next(now, lowest)))
            if len(order) > len(deepest.order):
                stuck = [operations[j] for j in may_be_next(now, lowest)]
                deepest = Violation(key, [operations[j] for j in order], after, stuck)
            break
        else:
            stack.pop()
            if order:
                order.pop()
    return deepest

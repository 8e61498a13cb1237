"""Of many things that together make something fail, few that do: delta debugging.

The list is cut into parts; what still fails without a part is gone on with, and where no part can be left out the parts
get smaller (ddmin: Zeller and Hildebrandt, 2002). At the end no single item can be left out. Where items are faults,
leaving out one changes what the others hit, so that some may go only together: two and three are tried too, and then it
goes on from there. It knows nothing of what the items are, and asks no question twice; the same list and answers give
the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

__all__ = ["RUNS_MAX", "Shrunk", "shrink"]

T = TypeVar("T")

RUNS_MAX = 200


class Shrunk(NamedTuple, Generic[T]):
    """``items`` fail, if all of them did (``reproduced``). ``minimal``: with any one of them left out they do not, as
    far as was asked in ``runs`` runs."""

    items: list[T]
    runs: int
    minimal: bool
    reproduced: bool = True


class _Exhausted(Exception):
    """No more runs."""


def shrink(items: Sequence[T], fails: Callable[[list[T]], bool], most: int = RUNS_MAX) -> Shrunk[T]:
    """``fails``: whether it still does with these, in the order of ``items``. At most ``most`` calls of it."""
    known: dict[tuple[int, ...], bool] = {}

    def failing(chosen: tuple[int, ...]) -> bool:
        if chosen not in known:
            if len(known) == most:
                raise _Exhausted
            known[chosen] = fails([items[i] for i in chosen])
        return known[chosen]

    best = tuple(range(len(items)))
    minimal = False
    try:
        if not failing(best):
            return Shrunk(list(items), len(known), False, reproduced=False)
        if best and failing(()):
            best = ()
        parts = 2
        while len(best) > 1:
            smaller = _smaller(best, min(parts, len(best)), failing)
            if smaller is not None:
                parts = 2 if len(smaller) * 2 <= len(best) else max(parts - 1, 2)
                best = smaller
            elif parts < len(best):
                parts *= 2
            else:
                minimal = True
                fewer = _without_some(best, failing)
                if fewer is None:
                    break
                best, parts, minimal = fewer, 2, False
        minimal = True
    except _Exhausted:
        pass
    return Shrunk([items[i] for i in best], len(known), minimal)


def _without_some(chosen: tuple[int, ...], failing: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...] | None:
    together = itertools.chain.from_iterable(itertools.combinations(chosen, size) for size in (2, 3))
    candidates = (tuple(item for item in chosen if item not in some) for some in together)
    return next((candidate for candidate in candidates if failing(candidate)), None)


def _smaller(chosen: tuple[int, ...], parts: int, failing: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...] | None:
    """One of so many parts of it that fails by itself, or else all but one of them."""
    bounds = [len(chosen) * i // parts for i in range(parts + 1)]
    cuts = list(itertools.pairwise(bounds))
    candidates = [chosen[a:b] for a, b in cuts]
    if parts > 2:  # of two, each is what is left without the other
        candidates += [chosen[:a] + chosen[b:] for a, b in cuts]
    return next((candidate for candidate in candidates if failing(candidate)), None)

"""Stacks by hand, each torn down and looked over after its test. See harness.py."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from .harness import Harness

failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[failed] = report.failed
    return report


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Iterator[Callable[..., Harness]]:
    """Makes a :class:`Harness`; after a test that passed each one must be clean."""
    made: list[Harness] = []

    def make(family: int = 4, **options: Any) -> Harness:
        made.append(Harness(family, **options))
        return made[-1]

    yield make
    for h in made:
        if request.node.stash.get(failed, True):
            h.stack.close()
        else:
            h.finish()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def h(harness: Callable[..., Harness], family: int) -> Harness:
    """One of each family."""
    return harness(family)


@pytest.fixture
def bare(harness: Callable[..., Harness], family: int) -> Harness:
    """One of each family, where the test itself is the neighbours."""
    return harness(family, neighbours=False)

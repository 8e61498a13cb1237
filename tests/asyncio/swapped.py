"""One module of CPython's ``test.test_asyncio`` on libos's loop: a program of its own, that ``test_cpython.py`` starts.

    python -P swapped.py MODULE LOOP RESULTS LIMIT < patterns of tests not to run

LOOP is ``io_uring`` or ``epoll``, or ``stock`` for asyncio's own. RESULTS is a file that gets one line of JSON for
the start and one for the end of each test, so that after a crash it is known which test did it. LIMIT is what one test
may take, in seconds; what takes longer ends the process, with all stacks on stderr.

What is swapped: the class ``asyncio.SelectorEventLoop`` by its public names, what the default policy makes, and so
``asyncio.new_event_loop``, ``asyncio.run`` and ``IsolatedAsyncioTestCase``. Besides, two kinds of loop that the suite
builds from parts of asyncio, where any loop would do: see ``swap_partial_loops``. A loop is a whole machine.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fnmatch
import importlib
import json
import selectors
import sys
import time
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

from libos.config import configure
from libos.machine import Machine, MachineLoop


class Swapped(MachineLoop):
    """Stands where the suite says ``asyncio.SelectorEventLoop``; the selector that it asks for is not used."""

    reactor_kind: Any = "auto"
    made = 0  # so many since the last look

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        if selector is not None:
            selector.close()
        Swapped.made += 1
        super().__init__(Machine(configure(net="host", reactor=self.reactor_kind)), own_machine=True)


class Unmocked(Swapped):
    """Stands where the suite makes a BaseEventLoop, and mocks for what that lacks. Ours lacks nothing."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_process_events", "_write_to_self") and isinstance(value, mock.Mock):
            value = Recorded(getattr(self, name))
        if name == "_selector" and isinstance(value, mock.Mock):
            self._selector.select = Recorded(self._selector.select)  # type: ignore[has-type]
        else:
            super().__setattr__(name, value)


class Recorded:
    """A method with what the suite wants of a mock in its place: to see the arguments. It sets the result in vain."""

    return_value: Any
    call_args: Any

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, *args: Any) -> Any:
        self.call_args = mock.call(*args)
        return self._method(*args)


# Modules that make a TestLoop (whose time a generator advances) without a generator, or a BaseEventLoop.
NEW_TEST_LOOP = ("test_tasks", "test_futures", "test_subprocess")
BASE_EVENT_LOOP = ("test_base_events", "test_pep492", "test_runners")


def swap(kind: str) -> None:
    Swapped.reactor_kind = kind
    for module in (asyncio, asyncio.unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, Swapped)
    for name in ("_UnixDefaultEventLoopPolicy", "DefaultEventLoopPolicy"):
        if hasattr(asyncio.unix_events, name):
            getattr(asyncio.unix_events, name)._loop_factory = Swapped


def swap_partial_loops(module: ModuleType) -> None:
    """Where the suite builds a loop from parts and any loop would do, give it ours."""
    from test.test_asyncio import utils

    if name_of_module(module) in NEW_TEST_LOOP:

        def new_test_loop(case: Any, gen: Any = None) -> Any:
            loop: Any = Swapped() if gen is None else utils.TestLoop(gen)
            case.set_event_loop(loop)
            return loop

        utils.TestCase.new_test_loop = new_test_loop
    if name_of_module(module) in BASE_EVENT_LOOP:
        for name in {"asyncio", "base_events"} & set(vars(module)):
            seen = ModuleType(name)  # as this one module of the suite shall see it
            vars(seen).update(vars(getattr(module, name)), BaseEventLoop=Unmocked)
            setattr(module, name, seen)


def name_of_module(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


class Results(unittest.TestResult):
    """Writes what happens to ``path``. A test's outcome is the worst of its parts."""

    RANK = ("passed", "skipped", "failed", "error")

    def __init__(self, path: str, limit: float) -> None:
        super().__init__()
        self._file = open(path, "a", buffering=1)  # noqa: SIM115 - as long as the process
        self._limit = limit
        self._outcome, self._detail, self._noise = "passed", "", []
        self._start = time.monotonic()
        sys.unraisablehook = self._unraisable

    def _unraisable(self, event: Any) -> None:
        self._noise.append(f"{event.err_msg}: {event.exc_value!r} in {event.object!r}")

    def _write(self, **fields: Any) -> None:
        self._file.write(json.dumps(fields) + "\n")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._detail, self._noise = "passed", "", []
        self._start = time.monotonic()
        Swapped.made = 0
        self._write(start=name_of(test))
        faulthandler.dump_traceback_later(self._limit, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self._write(
            test=name_of(test),
            outcome=self._outcome,
            detail=self._detail,
            noise=self._noise,
            loops=Swapped.made,
            seconds=round(time.monotonic() - self._start, 3),
        )

    def _worst(self, outcome: str, detail: str) -> None:
        if self.RANK.index(outcome) >= self.RANK.index(self._outcome):
            self._outcome = outcome
            self._detail += detail

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._worst("failed", self.failures[-1][1])

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        if not isinstance(test, unittest.TestCase):  # a fixture of a class or module
            self._write(test=str(test), outcome="error", detail=self.errors[-1][1], noise=[], loops=1, seconds=0)
        self._worst("error", self.errors[-1][1])

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._worst("skipped", reason)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._worst("failed", f"{subtest}\n{self._exc_info_to_string(err, test)}")  # type: ignore[attr-defined]

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._worst("failed", "an unexpected success")


def name_of(test: unittest.TestCase) -> str:
    """Module, class and method."""
    return ".".join(test.id().split(".")[-3:])


def main() -> None:
    name, kind, path, limit = sys.argv[1:]
    unwanted = sys.stdin.read().split()
    if kind != "stock":
        swap(kind)
    module = importlib.import_module(f"test.test_asyncio.{name}")
    if kind != "stock":
        swap_partial_loops(module)
    tests = [
        test
        for test in flat(unittest.defaultTestLoader.loadTestsFromModule(module))
        if not any(fnmatch.fnmatchcase(name_of(test), pattern) for pattern in unwanted)
    ]
    unittest.TestSuite(tests).run(Results(path, float(limit)))


if __name__ == "__main__":
    main()

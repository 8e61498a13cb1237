"""CPython's own ``test.test_asyncio``, run on libos's loop in world `host`, on io_uring and on epoll.

The suite is the running interpreter's (Debian: the package libpython3.11-testsuite), never a copy. One item here is one
of its modules on one reactor, in a process of its own (``swapped.py``) with a time limit. A test of CPython's that
hangs or crashes is reported by name, and those behind it run in another process.

``known.toml`` lists what is left out and every test whose outcome is not asyncio's; a test that is listed and passes is
an error like one that is not listed and fails; so is a module in which no test made a loop of ours.

What is not run, of the 2,149 tests that Python 3.11 has in these modules: of test_tasks 636, and of test_events,
test_sendfile and test_sock_lowlevel 146, 40 and 26, which are others over again; of test_subprocess 62, mostly for ways
of watching children that are deprecated; 9 more of test_base_events, test_sslproto and test_taskgroups. Whole modules,
because no test in them makes a loop of ours: test_selector_events (110) drives asyncio's transport classes against
mocks, test_protocols (5) and test_transports (7) make no loop, test_proactor_events (79), test_windows_events (13) and
test_windows_utils (3) are for Windows.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from libos.clock import MonotonicClock
from libos.errors import HostError
from libos.sched.reactor import Reactor

from . import known

HERE = Path(__file__).resolve().parent
KNOWN = known.load()
TEST_LIMIT = 20.0  # s; the slowest takes 5
RESTARTS = 5


def is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(f"test.test_asyncio.{module}") is not None
    except ModuleNotFoundError:
        return False


class Outcome(NamedTuple):
    test: str
    outcome: str
    detail: str
    loops: int


@pytest.fixture(params=["io_uring", "epoll"])
def reactor(request: pytest.FixtureRequest) -> str:
    kind: Any = request.param
    try:
        Reactor(kind, clock=MonotonicClock(0)).close()
    except HostError as error:
        pytest.skip(str(error))
    return str(kind)


def run_module(module: str, reactor: str, tmp_path: Path) -> Iterator[Outcome]:
    """Every test of ``module``, whatever some of them do to the process."""
    unwanted = [pattern for entry in KNOWN.left_out for pattern in entry.tests]
    for attempt in range(RESTARTS):
        results = tmp_path / f"{attempt}.jsonl"
        with open(tmp_path / "errors", "w+") as errors:
            end = run_process(module, reactor, results, unwanted, errors)
            errors.seek(0)
            said = errors.read()
        running = None
        for line in results.read_text().splitlines() if results.exists() else ():
            fields = json.loads(line)
            running = fields.pop("start", None)
            if running is None:
                yield Outcome(**{name: fields[name] for name in Outcome._fields})
                unwanted.append(fields["test"])
        if end == "ended" and running is None:
            return
        assert running is not None, f"{module} {end} outside of any test:\n{said[-5000:]}"
        yield Outcome(running, "error", f"the process {end}\n{said[-5000:]}", 1)
        unwanted.append(running)
    raise AssertionError(f"{module} had to be started {RESTARTS} times: what is behind {unwanted[-1]} was not run")


def run_process(module: str, reactor: str, results: Path, unwanted: list[str], errors: Any) -> str:
    command = [sys.executable, "-P", HERE / "swapped.py", module, reactor, results, str(TEST_LIMIT)]
    try:
        process = subprocess.run(
            command,
            input="\n".join(unwanted),
            stdout=errors,
            stderr=errors,
            text=True,
            timeout=KNOWN.modules[module],
            cwd=results.parent,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    if process.returncode < 0:
        return f"died of {signal.Signals(-process.returncode).name}"
    return f"ended with status {process.returncode}" if process.returncode else "ended"


@pytest.mark.slow
@pytest.mark.parametrize("module", KNOWN.modules)
def test_module(module: str, reactor: str, tmp_path: Path) -> None:
    if not is_here("utils"):
        version = "{}.{}".format(*sys.version_info)
        pytest.skip(f"this Python has no test.test_asyncio (Debian: apt-get install libpython{version}-testsuite)")
    if not is_here(module):
        pytest.skip("not in this Python")
    surprises = []
    ours = 0
    for test, outcome, detail, loops in run_module(module, reactor, tmp_path):
        expected = KNOWN.reason(test, reactor)
        ours += loops > 0
        if outcome in ("failed", "error") and expected is None:
            surprises.append(f"{test}: {outcome}\n{detail}")
        elif outcome == "passed" and expected is not None:
            surprises.append(f"{test}: passed, though known.toml says: {expected}")
    assert ours, "no test made a loop of ours: is it still swapped?"
    if surprises:
        pytest.fail("\n\n".join([f"{len(surprises)} surprises on {reactor}", *surprises]), pytrace=False)


def test_every_difference_is_told() -> None:
    told = known.headings()
    missing = [entry.name for entry in KNOWN.deviations if entry.name and entry.name not in told]
    assert not missing

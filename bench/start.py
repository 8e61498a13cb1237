"""``libos bench start``: how long a process takes whose program is ``run(main())``, with a main that does nothing.

Each program is started by turns, on one cpu, with all its modules compiled and in the page cache, as it is where things
are installed. The figure is the time from before the process is made until it has been waited for, and what that is
over asyncio's of the same repetition; the same of CPU time, which is what to look at on a machine that others use too.
All are medians.

A second run of each, with the same calls but for ``run()`` itself, says where the time goes. Its stamps are of
CLOCK_MONOTONIC, which all processes share:

    python   until the program's first line runs
    import   of the library, and of what its names bring with them
    loop     a new loop; with libos, the machine and its ring too
    run      the first coroutine
    close    the loop
    exit     until the process has been waited for
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from rich import box
from rich.table import Table

from libos.bench.cpu import children_ns, one_cpu
from libos.bench.echo import version_of
from libos.bench.report import LeftOut, Results

__all__ = ["PHASES", "PROGRAMS", "StartReport", "bench_start", "start_table", "where_table"]

PHASES = ("python", "import", "loop", "run", "close", "exit")

# name -> module, its run(), and the factory that run() gives to asyncio.Runner
PROGRAMS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "asyncio": ("asyncio", "asyncio.run(main())", "asyncio.new_event_loop"),
        "uvloop": ("uvloop", "uvloop.run(main())", "uvloop.new_event_loop"),
        **{
            name: ("libos", f"libos.run(main(), {settings})", f"lambda: new({settings})")
            for name, settings in (
                ("libos-host", "net='host', reactor='io_uring'"),
                ("libos-host-epoll", "net='host', reactor='epoll'"),
                ("libos-user", "net='user'"),
            )
        },
    }
)

_PLAIN = """\
import {module}
async def main(): pass
{run}
"""

_STAMPED = """\
from time import monotonic_ns as now
stamps = [now()]
import asyncio
import {module}
new = {module}.new_event_loop
async def main(): pass
stamps.append(now())
with asyncio.Runner(loop_factory={factory}) as runner:
    runner.get_loop()
    stamps.append(now())
    runner.run(main())
    stamps.append(now())
stamps.append(now())
print(stamps)
"""


@dataclass(frozen=True)
class StartRow:
    """Milliseconds: wall and CPU time, what of each is over asyncio's (None: that was not measured), phases."""

    program: str
    wall_ms: float
    wall_over_ms: float | None
    cpu_ms: float
    cpu_over_ms: float | None
    phases_ms: Mapping[str, float]


class StartReport(Results[StartRow]):
    """How long each took."""


@dataclass(frozen=True)
class _Life:
    wall_ns: int
    cpu_ns: int
    phases_ns: tuple[int, ...]


class _Failed(Exception):
    pass


def bench_start(
    programs: Sequence[str] = tuple(PROGRAMS),
    *,
    repeat: int = 15,
    progress: Callable[[str], object] = lambda what: None,
) -> StartReport:
    """Measure. ``progress`` is told of each repetition when it begins."""
    with one_cpu() as cpu, tempfile.TemporaryDirectory() as compiled:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = compiled
        host: dict[str, object] = {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpu": cpu,
            "python": f"{platform.python_version()} ({sys.executable})",
            "libos": version_of("libos"),
            "uvloop": version_of("uvloop"),
            "repeat": repeat,
        }
        report = StartReport(host)
        lives: dict[str, list[_Life]] = {name: [] for name in programs}
        if "uvloop" in lives and host["uvloop"] is None:
            report.left_out.append(LeftOut("uvloop", "uvloop is not installed: pip install 'libos[uvloop]'"))
            del lives["uvloop"]
        for turn in range(-1, repeat):
            progress(f"start ({turn + 1} of {repeat})" if turn >= 0 else "start: compiling")
            for name in list(lives):
                try:
                    life = _live(name, environment)
                except _Failed as error:
                    report.left_out.append(LeftOut(name, f"failed: {error}"))
                    report.failures += 1
                    del lives[name]
                else:
                    lives[name] += [life] if turn >= 0 else []
    report.rows += [_row(name, taken, lives.get("asyncio")) for name, taken in lives.items()]
    return report


def _live(name: str, environment: Mapping[str, str]) -> _Life:
    """Two processes of that program: as it is, and stamped."""
    module, run, factory = PROGRAMS[name]
    cpu = children_ns()
    begun, ended, _ = _process(_PLAIN.format(module=module, run=run), environment)
    cpu = children_ns() - cpu
    first, last, said = _process(_STAMPED.format(module=module, factory=factory), environment)
    stamps = [first, *json.loads(said), last]
    return _Life(ended - begun, cpu, tuple(after - before for before, after in pairwise(stamps)))


def _process(program: str, environment: Mapping[str, str]) -> tuple[int, int, str]:
    """When it was begun and waited for, and what it said."""
    begun = time.monotonic_ns()
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ended = time.monotonic_ns()
    if done.returncode:
        raise _Failed(done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}")
    return begun, ended, done.stdout


def _row(name: str, taken: Sequence[_Life], reference: Sequence[_Life] | None) -> StartRow:
    def median_ms(values: Iterable[int]) -> float:
        return round(statistics.median(values) / 1e6, 2)

    def over_ms(time: Callable[[_Life], int]) -> float | None:
        if reference is None:
            return None
        return median_ms(time(life) - time(other) for life, other in zip(taken, reference, strict=True))

    return StartRow(
        name,
        wall_ms=median_ms(life.wall_ns for life in taken),
        wall_over_ms=over_ms(lambda life: life.wall_ns),
        cpu_ms=median_ms(life.cpu_ns for life in taken),
        cpu_over_ms=over_ms(lambda life: life.cpu_ns),
        phases_ms={phase: median_ms(life.phases_ns[i] for life in taken) for i, phase in enumerate(PHASES)},
    )


def start_table(report: StartReport) -> Table:
    """A line for each program."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("program", no_wrap=True)
    for heading in ("wall ms", "over asyncio", "CPU ms", "over asyncio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        figures = row.wall_ms, row.wall_over_ms, row.cpu_ms, row.cpu_over_ms
        table.add_row(row.program, *("-" if ms is None else f"{ms:.1f}" for ms in figures))
    return table


def where_table(report: StartReport) -> Table:
    """Where the time goes, in ms."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("program", no_wrap=True)
    for phase in PHASES:
        table.add_column(phase, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.program, *(f"{ms:.1f}" for ms in row.phases_ms.values()))
    return table

"""``libos bench loop``: what callbacks, timers and tasks cost on each event loop.

All loops live in this process, on one cpu, and take turns round by round, so whatever else the machine does meets them
alike. The figure is the CPU time of the thread, ns for each callback, timer or task (see
:mod:`libos.bench.loop_cases`); a speed is the reference's time divided by the loop's in the same repetition, so above
1 the loop is faster. Reported are medians. The garbage collector runs as it does in a program, but sees nothing of
what was there before the rounds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from libos.bench.cpu import one_cpu
from libos.bench.echo import version_of
from libos.bench.loop_cases import CASES
from libos.bench.loops import new_loop
from libos.bench.report import LeftOut, Results
from libos.errors import HostError

__all__ = ["COMPARED", "LoopReport", "bench_loop", "loop_table"]

COMPARED = ("asyncio", "uvloop", "libos-host", "libos-host-epoll")
_REFERENCES = ("uvloop", "asyncio")


@dataclass(frozen=True)
class LoopRow:
    """CPU time in ns: the median of ``runs``, which stand in the order of the repetitions."""

    case: str
    loop: str
    ns: float
    runs: tuple[float, ...]


class LoopReport(Results[LoopRow]):
    """The costs of each loop."""

    def ratios(self) -> dict[str, dict[str, dict[str, float]]]:
        """case -> loop -> reference -> the loop's speed in relation to the reference's."""
        runs = {(row.case, row.loop): row.runs for row in self.rows}
        found: dict[str, dict[str, dict[str, float]]] = {}
        for case, loop in runs:
            found.setdefault(case, {})[loop] = {
                other: round(
                    statistics.median(
                        theirs / ours for theirs, ours in zip(runs[case, other], runs[case, loop], strict=True)
                    ),
                    3,
                )
                for other in _REFERENCES
                if other != loop and (case, other) in runs
            }
        return found


def bench_loop(
    cases: Sequence[str] = tuple(CASES),
    loops: Sequence[str] = COMPARED,
    *,
    repeat: int = 25,
    progress: Callable[[str], object] = lambda what: None,
) -> LoopReport:
    """Measure. ``progress`` is told of each case when it begins."""
    with one_cpu() as cpu, contextlib.ExitStack() as stack:
        report = LoopReport(
            {
                "kernel": platform.release(),
                "machine": platform.machine(),
                "cpu": cpu,
                "python": platform.python_version(),
                "libos": version_of("libos"),
                "uvloop": version_of("uvloop"),
                "repeat": repeat,
            }
        )
        opened = {}
        for name in loops:
            if name == "uvloop" and importlib.util.find_spec("uvloop") is None:
                report.left_out.append(LeftOut(name, "uvloop is not installed: pip install 'libos[uvloop]'"))
                continue
            try:
                opened[name] = new_loop(name)
            except HostError as error:
                report.left_out.append(LeftOut(name, str(error)))
                continue
            stack.callback(opened[name].close)
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        for case in (CASES[name] for name in cases):
            progress(f"{case.name}: {case.what}")
            rounds = {name: case.prepare(loop) for name, loop in opened.items()}
            runs: dict[str, list[float]] = {name: [] for name in rounds}
            for turn in range(-1, repeat):  # the first is to warm up
                first = turn % max(1, len(rounds))  # nobody is always behind the same other one
                for name in [*rounds][first:] + [*rounds][:first]:
                    taken = _cpu_ns(rounds[name])
                    if turn >= 0:
                        runs[name].append(round(taken / case.count, 2))
            report.rows += [
                LoopRow(case.name, name, round(statistics.median(taken), 1), tuple(taken))
                for name, taken in runs.items()
            ]
    return report


def _cpu_ns(run: Callable[[], object]) -> int:
    gc.collect()
    start = time.thread_time_ns()
    run()
    return time.thread_time_ns() - start


def loop_table(report: LoopReport) -> Table:
    """A line for each case: ns on each loop; behind those of libos, their speed in relation to the references'."""
    loops = list(dict.fromkeys(row.loop for row in report.rows))
    references = [name for name in _REFERENCES if name in loops]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fits 80 columns
    table.add_column("case", no_wrap=True)
    for name in loops:
        words = "" if name in _REFERENCES else "".join(f"{other:>8}" for other in references)
        table.add_column(f"{name}\n{'ns' + words:>6}", justify="right", no_wrap=True)
    ns = {(row.case, row.loop): row.ns for row in report.rows}
    for case, ratios in report.ratios().items():
        cells = []
        for name in loops:
            speeds = "" if name in _REFERENCES else "".join(f"{ratios[name][other]:8.2f}" for other in references)
            cells.append(f"{ns[case, name]:,.0f}{speeds}")
        table.add_row(case, *cells)
    return table

"""``libos bench segment``: what one segment costs in the stack alone, and in lwIP beside it.

Two stacks in one process, joined in memory: no system call, no interpreter, every checksum computed and verified. The
figure is CPU time, ns for each segment that carried data, from the call that wrote it to the call that read it. What
it buys differs: libos speaks Ethernet, timestamps, SACK and window scaling, lwIP (Debian's build) plain IP and no
options.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

import libos.net
import libos.sched
from libos.bench.compile import build, compiler
from libos.bench.report import LeftOut, Results
from libos.errors import HostError

__all__ = ["CASES", "SegmentReport", "bench_segment", "segment_table"]

CASES = ("64", "1024", "bulk")
_COUNT = 400_000  # segments in a run


@dataclass(frozen=True)
class SegmentRow:
    """``ns``: the median of ``runs``."""

    case: str
    stack: str
    ns: float
    runs: tuple[float, ...]


class SegmentReport(Results[SegmentRow]):
    """The cost of one segment in each stack."""

    def ratios(self) -> dict[str, float]:
        """case -> libos's cost divided by lwIP's."""
        lwip = {row.case: row.ns for row in self.rows if row.stack == "lwip"}
        return {r.case: round(r.ns / lwip[r.case], 3) for r in self.rows if r.stack == "libos" and r.case in lwip}


def _stacks(left_out: list[LeftOut]) -> dict[str, Path]:
    """The programs that can be had here."""
    found: dict[str, Path] = {}
    net, sched = (Path(str(module.__file__)).resolve().parent for module in (libos.net, libos.sched))
    sources = sorted([*net.rglob("*.c"), *sched.glob("*.c")])
    if sources:
        found["libos"] = build("segment_libos", ("-fno-strict-aliasing", "-w", f"-I{net.parent}", "-ldl"), sources)
    else:
        left_out.append(LeftOut("libos", "its C sources are not in an installed package: run it from a checkout"))
    try:
        found["lwip"] = build("segment_lwip", ("-w", "-I/usr/include/lwip", "-llwip"))
    except HostError:
        left_out.append(LeftOut("lwip", "needs liblwip-dev (Debian: apt install liblwip-dev)"))
    return found


def bench_segment(
    cases: Sequence[str] = CASES, *, repeat: int = 5, progress: Callable[[str], object] = lambda what: None
) -> SegmentReport:
    """Measure. ``progress`` is told of each run when it begins. Raises HostError without a C compiler."""
    host: dict[str, object] = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "compiler": compiler(),
        "repeat": repeat,
    }
    report = SegmentReport(host)
    stacks = _stacks(report.left_out)
    for case in cases:
        words = ["bulk"] if case == "bulk" else ["echo", case]
        runs: dict[str, list[float]] = {name: [] for name in stacks}
        for turn in range(repeat):
            for name, program in stacks.items():
                progress(f"{case} {name}" + (f" ({turn + 1} of {repeat})" if repeat > 1 else ""))
                command = [str(program), *words, str(_COUNT)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
                if done.returncode:
                    report.left_out.append(LeftOut(f"{name} {case}", f"failed: {done.stderr.strip()}"))
                    report.failures += 1
                else:
                    runs[name].append(float(done.stdout))
        report.rows += [
            SegmentRow(case, name, round(statistics.median(taken), 1), tuple(taken))
            for name, taken in runs.items()
            if taken
        ]
    return report


def segment_table(report: SegmentReport) -> Table:
    """A line for each case."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("case", "libos ns", "lwIP ns", "libos/lwIP"):
        table.add_column(heading, justify="left" if heading == "case" else "right", no_wrap=True)
    ratios = report.ratios()
    for case in dict.fromkeys(row.case for row in report.rows):
        ns = {row.stack: f"{row.ns:.0f}" for row in report.rows if row.case == case}
        name = "one way, 64 KiB writes" if case == "bulk" else f"echo, {case} bytes"
        table.add_row(name, ns.get("libos", "-"), ns.get("lwip", "-"), f"{ratios[case]:.2f}" if case in ratios else "-")
    return table

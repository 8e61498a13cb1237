"""``libos bench wire``: one bulk stream over bad wires, for each pair of stacks: kernel to kernel, kernel to libos,
libos to kernel, libos to libos.

For each case (an impairment) and each repetition, every pair has its turn on a wire of its own with the same seed: the
n-th frame of each direction meets the same fate for all of them. What counts is what reaches the receiving program in
``seconds``, counted from its connection on, slow start included. Kernel sockets use cubic; each row says how many
segments were sent again, how many timeouts there were, and the longest time without a byte.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich import box
from rich.table import Table

from libos.bench.echo import congestion_of_kernel, version_of
from libos.bench.report import LeftOut, Results
from libos.bench.servers import PeerError
from libos.bench.wirebed import Kind, WireBed, why_not

__all__ = ["CASES", "PAIRS", "WireReport", "WireRow", "bench_wire", "wire_table"]

Pair = tuple[Kind, Kind]

# What the wire does in each direction, so round trips are twice the delay.
CASES: Mapping[str, str] = MappingProxyType(
    {
        "rtt1": "delay=500us,rate=1gbit,buffer=10ms",
        "rtt20": "delay=10ms,rate=100mbit,buffer=50ms",
        "rtt100": "delay=50ms,rate=100mbit,buffer=50ms",
        "rtt200": "delay=100ms,rate=100mbit,buffer=50ms",
        "far": "delay=50ms,loss=0.01%,rate=1gbit,buffer=20ms",
        "loss0.1": "delay=10ms,loss=0.1%,rate=100mbit,buffer=50ms",
        "loss1": "delay=10ms,loss=1%,rate=100mbit,buffer=50ms",
        "loss5": "delay=10ms,loss=5%,rate=100mbit,buffer=50ms",
        "loss20": "delay=10ms,loss=20%,rate=100mbit,buffer=50ms",
        "bursts": "delay=10ms,loss=1%,burst=5,rate=100mbit,buffer=50ms",
        "reorder": "delay=10ms,reorder=2%,rate=100mbit,buffer=50ms",
        "jitter": "delay=10ms,jitter=4ms,rate=100mbit,buffer=50ms",
        "duplicate": "delay=10ms,duplicate=5%,rate=100mbit,buffer=50ms",
        "corrupt": "delay=10ms,corrupt=0.5%,rate=100mbit,buffer=50ms",
        "narrow": "delay=10ms,rate=10mbit,buffer=100ms",
        "shallow": "delay=10ms,rate=100mbit,buffer=5ms",
    }
)
PAIRS: tuple[Pair, ...] = (("kernel", "kernel"), ("kernel", "libos"), ("libos", "kernel"), ("libos", "libos"))


@dataclass(frozen=True)
class WireRow:
    """Medians over the repetitions. ``rate_mbit``: what reached the program. The sender counts what it sent again."""

    case: str
    sender: str
    receiver: str
    rate_mbit: float
    rates_mbit: tuple[float, ...]  # of each repetition
    retransmitted: float
    timeouts: float
    longest_gap_ms: float
    wire_lost: float  # frames from sender to receiver that the wire took, by choice or for want of room
    wire_late_us: float  # how much later than due frames came out on average: the wire's own error


class WireReport(Results[WireRow]):
    """The rate of each pair of stacks over each link."""

    def ratios(self) -> dict[str, dict[str, float]]:
        """case -> "sender-receiver" -> its rate divided by kernel-kernel's."""
        found: dict[str, dict[str, float]] = {}
        kernel = {row.case: row.rate_mbit for row in self.rows if row.sender == row.receiver == "kernel"}
        for row in self.rows:
            if kernel.get(row.case):
                ratio = round(row.rate_mbit / kernel[row.case], 3)
                found.setdefault(row.case, {})[f"{row.sender}-{row.receiver}"] = ratio
        return found

    def setting(self) -> dict[str, object]:
        return {**super().setting(), "cases": {name: CASES[name] for name in dict.fromkeys(r.case for r in self.rows)}}


def bench_wire(
    cases: Sequence[str] = tuple(CASES),
    pairs: Sequence[Pair] = PAIRS,
    *,
    seconds: float = 5.0,
    repeat: int = 3,
    seed: int = 1,
    progress: Callable[[str], object] = lambda what: None,
) -> WireReport:
    """Measure. ``progress`` is told of each run when it begins. Raises HostError for a kernel without what it takes."""
    congestion, left_out = congestion_of_kernel()
    report = WireReport(_host(congestion, seconds, repeat, seed), left_out=left_out)
    if why := why_not():
        report.left_out.append(LeftOut("everything", why))
        return report
    for case in cases:
        samples: dict[Pair, list[dict[str, Any]]] = {pair: [] for pair in pairs}
        for turn in range(repeat):
            for pair in pairs:
                progress(f"{case} {pair[0]} to {pair[1]}" + (f" ({turn + 1} of {repeat})" if repeat > 1 else ""))
                try:
                    samples[pair].append(measure(case, pair, seconds, seed + turn, congestion))
                except PeerError as error:
                    report.left_out.append(LeftOut(f"{case} {pair[0]} to {pair[1]}", f"failed: {error}"))
                    report.failures += 1
        report.rows += [_row(case, pair, taken) for pair, taken in samples.items() if taken]
    return report


def measure(case: str, pair: Pair, seconds: float, seed: int, congestion: str) -> dict[str, Any]:
    """One stream: "receiver" and "sender" (see wire_traffic.Seen), "wire" (its report). PeerError."""
    with WireBed(pair, ["--impair", CASES[case], "--seed", str(seed)]) as bed:
        seen = bed.bulk(seconds, congestion)
        seen["wire"] = bed.end_wire()
    receiver = seen["receiver"]
    if receiver["wrong"] >= 0:
        raise PeerError(f"the byte at {receiver['wrong']} was not as sent")
    if receiver["ended"]:
        raise PeerError(f"after {receiver['seconds']:.1f} s: {receiver['ended']}")
    return seen


def _row(case: str, pair: Pair, taken: Sequence[Mapping[str, Any]]) -> WireRow:
    def median(figure: Callable[[Mapping[str, Any]], float]) -> float:
        return round(statistics.median(figure(seen) for seen in taken), 3)

    def rate(seen: Mapping[str, Any]) -> float:
        return float(seen["receiver"]["bytes"] * 8 / seen["receiver"]["seconds"] / 1e6)

    def counter(seen: Mapping[str, Any], name: str) -> float:
        return float(seen["sender"]["counters"].get(name, 0))

    def way(seen: Mapping[str, Any]) -> Mapping[str, Any]:
        there: Mapping[str, Any] = seen["wire"]["rows"][0]
        return there

    return WireRow(
        case,
        *pair,
        rate_mbit=median(rate),
        rates_mbit=tuple(round(rate(seen), 3) for seen in taken),
        retransmitted=median(lambda seen: counter(seen, "TcpRetransSegs")),
        timeouts=median(lambda seen: counter(seen, "TcpExtTCPTimeouts")),
        longest_gap_ms=median(lambda seen: seen["receiver"]["longest_gap_ms"]),
        wire_lost=median(lambda seen: sum(way(seen)[key] for key in ("lost", "dropped", "refused", "overrun"))),
        wire_late_us=median(lambda seen: way(seen)["late_ns"] / max(way(seen)["out_packets"], 1) / 1e3),
    )


def _host(congestion: str, seconds: float, repeat: int, seed: int) -> dict[str, object]:
    """What the figures depend on."""
    memory = {name: Path(f"/proc/sys/net/ipv4/{name}").read_text().split() for name in ("tcp_rmem", "tcp_wmem")}
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "libos": version_of("libos"),
        "congestion_control": congestion,
        **{name: [int(value) for value in values] for name, values in memory.items()},
        "seconds": seconds,
        "repeat": repeat,
        "seed": seed,
    }


def wire_table(report: WireReport) -> Table:
    """A line for each case, a column for each sender-receiver: Mbit/s, and in relation to kernel-kernel."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fits 80 columns
    pairs = list(dict.fromkeys((row.sender, row.receiver) for row in report.rows))
    table.add_column("case", no_wrap=True)
    for pair in pairs:
        table.add_column("-".join(pair), justify="right", no_wrap=True)
    ratios = report.ratios()
    for case in dict.fromkeys(row.case for row in report.rows):
        cells = []
        for pair in pairs:
            row = next((row for row in report.rows if row.case == case and (row.sender, row.receiver) == pair), None)
            ratio = ratios.get(case, {}).get("-".join(pair))
            cells.append("-" if row is None else _cell(row, ratio if pair != ("kernel", "kernel") else None))
        table.add_row(case, *cells)
    return table


def _cell(row: WireRow, ratio: float | None) -> str:
    return f"{row.rate_mbit:.1f}" + (f" ({ratio:.2f})" if ratio is not None else "")

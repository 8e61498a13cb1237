"""``libos bench load``: what is no echo. One stream each way, and connections that live for one request.

``up`` and ``down``: one connection, 64 KiB writes, the server's application in Python (``data_received``, ``write``
with flow control) for all peers but the C ones. ``connect``: 32 at a time connect, send 64 bytes, have them echoed
and close; there is no floor for it, for the floor keeps no state by which to close.
The runs are interleaved and pinned as those of the echo (see :mod:`libos.bench.echo`), and CPU time is again that of
both sides together.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rich import box
from rich.table import Table

from libos.bench.compile import build
from libos.bench.echo import congestion_of_kernel, host_of
from libos.bench.report import LeftOut, Results
from libos.bench.servers import PEERS, Peer, PeerError, Role, why_not
from libos.bench.testbed import Testbed

__all__ = ["CASES", "LOADED", "Load", "LoadReport", "bench_load", "load_table"]


@dataclass(frozen=True)
class Load:
    """One kind of load: what the server does, how many connections at a time, bytes a write, what is counted."""

    name: str
    role: Role
    conns: int
    size: int
    unit: str
    of_count: float  # units for each thing that the client counts
    cpu_unit: str
    per_cpu: float  # CPU time is given for so many of them


CASES: Mapping[str, Load] = MappingProxyType(
    {
        load.name: load
        for load in (
            Load("up", "sink", 1, 65536, "Mbit/s", 8e-6, "µs/MiB", 1 << 20),
            Load("down", "source", 1, 65536, "Mbit/s", 8e-6, "µs/MiB", 1 << 20),
            Load("connect", "echo", 32, 64, "conn/s", 1, "µs/conn", 1),
        )
    }
)
LOADED = ("c-epoll", "asyncio", "uvloop", "libos-host", "libos-tap", "tap-floor")


@dataclass(frozen=True)
class LoadRow:
    """Medians: ``rate`` in the case's unit; CPU in µs, of the server and of both sides, for each MiB or connection."""

    case: str
    peer: str
    unit: str
    rate: float
    rates: tuple[float, ...]
    cpu_us: float
    total_cpu_us: float


class LoadReport(Results[LoadRow]):
    """Rates of each peer under each load."""

    def ratios(self) -> dict[str, dict[str, dict[str, float]]]:
        """case -> peer -> reference -> the peer's rate divided by the reference's: above 1, the peer does more."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.rows:
            others = {
                r.peer: r.rate for r in self.rows if r.case == row.case and r.peer in ("c-epoll", "uvloop", "tap-floor")
            }
            found.setdefault(row.case, {})[row.peer] = {
                peer: round(row.rate / rate, 3) for peer, rate in others.items() if peer != row.peer and rate
            }
        return found


def bench_load(
    cases: Sequence[str] = tuple(CASES),
    peers: Sequence[str] = LOADED,
    *,
    seconds: float = 1.0,
    repeat: int = 3,
    root: bool = True,
    progress: Callable[[str], object] = lambda what: None,
) -> LoadReport:
    """Measure. ``progress`` is told of each run when it begins. Raises HostError where nothing can be measured."""
    client = build("load_client")
    congestion, left_out = congestion_of_kernel()
    with Testbed(namespaces=root) as bed:
        report = LoadReport(host_of(bed, congestion, seconds, repeat), left_out=left_out)
        for load in (CASES[name] for name in cases):
            able: dict[Peer, list[Mapping[str, float]]] = {}
            for peer in (dataclasses.replace(PEERS[name], role=load.role) for name in peers):
                if load.name == "connect" and peer.what == "tap_floor":
                    continue
                if why := why_not(peer, bed):
                    report.left_out.append(LeftOut(f"{peer.name} {load.name}", why))
                else:
                    able[peer] = []
            for turn in range(repeat):
                for peer in list(able):
                    progress(f"{load.name} {peer.name}" + (f" ({turn + 1} of {repeat})" if repeat > 1 else ""))
                    try:
                        able[peer].append(_measure(client, peer, bed, load, seconds, congestion))
                    except PeerError as error:
                        report.left_out.append(LeftOut(f"{peer.name} {load.name}", f"failed: {error}"))
                        report.failures += 1
                        del able[peer]
            report.rows += [_row(load, peer, taken) for peer, taken in able.items()]
    return report


def _measure(
    client: Path, peer: Peer, bed: Testbed, load: Load, seconds: float, congestion: str
) -> Mapping[str, float]:
    """One server's life and one client's run against it. Raises PeerError when either is not as it should be."""
    warmup = min(0.5, seconds / 2)
    with peer.running(bed, congestion) as server, bed.client.entered():
        words = [client, server.address, server.port, load.name, load.conns, load.size, warmup, seconds]
        command = [str(word) for word in (*words, bed.cpus[0], server.pid, congestion)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=warmup + seconds + 30,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerError("the client did not finish") from None
        if done.returncode:
            raise PeerError(done.stderr.strip() or f"the client ended with status {done.returncode}")
    seen: Mapping[str, float] = json.loads(done.stdout)
    if not seen["units"]:
        raise PeerError("nothing was done in the measured interval")
    return seen


def _row(load: Load, peer: Peer, taken: Sequence[Mapping[str, float]]) -> LoadRow:
    def per_unit(seen: Mapping[str, float], ns: float) -> float:
        return ns / 1e3 / seen["units"] * load.per_cpu

    rates = tuple(round(seen["units"] * load.of_count / seen["seconds"], 1) for seen in taken)
    return LoadRow(
        load.name,
        peer.name,
        load.unit,
        rate=round(statistics.median(rates), 1),
        rates=rates,
        cpu_us=round(statistics.median(per_unit(seen, seen["server_ns"]) for seen in taken), 2),
        total_cpu_us=round(statistics.median(per_unit(s, s["server_ns"] + s["client_ns"]) for s in taken), 2),
    )


def load_table(report: LoadReport) -> Table:
    """The rows, a section for each case."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fits 80 columns
    for heading in ("case", "peer"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rate", "CPU", "total", "/c-epoll", "/uvloop", "/floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    ratios = report.ratios()
    for case, load in CASES.items():
        for i, row in enumerate(row for row in report.rows if row.case == case):
            to = ratios[case][row.peer]
            table.add_row(
                case if i == 0 else f"{load.unit}" if i == 1 else load.cpu_unit if i == 2 else "",
                row.peer,
                f"{row.rate:,.0f}",
                f"{row.cpu_us:.1f}",
                f"{row.total_cpu_us:.1f}",
                *(f"{to[name]:.2f}" if name in to else "-" for name in ("c-epoll", "uvloop", "tap-floor")),
            )
        table.add_section()
    return table

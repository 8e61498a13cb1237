"""``libos bench flood``: what established connections keep of their throughput while SYNs pour in.

A libos echo server stands on a TAP device; a closed-loop client has its connections. Then, at each rate, the client is
measured three times: in quiet; while a flooder writes SYNs for *another* station to the same device (what the flooder
itself and the device cost); and while it writes them to the server's own open port. The flooder and the client share a
cpu, the server has the other: so it is the second that the third compares with, where there are but two. Its memory is
read before and after.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from libos.bench.compile import build
from libos.bench.echo import congestion_of_kernel, version_of
from libos.bench.report import LeftOut, Results
from libos.bench.servers import PEERS, PeerError, Running, why_not
from libos.bench.testbed import TAP, TAP_SERVER, Testbed

__all__ = ["FloodReport", "FloodRow", "bench_flood", "flood_table"]

SIZE = 1024  # bytes of a message
WARMUP = 1.0  # seconds; the flood begins in the middle of it, with all connections established
ELSEWHERE = "02:00:00:00:00:fe"  # nobody's address


@dataclass(frozen=True)
class FloodRow:
    """Medians. ``rate``: SYNs a second asked for (0: as many as go) and ``sent``; requests a second of the client."""

    rate: int
    sent: float
    quiet: float
    elsewhere: float
    flood: float
    kept_of_quiet: float
    kept_of_elsewhere: float
    p99_ms: float  # under the flood
    grown_kib: int  # the server's resident memory, after - before


class FloodReport(Results[FloodRow]):
    """What is left of a server's rate under each flood."""


def bench_flood(
    rates: Sequence[int],
    *,
    conns: int = 16,
    seconds: float = 2.0,
    repeat: int = 3,
    progress: Callable[[str], object] = lambda what: None,
) -> FloodReport:
    """Measure. HostError: no C compiler."""
    congestion, left_out = congestion_of_kernel()
    report = FloodReport(
        {"cpus": os.cpu_count(), "libos": version_of("libos"), "conns": conns, "size": SIZE, "seconds": seconds},
        left_out=left_out,
    )
    peer = PEERS["libos-tap"]
    with Testbed(namespaces=os.geteuid() == 0) as bed:
        if why := why_not(peer, bed):
            report.left_out.append(LeftOut("everything", why))
            return report
        for rate in rates:
            try:
                with peer.running(bed, congestion) as server:
                    _before_others(server.pid)
                    report.rows.append(_row(bed, server, rate, conns, seconds, repeat, congestion, progress))
            except PeerError as error:
                report.left_out.append(LeftOut(f"{rate} a second", f"failed: {error}"))
                report.failures += 1
    return report


def _row(
    bed: Testbed,
    server: Running,
    rate: int,
    conns: int,
    seconds: float,
    repeat: int,
    congestion: str,
    progress: Callable[[str], object],
) -> FloodRow:
    taken: dict[str, list[dict[str, Any]]] = {"quiet": [], "elsewhere": [], "flood": []}
    sent: list[float] = []
    _client(bed, server, conns, 0.1, congestion, lambda: contextlib.nullcontext())  # the neighbours know each other
    own = _station_of_server(bed)
    before = _resident_kib(server.pid)
    for turn in range(repeat):
        for what, station in (("quiet", ""), ("elsewhere", ELSEWHERE), ("flood", own)):
            progress(f"{rate or 'as many as go'} {what} ({turn + 1} of {repeat})")

            def poured(to: str = station) -> contextlib.AbstractContextManager[None]:
                return _flooding(bed, to, server.port, rate, WARMUP / 2 + seconds, sent)

            around = poured if station else contextlib.nullcontext
            taken[what].append(_client(bed, server, conns, seconds, congestion, around))
    rates = {
        what: statistics.median(each["requests"] / each["seconds"] for each in runs) for what, runs in taken.items()
    }
    return FloodRow(
        rate,
        round(statistics.median(sent)),
        **{what: round(figure) for what, figure in rates.items()},
        kept_of_quiet=round(rates["flood"] / rates["quiet"], 3),
        kept_of_elsewhere=round(rates["flood"] / rates["elsewhere"], 3),
        p99_ms=round(statistics.median(each["p99_ns"] for each in taken["flood"]) / 1e6, 3),
        grown_kib=_resident_kib(server.pid) - before,
    )


def _client(
    bed: Testbed,
    server: Running,
    conns: int,
    seconds: float,
    congestion: str,
    around: Callable[[], contextlib.AbstractContextManager[None]],
) -> dict[str, Any]:
    """One run of the client; ``around`` it, from the middle of its warm-up on, whatever is to happen."""
    command = [build("echo_client"), server.address, server.port, conns, SIZE, WARMUP, seconds, bed.cpus[0]]
    with bed.client.entered():
        process = subprocess.Popen(
            [str(word) for word in (*command, server.pid, congestion)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        _before_others(process.pid)
        time.sleep(WARMUP / 2)
        with around():
            said, complained = process.communicate(timeout=WARMUP + seconds + 30)
    except subprocess.TimeoutExpired:
        raise PeerError("the client did not finish") from None
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        raise PeerError(complained.strip())
    sample: dict[str, Any] = json.loads(said)
    return sample


@contextlib.contextmanager
def _flooding(bed: Testbed, station: str, port: int, rate: int, seconds: float, sent: list[float]) -> Iterator[None]:
    command = [build("syn_flood"), TAP, station, TAP_SERVER, port, rate, seconds, bed.cpus[0]]
    with bed.client.entered():
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    try:
        if rate:  # it pauses: it need not wait for the client, which never does
            _before_others(process.pid, 2)
        yield
        said, complained = process.communicate(timeout=seconds + 30)
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        raise PeerError(f"the flooder: {complained.strip()}")
    counts = json.loads(said)
    sent.append(counts["sent"] / counts["seconds"])


def _before_others(pid: int, priority: int = 1) -> None:
    """What else this host does is not the flood's doing: a server that waits for its cpu loses frames."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))


def _station_of_server(bed: Testbed) -> str:
    """The server's link address, as the client's kernel has learnt it (proc_net_arp)."""
    with bed.client.entered(), open("/proc/thread-self/net/arp", encoding="ascii") as lines:
        for line in lines:
            address, _, _, station, *_ = line.split()
            if address == TAP_SERVER:
                return station
    raise PeerError("the server is no neighbour")


def _resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 10


def flood_table(report: FloodReport) -> Table:
    """A line for each rate."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("SYNs/s", "quiet", "elsewhere", "flood", "of quiet", "of elsewhere", "p99 ms", "KiB more"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        figures = f"{row.sent:,.0f}", f"{row.quiet:,.0f}", f"{row.elsewhere:,.0f}", f"{row.flood:,.0f}"
        kept = f"{row.kept_of_quiet:.2f}", f"{row.kept_of_elsewhere:.2f}"
        table.add_row(*figures, *kept, f"{row.p99_ms:.1f}", f"{row.grown_kib:,}")
    return table

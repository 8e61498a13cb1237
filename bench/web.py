"""``libos bench http``: small answers of real HTTP servers, asked for by wrk.

The servers are aiohttp, and uvicorn with httptools, each the same program on every loop (:mod:`libos.bench.roles`),
pinned to one cpu; wrk has one thread on the other, and 64 connections, each with one request under way. Runs are
interleaved as those of the echo (see :mod:`libos.bench.echo`), with a second to warm up before each.

CPU time is that of server and client together, per request, as for the echo. wrk tells no instants, so both are
taken around its whole life: its own by wait4(2), the server's by its clock. The 64 connections' beginning is in it.

A run in which wrk met an error (a connection refused or lost, a time-out, a status of 400 or above) gives no figure.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from libos.bench.cpu import children_ns, clock_of
from libos.bench.echo import congestion_of_kernel, host_of, version_of
from libos.bench.report import LeftOut, Report, Row, Sample
from libos.bench.roles import HTTP_BODY
from libos.bench.servers import PEERS, Peer, PeerError, Role, why_not
from libos.bench.testbed import Testbed
from libos.errors import HostError

__all__ = ["CASES", "SERVED", "bench_http"]

CASES: Mapping[str, Role] = MappingProxyType({"aiohttp": "aiohttp", "uvicorn": "uvicorn"})
SERVED = ("asyncio", "uvloop", "libos-host", "libos-host-epoll", "libos-tap")

_CONNS = 64
_REPORT = Path(__file__).resolve().parent / "peers" / "report.lua"


def bench_http(
    cases: Sequence[str] = tuple(CASES),
    peers: Sequence[str] = SERVED,
    *,
    seconds: int = 3,
    repeat: int = 3,
    root: bool | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Report:
    """Measure. ``progress`` is told of each run when it begins. ``root`` None: as we are. Raises HostError: no wrk."""
    if root is None:
        root = os.geteuid() == 0
    if (wrk := shutil.which("wrk")) is None:
        raise HostError("no wrk: install it (Debian: apt install wrk)")
    congestion, left_out = congestion_of_kernel()
    if not root:
        left_out.append(LeftOut("veth pair between namespaces", "needs root: kernel peers ran over the loopback"))
    with Testbed(namespaces=root) as bed:
        versions = {package: version_of(package) for package in ("aiohttp", "uvicorn", "httptools")}
        report = Report(host_of(bed, congestion, seconds, repeat) | versions, left_out=left_out)
        for case in cases:
            samples: dict[Peer, list[Sample]] = {}
            for peer in (dataclasses.replace(PEERS[name], role=CASES[case]) for name in peers):
                if why := why_not(peer, bed):
                    if LeftOut(peer.name, why) not in left_out:
                        left_out.append(LeftOut(peer.name, why))
                else:
                    samples[peer] = []
            for turn in range(repeat):
                for peer in list(samples):
                    progress(f"{case} {peer.name}" + (f" ({turn + 1} of {repeat})" if repeat > 1 else ""))
                    try:
                        samples[peer].append(measure(wrk, peer, bed, seconds, congestion))
                    except PeerError as error:
                        report.left_out.append(LeftOut(f"{peer.name} {case}", f"failed: {error}"))
                        report.failures += 1
                        del samples[peer]
            report.rows += [Row.of(case, p.name, _CONNS, len(HTTP_BODY), taken) for p, taken in samples.items()]
    return report


def measure(wrk: str, peer: Peer, bed: Testbed, seconds: int, congestion: str) -> Sample:
    """One server's life, and two runs of wrk against it, of which the second counts. Raises PeerError."""
    with peer.running(bed, congestion) as server, bed.client.entered():
        command = ["taskset", "-c", str(bed.cpus[0]), wrk, "-t1", f"-c{_CONNS}", "-s", str(_REPORT)]
        url = f"http://{server.address}:{server.port}/"
        _run([*command, "-d1", url], 1)
        clock = clock_of(server.pid)
        client, served = children_ns(), time.clock_gettime_ns(clock)
        seen = _run([*command, f"-d{seconds}", url], seconds)
        served, client = time.clock_gettime_ns(clock) - served, children_ns() - client
    return Sample(
        requests=int(seen["requests"]),
        seconds=seen["seconds"],
        p50_ns=int(seen["p50_us"] * 1000),
        p99_ns=int(seen["p99_us"] * 1000),
        client_ns=client,
        server_ns=served,
    )


def _run(command: list[str], seconds: int) -> Mapping[str, float]:
    """What wrk reports."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 30, check=False
        )
    except subprocess.TimeoutExpired:
        raise PeerError("wrk did not finish") from None
    last = done.stderr.strip().rpartition("\n")[2]
    if done.returncode or not last.startswith("{"):
        raise PeerError(last or done.stdout.strip().rpartition("\n")[2] or f"wrk ended with status {done.returncode}")
    seen: Mapping[str, float] = json.loads(last)
    if seen["errors"]:
        raise PeerError(f"{seen['errors']:.0f} of {seen['requests']:.0f} requests failed")
    if not seen["requests"]:
        raise PeerError("no request was answered")
    return seen

"""``libos bench echo``: the same closed-loop TCP echo against every peer, in turn.

For each case (connections x bytes) and each repetition, every peer has its turn: its server is started on one cpu, the
C client on another warms up and measures for ``seconds``, and both are ended. Interleaved like this, what a shared
machine does to one peer it does, by and large, to all; the medians over the repetitions are what is reported.

CPU time is that of both processes between the same two instants (see peers/echo_client.c). It is their sum that
compares: on TAP the server's ``write`` does the client's receive work, on veth the client's ``send`` does the server's.
A spinning peer burns its core by design, so its CPU says how much it burnt, and its p50 is what it is there for.

A peer that gives a wrong byte, loses a connection, stalls or ends has no row for that case; the report says so.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from libos.bench.compile import build, compiler
from libos.bench.report import LeftOut, Report, Row, Sample
from libos.bench.servers import PEERS, Peer, PeerError, why_not
from libos.bench.testbed import Testbed
from libos.errors import ConfigError

__all__ = ["CASES", "Case", "bench_echo", "congestion_of_kernel", "host_of", "measure", "version_of"]


@dataclass(frozen=True)
class Case:
    """``conns`` connections, each with one message of ``size`` bytes under way."""

    conns: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.conns}x{self.size}"

    @classmethod
    def parse(cls, text: str) -> Case:
        """``CONNSxBYTES``. Raises ConfigError."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,6})", text)
        if match and 1 <= int(match[1]) <= CONNS_MAX and 8 <= int(match[2]) <= 65536:
            return cls(int(match[1]), int(match[2]))
        raise ConfigError(f"--cases {text}: allowed: CONNSxBYTES, up to {CONNS_MAX} connections of 8 to 65536 bytes")


CONNS_MAX = 16384
CASES = tuple(Case(conns, size) for conns in (1, 64) for size in (64, 1024, 16384))


def bench_echo(
    cases: Sequence[Case] = CASES,
    peers: Sequence[str] = tuple(PEERS),
    *,
    seconds: float = 1.0,
    repeat: int = 3,
    root: bool | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Report:
    """Measure. ``progress`` is told of each run when it begins. ``root`` None: as we are.

    Raises HostError when nothing can be measured here (no C compiler: no client)."""
    if root is None:
        root = os.geteuid() == 0
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = max((case.conns for case in cases), default=0) + 100
    if files < need:  # of every peer, which inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(need, most), most))
    client = build("echo_client")
    congestion, left_out = congestion_of_kernel()
    if not root:
        left_out.append(LeftOut("veth pair between namespaces", "needs root: kernel peers ran over the loopback"))
    with Testbed(namespaces=root) as bed:
        able: list[Peer] = []
        for peer in (PEERS[name] for name in peers):
            if why := why_not(peer, bed):
                left_out.append(LeftOut(peer.name, why))
            else:
                able.append(peer)
        report = Report(host_of(bed, congestion, seconds, repeat), left_out=left_out)
        for case in cases:
            samples: dict[Peer, list[Sample]] = {peer: [] for peer in able}
            for turn in range(repeat):
                for peer in able:
                    progress(f"{case.name} {peer.name}" + (f" ({turn + 1} of {repeat})" if repeat > 1 else ""))
                    if peer not in samples:
                        continue  # it has failed before
                    try:
                        samples[peer].append(measure(client, peer, bed, case, seconds, congestion))
                    except PeerError as error:
                        report.left_out.append(LeftOut(f"{peer.name} {case.name}", f"failed: {error}"))
                        report.failures += 1
                        del samples[peer]
            report.rows += [Row.of(case.name, p.name, case.conns, case.size, taken) for p, taken in samples.items()]
    return report


def measure(client: Path, peer: Peer, bed: Testbed, case: Case, seconds: float, congestion: str) -> Sample:
    """One server's life and one client's run against it. Raises PeerError when either is not as it should be."""
    warmup = min(0.5, seconds / 2)
    peer = dataclasses.replace(peer, size=case.size)
    with peer.running(bed, congestion) as server:
        command = [
            *(client, server.address, server.port, case.conns, case.size),
            *(warmup, seconds, bed.cpus[0], server.pid, congestion),
        ]
        with bed.client.entered():
            process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for us, who then end it
            )
        try:
            said, complained = process.communicate(timeout=warmup + seconds + 30)
        except subprocess.TimeoutExpired:
            raise PeerError("the client did not finish") from None
        finally:
            process.kill()
            process.communicate()
        if process.returncode:
            raise PeerError(complained.strip() or f"the client ended with status {process.returncode}")
        sample = Sample(**json.loads(said))
    if not sample.requests:
        raise PeerError("no request was answered in the measured interval")
    return sample


def congestion_of_kernel() -> tuple[str, list[LeftOut]]:
    """cubic on every kernel socket, so that paced and unpaced senders are not compared; else the host's default."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        except OSError as error:
            default = probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
            return default, [LeftOut("cubic congestion control", f"{error.strerror}: all ran on {default}")]
    return "cubic", []


def host_of(bed: Testbed, congestion: str, seconds: float, repeat: int) -> dict[str, object]:
    """What the figures depend on."""
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model[1] if model else "unknown",
        "cpus": os.cpu_count(),
        "client_cpu": bed.cpus[0],
        "server_cpu": bed.cpus[1],
        "python": f"{platform.python_version()} ({Path(sys.executable).resolve()})",
        "libos": version_of("libos"),
        "uvloop": version_of("uvloop"),
        "compiler": compiler(),
        "kernel_wire": "veth" if bed.namespaces else "loopback",
        "congestion_control": congestion,
        "seconds": seconds,
        "repeat": repeat,
    }


def version_of(package: str) -> str | None:
    """What is installed here, None: nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

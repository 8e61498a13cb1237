"""A SYN flood on a TAP device: established connections go on, new ones are made, memory stays as it is."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess

import pytest

from libos.bench.compile import build
from libos.bench.flood import _flooding, _station_of_server, bench_flood
from libos.bench.servers import PEERS
from libos.bench.testbed import TAP_SERVER, Testbed

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="the flooder is built with gcc"),
]
MEMORY_KIB = 4096  # of the process, for half-open connections, cookies and all


def test_established_connections_go_on() -> None:
    """The client compares every answer with its message, and gives up after 5 s without one."""
    report = bench_flood([20_000], conns=4, seconds=0.3, repeat=1)
    assert not report.failures, report.left_out
    (row,) = report.rows
    assert row.sent > 5_000
    assert row.flood > 0
    assert row.grown_kib < MEMORY_KIB


def test_new_connections_are_made() -> None:
    """While the backlog is full many times over, a client still gets through: SYN cookies (RFC 4987 3.6)."""
    sent: list[float] = []
    with Testbed(namespaces=True) as bed, PEERS["libos-tap"].running(bed, "cubic") as server:
        with bed.client.entered(), socket.create_connection((TAP_SERVER, server.port), timeout=10) as first:
            first.sendall(b"before")
            assert first.recv(100) == b"before"
        with _flooding(bed, _station_of_server(bed), server.port, 20_000, 2.0, sent):
            for number in range(20):
                with bed.client.entered():
                    sock = socket.create_connection((TAP_SERVER, server.port), timeout=10)
                with sock:
                    sock.settimeout(10)
                    sock.sendall(b"%d" % number)
                    assert sock.recv(100) == b"%d" % number
    assert sent[0] > 5_000


@pytest.mark.soak
def test_what_they_keep_in_flat_memory() -> None:
    """Four fifths at 20,000 a second. At 148,810 (100 Mbit/s of SYNs) the server's cpu is the bound: they go on."""
    report = bench_flood([20_000, 148_810], conns=16, seconds=3.0, repeat=5)
    assert not report.failures, report.left_out
    print(json.dumps(json.loads(report.to_json())["rows"], indent=1))
    slow, fast = report.rows
    assert slow.kept_of_elsewhere >= 0.8
    assert fast.kept_of_elsewhere >= 0.3
    assert max(slow.grown_kib, fast.grown_kib) < MEMORY_KIB


def test_the_flooder_says_what_is_wrong() -> None:
    done = subprocess.run([build("syn_flood")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage: syn_flood" in done.stderr

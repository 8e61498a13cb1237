"""``libos wire`` as a command; every byte intact over bad wires, kernel and libos in all pairs, both ways at once."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.utils import rdpcap

from libos.cli import cli
from libos.config import parse_impairment
from libos.errors import ConfigError, HostError
from libos.net.link.netns import Namespace
from libos.wire import End, plan_of

from .schedule import Schedule, Side, Turn, expected, play
from .worlds import Wired

PAIRS = (("kernel", "kernel"), ("kernel", "libos"), ("libos", "kernel"), ("libos", "libos"))

# What it is, and how many bytes go each way in the suite and in the soak.
WIRES = {
    "rtt2": ("delay=1ms", 300_000, 50_000_000),
    "rtt40": ("delay=20ms", 200_000, 20_000_000),
    "rtt200": ("delay=100ms", 100_000, 10_000_000),
    "rtt400": ("delay=200ms", 20_000, 5_000_000),
    "loss0.1": ("delay=1ms,loss=0.1%", 300_000, 50_000_000),
    "loss1": ("delay=1ms,loss=1%", 300_000, 20_000_000),
    "loss5": ("delay=1ms,loss=5%", 50_000, 2_000_000),
    "loss20": ("delay=1ms,loss=20%", 5_000, 100_000),
    "bursts": ("delay=1ms,loss=2%,burst=6", 50_000, 5_000_000),
    "reorder": ("delay=5ms,reorder=5%", 200_000, 20_000_000),
    "jitter": ("delay=5ms,jitter=5ms", 200_000, 20_000_000),
    "duplicate": ("delay=1ms,duplicate=10%", 300_000, 20_000_000),
    "corrupt": ("delay=1ms,corrupt=2%", 100_000, 10_000_000),
    "narrow": ("delay=5ms,rate=20mbit,buffer=20ms", 200_000, 10_000_000),
    "all": (
        "delay=5ms,jitter=2ms,loss=1%,reorder=2%,duplicate=1%,corrupt=0.5%,rate=50mbit,buffer=30ms",
        *(50_000, 5_000_000),
    ),
}


def both_ways(how: str, kinds: Any, size: int, seed: int, limit: int = 60) -> None:
    turn = Turn(Side((size,)), Side((size,)))
    with Wired(kinds, parse_impairment(how), seed) as world:
        world.limit = limit * 10**9
        schedule = Schedule((turn,), "both")
        assert play(schedule, world) == expected(schedule)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("kinds", PAIRS[1:3], ids="-".join)
@pytest.mark.parametrize("name", WIRES)
def test_every_byte_over_bad_wires(name, kinds):
    how, size, _ = WIRES[name]
    both_ways(how, kinds, size, 1)


@pytest.mark.root
@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
@pytest.mark.parametrize("name", WIRES)
def test_every_byte_over_bad_wires_for_longer(name, kinds, seed):
    how, _, size = WIRES[name]
    both_ways(how, kinds, size, seed, limit=300)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_plan_from_options():
    options = {"a": "w0@left", "b": "w1", "impair": "delay=5ms", "b_to_a": "rate=1mbit,queue=7", "seed": "4"}
    plan, settings = plan_of(options)
    assert (str(plan.a), str(plan.b), plan.mtu) == ("w0@left", "w1", 1500)
    assert (plan.a_to_b.delay, plan.a_to_b.rate, plan.a_to_b.queue) == (5 * 10**6, 0, 100_000)
    assert (plan.b_to_a.delay, plan.b_to_a.rate, plan.b_to_a.queue) == (0, 10**6, 7)
    assert settings == {"spin_us": 0, "seed": 4, "kind": "auto", "json_to": ""}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"a": "w0@"}, "allowed: NAME"),
        ({"a": "a-name-that-is-too-long"}, "allowed: NAME"),
        ({"impair": "loss=101%"}, "--a-to-b loss=101%"),
        ({"b_to_a": "latency=5ms"}, "latency=5ms is no impairment; allowed: loss"),
        ({"impair": "buffer=64K"}, "for a size there must be a rate"),
        ({"mtu": "10"}, "--mtu 10: allowed: 68 to 65520"),
        ({"seed": "x"}, "--seed x"),
        ({"reactor": "poll"}, "--reactor poll"),
    ],
)
def test_options_that_are_wrong(options, says):
    with pytest.raises(ConfigError, match=says):
        plan_of({"a": "w0", "b": "w1", **options})


def test_no_such_namespace():
    with (
        pytest.raises(HostError, match=r"no network namespace 'there-is-none'.*ip netns add"),
        End("w", "there-is-none").entered(),
    ):
        pass


def test_help_shows_it():
    said = CliRunner().invoke(cli, ["wire", "--help"]).output
    assert "ip netns add left" in said


@contextlib.contextmanager
def two_hosts(*options: str) -> Iterator[tuple[Namespace, Namespace, Any]]:
    """Two namespaces with addresses, and the command between them."""
    with Namespace.new() as a, Namespace.new() as b:
        ends = [f"w0@/proc/{os.getpid()}/fd/{namespace.fd}" for namespace in (a, b)]
        command = [sys.executable, "-m", "libos", "wire", "--a", ends[0], "--b", ends[1], *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            assert select.select([process.stderr], [], [], 20)[0]
            assert "wire between" in process.stderr.readline()
            for namespace, address in ((a, "198.18.4.1/24"), (b, "198.18.4.2/24")):
                with namespace.entered():
                    subprocess.run(["ip", "addr", "add", address, "dev", "w0"], check=True)
            yield a, b, process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.root
@pytest.mark.skipif(not (shutil.which("ping") and shutil.which("ip")), reason="needs ping and ip")
def test_the_command(tmp_path: Path) -> None:
    """Two namespaces ping over it; the figures and the capture say so."""
    capture = tmp_path / "a.pcap"
    with two_hosts("--a-to-b", "delay=20ms", "--json", "-", "--seed", "3", "--pcap", str(capture)) as (a, _, process):
        with a.entered():
            ping = ["ping", "-c", "3", "-i", "0.05", "-W", "5", "198.18.4.2"]
            said = subprocess.run(ping, capture_output=True, text=True, check=True).stdout
        assert " 0% packet loss" in said
        assert 20 <= float(said.split("rtt min/avg/max/mdev = ")[1].split("/")[0]) < 200
        process.send_signal(signal.SIGINT)
        report = json.loads(process.communicate(timeout=20)[0])
    assert process.returncode == 0
    assert report["wire"]["seed"] == 3
    assert [row["direction"] for row in report["rows"]] == ["a_to_b", "b_to_a"]
    assert report["rows"][0]["in_packets"] == report["rows"][0]["out_packets"] >= 3
    assert len(rdpcap(str(capture))) >= 6


@pytest.mark.root
@pytest.mark.parametrize(("impair", "whole"), [("delay=1ms", True), ("delay=1ms,loss=0.01%", False)])
def test_segments_pass_whole_only_where_that_is_honest(impair: str, whole: bool) -> None:
    """64 KiB segments where the wire only delays; frames of the MTU where it chooses among them."""
    with two_hosts("--impair", impair, "--json", "-") as (a, b, process):
        with contextlib.ExitStack() as stack:
            with b.entered():
                listener = stack.enter_context(socket.create_server(("198.18.4.2", 0)))
            with a.entered():
                out = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=20))
            into = stack.enter_context(listener.accept()[0])
            out.sendall(bytes(400_000))
            out.shutdown(socket.SHUT_WR)
            into.settimeout(20)
            while into.recv(1 << 20):
                pass
        process.send_signal(signal.SIGTERM)
        report = json.loads(process.communicate(timeout=20)[0])
    row = report["rows"][0]
    assert report["wire"]["whole_segments"] is whole
    assert (row["in_bytes"] / row["in_packets"] > 1514) is whole


@pytest.mark.root
def test_it_ends_by_itself() -> None:
    with two_hosts("--duration", "0.5") as (_, _, process):
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "a to b: " in said

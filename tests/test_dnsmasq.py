"""DHCP and router advertisements against dnsmasq, over a TAP, in a network namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("dnsmasq") and shutil.which("unshare") and shutil.which("nsenter")),
        reason="needs dnsmasq (apt-get install dnsmasq-base), and unshare and nsenter of util-linux",
    ),
]

GUEST = Path(__file__).parent / "dnsmasq_guest.py"
HOST4, HOST6 = "10.44.0.1", "fd44::1"
RANGE4 = "--dhcp-range=10.44.0.50,10.44.0.60,255.255.255.0,2m"
SETUP = f"""
ip link set lo up
ip tuntap add dev t0 mode tap
echo 0 > /proc/sys/net/ipv6/conf/t0/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/t0/router_solicitations
ip link set t0 up
ip addr add {HOST4}/24 dev t0
ip addr add {HOST6}/64 dev t0 nodad
echo ready
exec sleep 1000
"""


class Lan:
    """A namespace with a TAP ``t0``, the kernel's addresses on it, and dnsmasq."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-ec", SETUP], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "ready\n"
        self.log = folder / "dnsmasq.log"
        self.server: subprocess.Popen[bytes] | None = None
        if options:
            self.serve(*options)

    def command(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *map(str, words)]

    def serve(self, *options: str) -> None:
        fixed = ("--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=t0", "--no-ping", "--leasefile-ro")
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                self.command("dnsmasq", *fixed, "--dhcp-authoritative", "--log-dhcp", *options), stderr=log
            )
        for _ in range(200):  # it says so when it serves
            if "sockets bound" in self.said() or "DHCP" in self.said():
                return
            assert self.server.poll() is None, self.said()
            time.sleep(0.01)
        raise AssertionError(self.said())

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def run(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, timeout=10)

    def guest(self, ip: str, *words: str) -> dict[str, dict[str, Any]]:
        """A machine with ``ip`` does ``words``: what it says of each."""
        done = subprocess.run(
            self.command(sys.executable, GUEST, ip, *words), capture_output=True, text=True, timeout=40, check=False
        )
        assert done.returncode == 0, done.stderr + self.said()
        assert not done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {line["event"]: line for line in lines}

    def close(self) -> None:
        for process in (self.server, self.holder):
            if process is not None:
                process.kill()
                process.communicate()


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Callable[..., Lan]]:
    made: list[Lan] = []

    def make(*options: str) -> Lan:
        made.append(Lan(tmp_path, *options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_lease(lan: Callable[..., Lan]) -> None:
    """DISCOVER to ACK, checked, used, and released at the end."""
    net = lan(
        RANGE4,
        "--dhcp-option=option:dns-server,10.44.0.53",
        "--dhcp-option=option:domain-search,example.org,lab.test",
        "--dhcp-option=option:mtu,1400",
    )
    boot = net.guest("dhcp", "boot")["boot"]
    (address,) = boot["addresses"]
    assert address.startswith("10.44.0.5")
    assert address.endswith("/24")
    assert boot["servers"] == ["10.44.0.53"]
    assert boot["search"] == ["example.org", "lab.test"]
    assert boot["lines"] == [f"{address} on t0, leased by {HOST4} for 120 s"]
    assert boot["ms"] < 2000
    for word in ("DHCPDISCOVER", "DHCPOFFER", "DHCPREQUEST", "DHCPACK", "DHCPRELEASE"):
        assert word in net.said()


def test_the_kernel_reaches_a_leased_address(lan: Callable[..., Lan]) -> None:
    net = lan(RANGE4.replace("10.44.0.60", "10.44.0.50"))
    process = subprocess.Popen(
        net.command(sys.executable, GUEST, "dhcp", "boot", "live"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert any('"live"' in line for line in process.stdout)
    net.run("ping", "-c1", "-W1", "-q", "10.44.0.50")
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_renewing_and_rebinding(lan: Callable[..., Lan]) -> None:
    """RFC 2131 4.4.5: dnsmasq prolongs the lease, asked alone and asked with all others."""
    said = lan(RANGE4).guest("dhcp", "boot", "renew", "rebind")
    assert said["renewing"]["done"]
    assert "RENEWING" in said["renewing"]["states"]
    assert said["rebinding"]["done"]
    assert "REBINDING" in said["rebinding"]["states"]
    assert said["boot"]["addresses"] == said["renewing"]["addresses"] == said["rebinding"]["addresses"]


def test_an_address_that_somebody_has_is_declined(lan: Callable[..., Lan]) -> None:
    """RFC 2131 3.1 (5), RFC 5227: the kernel answers for it."""
    net = lan(RANGE4.replace("10.44.0.60", "10.44.0.50"))
    net.run("ip", "addr", "add", "10.44.0.50/32", "dev", "lo")
    refused = net.guest("dhcp", "refused")["refused"]
    assert refused["addresses"] == []
    assert "10.44.0.50 on t0 is in use by" in refused["lines"][0]
    assert "DHCPDECLINE" in net.said()


def test_nobody_answers(lan: Callable[..., Lan]) -> None:
    none = lan().guest("dhcp,auto", "boot")["none"]
    assert "no DHCP server answered on t0; no router advertised itself on t0 in 6 s" in none["why"]


def test_slaac(lan: Callable[..., Lan]) -> None:
    """RFC 4862, RFC 8106: an address in the advertised prefix, and name servers."""
    net = lan("--enable-ra", "--dhcp-range=fd44::,ra-only,64", "--dhcp-option=option6:dns-server,[fd44::53]")
    boot = net.guest("auto", "boot")["boot"]
    (address,) = boot["addresses"]
    assert address.startswith("fd44::")
    assert address.endswith("/64")
    assert boot["servers"] == ["fd44::53"]
    assert "RTR-SOLICIT" in net.said()


def test_dhcp6_stateless(lan: Callable[..., Lan]) -> None:
    """RFC 8415 18.2.6: the O flag; the address is formed, the rest is asked for."""
    net = lan("--enable-ra", "--dhcp-range=fd44::,ra-stateless,64", "--dhcp-option=option6:domain-search,six.test")
    said = net.guest("auto", "boot", "names")
    assert said["boot"]["addresses"][0].endswith("/64")
    assert said["names"]["search"] == ["six.test"]
    assert "DHCPINFORMATION-REQUEST" in net.said()


def test_dhcp6_stateful(lan: Callable[..., Lan]) -> None:
    """RFC 8415 18.2: the M flag; solicited, renewed, rebound, released."""
    net = lan("--enable-ra", "--dhcp-range=fd44::100,fd44::1ff,64,2m", "--dhcp-option=option6:dns-server,[fd44::53]")
    said = net.guest("auto", "boot", "renew", "rebind")
    (address,) = said["boot"]["addresses"]
    assert address.startswith("fd44::1")
    assert address.endswith("/128")
    assert said["boot"]["servers"] == ["fd44::53"]
    for word, state in (("renewing", "RENEWING"), ("rebinding", "REBINDING")):
        assert said[word]["done"]
        assert state in said[word]["states"]
    for word in ("DHCPSOLICIT", "DHCPREPLY", "DHCPRENEW", "DHCPREBIND", "DHCPRELEASE"):
        assert word in net.said()


def test_dhcp6_declines_what_somebody_has(lan: Callable[..., Lan]) -> None:
    """RFC 8415 18.2.8, RFC 4862 5.4"""
    net = lan("--enable-ra", "--dhcp-range=fd44::50,fd44::50,64,2m")
    # dnsmasq does not offer what the host itself has, but knows nothing of proxies.
    for key, value in (("conf/all/forwarding", 1), ("conf/t0/proxy_ndp", 1), ("neigh/t0/proxy_delay", 0)):
        net.run("sh", "-c", f"echo {value} > /proc/sys/net/ipv6/{key}")
    net.run("ip", "-6", "neigh", "add", "proxy", "fd44::50", "dev", "t0")
    refused = net.guest("auto", "refused")["refused"]
    assert refused["addresses"] == []
    assert "fd44::50 on t0 is in use by" in refused["lines"][0]
    assert "DHCPDECLINE" in net.said()


def test_a_static_address_that_somebody_has_is_not_used(lan: Callable[..., Lan]) -> None:
    """RFC 5227 2.1.1, though it was in use meanwhile."""
    refused = lan().guest(f"{HOST4}/24,{HOST6}/64,10.44.0.9/24", "refused")["refused"]
    assert refused["addresses"] == ["10.44.0.9/24"]
    assert sorted(line.split(" ")[0] for line in refused["lines"]) == [HOST4, HOST6]

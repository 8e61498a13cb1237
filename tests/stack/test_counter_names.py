"""What is counted has the kernel's name for it, or a reason of its own; and is counted as the kernel counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from libos.net.stack import Stack
from libos.rand import Rng

from .harness import Harness

# Names that the kernel has not, each for a reason.
OWN = {
    "EthInErrors": "the kernel counts bad frames for each device (ip -s link)",
    "EthInUnknownVlans": "the kernel counts frames for no VLAN of its own for each device",
    "ArpInErrors": "the kernel counts nothing of ARP here",
    "NeighFailed": "the kernel has it in /proc/net/stat/arp_cache (res_failed)",
    "NeighTableFull": "the kernel has it in /proc/net/stat/arp_cache (table_fulls)",
    "AddressConflicts": "the kernel does no conflict detection for IPv4 (RFC 5227)",
    "RouterInfoDropped": "what routers say beyond our bounds; the kernel leaves it to programs",
    "TcpInBytes": "the kernel has it for each socket only (TCP_INFO)",
    "TcpOutBytes": "the kernel has it for each socket only (TCP_INFO)",
    "TcpExtTCPBlackHole": "the kernel counts probes only (TCPMTUPFail, TCPMTUPSuccess)",
    "IpExtPathMtuEvicted": "the kernel bounds what it knows of paths without a count",
    "IgmpInMsgs": "the kernel counts nothing of IGMP",
    "IgmpInErrors": "the kernel counts nothing of IGMP",
    "IgmpOutMsgs": "the kernel counts nothing of IGMP",
}
SINCE_6_4 = {"IcmpOutRateLimitGlobal", "IcmpOutRateLimitHost", "Icmp6OutRateLimitHost"}  # older ones lack them


def kernel_names() -> Iterator[str]:
    """As nstat puts them together."""
    for file in ("snmp", "netstat"):
        lines = Path("/proc/net", file).read_text().splitlines()
        for names, _ in zip(lines[::2], lines[1::2], strict=True):
            prefix, _, rest = names.partition(":")
            yield from (prefix + name for name in rest.split())
    yield from (line.split()[0] for line in Path("/proc/net/snmp6").read_text().splitlines())


@pytest.fixture
def names() -> list[str]:
    stack = Stack(Rng(1), 0)
    names = list(stack.counters())
    stack.close()
    return names


@pytest.mark.skipif(not Path("/proc/net/snmp6").exists(), reason="this kernel has no IPv6 to compare with")
def test_every_name_is_the_kernels_or_has_a_reason(names: list[str]) -> None:
    known = set(kernel_names())
    assert len(known) > 300
    unknown = [name for name in names if name not in known | SINCE_6_4 and name not in OWN]
    assert not unknown, "not in /proc/net/snmp, snmp6, netstat: rename, or add to OWN with the reason"
    assert not [name for name in OWN if name in known], "the kernel has it after all: no reason is needed"


def test_no_name_twice(names: list[str]) -> None:
    assert len(set(names)) == len(names)


def test_a_lost_syn_counts_as_the_kernel_counts_it(h: Harness) -> None:
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S", seq=0)
    h.at("1s")
    p.expect("S", seq=0)
    assert (h.counted("TcpExtTCPSynRetrans"), h.counted("TcpRetransSegs")) == (1, 1)
    assert (h.counted("TcpActiveOpens"), h.counted("TcpExtTCPOrigDataSent")) == (1, 0)
    h.abort(c)


def test_data_counts_once_by_segments(h: Harness) -> None:
    p, c = h.connected(mss=1000)
    h.set(c, TCP_NODELAY=1)
    h.send(c, bytes(2500))
    for seq, length in ((1, 1000), (1001, 1000), (2001, 500)):
        p.expect("A" if length == 1000 else "PA", seq=seq, ack=1, length=length)
    assert h.counted("TcpExtTCPOrigDataSent") == 3
    p.rx("A", seq=1, ack=2501)
    h.abort(c)
    p.expect("R", seq=2501)
    assert h.counted("TcpExtTCPOrigDataSent") == 0

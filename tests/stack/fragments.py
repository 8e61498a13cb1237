"""What tests of fragments share: datagrams, and scapy that cuts them."""

from __future__ import annotations

from scapy.layers.inet import UDP, fragment
from scapy.layers.inet6 import (
    IPv6ExtHdrFragment,
    fragment6,
)

PATTERN = bytes(i * 7 % 251 for i in range(65536))
COUNTERS = frozenset(
    {"IpInDelivers", "IpReasmReqds", "IpReasmOKs", "IpReasmFails", "IpReasmTimeout"}
    | {"IpFragOKs", "IpFragFails", "IpFragCreates"}
    | {"Ip6InDelivers", "Ip6ReasmReqds", "Ip6ReasmOKs", "Ip6ReasmFails", "Ip6ReasmTimeout"}
    | {"Ip6FragOKs", "Ip6FragFails", "Ip6FragCreates"}
)


def datagram(h, size, **fields):
    return h.ip(**fields) / UDP(sport=1111, dport=7) / PATTERN[:size]


def cut(h, packet, mtu=1500):
    """scapy's fragments of ``packet``."""
    if h.family == 4:
        return list(fragment(packet, fragsize=(mtu - 20) & ~7))
    at = packet.copy()
    at.payload = IPv6ExtHdrFragment(id=77) / packet.payload
    return fragment6(at, mtu)


def count(h, name):
    name = ("Ip" if h.family == 4 else "Ip6") + name
    assert name in COUNTERS
    return h.counted(name)

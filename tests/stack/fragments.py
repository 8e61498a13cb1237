"""What tests of fragments share: datagrams, and scapy that cuts them."""

from __future__ import annotations

from scapy.layers.inet import UDP, fragment
from scapy.layers.inet6 import (
    IPv6ExtHdrFragment,
    fragment6,
)

PATTERN = bytes(i * 7 % 251 for i in range(65536))


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
    """How much a counter of this family grew."""
    return h.counted(("Ip" if h.family == 4 else "Ip6") + name)

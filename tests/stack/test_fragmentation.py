"""Large datagrams cut to size (RFC 791 3.2, RFC 8200 4.5, RFC 7739); scapy puts them together on the other side."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP, defragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    defragment6,
)
from scapy.packet import Raw

from .fragments import PATTERN, count, cut
from .harness import fails


@pytest.fixture
def u(h):
    u = h.open(2)
    h.bind(u, 7)
    return u


def join(h, sent):
    """What scapy makes of the fragments that left."""
    assert all(len(each.packet) <= 1514 for each in sent)
    if h.family == 4:
        (whole,) = defragment([each.packet[IP] for each in sent])
        assert whole.flags == 0
        del whole[UDP if UDP in whole else ICMP].chksum
        return IP(bytes(whole))
    return IPv6(bytes(defragment6([each.packet[IPv6] for each in sent])))


def test_a_large_datagram_leaves_in_fragments(h, u):
    """RFC 791 3.2, RFC 8200 4.5; RFC 1122 3.3.3: a UDP datagram may be as large as 65507 and 65527 bytes."""
    for size in (1473, 3000, 65507 if h.family == 4 else 65527):
        assert h.sendto(u, PATTERN[:size], h.their, 9) == size
        sent = h.frames()
        whole = join(h, sent)
        assert bytes(whole[UDP].payload) == PATTERN[:size]
        assert whole[UDP].len == size + 8
        assert count(h, "FragOKs") == 1
        assert count(h, "FragCreates") == len(sent)
    with fails("EMSGSIZE"):
        h.sendto(u, PATTERN[: size + 1], h.their, 9)


FRAGMENTATION = {
    4: ("IpFragOKs", "IpFragCreates", "IpFragFails", "IpOutRequests"),
    6: ("Ip6FragOKs", "Ip6FragCreates", "Ip6FragFails", "Ip6OutRequests"),
}


def test_what_is_counted(harness, family):
    """RFC 4293: datagrams that were cut, into how many, and that could not be; each was one request"""
    h = harness(family, memory=1 << 17)
    u = h.open(2)
    h.meet()
    for name in FRAGMENTATION[family]:
        h.counted(name)
    h.sendto(u, PATTERN[:4000], h.their, 9)
    with fails("ENOBUFS"):
        for _ in range(9):
            h.sendto(u, PATTERN[:20000], h.their, 9)
    pieces = len(h.frames())
    cut, made, failed, requests = (h.counted(name) for name in FRAGMENTATION[family])
    assert (made, failed) == (pieces, 1)
    assert requests == cut + failed
    assert made == 3 + 14 * (cut - 1)


def test_what_the_path_is_known_to_carry(h, u):
    """RFC 1191 3, RFC 8201 4: after a "too big" about a datagram of ours, the next ones fit."""
    inner = h.ip(src=h.ours, dst=h.their) / UDP(sport=7, dport=9) / b"x"
    too_big = ICMP(type=3, code=4, nexthopmtu=1300) if h.family == 4 else ICMPv6PacketTooBig(mtu=1300)
    h.inject(h.ip() / too_big / Raw(bytes(inner)[:48]))
    h.sendto(u, PATTERN[:1400], h.their, 9)
    sent = h.frames()
    assert len(sent) == 2
    assert all(len(each.packet) <= 1314 for each in sent)
    assert bytes(join(h, sent)[UDP].payload) == PATTERN[:1400]
    other = h.ip(src=h.ours, dst=h.their) / UDP(sport=8, dport=9) / b"x"  # nobody has sent that
    h.inject(h.ip() / (ICMP(type=3, code=4, nexthopmtu=600) if h.family == 4 else too_big) / Raw(bytes(other)[:48]))
    h.sendto(u, PATTERN[:1400], h.their, 9)
    assert len(h.frames()) == 2


def test_its_checksum_is_over_the_whole(h, u):
    """Sent to the stack again, from the other side, it is right."""
    h.sendto(u, PATTERN[:5000], h.their, 7)
    for each in h.frames():
        ip = each.packet[IP if h.family == 4 else IPv6]
        ip.src, ip.dst = ip.dst, ip.src
        if h.family == 4:
            del ip.chksum
        h.inject(ip)
    assert h.recvfrom(u)[0] == PATTERN[:5000]


def ids(h, u, n, address=None):
    found = []
    for _ in range(n):
        h.sendto(u, PATTERN[:2000], address or h.their, 9)
        packet = h.frames()[0].packet
        found.append(packet[IP].id if h.family == 4 else packet[IPv6ExtHdrFragment].id)
    return found


def test_identifications_do_not_repeat_and_say_nothing(harness, family):
    """RFC 6864 4.3, RFC 7739 5.3: different for each datagram to a host; unrelated between hosts and between boots."""
    seen = {}
    for seed in (1, 2):
        h = harness(family, seed=seed)
        u = h.open(2)
        h.meet()
        for address in (h.their, "10.0.0.77" if family == 4 else "fd00::77"):
            found = ids(h, u, 50, address)
            assert len(set(found)) == 50
            seen[seed, address] = found[0]
    assert len(set(seen.values())) == 4


def test_all_or_nothing(harness, family):
    """No memory for the last fragment: none leaves."""
    h = harness(family, memory=1 << 17)
    u = h.open(2)
    h.meet()
    sent = 0
    with fails("ENOBUFS"):
        while True:
            h.sendto(u, PATTERN[:30000], h.their, 9)
            sent += 1
    assert len(h.frames()) == sent * 21


@pytest.mark.parametrize("size", [1480, 8000, 65507])
def test_echo_of_any_size(h, size):
    """RFC 1122 3.2.2.6: what was received in fragments and put together is answered in full; ``ping -s 65507``."""
    data = PATTERN[:size]
    request = ICMP(type=8, id=7, seq=3) / data if h.family == 4 else ICMPv6EchoRequest(id=7, seq=3, data=data)
    for each in cut(h, h.ip() / request):
        h.inject(each)
    whole = join(h, h.frames())
    reply = whole[ICMP] if h.family == 4 else whole[ICMPv6EchoReply]
    assert reply.type == (0 if h.family == 4 else 129)
    assert (bytes(reply.payload) if h.family == 4 else reply.data) == data

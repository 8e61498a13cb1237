"""Fragments put together (RFC 791 3.2, RFC 815, RFC 1122 3.3.2, RFC 8200 4.5); scapy cuts for the other side."""

from __future__ import annotations

import random

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Raw

from .fragments import PATTERN, count, cut, datagram
from .packets import PEER_MAC, quoted


@pytest.fixture
def u(h):
    u = h.open(2)
    h.bind(u, 7)
    return u


def piece(h, off, size, more, *, id=77, src=None, byte=b"x", **fields):
    """A fragment by hand: ``size`` bytes from ``off`` on, of UDP."""
    who = {"src": src or h.their, **fields}
    if h.family == 4:
        where = {"id": id, "flags": "MF" if more else 0, "frag": off // 8}
        return h.ip(**{"proto": 17, **where, **who}) / Raw(byte * size)
    return h.ip(**who) / IPv6ExtHdrFragment(id=id, nh=17, m=more, offset=off // 8) / Raw(byte * size)


# --- reassembly ---


@pytest.mark.parametrize("mtu", [1280, 1500, 9000])
@pytest.mark.parametrize("size", [1500, 2952, 20000, 65507])
def test_in_order(h, u, size, mtu):
    """What scapy has cut comes out as it was, up to the largest datagram."""
    pieces = cut(h, datagram(h, size), mtu)
    for each in pieces:
        h.inject(each)
    assert h.recvfrom(u) == (PATTERN[:size], h.their, 1111)
    assert len(pieces) == 1 or count(h, "ReasmReqds") == len(pieces)
    assert count(h, "ReasmOKs") == (len(pieces) > 1)
    assert count(h, "InDelivers") == 1


@pytest.mark.parametrize("seed", range(6))
def test_in_any_order_with_duplicates_and_between_others(h, u, seed):
    """RFC 791: by offset, and not by arrival; an exact copy changes nothing (RFC 5722 4, RFC 8200 4.5)."""
    rnd = random.Random(seed)
    sizes = [3000, 5001, 12345, 30000]
    pieces = []
    for n, size in enumerate(sizes):
        for each in cut(h, datagram(h, size, **({"id": n + 1} if h.family == 4 else {}))):
            if h.family == 6:
                each[IPv6ExtHdrFragment].id = n
            pieces += [each] * rnd.choice([1, 1, 2])
    rnd.shuffle(pieces)
    for each in pieces:
        h.inject(each)
    got = []
    for _ in sizes:
        data, *_ = h.recvfrom(u)
        assert data == PATTERN[: len(data)]
        got.append(len(data))
    assert sorted(got) == sizes
    h.after("60s")  # a copy that came after the rest began a datagram of its own
    h.frames()


def test_a_first_fragment_may_come_last(h, u):
    """Options and extension headers are the first fragment's (RFC 8200 4.5)."""
    pieces = cut(h, datagram(h, 4000))
    for each in reversed(pieces):
        h.inject(each)
    assert h.recvfrom(u)[0] == PATTERN[:4000]


def test_the_identification_and_the_sender_tell_datagrams_apart(h, u):
    """RFC 791: id, source, destination, protocol."""
    other = "10.0.0.3" if h.family == 4 else "fd00::3"
    mine, theirs = cut(h, datagram(h, 2000)), cut(h, datagram(h, 2000, src=other))
    h.inject(mine[0])
    h.inject(theirs[1])
    assert h.info(u).rx_queue == 0
    h.inject(theirs[0])
    assert h.recvfrom(u)[1] == other
    h.inject(mine[1])
    assert h.recvfrom(u)[1] == h.their


@pytest.mark.parametrize(
    ("off", "size"),
    [(0, 16), (8, 16), (24, 16), (16, 8), (0, 64), (24, 8), (8, 8)],
    ids=["start", "into-start", "into-end", "within", "over", "within-end", "before-end"],
)
def test_overlaps_drop_the_whole_datagram(h, u, off, size):
    """RFC 5722 4, RFC 8200 4.5, and the same for IPv4: also what is still to come; and no error is sent."""
    h.inject(piece(h, 16, 16, True))
    h.inject(piece(h, off, size, True, byte=b"y"))
    overlaps = off < 32 and off + size > 16
    assert h.counted("IpExtReasmOverlaps") == overlaps
    assert count(h, "ReasmFails") == overlaps
    for rest in (piece(h, 0, 16, True), piece(h, 32, 16, False)):
        h.inject(rest)
    assert h.info(u).rx_queue == 0
    h.after("61s")
    h.expect_nothing() if overlaps else h.frames()
    for each in cut(h, datagram(h, 3000, **({"id": 77} if h.family == 4 else {}))):  # the number is good again
        h.inject(each)
    assert h.recvfrom(u)[0] == PATTERN[:3000]


def test_a_copy_that_differs_is_an_overlap(h):
    """RFC 8200 4.5: only exact duplicates may be let pass."""
    h.inject(piece(h, 16, 16, True))
    h.inject(piece(h, 16, 16, True))
    assert h.counted("IpExtReasmOverlaps") == 0
    h.inject(piece(h, 16, 16, True, byte=b"y"))
    assert h.counted("IpExtReasmOverlaps") == 1


@pytest.mark.parametrize(
    "second",
    [(8, 24, False), (64, 8, True), (40, 8, False), (64, 8, False)],
    ids=["end", "beyond", "before", "two-ends"],
)
def test_one_datagram_has_one_length(h, second):
    h.inject(piece(h, 40, 16, False))
    h.inject(piece(h, *second))
    assert h.counted("IpExtReasmOverlaps") == 1


def test_none_ends_beyond_the_largest_datagram(h):
    """RFC 791, RFC 8200 4.5: the ping of death"""
    h.inject(piece(h, 65528, 16, False))
    assert count(h, "ReasmFails") == 1
    assert h.stack.memory()["buffers"] == 0 or h.family == 6
    if h.family == 6:
        problem = h.expect_packet()[ICMPv6ParamProblem]
        assert (problem.code, problem.ptr) == (0, 42)  # the offset in the fragment header


@pytest.mark.parametrize("size", [1, 7, 9, 1001])
def test_all_but_the_last_are_multiples_of_eight(h, size):
    """RFC 791 3.2, RFC 8200 4.5"""
    h.inject(piece(h, 0, size, True))
    assert count(h, "ReasmFails") == 1
    if h.family == 6:
        problem = h.expect_packet()[ICMPv6ParamProblem]
        assert (problem.code, problem.ptr) == (0, 4)  # the payload length


@pytest.mark.parametrize("first", [True, False])
def test_the_time_runs_out(h, first):
    """RFC 1122 3.3.2, RFC 8200 4.5: 30 s and 60 s from the first to come; told only if fragment zero is there."""
    wait = 30 if h.family == 4 else 60
    sent = piece(h, 0 if first else 48, 48, True)
    h.inject(sent)
    h.at(f"{wait / 2}s")
    h.inject(piece(h, 96, 48, True))  # gives no more time
    h.at(f"{wait - 0.001}s")
    h.expect_nothing()
    assert h.stack.memory()["buffers"] == 2
    h.at(f"{wait}s")
    assert (count(h, "ReasmTimeout"), count(h, "ReasmFails")) == (1, 1)
    assert h.stack.memory()["buffers"] == 0
    if not first:
        h.expect_nothing()
        return
    packet = h.expect_packet()
    if h.family == 4:
        assert (packet[ICMP].type, packet[ICMP].code) == (11, 1)
    else:
        assert packet[ICMPv6TimeExceeded].code == 1
    assert quoted(packet) == bytes(sent)


def test_no_word_about_what_went_to_many(h):
    """RFC 1122 3.2.2, RFC 4443 2.4 (e)"""
    h.inject(piece(h, 0, 48, True, dst="224.0.0.1" if h.family == 4 else "ff02::1"))
    h.at("61s")
    assert count(h, "ReasmTimeout") == 1
    h.expect_nothing()


def test_datagrams_of_a_source_are_bounded(h, u):
    """Its own older ones go, another's stay: 64, however small."""
    other = "10.0.0.3" if h.family == 4 else "fd00::3"
    first, last = cut(h, datagram(h, 2000, src=other))
    h.inject(first)
    for id in range(200):
        h.inject(piece(h, 0, 48, True, id=id))
    assert h.stack.memory()["buffers"] == 65
    assert count(h, "ReasmFails") == 200 - 64
    h.inject(last)
    assert h.recvfrom(u)[0] == PATTERN[:2000]
    h.after("60s")
    h.frames()


def test_memory_is_bounded_for_a_source(harness, family):
    """A sixteenth of the pool; the oldest of its datagrams go, and those of others stay."""
    h = harness(family, memory=8 << 20)
    u = h.open(2)
    h.bind(u, 7)
    other = "10.0.0.3" if family == 4 else "fd00::3"
    first, last = cut(h, datagram(h, 2000, src=other))
    h.inject(first)
    for id in range(40):
        for n in range(10):
            h.inject(piece(h, 1400 * n, 1400, True, id=id))
    assert (1 << 18) < h.stack.memory()["in_use"] < (1 << 19) + (1 << 15)
    assert count(h, "ReasmFails") >= 17
    h.inject(last)
    assert h.recvfrom(u)[0] == PATTERN[:2000]
    h.after("60s")
    h.frames()


def test_memory_is_bounded_for_all(harness, family):
    """An eighth of the pool, whoever sends; the oldest go first, and what is whole in time gets through."""
    h = harness(family, memory=8 << 20)
    u = h.open(2)
    h.bind(u, 7)
    for id in range(1000):
        source = f"10.0.0.{id % 200 + 3}" if family == 4 else f"fd00::{id % 200 + 3:x}"
        h.inject(piece(h, 0, 1400, True, id=id, src=source))
        if id == 700:
            for each in cut(h, datagram(h, 20000)):
                h.inject(each)
    assert h.stack.memory()["in_use"] < (1 << 20) + (1 << 17)
    assert h.recvfrom(u)[0] == PATTERN[:20000]
    h.after("60s")
    h.frames()


def test_small_pieces_are_bounded(h):
    """8-byte fragments of one datagram: 256 at most."""
    for n in range(300):
        h.inject(piece(h, 8 * n + 48, 8, True))
    assert h.counted("IpExtReasmOverlaps") == 1
    assert h.stack.memory()["buffers"] == 0


@pytest.mark.parametrize(
    ("marks", "result"),
    [((0, 0), 0), ((2, 2), 2), ((2, 3), 3), ((3, 1), 3), ((0, 3), None), ((3, 0), None)],
    ids=["none", "ect", "ect-ce", "ce-ect", "not-ce", "ce-not"],
)
def test_ecn_of_fragments(h, marks, result):
    """RFC 3168 5.3: CE on one is CE on all; together with Not-ECT it is nonsense, and dropped."""
    for each, mark in zip(cut(h, datagram(h, 2000)), marks, strict=True):
        setattr(each, "tos" if h.family == 4 else "tc", mark)
        h.inject(each)
    if result is None:
        assert count(h, "ReasmFails") == 1
        return
    inner = (IP if h.family == 4 else IPv6)(quoted(h.expect_packet()))  # nobody listens: what came is quoted
    assert (inner.tos if h.family == 4 else inner.tc) == result
    assert inner.len == 2028 if h.family == 4 else inner.plen == 2008


def test_padding_is_no_part_of_a_fragment(harness):
    h = harness(4)
    u = h.open(2)
    h.bind(u, 7)
    first, last = cut(h, datagram(h, 1480))
    h.inject(first)
    assert len(bytes(last)) < 46
    h.inject(bytes(h.frame(last)) + bytes(18))
    assert h.recvfrom(u)[0] == PATTERN[:1480]


def test_a_wrong_sum_shows_after_reassembly(h, u):
    first, last = cut(h, datagram(h, 2000))
    last[Raw].load = last[Raw].load[:-1] + b"?"
    if h.family == 4:
        del last.chksum
    h.inject(first)
    h.inject(last)
    assert h.counted("UdpInCsumErrors") == 1


REASSEMBLY = {
    4: ("IpReasmReqds", "IpReasmOKs", "IpReasmFails", "IpReasmTimeout"),
    6: ("Ip6ReasmReqds", "Ip6ReasmOKs", "Ip6ReasmFails", "Ip6ReasmTimeout"),
}


def test_what_is_counted(h, u):
    """RFC 4293: fragments taken in, datagrams made of them, datagrams given up, and for want of time"""
    for each in cut(h, datagram(h, 4000)):
        h.inject(each)
    assert len(h.recvfrom(u)[0]) == 4000
    h.inject(piece(h, 0, 16, True, id=1))
    h.inject(piece(h, 8, 16, True, id=1))
    h.inject(piece(h, 16, 16, True, id=2))
    h.after("61s")
    assert tuple(h.counted(name) for name in REASSEMBLY[h.family]) == (6, 1, 2, 1)
    assert not any(h.counted(name) for name in REASSEMBLY[10 - h.family])


def test_the_protocol_tells_ipv4_datagrams_apart(harness):
    """RFC 791 3.2: the same number, but of another protocol"""
    h = harness(4)
    u = h.open(2)
    h.bind(u, 7)
    first, last = cut(h, datagram(h, 2000, id=77))
    h.inject(first)
    h.inject(piece(h, 1480, 528, False, proto=1))
    assert h.info(u).rx_queue == 0
    h.inject(last)
    assert h.recvfrom(u)[0] == PATTERN[:2000]
    h.after("60s")


# --- IPv6 alone ---


@pytest.fixture
def v6(harness):
    return harness(6)


def test_atomic_fragments_are_alone(v6):
    """RFC 6946 4: with nothing to wait for, it waits for nothing, and touches no other of its number."""
    u = v6.open(2)
    v6.bind(u, 7)
    pieces = cut(v6, datagram(v6, 2000))
    v6.inject(pieces[0])
    v6.inject(v6.ip() / IPv6ExtHdrFragment(id=77) / UDP(sport=1111, dport=7) / b"alone")
    assert v6.recvfrom(u)[0] == b"alone"
    v6.inject(pieces[1])
    assert v6.recvfrom(u)[0] == PATTERN[:2000]
    assert v6.counted("Ip6ReasmReqds") == 2


def test_headers_before_and_behind(v6):
    """RFC 8200 4.5: the unfragmentable part is the first fragment's, and what is behind is walked when it is whole."""
    u = v6.open(2)
    v6.bind(u, 7)
    inner = IPv6ExtHdrDestOpt() / UDP(sport=1111, dport=7) / PATTERN[:3000]
    whole = v6.ip() / inner
    body = bytes(whole)[40:]
    for off in range(0, len(body), 1200):
        more = off + 1200 < len(body)
        header = IPv6ExtHdrFragment(id=5, nh=60, offset=off // 8, m=more)
        v6.inject(v6.ip() / IPv6ExtHdrHopByHop() / header / Raw(body[off : off + 1200]))
    assert v6.recvfrom(u)[0] == PATTERN[:3000]


@pytest.mark.parametrize("size", [8, 16])
def test_the_first_holds_all_headers(v6, size):
    """RFC 7112 5: parameter problem, code 3"""
    v6.inject(v6.ip() / IPv6ExtHdrFragment(id=5, nh=60, m=1) / Raw(bytes([6, 0]) + bytes(size - 2)))
    problem = v6.expect_packet()[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (3, 0)
    assert v6.counted("Ip6ReasmFails") == 1


def test_neighbour_discovery_comes_whole(v6):
    """RFC 6980 5: in fragments, or as an atomic one, it is not believed."""
    ns = ICMPv6ND_NS(tgt=v6.ours) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
    v6.inject(v6.ip(hlim=255) / IPv6ExtHdrFragment(id=5) / ns)
    whole = v6.ip(hlim=255) / IPv6ExtHdrFragment(id=6) / ns / Raw(bytes([253, 200]) + bytes(1598))
    for each in fragment6(whole, 1280):
        v6.inject(each)
    assert v6.counted("Ip6ReasmOKs") == 1
    assert v6.counted("IcmpInErrors") == 2
    v6.expect_nothing()


def test_fragments_in_fragments(v6):
    """RFC 8200 4.1: each extension header at most once."""
    v6.inject(v6.ip() / IPv6ExtHdrFragment(id=5) / IPv6ExtHdrFragment(id=6) / UDP(sport=1, dport=7))
    assert v6.counted("Ip6InHdrErrors") == 1
    v6.expect_nothing()


@pytest.mark.parametrize(
    ("kind", "unicast", "group"),
    [(0x1E, "up", "up"), (0x5E, None, None), (0x9E, "told", "told"), (0xDE, "told", None)],
)
def test_unknown_options_say_what_is_to_be_done(v6, kind, unicast, group):
    """RFC 8200 4.2: skip; drop; drop and tell; drop and tell if it was for us alone; with its place."""
    for dst, expected in ((v6.ours, unicast), ("ff02::1", group)):
        header = IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=kind, optdata=b"abcd")])
        v6.inject(v6.ip(dst=dst) / header / ICMPv6EchoRequest(data=b"x"))
        if expected == "told":
            problem = v6.expect_packet()
            assert (problem[ICMPv6ParamProblem].code, problem[ICMPv6ParamProblem].ptr) == (2, 42)
            assert problem[IPv6].src == v6.ours
        elif expected == "up" and dst == v6.ours:
            assert ICMPv6EchoReply in v6.expect_packet()
        v6.expect_nothing()

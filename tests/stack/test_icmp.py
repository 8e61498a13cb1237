"""ICMP (RFC 792, RFC 1122 3.2.2) and ICMPv6 (RFC 4443): echo, and errors out and in."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from .packets import FAR, OUR_MAC, PEER, PEER_MAC, quoted


def echo(h, data, **fields):
    if h.family == 4:
        return h.ip(**fields) / ICMP(type=8, id=7, seq=3) / data
    return h.ip(**fields) / ICMPv6EchoRequest(id=7, seq=3, data=data)


def expect_reply(h, data):
    packet = h.expect_packet()
    if h.family == 4:
        reply = packet[ICMP]
        assert (reply.type, reply.code, reply.id, reply.seq, bytes(reply.payload)) == (0, 0, 7, 3, data)
    else:
        reply = packet[ICMPv6EchoReply]
        assert (reply.code, reply.id, reply.seq, reply.data) == (0, 7, 3, data)
    ip = packet[IP if h.family == 4 else IPv6]
    assert (ip.src, ip.dst) == (h.ours, h.their)


@pytest.mark.parametrize("size", [0, 1, 56, 57, 1400])
def test_echo(h, size):
    """RFC 792, RFC 1122 3.2.2.6, RFC 4443 4.2: the data comes back as it was; ``ping -s 1400`` too."""
    data = bytes(i % 251 for i in range(size))
    h.inject(echo(h, data))
    expect_reply(h, data)


def test_echo_to_a_group_is_not_answered(h):
    """RFC 1122 3.2.2.6 lets a host keep silent, and so does this one, in both families."""
    for dst in ["10.0.0.255", "255.255.255.255", "224.0.0.1"] if h.family == 4 else ["ff02::1"]:
        h.inject(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / echo(h, b"x", dst=dst))
    h.expect_nothing()


def test_a_wrong_checksum_is_counted(h):
    raw = bytearray(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / echo(h, b"data")))
    raw[-1] ^= 1
    h.inject(bytes(raw))
    assert h.counted("IcmpInCsumErrors") == 1
    h.expect_nothing()


def test_too_short_is_counted(h):
    h.inject(h.ip(**({"proto": 1} if h.family == 4 else {"nh": 58})) / b"\x08\0\0")
    assert h.counted("IcmpInErrors") == 1


def test_unknown_types_are_dropped_in_silence(h):
    """RFC 1122 3.2.2; RFC 4443 2.4 (b)"""
    if h.family == 4:
        h.inject(h.ip() / ICMP(type=13) / b"timestamp")
    else:
        h.inject(h.ip() / ICMPv6EchoReply(id=1))
    h.expect_nothing()
    assert h.counted("IcmpInMsgs") == 1
    assert h.counted("IcmpInErrors") == 0


def check_error(h, sent, v4, v6, quote):
    """An error about ``quote``: types and codes, addresses, and as much of the packet as fits (RFC 4443 2.4 (c))."""
    packet = h.expect_packet()
    if h.family == 4:
        assert (packet[ICMP].type, packet[ICMP].code) == v4
        most = 576 - 28
    else:
        inner = packet[IPv6].payload
        assert (inner.type, inner.code) == v6
        most = 1280 - 48
    assert packet.payload.dst == sent.src
    assert packet.payload.src == sent.dst
    assert quoted(packet) == quote[:most]


@pytest.mark.parametrize("size", [0, 5, 600, 1400])
def test_port_unreachable_quotes_the_datagram(h, size):
    """RFC 1122 3.2.2.1, 4.1.3.1; RFC 1812 4.3.2.3; RFC 4443 3.1"""
    sent = h.ip() / UDP(sport=1111, dport=9) / (b"q" * size)
    h.inject(sent)
    check_error(h, sent, (3, 3), (1, 4), bytes(sent))


def test_the_quote_leaves_out_what_ethernet_added(harness):
    h = harness(4)
    sent = h.ip() / UDP(sport=1111, dport=9) / b"q"
    h.inject(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / sent) + bytes(17))
    check_error(h, sent, (3, 3), None, bytes(sent))


def test_unknown_protocol(h):
    """RFC 1122 3.2.2.1 code 2; RFC 4443 3.4 code 1, with a pointer to the field"""
    if h.family == 4:
        sent = h.ip(proto=253) / b"something"
        h.inject(sent)
        check_error(h, sent, (3, 2), None, bytes(sent))
        assert h.counted("IpInUnknownProtos") == 1
    else:
        sent = h.ip(nh=253) / b"something"
        h.inject(sent)
        packet = h.expect_packet()
        assert (packet[ICMPv6ParamProblem].code, packet[ICMPv6ParamProblem].ptr) == (1, 6)
        sent = h.ip(nh=60) / Raw(b"\xfd\0\1\4\0\0\0\0") / b"something"
        h.inject(sent)
        packet = h.expect_packet()
        assert (packet[ICMPv6ParamProblem].code, packet[ICMPv6ParamProblem].ptr) == (1, 40)
        assert h.counted("Ip6InUnknownProtos") == 2


def test_no_error_about_an_unspecified_sender(h):
    """RFC 1122 3.2.2; RFC 4443 2.4 (e.6)"""
    h.inject(h.ip(src="0.0.0.0" if h.family == 4 else "::") / UDP(sport=1, dport=9) / b"x")
    h.expect_nothing()


def test_no_error_about_an_error(h):
    """RFC 1122 3.2.2; RFC 4443 2.4 (e.1)"""
    inner = bytes(h.ip(src=h.ours, dst=h.their) / UDP(sport=9, dport=9))
    if h.family == 4:
        h.inject(h.ip() / ICMP(type=3, code=3) / inner)
    else:
        h.inject(h.ip() / ICMPv6DestUnreach(code=4) / inner)
    h.expect_nothing()


def far_source(h, n):
    return f"192.0.2.{n}" if h.family == 4 else f"2001:db8::{n:x}"


def test_errors_are_limited(h):
    """RFC 1812 4.3.2.8, RFC 4443 2.4 (f): some hundred a second for all, and not the same number each second"""

    def burst():
        for frame in frames:
            h.inject(frame)
        return len(h.frames())

    frames = [
        bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / h.ip(src=far_source(h, n)) / UDP(sport=1, dport=9) / b"x")
        for n in range(1, 241)
    ]
    numbers = set()
    for second in range(4):
        h.at(f"{second}s")
        numbers.add(burst())
        h.after("0.5s")
        assert burst() == 0
    assert all(50 <= n < 150 for n in numbers)
    assert len(numbers) > 1
    assert h.counted("IcmpOutRateLimitGlobal") > 1000


def test_errors_to_one_host_are_limited(h):
    """RFC 4443 2.4 (f): a bucket of 20, ten a second; another host is told all the same."""

    def burst(n, source):
        for _ in range(n):
            h.inject(h.ip(src=source) / UDP(sport=1, dport=9) / b"x")
        return len(h.frames())

    h.at("2s")
    assert burst(30, far_source(h, 1)) == 20
    assert burst(1, far_source(h, 2)) == 1
    assert h.counted("IcmpOutRateLimitHost") == 10
    h.at("2.5s")
    assert burst(30, far_source(h, 1)) == 5
    h.at("60s")
    assert burst(30, far_source(h, 1)) == 20


@pytest.mark.parametrize(
    ("v4", "v6", "error"),
    [
        (ICMP(type=3, code=3), ICMPv6DestUnreach(code=4), "ECONNREFUSED"),
        (ICMP(type=3, code=1), ICMPv6DestUnreach(code=3), "EHOSTUNREACH"),
        (ICMP(type=3, code=0), ICMPv6DestUnreach(code=0), "ENETUNREACH"),
        (ICMP(type=3, code=2), ICMPv6DestUnreach(code=1), {4: "ENOPROTOOPT", 6: "EACCES"}),
        (ICMP(type=3, code=7), ICMPv6DestUnreach(code=2), {4: "EHOSTDOWN", 6: "EHOSTUNREACH"}),
        (ICMP(type=3, code=13), ICMPv6DestUnreach(code=6), {4: "EHOSTUNREACH", 6: "EACCES"}),
        (ICMP(type=11, code=0), ICMPv6TimeExceeded(), "EHOSTUNREACH"),
        (ICMP(type=12, code=0), ICMPv6ParamProblem(), "EPROTO"),
    ],
    ids=["port", "host", "net", "protocol", "unknown", "prohibited", "time", "parameter"],
)
def test_who_connects_hears_of_errors(h, v4, v6, error):
    """RFC 5461 4; RFC 9293 3.9.2.2 (MUST-54): a hint ends what is not yet a connection, and only that."""
    c = h.connect(80)
    syn = h.expect_packet()
    inner = bytes(syn.payload)[: 28 if h.family == 4 else 48]
    h.inject(h.ip(src=PEER[h.family]) / (v4 if h.family == 4 else v6) / inner)
    assert h.error(c) == (error if isinstance(error, str) else error[h.family])
    assert h.state(c) == "CLOSED"


def test_a_connection_outlives_errors(h):
    """RFC 1122 4.2.3.9, RFC 5927 5.2; RFC 9293 3.9.2.2 (MUST-56)"""
    p, c = h.established()
    h.send(c, b"data")
    inner = bytes(h.expect_packet().payload)[: 28 if h.family == 4 else 48]
    h.inject(h.ip() / (ICMP(type=3, code=3) if h.family == 4 else ICMPv6DestUnreach(code=4)) / inner)
    assert h.error(c) is None
    p.rx("A", ack=5)
    assert h.state(c) == "ESTABLISHED"


def test_an_error_must_be_about_what_is_under_way(h):
    """RFC 5927 4.1: the sequence number in it is checked."""
    c = h.connect(80)
    raw = bytearray(bytes(h.expect_packet().payload)[: 28 if h.family == 4 else 48])
    raw[-1] ^= 0xFF
    h.inject(h.ip() / (ICMP(type=3, code=3) if h.family == 4 else ICMPv6DestUnreach(code=4)) / bytes(raw))
    assert h.state(c) == "SYN-SENT"


@pytest.mark.parametrize("n", range(0, 48, 5))
def test_an_error_that_is_cut_short(h, n):
    h.connect(80)
    inner = bytes(h.expect_packet().payload)
    if n >= (28 if h.family == 4 else 48):
        return
    h.inject(h.ip() / (ICMP(type=3, code=3) if h.family == 4 else ICMPv6DestUnreach(code=4)) / inner[:n])
    assert h.counted("IcmpInErrors") == 1


def test_replies_go_back_through_the_router(h):
    h.inject(echo(h, b"far", src=FAR[h.family]))
    assert h.expect_packet().payload.dst == FAR[h.family]

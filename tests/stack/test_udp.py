"""UDP (RFC 768, RFC 1122 4.1, RFC 8200 8.1)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from .harness import fails
from .packets import OUR_MAC, PEER_MAC


@pytest.fixture
def u(h):
    u = h.open(2)
    h.bind(u, 7)
    return u


def test_echo(h, u):
    h.inject(h.ip() / UDP(sport=1111, dport=7) / b"hello")
    assert h.events()[u] & 1
    data, address, port = h.recvfrom(u)
    assert (data, address, port) == (b"hello", h.their, 1111)
    h.sendto(u, data, address, port)
    packet = h.expect_packet()
    assert (packet[UDP].sport, packet[UDP].dport, bytes(packet[UDP].payload)) == (7, 1111, b"hello")
    assert (packet.payload.src, packet.payload.dst) == (h.ours, h.their)
    with fails("EAGAIN"):
        h.recvfrom(u)


@pytest.mark.parametrize("size", [0, 1, 1400])
def test_datagrams_keep_their_borders(h, u, size):
    for _ in range(3):
        h.inject(h.ip() / UDP(sport=1111, dport=7) / (b"x" * size))
    assert [len(h.recvfrom(u)[0]) for _ in range(3)] == [size] * 3


def test_no_checksum_is_for_v4_alone(h, u):
    """RFC 768: zero, none was made; RFC 8200 8.1: IPv6 must have one."""
    h.inject(h.ip() / UDP(sport=1111, dport=7, chksum=0) / b"hello")
    if h.family == 4:
        assert h.recvfrom(u)[0] == b"hello"
    else:
        assert h.counted("UdpInCsumErrors") == 1
        h.expect_nothing()


def test_a_sum_of_zero_is_sent_as_ffff(h):
    """RFC 768: all ones, if the computed checksum is zero."""
    u = h.open(2)
    h.bind(u, 7)
    header = 20 if h.family == 4 else 40
    for value in range(65536):
        h.sendto(u, value.to_bytes(2, "big"), h.their, 9)
        frame, _ = h.link.drain()[0] if value else (bytes(h.frames()[-1].packet), 0)
        if frame[14 + header + 6 : 14 + header + 8] == b"\xff\xff":
            return
    raise AssertionError("no data sums up to zero?")


def test_a_wrong_checksum_is_counted(h, u):
    h.inject(h.ip() / UDP(sport=1111, dport=7, chksum=0x1234) / b"hello")
    assert h.counted("UdpInCsumErrors") == 1
    h.expect_nothing()


@pytest.mark.parametrize("length", [0, 7, 14, 65535])
def test_a_length_that_cannot_be(h, u, length):
    h.inject(h.ip() / UDP(sport=1111, dport=7, len=length) / b"hello")
    assert h.counted("UdpInErrors") == 1


def test_a_length_shorter_than_the_packet_rules(h, u):
    """RFC 768: the rest is not part of the datagram."""
    whole = bytes(h.ip() / UDP(sport=1111, dport=7) / b"hello")
    header = 20 if h.family == 4 else 40
    longer = h.ip(**({"proto": 17} if h.family == 4 else {"nh": 17})) / (whole[header:] + b"trailer")
    h.inject(longer)
    assert h.recvfrom(u)[0] == b"hello"


def test_connected_hears_only_its_peer(h, u):
    h.connect_udp(u, 1111)
    h.inject(h.ip() / UDP(sport=2222, dport=7) / b"other")
    assert h.counted("UdpNoPorts") == 1
    h.frames()
    h.inject(h.ip() / UDP(sport=1111, dport=7) / b"mine")
    assert h.recvfrom(u)[0] == b"mine"
    h.sendto(u, b"back")
    assert h.expect_packet()[UDP].dport == 1111


def port_unreachable(h, packet):
    inner = bytes(packet.payload)[:48]
    h.inject(h.ip() / (ICMP(type=3, code=3) if h.family == 4 else ICMPv6DestUnreach(code=4)) / inner)


def test_connected_is_refused_by_icmp(h, u):
    """RFC 1122 4.1.3.3"""
    h.connect_udp(u, 1111)
    h.sendto(u, b"anybody?")
    port_unreachable(h, h.expect_packet())
    assert h.events()[u] & 4
    assert h.error(u) == "ECONNREFUSED"
    assert h.error(u) is None
    h.sendto(u, b"again")
    h.expect_packet()


def test_unconnected_does_not_hear_of_it(h, u):
    h.sendto(u, b"anybody?", h.their, 1111)
    port_unreachable(h, h.expect_packet())
    assert h.error(u) is None


def test_what_is_not_read_is_bounded(h, u):
    """The socket keeps some 256 KiB of buffers; the rest is counted."""
    raw = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / h.ip() / UDP(sport=1111, dport=7) / (b"x" * 1000))
    for _ in range(1000):
        h.inject(raw)
    dropped = h.counted("UdpRcvbufErrors")
    assert 0 < dropped < 1000
    assert h.stack.memory()["in_use"] <= 300 * 1024
    for _ in range(1000 - dropped):
        h.recvfrom(u)
    with fails("EAGAIN"):
        h.recvfrom(u)
    h.inject(raw)
    assert len(h.recvfrom(u)[0]) == 1000


def test_no_destination(h, u):
    with fails("EDESTADDRREQ"):
        h.sendto(u, b"x")
    with fails("EINVAL"):
        h.sendto(u, b"x", h.their, 0)


def test_broadcast_asks_for_leave(harness):
    """SO_BROADCAST of socket(7)"""
    h = harness(4)
    u = h.open(2)
    for address in ("255.255.255.255", "10.0.0.255"):
        with fails("EACCES"):
            h.sendto(u, b"x", address, 67)
    h.set(u, SO_BROADCAST=1)
    for address in ("255.255.255.255", "10.0.0.255"):
        h.sendto(u, b"x", address, 67)
        assert h.expect_packet().dst == "ff:ff:ff:ff:ff:ff"


def test_a_group_is_asked_for_by_nobody(h):
    """RFC 1112 6.4, RFC 2464 7: its link address follows from it; and it is on the link, not behind the router."""
    u = h.open(2)
    h.sendto(u, b"x", "239.129.2.3" if h.family == 4 else "ff05::1:2:304", 67)
    assert h.expect_packet().dst == ("01:00:5e:01:02:03" if h.family == 4 else "33:33:00:02:03:04")


def test_families_do_not_mix(harness):
    h4, h6 = harness(4), harness(6)
    with fails("EAFNOSUPPORT"):
        h4.sendto(h4.open(2), b"x", "fd00::1", 7)
    u = h6.open(2)
    h6.sendto(u, b"x", "10.0.0.1", 7)  # ipv6(7): a v6 socket speaks to v4, too
    assert IPv6 not in h6.expect_packet()


def test_a_v6_wildcard_hears_both(harness):
    """ipv6(7)"""
    h = harness(6)
    u = h.open(2)
    h.bind(u, 7)
    four = harness(4)
    h.inject(four.ip() / UDP(sport=1111, dport=7) / b"four")
    h.inject(h.ip() / UDP(sport=1111, dport=7) / b"six")
    assert h.recvfrom(u) == (b"four", "10.0.0.1", 1111)
    assert h.recvfrom(u) == (b"six", "fd00::1", 1111)


def test_source_port_zero(h, u):
    """RFC 768 allows it, no reply is wanted: nobody here can use it, so it is counted and dropped."""
    h.inject(h.ip() / UDP(sport=0, dport=7) / b"hello")
    assert h.counted("UdpNoPorts") == 1
    h.expect_nothing()

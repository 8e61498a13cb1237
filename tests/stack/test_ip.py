"""IPv4 (RFC 791, RFC 1122 3.2) and IPv6 (RFC 8200): what is taken, and what is counted and dropped."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Ether

from .packets import OUR_MAC, OURS, PEER, PEER_MAC


def datagram(h, **ip):
    """A datagram to port 7, where somebody listens."""
    return h.ip(**ip) / UDP(sport=1111, dport=7) / b"hello"


@pytest.fixture
def u(h):
    u = h.open(2)
    h.bind(u, 7)
    return u


@pytest.fixture
def v4(harness):
    return harness(4)


@pytest.fixture
def v6(harness):
    return harness(6)


def delivered(h, packet):
    """Does it reach UDP?"""
    before = h.stack.counters()
    h.inject(packet)
    after = h.stack.counters()
    assert h.frames() == [] or after["UdpNoPorts"] > before["UdpNoPorts"]
    return after["UdpNoPorts"] > before["UdpNoPorts"]


@pytest.mark.parametrize(
    ("fields", "counter"),
    [
        ({"version": 6}, "IpInHdrErrors"),
        ({"ihl": 4}, "IpInHdrErrors"),
        ({"ihl": 15}, "IpInHdrErrors"),
        ({"len": 19}, "IpInHdrErrors"),
        ({"len": 34}, "IpInHdrErrors"),
        ({"chksum": 0xBEEF}, "IpInHdrErrors"),
        ({"dst": "10.0.0.3"}, "IpInAddrErrors"),
        ({"dst": "127.0.0.1"}, "IpInAddrErrors"),
        ({"src": "127.0.0.1"}, "IpInAddrErrors"),
        ({"src": "224.0.0.1"}, "IpInAddrErrors"),
        ({"src": "255.255.255.255"}, "IpInAddrErrors"),
        ({"src": OURS[4]}, "IpInAddrErrors"),
        ({"flags": "MF"}, "IpReasmFails"),  # 13 bytes: not a multiple of 8
        ({"frag": 8191}, "IpReasmFails"),  # ends beyond 65535
    ],
    ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items()) if isinstance(v, dict) else "",
)
def test_v4_header_rules(v4, fields, counter):
    """RFC 1122 3.2.1.1 (version), .2 (checksum), .3 (addresses; never our own from a wire); RFC 791 3.2 (fragments)."""
    assert delivered(v4, datagram(v4))
    assert not delivered(v4, datagram(v4, **fields))
    assert v4.counted(counter) == 1


@pytest.mark.parametrize("n", [0, 1, 19])
def test_v4_too_short_for_its_header(v4, n):
    v4.inject(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / datagram(v4))[: 14 + n])
    assert v4.counted("IpInHdrErrors") == 1


def test_v4_options_are_skipped(v4):
    """RFC 1122 3.2.1.8; RFC 9293 3.9.2 (MUST-50): options that mean nothing to us change nothing."""
    assert delivered(v4, datagram(v4, options=[b"\x07\x07\x04\0\0\0\0", b"\0"]))


def test_v4_padding_is_not_data(v4):
    """RFC 894: what Ethernet adds to reach 60 bytes."""
    u = v4.open(2)
    v4.bind(u, 7)
    v4.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / datagram(v4) / (b"\xaa" * 20))
    raw = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / datagram(v4)) + b"\xaa" * 13
    assert v4.recvfrom(u)[0] == b"hello" + b"\xaa" * 20
    v4.inject(raw)
    assert v4.recvfrom(u)[0] == b"hello"


def test_any_ttl_is_good_enough_for_a_host(v4):
    """RFC 1122 3.2.1.7: a host must not discard for TTL < 2."""
    assert delivered(v4, datagram(v4, ttl=1))


@pytest.mark.parametrize("dst", ["224.0.0.1", "255.255.255.255", "10.0.0.255"])
def test_v4_groups_are_heard_and_get_no_errors(v4, dst):
    """RFC 1122 3.2.2: no ICMP error about a datagram to many."""
    v4.inject(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / datagram(v4, dst=dst))
    assert v4.counted("UdpNoPorts") == 1
    v4.expect_nothing()
    u = v4.open(2)
    v4.bind(u, 7)
    v4.inject(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / datagram(v4, dst=dst))
    assert v4.recvfrom(u) == (b"hello", PEER[4], 1111)


def test_a_unicast_packet_in_a_group_frame_gets_no_answer(h):
    """RFC 1122 3.3.6: what Ethernet sent to many is answered by nobody."""
    mac = "ff:ff:ff:ff:ff:ff" if h.family == 4 else "33:33:00:00:00:01"
    listener = h.listen(80)
    p = h.peer()
    h.inject(Ether(src=PEER_MAC, dst=mac) / datagram(h))
    h.inject(Ether(src=PEER_MAC, dst=mac) / p.segment("S", seq=0))
    h.inject(Ether(src=PEER_MAC, dst=mac) / h.peer(to=81).segment("S", seq=0))
    echo = ICMP() if h.family == 4 else ICMPv6EchoRequest()
    h.inject(Ether(src=PEER_MAC, dst=mac) / h.ip() / echo)
    h.expect_nothing()
    assert h.info(listener).rx_queue == 0


def test_a_frame_for_another_host_is_ignored(h):
    before = h.stack.counters()
    h.inject(Ether(src=PEER_MAC, dst="02:00:00:00:00:33") / datagram(h))
    assert h.stack.counters() == before
    h.expect_nothing()


@pytest.mark.parametrize("frame", [b"", b"\x02", bytes.fromhex(OUR_MAC.replace(":", "")) + bytes(7)])
def test_no_frame_is_too_short(h, frame):
    h.inject(frame)
    assert h.counted("EthInErrors") == 1


def test_other_ethertypes_are_counted(h):
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC, type=0x88CC) / b"lldp")
    assert h.counted("EthInErrors") == 1


def test_what_fits_is_not_to_be_cut(h):
    """RFC 6864 4.1, RFC 8200 5: a whole datagram has DF (packets.parse sees to that); a larger one is cut here."""
    u = h.open(2)
    room = 1500 - 8 - (20 if h.family == 4 else 40)
    assert h.sendto(u, b"x" * room, h.their, 7) == room
    assert len(h.expect_packet()) == 1514
    h.sendto(u, b"x" * (room + 1), h.their, 7)
    assert [len(sent.packet) > 1514 for sent in h.frames()] == [False, False]


# --- IPv6 ---


@pytest.mark.parametrize(
    ("fields", "counter"),
    [
        ({"version": 4}, "Ip6InHdrErrors"),
        ({"plen": 14}, "Ip6InHdrErrors"),
        ({"plen": 65535}, "Ip6InHdrErrors"),
        ({"dst": "fd00::3"}, "Ip6InAddrErrors"),
        ({"dst": "::1"}, "Ip6InAddrErrors"),
        ({"src": "::1"}, "Ip6InAddrErrors"),
        ({"src": "ff02::1"}, "Ip6InAddrErrors"),
        ({"src": OURS[6]}, "Ip6InAddrErrors"),
        ({"src": "::ffff:10.0.0.1"}, "Ip6InAddrErrors"),
        ({"dst": "::ffff:10.0.0.2"}, "Ip6InAddrErrors"),
    ],
    ids=lambda v: "-".join(f"{k}={x}" for k, x in v.items()) if isinstance(v, dict) else "",
)
def test_v6_header_rules(v6, fields, counter):
    """RFC 8200 3; RFC 4291 2.5.3, 2.7; RFC 6890: mapped addresses do not travel."""
    assert delivered(v6, datagram(v6))
    assert not delivered(v6, datagram(v6, **fields))
    assert v6.counted(counter) == 1


@pytest.mark.parametrize("n", [0, 1, 39])
def test_v6_too_short_for_its_header(v6, n):
    v6.inject(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / datagram(v6))[: 14 + n])
    assert v6.counted("Ip6InHdrErrors") == 1


def echoed(h, *headers):
    packet = h.ip()
    for header in headers:
        packet /= header
    h.inject(packet / ICMPv6EchoRequest(id=1, seq=2, data=b"x"))
    sent = h.frames()
    return len(sent) == 1 and ICMPv6EchoReply in sent[0].packet


HBH, DST = IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt


@pytest.mark.parametrize(
    "headers",
    [
        [HBH(options=[PadN(optdata=b"\0" * 4)])],
        [DST(options=[PadN(optdata=b"\0" * 4)])],
        [HBH(), DST(), DST()],
        [HBH(options=[HBHOptUnknown(otype=0x1E, optdata=b"abcd")])],
        [IPv6ExtHdrRouting(segleft=0, addresses=["fd00::9"])],
        [DST(options=[PadN(optdata=b"\0" * 200)])],
        [DST()] * 7,
    ],
    ids=["hbh", "dst", "several", "unknown-skip", "routing-0-left", "long", "seven"],
)
def test_v6_extension_headers_are_walked(v6, headers):
    """RFC 8200 4"""
    assert echoed(v6, *headers)


@pytest.mark.parametrize(
    "headers",
    [
        [DST(), HBH()],
        [IPv6ExtHdrRouting(segleft=1, addresses=["fd00::9"])],
        [HBH(options=[HBHOptUnknown(otype=0x5E, optdata=b"abcd")])],
        [HBH(options=[HBHOptUnknown(otype=0x9E, optdata=b"abcd")])],
        [DST(options=[HBHOptUnknown(otype=0xDE, optdata=b"abcd")])],
        [HBH(options=[HBHOptUnknown(otype=0x1E, optlen=200, optdata=b"abcd")])],
        [DST(len=200)],
        [DST()] * 20,
    ],
    ids=["hbh-late", "routing", "drop-01", "drop-10", "drop-11", "option-too-long", "header-too-long", "twenty"],
)
def test_v6_extension_headers_that_do_not_pass(v6, headers):
    """RFC 8200 4.1, 4.2, 4.4; RFC 5095: dropped and counted; so is a chain without end."""
    assert not echoed(v6, *headers)
    assert v6.counted("Ip6InHdrErrors") == 1


def test_v6_no_next_header_is_the_end(v6):
    """RFC 8200 4.7"""
    v6.inject(v6.ip(nh=59) / b"whatever")
    v6.expect_nothing()
    assert v6.counted("Ip6InUnknownProtos") == 0


@pytest.mark.parametrize("n", range(0, 70, 3))
def test_cut_short_anywhere(h, n):
    """A packet that ends before what its headers promise is dropped wherever it ends, and counted by somebody."""
    packet = h.ip() / UDP(sport=1, dport=7) / b"hello"
    if h.family == 6:
        packet = h.ip() / HBH(options=[PadN(optdata=b"\0" * 4)]) / UDP(sport=1, dport=7) / b"hello"
    frame = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / packet)
    before = sum(h.stack.counters().values())
    h.inject(frame[: min(14 + n, len(frame) - 1)])
    h.expect_nothing()
    assert sum(h.stack.counters().values()) > before
    assert h.stack.counters()["UdpNoPorts"] == 0

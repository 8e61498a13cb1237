"""A stack as a router: what is passed on and how it is changed, what is not and who hears of it (RFC 1812, 8200, 4443).

The peer of the harness is on one side; on the other a second manual link, whose frames the test takes by itself. What
must come out is what scapy makes of the packet that went in, with one hop less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from libos._native import lib
from libos.errors import check
from libos.net.routes import Route, set_route
from libos.net.stack import Link, Stack, pack_address
from libos.rand import Rng

from .harness import Harness
from .net import Routed
from .packets import AF, FAR, OUR_MAC, PEER_MAC, internet_checksum, quoted

OTHER_MAC = "02:00:00:00:00:09"  # of the host on the other side
HOST = {4: "10.1.0.9", 6: "fd01::9"}
SIDE = {4: "10.1.0.1", 6: "fd01::1"}  # ours, there
MF = 0x2000


class Router:
    """A harness whose stack has a second link, and a host there that it knows."""

    def __init__(self, h: Harness, *, mtu: int = 1500, caps: int = 0) -> None:
        self.h, self.family, self.caps = h, h.family, caps
        self.link = Link.manual(Rng(9), mtu=mtu, caps=caps)
        self.mac = self.link.mac.hex(":")
        self.index = h.stack.add_link(self.link)
        h.others.append(self.link)
        h.stack.add_address(self.index, SIDE[4] + "/24")
        h.stack.add_address(self.index, SIDE[6] + "/64")
        h.meet()
        self.teach(HOST[h.family])

    def teach(self, host: str) -> None:
        """The router learns where a host on the other side is."""
        ether = Ether(src=OTHER_MAC, dst=self.mac)
        if self.family == 4:
            asks = ether / ARP(op=1, hwsrc=OTHER_MAC, psrc=host, pdst=SIDE[4])
        else:
            ask = ICMPv6ND_NS(tgt=SIDE[6]) / ICMPv6NDOptSrcLLAddr(lladdr=OTHER_MAC)
            asks = ether / IPv6(src=host, dst=SIDE[6], hlim=255) / ask
        self.link.inject(bytes(asks), self.h.now)
        assert len(self.link.drain()) == 1

    def ip(self, **fields: Any) -> Packet:
        """From the peer to the host on the other side."""
        return self.h.ip(**{"dst": HOST[self.family], **fields})

    def passed(self) -> list[Packet]:
        """What has left on the other side, from the IP header on."""
        self.h._run()
        frames = [Ether(frame) for frame, _ in self.link.drain()]
        assert all((f.src, f.dst) == (self.mac, OTHER_MAC) for f in frames)
        return [f.payload for f in frames]

    def expect_passed(self, packet: Packet) -> None:
        """It goes in, and comes out with one hop less."""
        self.h.inject(packet)
        (out,) = self.passed()
        assert bytes(out) == bytes(one_hop_on(packet))
        assert self.h.counted("IpForwDatagrams" if self.family == 4 else "Ip6OutForwDatagrams") == 1

    def expect_dropped(self, packet: Packet, *counters: str) -> None:
        self.h.inject(packet)
        assert self.passed() == []
        for name in counters:
            assert self.h.counted(name) == 1, name


def one_hop_on(packet: Packet) -> Packet:
    """As scapy builds it; all but the hops and IPv4's sum over them stays as it was."""
    built = packet.__class__(bytes(packet))
    if isinstance(built, IP):
        built.ttl -= 1
        del built.chksum
    else:
        built.hlim -= 1
    return built


@pytest.fixture
def router(harness: Callable[..., Harness], family: int) -> Callable[..., Router]:
    def make(*, caps: int = 0, mtu: int = 1500, out_mtu: int = 1500, out_caps: int = 0, **stack: Any) -> Router:
        return Router(harness(family, caps=caps, mtu=mtu, **{"forwarding": True, **stack}), mtu=out_mtu, caps=out_caps)

    return make


@pytest.fixture
def r(router: Callable[..., Router]) -> Router:
    return router()


def large(r: Router, size: int, **ip: Any) -> Packet:
    return r.ip(**ip) / UDP(sport=1, dport=2) / Raw(bytes(size))


# --- passed on -------------------------------------------------------------------------------------------------------


def test_datagrams_and_segments(r):
    r.expect_passed(r.ip() / UDP(sport=1, dport=2) / b"data")
    r.expect_passed(r.ip() / TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460)]))
    r.expect_passed(r.ip(**{"proto" if r.family == 4 else "nh": 132}) / Raw(b"what it is does not matter"))


def test_only_by_who_was_told(harness, family):
    for forwarding in (False, 6 if family == 4 else 4):
        r = Router(harness(family, forwarding=forwarding))
        r.expect_dropped(r.ip() / UDP() / b"x", "IpInAddrErrors" if family == 4 else "Ip6InAddrErrors")
        r.h.expect_nothing()
    r = Router(harness(family, forwarding=family))
    r.expect_passed(r.ip() / UDP() / b"x")


@pytest.mark.parametrize("hops", [2, 3, 128, 255])
@pytest.mark.parametrize("tos", [0, 1, 2, 3, 0xB8 | 3])
def test_hops_and_marks(r, hops, tos):
    """RFC 3168 5.3: congestion marks are kept; RFC 1624: the sum is right at every turn."""
    fields = {"ttl": hops, "tos": tos} if r.family == 4 else {"hlim": hops, "tc": tos, "fl": 0x12345}
    for id in (0, 1, 0x7FFF, 0xFEFE, 0xFFFF) if r.family == 4 else (0,):
        r.expect_passed(r.ip(**fields, **({"id": id} if r.family == 4 else {})) / UDP(sport=1, dport=2) / b"x")


def test_every_sum_of_a_header(harness):
    """Incremental update (RFC 1624): as computed anew, wherever it wraps."""
    r = Router(harness(4, forwarding=True))
    for id in range(0, 65536, 257):
        packet = r.ip(id=id, ttl=1 + id % 254 + 1) / UDP(sport=1, dport=2)
        r.h.inject(packet)
        assert bytes(r.passed()[0]) == bytes(one_hop_on(packet))


def test_through_a_gateway(r):
    far, gateway = FAR[r.family], HOST[r.family]
    r.h.stack.add_route(r.index, far + ("/32" if r.family == 4 else "/128"), gateway)
    r.expect_passed(r.ip(dst=far) / UDP(sport=1, dport=2) / b"x")


def test_options_and_extension_headers_are_carried(r):
    if r.family == 4:
        for options in ([IPOption_RR(routers=["0.0.0.0"] * 3)], [IPOption(b"\x94\4\0\0")], [IPOption(b"\x5e\4ab")]):
            r.expect_passed(r.ip(options=options) / UDP(sport=1, dport=2) / b"x")
        return
    unknown = Raw(b"\x11\0\xc2\4abcd")  # hop by hop: an option that its receiver must refuse
    for header in (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(addresses=["fd02::1"], segleft=1)):
        r.expect_passed(r.ip() / header / UDP(sport=1, dport=2, chksum=1) / b"x")
    r.expect_passed(r.ip(nh=0) / unknown / UDP(sport=1, dport=2, chksum=1))


def test_fragments_pass_as_they_are(r):
    if r.family == 4:
        pieces = fragment(large(r, 3000), fragsize=1000)
    else:
        udp = bytes(UDP(sport=1, dport=2, chksum=7)) + bytes(992)
        pieces = [
            r.ip() / IPv6ExtHdrFragment(offset=n * 125, m=n < 2, id=7, nh=17) / Raw(udp if not n else bytes(1000))
            for n in (2, 0, 1)
        ]
    for piece in pieces:
        r.expect_passed(piece)
    assert r.h.counted("IpReasmReqds" if r.family == 4 else "Ip6ReasmReqds") == 0


def test_what_ethernet_padded_stays_behind(r):
    packet = r.ip() / UDP(sport=1, dport=2) / b"x"
    r.h.inject(bytes(r.h.frame(packet)) + bytes(17))
    assert bytes(r.passed()[0]) == bytes(one_hop_on(packet))


def test_between_vlans(harness, family):
    """Both on one link; and back by where it came from, without a redirect."""
    h = harness(family, forwarding=True)
    vlan = h.stack.add_vlan(h.ifindex, 5)
    h.stack.add_address(vlan, SIDE[family] + ("/24" if family == 4 else "/64"))
    h.inject(h.ip(dst=HOST[family]) / UDP(sport=1, dport=2) / b"x")
    h.frames()
    ask = h.tagged.pop(0)
    assert ask[Dot1Q].vlan == 5
    if family == 4:
        answer = ARP(op=2, hwsrc=OTHER_MAC, psrc=HOST[4], hwdst=OUR_MAC, pdst=SIDE[4])
    else:
        answer = (
            IPv6(src=HOST[6], dst=SIDE[6], hlim=255)
            / ICMPv6ND_NA(tgt=HOST[6], S=1)
            / Raw(b"\2\1" + bytes.fromhex(OTHER_MAC.replace(":", "")))
        )
    h.inject(Ether(src=OTHER_MAC, dst=OUR_MAC) / Dot1Q(vlan=5) / answer)
    h.frames()
    out = h.tagged.pop(0)
    assert (out.dst, out[Dot1Q].vlan, out[UDP].dport) == (OTHER_MAC, 5, 2)


def test_to_one_of_its_other_addresses_is_for_itself(r):
    """RFC 1122 3.3.4.2, the weak model: whichever link it came by."""
    echo = ICMP(id=3) if r.family == 4 else ICMPv6EchoRequest(id=3)
    r.h.inject(r.ip(dst=SIDE[r.family]) / echo)
    reply = r.h.expect_packet()
    assert reply.payload.src == SIDE[r.family]
    assert (ICMP if r.family == 4 else ICMPv6EchoReply) in reply


def test_a_router_says_so(harness):
    """RFC 4861 4.4"""
    for forwarding, flag in ((True, 1), (4, 0)):
        h = harness(6, forwarding=forwarding)
        ns = ICMPv6ND_NS(tgt=h.ours) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        h.inject(h.ip(hlim=255) / ns)
        assert flag == h.expect_packet()[ICMPv6ND_NA].R


# --- errors ----------------------------------------------------------------------------------------------------------


def expect_error(r: Router, about: Packet, kind4: tuple[int, int], kind6: type, code6: int = 0) -> Packet:
    """An ICMP error comes back, from our address on that side, and quotes the packet as it came."""
    packet = r.h.expect_packet()
    raw = bytes(about)
    if r.family == 4:
        error = packet[ICMP]
        assert (error.type, error.code) == kind4
        assert quoted(packet) == raw[: 576 - 28]
    else:
        error = packet[kind6]
        assert error.code == code6
        assert quoted(packet) == raw[: 1280 - 48]
    assert (packet.payload.src, packet.payload.dst) == (r.h.ours, r.h.their)
    return error


@pytest.mark.parametrize("hops", [0, 1])
def test_no_hops_left(r, hops):
    packet = r.ip(**{"ttl" if r.family == 4 else "hlim": hops}) / UDP(sport=1, dport=2) / b"traceroute"
    r.expect_dropped(packet, "IpInHdrErrors" if r.family == 4 else "Ip6InHdrErrors")
    expect_error(r, packet, (11, 0), ICMPv6TimeExceeded)


def test_no_route(router):
    r = router(routes=False)
    packet = r.ip(dst=FAR[r.family]) / UDP(sport=1, dport=2) / Raw(bytes(1300))
    r.expect_dropped(packet, "IpExtInNoRoutes" if r.family == 4 else "Ip6InNoRoutes")
    expect_error(r, packet, (3, 0), ICMPv6DestUnreach, 0)
    assert r.h.counted("IpOutNoRoutes" if r.family == 4 else "Ip6OutNoRoutes") == 0


def test_a_silent_neighbour(r):
    """RFC 1812 4.3.3.1, RFC 4443 3.1: who sent what waited is told when the question is given up."""
    silent = "10.1.0.77" if r.family == 4 else "fd01::77"
    packet = r.ip(dst=silent) / UDP(sport=1, dport=2) / b"x"
    r.h.inject(packet)
    r.h.inject(packet)
    r.h.after("3s")
    asked = [Ether(frame) for frame, _ in r.link.drain()]
    assert all(ARP in each or ICMPv6ND_NS in each for each in asked)
    errors = r.h.frames()
    assert len(errors) == 2
    for sent in errors:
        assert quoted(sent.packet) == bytes(one_hop_on(packet))
        assert sent.packet.payload.dst == r.h.their
    r.h.inject(r.h.ip() / UDP(sport=1, dport=9) / b"still there")
    r.h.expect_packet()


def test_silence_on_the_way_to_who_must_be_told(harness):
    """What is said of a packet waits for the very neighbour that is silent: that ends."""
    h = harness(4, forwarding=True, routes=False)
    r = Router(h)
    h.silent |= {"10.0.0.66", "10.0.0.77"}
    for n in range(300):
        h.inject(h.ip(src="10.0.0.66", dst="10.0.0.77", id=n) / UDP(sport=1, dport=2) / b"x")
    h.after("20s")
    assert all(ARP in each.packet for each in h.frames())
    assert r.passed() == []


def test_too_large(router):
    """RFC 1191 4 with DF, RFC 8200 5: the MTU of the next link comes back."""
    r = router(out_mtu=1400)
    fields = {"flags": "DF"} if r.family == 4 else {}
    r.expect_passed(large(r, 1372 - (20 if r.family == 6 else 0), **fields))
    packet = large(r, 1373, **fields)
    r.expect_dropped(packet, "IpFragFails" if r.family == 4 else "Ip6InTooBigErrors")
    error = expect_error(r, packet, (3, 4), ICMPv6PacketTooBig)
    assert (error.nexthopmtu if r.family == 4 else error.mtu) == 1400


def test_too_large_is_told_to_all_who_need_it(router):
    """Not held back with the errors that a stranger could count: each path would stall."""
    r = router(out_mtu=1400)
    fields = {"flags": "DF"} if r.family == 4 else {}
    for n in range(120):
        src = f"10.0.0.{n + 10}" if r.family == 4 else f"fd00::{n + 16:x}"
        r.h.inject(large(r, 1400, src=src, **fields))
    assert len(r.h.frames()) == 120
    for _ in range(30):
        r.h.inject(large(r, 1400, **fields))
    assert 10 < len(r.h.frames()) <= 20  # destinations share buckets


def test_cut_on_the_way(harness):
    """RFC 791 3.2: options that say so are in every piece, the others in the first."""
    r = Router(harness(4, forwarding=True), mtu=600)
    stays, copied = IPOption_RR(routers=["0.0.0.0"]), IPOption(b"\x94\4\0\0")
    packet = large(r, 1400, id=77, tos=3, options=[stays, copied])
    r.h.inject(packet)
    pieces = r.passed()
    assert [p.ihl for p in pieces] == [8, 6, 6]
    assert all(p.len <= 600 and (p.len - p.ihl * 4) % 8 == 0 for p in pieces[:-1])
    assert all((p.id, p.tos, p.ttl) == (77, 3, 63) for p in pieces)
    assert [bytes(p)[20 : p.ihl * 4] for p in pieces[1:]] == [b"\x94\4\0\0"] * 2
    assert bytes(pieces[0])[20:32] == bytes(packet)[20:32]
    at = 0
    for p in pieces:
        assert (p.frag * 8, bool(p.flags.MF)) == (at, p is not pieces[-1])
        assert internet_checksum(bytes(p)[: p.ihl * 4]) == 0
        at += p.len - p.ihl * 4
    assert b"".join(bytes(p)[p.ihl * 4 :] for p in pieces) == bytes(packet)[32:]
    assert (r.h.counted("IpFragOKs"), r.h.counted("IpFragCreates"), r.h.counted("IpForwDatagrams")) == (1, 3, 1)


def test_a_fragment_is_cut_again(harness):
    r = Router(harness(4, forwarding=True), mtu=600)
    r.h.inject(r.ip(id=5, flags="MF", frag=100, proto=17) / Raw(bytes(range(250)) * 4))
    pieces = r.passed()
    assert [(p.frag, bool(p.flags.MF)) for p in pieces] == [(100, True), (172, True)]
    r.h.inject(r.ip(id=6, frag=100, proto=17) / Raw(bytes(1000)))
    assert [(p.frag, bool(p.flags.MF)) for p in r.passed()] == [(100, True), (172, False)]
    r.h.inject(r.ip(id=7, frag=8190, proto=17) / Raw(bytes(1000)))  # no datagram is so long
    assert r.passed() == []
    assert r.h.counted("IpFragFails") == 1


def test_no_errors_about_errors(router):
    """RFC 1812 4.3.2.7, RFC 4443 2.4 (e)"""
    r = router(routes=False)
    inner = bytes(r.ip(src=FAR[r.family]) / UDP())
    errors = (
        [ICMP(type=t) for t in (3, 4, 5, 11, 12)]
        if r.family == 4
        else [ICMPv6DestUnreach(), ICMPv6TimeExceeded(), Raw(b"\x64" + bytes(7)), Raw(b"\x89" + bytes(7))]
    )
    for error in errors:
        nh = {"nh": 58} if r.family == 6 else {}
        r.h.inject(r.ip(dst=FAR[r.family], **nh) / error / Raw(inner))
        if r.family == 6:
            r.h.inject(r.ip(dst=FAR[6]) / IPv6ExtHdrDestOpt(nh=58) / error / Raw(inner))
    if r.family == 4:
        r.h.inject(r.ip(dst=FAR[4], frag=5) / Raw(bytes(64)))
        r.h.inject(r.ip(dst=FAR[4], proto=1))
    r.h.expect_nothing()
    r.h.inject(r.ip(dst=FAR[r.family]) / (ICMP() if r.family == 4 else ICMPv6EchoRequest()))
    r.h.expect_packet()


# --- what is never passed on -----------------------------------------------------------------------------------------

NEVER_TO = {
    4: ["0.0.0.1", "127.0.0.1", "169.254.7.7", "224.0.0.5", "239.1.2.3", "240.0.0.1", "255.255.255.255", "10.1.0.255"],
    6: ["::", "::1", "fe80::9", "ff02::5", "ff0e::1234", "::ffff:10.1.0.9"],
}
NEVER_FROM = {
    4: [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "169.254.7.7",
        "224.0.0.5",
        "240.0.0.1",
        "255.255.255.255",
        "10.0.0.255",
        "10.1.0.1",
    ],
    6: ["::", "::1", "ff02::5", "::ffff:10.0.0.1", "fd01::1"],
}


def test_addresses_that_mean_nothing_further_on(r):
    r.h.stack.add_route(r.index, "0.0.0.0/1", HOST[4])  # there would be a way
    r.h.stack.add_route(r.index, "128.0.0.0/1", HOST[4])
    for address in NEVER_TO[r.family]:
        r.h.inject(r.ip(dst=address) / UDP(sport=1, dport=2) / b"x")
        assert r.passed() == [], address
    for address in NEVER_FROM[r.family]:
        r.h.inject(r.ip(src=address) / UDP(sport=1, dport=2) / b"x")
        assert r.passed() == [], address
    r.h.expect_nothing()


def test_a_source_that_is_only_known_here(harness):
    """RFC 4443 3.1, code 2"""
    r = Router(harness(6, forwarding=True))
    packet = r.ip(src="fe80::1") / UDP(sport=1, dport=2) / b"x"
    r.expect_dropped(packet, "Ip6InAddrErrors")
    error = r.h.expect_packet()
    assert (error[ICMPv6DestUnreach].code, error[IPv6].dst) == (2, "fe80::1")


def test_a_frame_for_many(r):
    """RFC 1812 5.3.4: to one host by IP, to all by Ethernet."""
    for mac in ("ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"):
        r.h.inject(Ether(src=PEER_MAC, dst=mac) / r.ip() / UDP(sport=1, dport=2) / b"x")
        r.h.inject(Ether(src=PEER_MAC, dst=mac) / r.ip(dst=FAR[r.family]) / UDP(sport=1, dport=2) / b"x")
    assert r.passed() == []
    r.h.expect_nothing()


def test_an_address_of_its_own_that_is_not_in_use_yet(harness, family):
    r = Router(harness(family, forwarding=True))
    tentative = "10.1.0.50" if family == 4 else "fd01::50"
    raw = bytes.fromhex("00" * 10 + "ffff0a010032") if family == 4 else bytes.fromhex("fd01" + "00" * 13 + "50")
    check(lib.stack_set_address(r.h.handle, r.index, raw, 24 if family == 4 else 64, 1, 2**64 - 1, 2**64 - 1))
    r.link.drain()
    r.h.inject(r.ip(dst=tentative) / UDP(sport=1, dport=2) / b"x")
    assert not [f for f, _ in r.link.drain() if UDP in Ether(f)]
    r.h.after("20s")
    r.link.drain()


def test_hostile_bytes(router):
    """Cut anywhere, and with any byte changed: nothing but what is well formed goes on, and nothing is kept."""
    r = router(routes=False)
    options = {"options": [IPOption(b"\x07\x07\x04\0\0\0\0\0")]} if r.family == 4 else {}
    raw = bytes(r.h.frame(r.ip(**options) / UDP(sport=1, dport=2) / Raw(bytes(24))))
    for cut in range(14, len(raw)):
        r.h.inject(raw[:cut])
    assert r.passed() == []
    for at in range(14, len(raw)):
        for value in (0, 1, 0x7F, 0xFF):
            r.h.inject(raw[:at] + bytes([value]) + raw[at + 1 :])
    for _ in range(10):  # until the last question for a neighbour is given up
        r.h.stack.run(r.h.now)
        r.h.link.drain()
        r.link.drain()
        r.h.now += 10**9


# --- what senders leave to devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize("caps_there", [0, Link.CSUM, Link.ALL], ids=["plain", "sums", "segments"])
@pytest.mark.parametrize("caps_here", [0, Link.CSUM, Link.ALL], ids=["plain", "sums", "segments"])
def test_between_links_of_all_abilities(caps_here, caps_there, family):
    """A bulk transfer both ways through a router: every byte, with sums and segments left to whoever can."""
    net = Routed(caps_here, caps_there)
    net.transfer(300_000, family)
    assert net.router.counters()["IpForwDatagrams" if family == 4 else "Ip6OutForwDatagrams"] > 20
    net.finish()


def test_a_narrow_link_behind_offload(family):
    """Segments of 64 KiB for a path that takes 1,280 bytes a packet: the sender hears of it and cuts smaller."""
    net = Routed(Link.ALL, 0)
    network = "10.1.0.0/24" if family == 4 else "fd01::/64"
    set_route(net.router, Route(network, 3, mtu=1280))
    net.transfer(300_000, family)
    counters = net.router.counters()
    assert counters["IpFragFails" if family == 4 else "Ip6InTooBigErrors"] > 0
    assert counters["IpFragCreates"] == 0
    net.finish()


def test_segments_cut_by_hand(harness, family):
    """What a stack leaves to a device that the next link has not: every field of what comes out is right."""
    h = harness(family)  # for its names of things
    client, router = Stack(Rng(1), h.now), Stack(Rng(2), h.now, forwarding=True)
    near, far = Link.pair(Rng(3), mtu=1500, caps=Link.ALL)
    out = Link.manual(Rng(4))
    prefix = (24, 64)[family == 6]
    i, j, k = client.add_link(near), router.add_link(far), router.add_link(out)
    client.add_address(i, f"{h.their}/{prefix}")
    client.add_route(i, f"{HOST[family]}/{(32, 128)[family == 6]}", h.ours)
    router.add_address(j, f"{h.ours}/{prefix}")
    router.add_address(k, f"{SIDE[family]}/{prefix}")
    frames: list[bytes] = []

    def run() -> None:
        for _ in range(4):
            client.run(h.now)
            router.run(h.now)
            for frame, gso in out.drain():
                assert not gso
                if TCP in Ether(frame):
                    frames.append(frame)
                elif ARP in Ether(frame):
                    answer = ARP(op=2, hwsrc=OTHER_MAC, psrc=HOST[4], hwdst=out.mac, pdst=SIDE[4])
                    out.inject(bytes(Ether(src=OTHER_MAC, dst=out.mac) / answer), h.now)
                elif ICMPv6ND_NS in Ether(frame):
                    advert = ICMPv6ND_NA(tgt=HOST[6], S=1) / ICMPv6NDOptDstLLAddr(lladdr=OTHER_MAC)
                    answer = IPv6(src=HOST[6], dst=SIDE[6], hlim=255) / advert
                    out.inject(bytes(Ether(src=OTHER_MAC, dst=out.mac) / answer), h.now)

    c = check(lib.sock_open(client.handle, 1, AF[family]))
    check(lib.sock_connect(client.handle, c, pack_address(HOST[family]), 80))
    run()
    syn = Ether(frames.pop())[TCP]
    layer = IP if family == 4 else IPv6
    answer = layer(src=HOST[family], dst=h.their) / TCP(
        sport=80, dport=syn.sport, flags="SA", seq=7, ack=syn.seq + 1, options=[("MSS", 1000)], window=65535
    )
    out.inject(bytes(Ether(src=OTHER_MAC, dst=out.mac) / answer), h.now)
    run()
    frames.clear()
    data = bytes(n % 251 for n in range(9500))
    check(lib.sock_send(client.handle, c, data, len(data)))
    check(lib.sock_shutdown(client.handle, c))
    run()
    assert router.counters()["IpForwDatagrams" if family == 4 else "Ip6OutForwDatagrams"] < 7
    ids, at = [], 0
    for frame in frames:
        packet = Ether(frame)
        ip, tcp = packet.payload, packet[TCP]
        assert bytes(ip) == bytes(rebuilt(ip))
        assert tcp.seq == syn.seq + 1 + at
        assert bytes(tcp.payload) == data[at : at + 1000]
        assert ("F" in tcp.flags, "P" in tcp.flags) == (frame is frames[-1],) * 2
        at += len(tcp.payload)
        ids.append(ip.id if family == 4 else len(ids))
    assert at == len(data)
    assert ids == list(range(ids[0], ids[0] + 10))
    client.close()
    router.close()


def rebuilt(ip: Packet) -> Packet:
    """With all lengths and sums as scapy makes them."""
    copy = ip.copy()
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",))):
        if layer in copy:
            for name in names:
                delattr(copy[layer], name)
    return copy

"""VLAN tags (IEEE 802.1Q); scapy reads and writes them for the other side."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from libos.net.stack import Link

from .harness import Harness, fails
from .packets import OUR_MAC, PEER_MAC, internet_checksum

OURS, PEER = {4: "10.5.0.2", 6: "fd05::2"}, {4: "10.5.0.1", 6: "fd05::1"}


class Tagged:
    """VLAN 5 on the harness's link, and a host on it."""

    def __init__(self, h: Harness) -> None:
        self.h = h
        self.index = h.stack.add_vlan(h.ifindex, 5)
        h.stack.add_address(self.index, OURS[4] + "/24")
        h.stack.add_address(self.index, OURS[6] + "/64")

    def ip(self, **fields):
        layer = IP if self.h.family == 4 else IPv6
        return layer(**{"src": PEER[self.h.family], "dst": OURS[self.h.family], **fields})

    def inject(self, packet, vlan=5, **fields):
        self.h.link.inject(bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / Dot1Q(vlan=vlan, **fields) / packet), self.h.now)

    def meet(self):
        if self.h.family == 4:
            self.inject(ARP(op=1, hwsrc=PEER_MAC, psrc=PEER[4], pdst=OURS[4]))
        else:
            self.inject(self.ip(hlim=255) / ICMPv6ND_NS(tgt=OURS[6]) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC))
        self.sent()

    def sent(self):
        self.h._run()
        sent, self.h.tagged = self.h.tagged, []
        return sent


@pytest.fixture
def t(h):
    t = Tagged(h)
    t.meet()
    return t


def echo(t):
    body = ICMP(type=8, id=1, seq=2) / b"data" if t.h.family == 4 else ICMPv6EchoRequest(id=1, seq=2, data=b"data")
    return t.ip() / body


def is_reply(t, packet):
    return (ICMP in packet and packet[ICMP].type == 0) if t.h.family == 4 else ICMPv6EchoReply in packet


def test_what_came_with_a_tag_is_answered_with_it(t):
    t.inject(echo(t))
    (packet,) = t.sent()
    assert (packet[Dot1Q].vlan, packet[Dot1Q].prio, packet[Dot1Q].dei) == (5, 0, 0)
    assert is_reply(t, packet)
    assert (packet.src, packet.dst) == (OUR_MAC, PEER_MAC)


def test_neighbours_are_the_vlans_own(h):
    """The question for a neighbour has the tag, and the answer must have it."""
    t = Tagged(h)
    u = h.open(2)
    h.sendto(u, b"x", PEER[h.family], 9)
    (question,) = t.sent()
    assert question[Dot1Q].vlan == 5
    assert (ARP if h.family == 4 else ICMPv6ND_NS) in question
    t.meet()
    h.expect_nothing()


def test_other_tags_are_nobodys(t):
    t.inject(echo(t), vlan=6)
    assert t.sent() == []
    assert t.h.counted("EthInUnknownVlans") == 1


def test_untagged_is_another_interface(t):
    """RFC 1122 3.3.4.2, the weak model: it is for us, whichever link it came by; the answer goes by the route."""
    t.h.inject(t.ip() / UDP(sport=1, dport=9))
    (packet,) = t.sent()
    assert packet[Dot1Q].vlan == 5
    t.h.expect_nothing()


@pytest.mark.parametrize("prio", [0, 7])
def test_a_priority_is_no_vlan(h, prio):
    """802.1Q 6.9.1, priority-tagged: VLAN 0 is whoever the link is."""
    body = ICMP(type=8) if h.family == 4 else ICMPv6EchoRequest()
    h.meet()
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / Dot1Q(vlan=0, prio=prio) / h.ip() / body)
    packet = h.expect_packet()
    assert Dot1Q not in packet


@pytest.mark.parametrize("size", range(14, 18))
def test_a_tag_that_is_cut_short(t, size):
    frame = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / Dot1Q(vlan=5) / echo(t))
    t.h.link.inject(frame[:size], t.h.now)
    assert t.h.counted("EthInErrors") == 1


def test_two_tags(t):
    """A VLAN in a VLAN; the outer tag may be a provider's (802.1ad)."""
    inner = t.h.stack.add_vlan(t.index, 9)
    t.h.stack.add_address(inner, "10.6.0.2/24")
    t.h.stack.add_address(inner, "fd06::2/64")
    if t.h.family == 4:
        question = ARP(op=1, hwsrc=PEER_MAC, psrc="10.6.0.1", pdst="10.6.0.2")
    else:
        ip = IPv6(src="fd06::1", dst="fd06::2", hlim=255)
        question = ip / ICMPv6ND_NS(tgt="fd06::2") / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
    for outer in (Dot1Q(vlan=5), Dot1AD(vlan=5)):
        frame = Ether(src=PEER_MAC, dst=OUR_MAC) / outer / Dot1Q(vlan=9) / question
        t.h.link.inject(bytes(frame), t.h.now)
        (packet,) = t.sent()
        assert (packet[Dot1Q].vlan, packet[Dot1Q:2].vlan) == (5, 9)
        assert (ARP if t.h.family == 4 else ICMPv6ND_NA) in packet


def test_refusals(h):
    for vid in (0, 4095):
        with fails("EINVAL"):
            h.stack.add_vlan(h.ifindex, vid)
    with fails("EINVAL"):
        h.stack.add_vlan(1, 5)
    with fails("ENODEV"):
        h.stack.add_vlan(9, 5)
    h.stack.add_vlan(h.ifindex, 5)
    with fails("EEXIST"):
        h.stack.add_vlan(h.ifindex, 5)


@pytest.mark.parametrize("caps", [0, Link.CSUM, Link.ALL], ids=["plain", "csum", "all"])
def test_a_connection_and_its_sums(harness, family, caps):
    """The checksum is right behind a tag, too, where the link is to fill it in; large segments are cut by us."""
    h = harness(family, caps=caps)
    t = Tagged(h)
    t.meet()
    listener = h.listen(80)
    t.inject(t.ip() / TCP(sport=4000, dport=80, flags="S", seq=1, window=65535, options=[("MSS", 1000)]))
    (answer,) = t.sent()
    ack = answer[TCP].seq + 1
    t.inject(t.ip() / TCP(sport=4000, dport=80, flags="A", seq=2, ack=ack, window=65535))
    c = h.accept(listener)
    h.send(c, b"z" * 3000)
    packets = t.sent()
    assert [len(bytes(p[TCP].payload)) for p in packets] == [1000] * 3
    if not caps:
        for packet in packets:
            tcp = bytes(packet[TCP])
            ip = packet[Dot1Q].payload
            pseudo = bytes(ip)[12:20] + b"\0\6" if family == 4 else bytes(ip)[8:40] + b"\0\0"
            length = len(tcp).to_bytes(2, "big") + (b"" if family == 4 else b"\0\0\0\6")
            assert internet_checksum(pseudo + length + tcp) == 0
    h.abort(c)
    t.sent()

"""ARP (RFC 826, RFC 1122 2.3.2) and neighbour discovery (RFC 4861): who is asked, who is answered, who is given up."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from .harness import fails
from .packets import FAR, OUR_MAC, OURS, PEER, PEER_MAC, ROUTER

NEW_MAC = "02:00:00:00:00:99"


def ask_us(h, **fields):
    """The peer asks who has our address."""
    if h.family == 4:
        arp = ARP(**{"op": 1, "hwsrc": PEER_MAC, "psrc": h.their, "pdst": h.ours, **fields})
        h.inject(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / arp)
    else:
        mac = fields.get("hwsrc", PEER_MAC)
        ns = ICMPv6ND_NS(tgt=h.ours) / ICMPv6NDOptSrcLLAddr(lladdr=mac)
        h.inject(Ether(src=mac, dst="33:33:ff:00:00:02") / IPv6(src=h.their, dst="ff02::1:ff00:2", hlim=255) / ns)


def answer(h, mac=PEER_MAC, solicited=True, override=True, address=None):
    """The peer (or ``address``) says where it is."""
    address = address or h.their
    if h.family == 4:
        h.inject(Ether(src=mac, dst=OUR_MAC) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=OUR_MAC, pdst=h.ours))
    else:
        na = ICMPv6ND_NA(tgt=address, R=0, S=solicited, O=override) / ICMPv6NDOptDstLLAddr(lladdr=mac)
        h.inject(Ether(src=mac, dst=OUR_MAC) / IPv6(src=address, dst=h.ours, hlim=255) / na)


def expect_question(h, target=None, unicast=False):
    target = target or h.their
    packet = h.expect_packet()
    if h.family == 4:
        assert packet.dst == (PEER_MAC if unicast else "ff:ff:ff:ff:ff:ff")
        arp = packet[ARP]
        assert (arp.op, arp.hwsrc, arp.psrc, arp.pdst) == (1, OUR_MAC, h.ours, target)
        assert arp.hwdst == "00:00:00:00:00:00"
    else:
        ns = packet[ICMPv6ND_NS]
        assert ns.tgt == target
        assert packet[ICMPv6NDOptSrcLLAddr].lladdr == OUR_MAC
        assert (packet[IPv6].src, packet[IPv6].hlim) == (h.ours, 255)
        low = int(target.rpartition(":")[2], 16)
        assert packet[IPv6].dst == (target if unicast else f"ff02::1:ff00:{low:x}")
        assert packet.dst == (PEER_MAC if unicast else f"33:33:ff:00:00:{low:02x}")


def test_a_question_for_us_is_answered(bare):
    """RFC 826; RFC 4861 7.2.4"""
    ask_us(bare)
    packet = bare.expect_packet()
    assert packet.dst == PEER_MAC
    if bare.family == 4:
        arp = packet[ARP]
        assert (arp.op, arp.hwsrc, arp.psrc) == (2, OUR_MAC, OURS[4])
        assert (arp.hwdst, arp.pdst) == (PEER_MAC, PEER[4])
    else:
        na = packet[ICMPv6ND_NA]
        assert (na.tgt, na.R, na.S, na.O) == (OURS[6], 0, 1, 1)
        assert packet[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC
        assert (packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (OURS[6], PEER[6], 255)
    bare.expect_nothing()


def test_who_asked_us_need_not_be_asked(bare):
    """RFC 826, packet reception; RFC 4861 7.2.3: the question says where its sender is."""
    ask_us(bare)
    bare.expect_packet()
    c = bare.connect(80)
    bare.peer(port=80, to=bare.info(c).local[1]).expect("S")
    bare.abort(c)


@pytest.mark.parametrize("target", ["10.0.0.77", "10.0.1.2"])
def test_arp_for_others_is_not_answered(harness, target):
    """RFC 826: am I the target protocol address?"""
    h = harness(4, neighbours=False)
    ask_us(h, pdst=target)
    h.expect_nothing()


def test_arp_from_an_unspecified_sender_is_answered(harness):
    """RFC 5227 2.1: a probe before an address is taken; it teaches nothing."""
    h = harness(4, neighbours=False)
    ask_us(h, psrc="0.0.0.0")
    assert h.expect_packet()[ARP].pdst == "0.0.0.0"


def test_arp_that_claims_to_be_us_is_not_believed(harness):
    h = harness(4, neighbours=False)
    ask_us(h, psrc=OURS[4], pdst=OURS[4])
    h.frames()
    ask_us(h, psrc=OURS[4], pdst="10.0.0.9")
    h.expect_nothing()


@pytest.mark.parametrize(
    "fields",
    [{"hwtype": 6}, {"ptype": 0x86DD}, {"hwlen": 8}, {"plen": 16}, {"hwsrc": "ff:ff:ff:ff:ff:ff"}],
    ids=["hwtype", "ptype", "hwlen", "plen", "group-sender"],
)
def test_malformed_arp_is_counted_and_dropped(harness, fields):
    h = harness(4, neighbours=False)
    arp = ARP(op=1, hwsrc=PEER_MAC, psrc=PEER[4], pdst=OURS[4])
    for name, value in fields.items():
        setattr(arp, name, value)
    raw = bytes(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / arp)
    h.inject(raw)
    h.inject(raw[:41])
    assert h.counted("ArpInErrors") == 2
    h.expect_nothing()


NS = ICMPv6ND_NS(tgt=OURS[6]) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
ALL_NODES, SOLICITED = "ff02::1", "ff02::1:ff00:2"


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(src=PEER[6], dst=SOLICITED, hlim=64) / NS,
        IPv6(src=PEER[6], dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=OURS[6], code=1),
        IPv6(src=PEER[6], dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt="ff02::2"),
        IPv6(src=PEER[6], dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=OURS[6]) / Raw(b"\1\0" + bytes(6)),
        IPv6(src=PEER[6], dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=OURS[6]) / Raw(b"\1\2" + bytes(6)),
        IPv6(src="::", dst=SOLICITED, hlim=255) / NS,
        IPv6(src="::", dst=OURS[6], hlim=255) / ICMPv6ND_NS(tgt=OURS[6]),
        IPv6(src=PEER[6], dst=ALL_NODES, hlim=255) / ICMPv6ND_NA(tgt=PEER[6], S=1),
    ],
    ids=["hop-limit", "code", "group-target", "empty-option", "long-option", "dad-with-source", "dad-unicast", "na"],
)
def test_invalid_nd_is_counted_and_dropped(harness, packet):
    """RFC 4861 7.1.1, 7.1.2"""
    h = harness(6, neighbours=False)
    h.inject(packet)
    assert h.counted("IcmpInErrors") == 1
    h.expect_nothing()


def test_who_checks_whether_our_address_is_free_hears_it_is_not(harness):
    """RFC 4861 7.2.4, RFC 4862 5.4.3"""
    h = harness(6, neighbours=False)
    h.inject(IPv6(src="::", dst=SOLICITED, hlim=255) / ICMPv6ND_NS(tgt=OURS[6]))
    packet = h.expect_packet()
    na = packet[ICMPv6ND_NA]
    assert (packet[IPv6].dst, packet.dst) == (ALL_NODES, "33:33:00:00:00:01")
    assert (na.tgt, na.S, na.O) == (OURS[6], 0, 1)


def test_our_link_local_address_answers(harness):
    """RFC 4291 2.5.6: it is made of the MAC."""
    h = harness(6, neighbours=False)
    ns = ICMPv6ND_NS(tgt="fe80::ff:fe00:2") / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
    h.inject(IPv6(src="fe80::1", dst="ff02::1:ff00:2", hlim=255) / ns)
    packet = h.expect_packet()
    assert packet[ICMPv6ND_NA].tgt == packet[IPv6].src == "fe80::ff:fe00:2"


def test_packets_wait_for_the_answer(bare):
    """RFC 1122 2.3.2.2, RFC 4861 7.2.2: held, in order, and sent when it comes."""
    h = bare
    u = h.open(2)
    for i in range(3):
        h.sendto(u, b"%d" % i, h.their, 7)
    expect_question(h)
    h.expect_nothing()
    answer(h)
    assert [bytes(h.expect_packet()[UDP].payload) for _ in range(3)] == [b"0", b"1", b"2"]


def test_only_so_many_wait(bare):
    """RFC 4861 7.2.2: the oldest goes when the queue is full."""
    h = bare
    u = h.open(2)
    for i in range(260):
        h.sendto(u, b"%03d" % i, h.their, 7)
    expect_question(h)
    answer(h)
    assert [bytes(s.packet[UDP].payload) for s in h.frames()] == [b"%03d" % i for i in range(4, 260)]
    assert h.counted("NeighFailed") == 4


def test_unanswered_three_times_is_unreachable(bare):
    """RFC 4861 7.2.2, 10: MAX_MULTICAST_SOLICIT 3, RETRANS_TIMER 1 s; who connects hears EHOSTUNREACH."""
    h = bare
    c = h.connect(80)
    for second in range(3):
        h.at(f"{second}s")
        expect_question(h)
    assert h.events() == {}
    h.at("2.999s")
    assert h.state(c) == "SYN-SENT"
    h.at("3s")
    assert h.state(c) == "CLOSED"
    assert h.events()[c] & 4
    assert h.error(c) == "EHOSTUNREACH"
    assert h.counted("NeighFailed") == 2  # the SYN, and the SYN again after its time-out of 1 s


def test_the_router_is_asked_for_what_is_far(bare):
    """RFC 1122 3.3.1.1; its silence fails what goes through it."""
    h = bare
    near = h.connect(80)
    expect_question(h)
    answer(h)
    p = h.peer(port=80, to=h.info(near).local[1])
    p.expect("S")
    far = h.connect(80, FAR[h.family])
    expect_question(h, ROUTER[h.family])
    p.rx("SA", seq=0, ack=1)
    p.expect("A")
    h.at("3s")
    h.frames()
    assert h.error(far) == "EHOSTUNREACH"
    assert h.state(near) == "ESTABLISHED"


def test_an_established_connection_outlives_its_neighbour(bare):
    """RFC 1122 4.2.3.9: unreachable is a hint, not the end."""
    h = bare
    ask_us(h)
    h.frames()
    _, c = h.connected()
    h.send(c, b"x")
    for _ in range(20):
        h.after("1s")
    h.frames()
    assert h.state(c) == "ESTABLISHED"
    assert h.error(c) is None
    ask_us(h)
    h.frames()
    h.after("30s")
    assert any(TCP in s.packet for s in h.frames())


def test_a_stale_entry_serves_and_is_verified(bare):
    """RFC 4861 7.3.3, 10: STALE serves; 5 s after its use it is asked, unicast, three times."""
    h = bare
    u = h.open(2)
    ask_us(h)
    h.expect_packet()
    h.sendto(u, b"1", h.their, 7)
    assert h.expect_packet().dst == PEER_MAC
    h.at("4.999s").expect_nothing()
    for second in (5, 6, 7):
        h.at(f"{second}s")
        expect_question(h, unicast=True)
    h.sendto(u, b"2", h.their, 7)
    assert h.expect_packet().dst == PEER_MAC  # PROBE serves, too
    h.at("8s")
    h.sendto(u, b"3", h.their, 7)
    expect_question(h)  # forgotten: all over again


def test_a_reachable_entry_goes_stale(bare):
    """RFC 4861 10: REACHABLE_TIME is 30 s, times 0.5 to 1.5."""
    h = bare
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    answer(h)
    h.expect_packet()
    h.at("14s")
    h.sendto(u, b"2", h.their, 7)
    h.expect_packet()
    h.at("40s").expect_nothing()  # REACHABLE is not asked again by itself
    h.at("46s")
    h.sendto(u, b"3", h.their, 7)
    h.expect_packet()
    h.at("51s")
    expect_question(h, unicast=True)
    answer(h)
    h.at("60s").expect_nothing()


def test_a_neighbour_that_moved_is_followed(bare):
    """RFC 826: a newer pair replaces; RFC 4861 7.2.5: with the override flag."""
    h = bare
    u = h.open(2)
    ask_us(h)
    h.expect_packet()
    answer(h, NEW_MAC)
    h.sendto(u, b"1", h.their, 7)
    assert h.expect_packet().dst == NEW_MAC


def test_without_override_the_old_address_stays(harness):
    """RFC 4861 7.2.5 I: doubted, and kept."""
    h = harness(6, neighbours=False)
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    answer(h)
    h.expect_packet()
    answer(h, NEW_MAC, override=False)
    h.sendto(u, b"2", h.their, 7)
    assert h.expect_packet().dst == PEER_MAC
    h.at("5s")
    expect_question(h, unicast=True)


def test_an_unasked_answer_makes_no_entry(bare):
    """RFC 4861 7.2.5: no entry, no use."""
    h = bare
    answer(h, NEW_MAC)
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)


def test_a_group_is_nobodys_link_address(bare):
    """RFC 1812 3.3.2: no unicast address is behind a multicast one."""
    h = bare
    u = h.open(2)
    h.sendto(u, b"1", h.their, 7)
    expect_question(h)
    answer(h, "ff:ff:ff:ff:ff:ff")
    h.expect_nothing()


def test_the_table_is_bounded(bare):
    """More claim to be here than it holds: the oldest go, nothing grows."""
    h = bare
    for i in range(700):
        if h.family == 4:
            ask_us(h, psrc=f"10.1.{i // 250}.{i % 250 + 1}")
        else:
            ns = ICMPv6ND_NS(tgt=h.ours) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
            h.inject(IPv6(src=f"fd00::1:{i:x}", dst=SOLICITED, hlim=255) / ns)
        if i % 100 == 0:
            h.frames()
    h.frames()
    assert h.stack.memory()["buffers"] == 0


def test_no_route_is_no_network(harness, family):
    h = harness(family, routes=False)
    with fails("ENETUNREACH"):
        h.connect(80, FAR[family])

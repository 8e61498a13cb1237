"""Router discovery (RFC 4861 6.3, RFC 7559, RFC 4191, RFC 8106): who is asked, what is believed, how long."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptRouteInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from .harness import Harness, fails
from .packets import FAR, OUR_MAC

R1, R2, R3 = "fe80::a", "fe80::b", "fe80::c"
MACS = {R1: "02:00:00:00:00:0a", R2: "02:00:00:00:00:0b", R3: "02:00:00:00:00:0c"}
INFINITE = 0xFFFFFFFF


@pytest.fixture
def h() -> Iterator[Harness]:
    """An interface that listens to routers, with no route of its own. It asks for them as long as it lives."""
    h = Harness(6, neighbours=False, routes=False)
    h.interface.autoconf(0)
    h.at("10ms")
    yield h
    h.stack.run(h.now)
    h.link.drain()
    assert h.stack.memory()["buffers"] == 0
    h.stack.close()


def advert(h, *options, router=R1, lifetime=1800, hlim=255, src_mac=True, **fields):
    ra = ICMPv6ND_RA(**{"chlim": 64, "M": 0, "O": 0, "prf": 0, "routerlifetime": lifetime, **fields})
    packet = Ether(src=MACS.get(router, "02:00:00:00:00:0f"), dst="33:33:00:00:00:01")
    packet /= IPv6(src=router, dst="ff02::1", hlim=hlim) / ra
    if src_mac:
        packet /= ICMPv6NDOptSrcLLAddr(lladdr=packet.src)
    for option in options:
        packet /= option
    h.inject(packet)


def settled(h):
    """After the detection of the link-local address, and with a router found, so that nothing more is asked."""
    advert(h)
    h.at("5s").frames()
    h.events()


def next_hop(h, far=FAR[6]):
    """The link address of the router through which a datagram to far leaves."""
    u = h.open(2)
    try:
        h.sendto(u, b"x", far, 7)
        return h.expect_packet().dst
    finally:
        h.free(u)


def solicitations(h):
    return [f for f in h.frames() if ICMPv6ND_RS in f.packet]


def test_routers_are_asked_less_and_less_often(h):
    """RFC 4861 6.3.7: after a delay of 0-1 s; RFC 7559 2: then after 4 s, 8 s …, a tenth more or less, for ever."""
    h.at("600s")
    frames = solicitations(h)
    packet = frames[0].packet
    assert (packet.dst, packet[IPv6].dst, packet[IPv6].hlim) == ("33:33:00:00:00:02", "ff02::2", 255)
    times = [(f.time - 10**9) / 1e9 for f in frames]
    assert 0 <= times[0] <= 1
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(gaps) >= 6
    expected = 4.0
    for gap in gaps:
        assert 0.9 * expected <= gap <= 1.1 * expected
        expected = 2 * gap


def test_a_solicitation_carries_our_link_address_once_it_is_ours(h):
    """RFC 4861 4.1, RFC 4862 5.4: from :: and without it while our address is tentative."""
    h.at("20s")
    frames = [f.packet for f in solicitations(h)]
    late = frames[-1]
    assert late[IPv6].src == "fe80::ff:fe00:2"
    assert late[ICMPv6NDOptSrcLLAddr].lladdr == OUR_MAC
    for early in frames:
        assert (early[IPv6].src == "::") == (ICMPv6NDOptSrcLLAddr not in early)


def test_an_answer_ends_the_asking(h):
    """RFC 7559 2.1: a router with a lifetime."""
    h.at("1s").frames()
    advert(h)
    h.at("1000s")
    assert not solicitations(h)


def test_an_answer_of_no_router_does_not(h):
    """RFC 7559 2.1: ... is not a default router"""
    h.at("1s").frames()
    advert(h, lifetime=0)
    h.at("20s")
    assert solicitations(h)


def test_a_router_becomes_the_default_route(h):
    """RFC 4861 6.3.4; its link address came with it."""
    settled(h)
    assert next_hop(h) == MACS[R1]
    assert h.interface.advertised().routers == 1


def test_python_hears_of_a_first_router(h):
    h.at("3s").frames()
    h.events()
    advert(h, M=1)
    assert h.events() == {0: 1}
    assert h.interface.advertised().managed
    advert(h, M=1)
    assert h.events() == {}
    advert(h, M=0, O=1)
    assert h.events() == {0: 1}
    assert (h.interface.advertised().managed, h.interface.advertised().other) == (False, True)


def test_a_router_is_forgotten_when_its_lifetime_ends(h):
    """RFC 4861 6.3.5; then others are looked for."""
    settled(h)
    advert(h, lifetime=100)
    h.after("99s").frames()
    assert next_hop(h) == MACS[R1]
    h.after("1s")
    assert solicitations(h)
    assert h.events() == {0: 1}
    with fails("ENETUNREACH"):
        next_hop(h)


def test_a_router_that_retires_says_so(h):
    """RFC 4861 6.3.4: lifetime 0"""
    settled(h)
    advert(h, lifetime=0)
    with fails("ENETUNREACH"):
        next_hop(h)


def test_a_neighbour_that_is_no_router_any_more_is_no_default_router(h):
    """RFC 4861 7.2.5: the flag went from set to clear."""
    settled(h)
    na = ICMPv6ND_NA(tgt=R1, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=MACS[R1])
    h.inject(Ether(src=MACS[R1], dst="33:33:00:00:00:01") / IPv6(src=R1, dst="ff02::1", hlim=255) / na)
    with fails("ENETUNREACH"):
        next_hop(h)


def test_the_preferred_router_is_taken(h):
    """RFC 4191 2.2, 3.2: high before medium before low, whoever came first; 10 is read as medium."""
    settled(h)
    advert(h, router=R2, prf=1)
    assert next_hop(h) == MACS[R2]
    advert(h, router=R3, prf=2)
    assert next_hop(h) == MACS[R2]
    advert(h, router=R2, prf=3)
    assert next_hop(h) == MACS[R1]


def test_a_router_that_answers_is_preferred_to_a_silent_one(h):
    """RFC 4861 6.3.6 (1), RFC 4191 3.2: reachability before preference."""
    settled(h)
    advert(h, router=R2, prf=1)
    assert next_hop(h) == MACS[R2]
    h.after("9s").frames()  # DELAY, then three questions that nobody answers
    assert next_hop(h) == MACS[R1]
    advert(h, router=R2, prf=1)  # it speaks again
    assert next_hop(h) == MACS[R2]
    h.after("9s").frames()


def test_when_all_are_silent_they_take_turns(h):
    """RFC 4861 6.3.6 (2)"""
    settled(h)
    advert(h, router=R2)
    first = next_hop(h)
    h.after("9s").frames()
    second = next_hop(h)
    h.after("9s").frames()
    assert {first, second} == {MACS[R1], MACS[R2]}
    u = h.open(2)
    targets = []
    for _ in range(3):
        h.sendto(u, b"x", FAR[6], 7)
        targets.append(h.frames()[-1].packet[ICMPv6ND_NS].tgt)
        h.after("4s").frames()
    assert targets == [R1, R2, R1] or targets == [R2, R1, R2]


@pytest.mark.parametrize(
    ("fields", "src"),
    [({"hlim": 64}, R1), ({"code": 1}, R1), ({}, "fd00::a"), ({"tail": Raw(b"\5\0" + bytes(6))}, R1)],
    ids=["hop-limit", "code", "source", "empty-option"],
)
def test_an_invalid_advertisement_is_dropped(h, fields, src):
    """RFC 4861 6.1.2"""
    tail = [fields.pop("tail")] if "tail" in fields else []
    advert(h, *tail, router=src, **fields)
    assert h.counted("IcmpInErrors") == 1
    assert not h.interface.advertised().heard


def test_without_autoconf_routers_are_not_listened_to(harness):
    h = harness(6, neighbours=False, routes=False)
    advert(h)
    with fails("ENETUNREACH"):
        next_hop(h)
    assert h.interface.neighbours() == []


def prefix(address="2001:db8:1::", length=64, on_link=1, auto=0, valid=1000, preferred=500):
    return ICMPv6NDOptPrefixInfo(
        prefix=address, prefixlen=length, L=on_link, A=auto, validlifetime=valid, preferredlifetime=preferred
    )


def on_link(h, address="2001:db8:1::9"):
    """Is the address looked for on the link itself?"""
    u = h.open(2)
    h.sendto(u, b"x", address, 7)
    packet = h.frames()[-1].packet
    h.free(u)
    return ICMPv6ND_NS in packet and packet[ICMPv6ND_NS].tgt == address


def test_a_prefix_on_the_link(h):
    """RFC 4861 6.3.4, 6.3.5: until its valid lifetime ends."""
    settled(h)
    advert(h, prefix(valid=100))
    assert on_link(h)
    h.after("100s").frames()
    assert not on_link(h)


def test_a_prefix_without_the_flag_says_nothing_of_the_link(h):
    """RFC 4861 4.6.2, RFC 5942 4"""
    settled(h)
    advert(h, prefix(on_link=0))
    assert not on_link(h)


def test_a_prefix_with_lifetime_zero_is_withdrawn(h):
    """RFC 4861 6.3.4"""
    settled(h)
    advert(h, prefix(), prefix("fe80::"))
    advert(h, prefix(valid=0, preferred=0))
    assert not on_link(h)


def test_a_more_specific_route(h):
    """RFC 4191 3.1: type C host."""
    settled(h)
    advert(h, ICMPv6NDOptRouteInfo(prefix="2001:db8::", plen=32, rtlifetime=100), router=R2, lifetime=0)
    assert next_hop(h, "2001:db8::7") == MACS[R2]
    assert next_hop(h, "2001:db9::7") == MACS[R1]
    h.after("100s").frames()
    advert(h)
    assert next_hop(h, "2001:db8::7") == MACS[R1]


def test_the_mtu_of_the_link(h):
    """RFC 4861 6.3.4: between 1280 and the link's own."""
    settled(h)
    for said, taken in ((1400, 1400), (1279, 1400), (9000, 1400), (1500, 1500)):
        advert(h, ICMPv6NDOptMTU(mtu=said))
        assert h.interface.advertised().mtu == taken


def test_hop_limit_and_times(h):
    """RFC 4861 6.3.4; a hop limit that would cut us off is not taken."""
    settled(h)
    advert(h, chlim=99)
    assert h.interface.advertised().hop_limit == 99
    u = h.open(2)
    h.sendto(u, b"x", FAR[6], 7)
    assert h.frames()[-1].packet[IPv6].hlim == 99
    for said in (0, 1):
        advert(h, chlim=said)
        assert h.interface.advertised().hop_limit == 99
    advert(h, retranstimer=200)
    h.sendto(u, b"x", "fd00::55", 7)
    h.frames()
    h.after("600ms")
    assert len(h.frames()) == 2  # asked three times, 200 ms apart


def test_name_servers_and_search_domains(h):
    """RFC 8106 5.1, 5.2: with lifetimes of their own."""
    settled(h)
    advert(
        h,
        ICMPv6NDOptRDNSS(dns=["2001:db8::53", "fe80::53"], lifetime=100),
        ICMPv6NDOptDNSSL(searchlist=["example.org.", "lab.example.net."], lifetime=50),
    )
    assert h.events() == {0: 1}
    assert h.interface.servers() == ["2001:db8::53", "fe80::53%2"]
    assert h.interface.domains() == ["example.org", "lab.example.net"]
    advert(h, ICMPv6NDOptRDNSS(dns=["2001:db8::53"], lifetime=0))
    assert h.interface.servers() == ["fe80::53%2"]
    h.after("50s")
    assert h.interface.domains() == []
    h.after("50s")
    assert h.interface.servers() == []
    assert h.events() == {0: 1}


def test_a_domain_that_is_no_hosts_name_is_not_taken(h):
    """RFC 8106 7; RFC 1035 2.3.1: it would end up in queries, and in logs."""
    settled(h)
    head = bytes([31, 3, 0, 0, 0, 0, 1, 0])
    for name in (b"\x03a\nb\x00", b"\x3fshort\x00", b"\x05endle"):
        advert(h, Raw(head + name.ljust(16, b"\0" if name[0] < 60 and name[-1] == 0 else b"x")))
    assert h.interface.domains() == []


def test_what_routers_say_is_bounded(h):
    """RFC 6980's neighbourhood is hostile: no list grows, and what was there first stays."""
    settled(h)
    for i in range(100):
        advert(
            h,
            prefix(f"2001:db8:{i:x}::", valid=INFINITE),
            ICMPv6NDOptRouteInfo(prefix=f"2001:db9:{i:x}::", plen=48, rtlifetime=INFINITE),
            ICMPv6NDOptRDNSS(dns=[f"2001:db8::{i:x}:53"], lifetime=INFINITE),
            ICMPv6NDOptDNSSL(searchlist=[f"d{i}.example."], lifetime=INFINITE),
            router=f"fe80::1:{i:x}",
        )
    assert h.interface.advertised().routers == 8
    assert len(h.interface.servers()) == 8
    assert h.interface.domains() == [f"d{i}.example" for i in range(8)]
    assert h.counted("RouterInfoDropped") == 93 + 4 * 92
    assert h.stack.memory()["buffers"] == 0

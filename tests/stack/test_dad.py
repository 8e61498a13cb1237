"""IPv6 duplicate address detection (RFC 4862 5.4), told from its own echo (RFC 7527), optimistic (RFC 4429)."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether

from libos.net.interface import Interface

from .harness import START, Harness
from .packets import OUR_MAC, OURS, PEER, PEER_MAC

NEW, GROUP = "fd00::77", "ff02::1:ff00:77"
DETECT, AT_ONCE = Interface.DETECT, Interface.AT_ONCE


@pytest.fixture
def h(harness):
    return harness(6, neighbours=False)


def add(h, flags=DETECT):
    h.interface.set_address(f"{NEW}/64", flags)


def state(h, address=NEW):
    return next(a.state for a in h.interface.addresses() if a.address == address)


def question(h):
    """The frame of our question, checked."""
    packet = h.frames()[-1].packet
    ip, ns = packet[IPv6], packet[ICMPv6ND_NS]
    assert (packet.dst, ip.src, ip.dst, ip.hlim, ns.tgt) == ("33:33:ff:00:00:77", "::", GROUP, 255, NEW)
    assert ICMPv6NDOptSrcLLAddr not in packet
    return packet


def probe(h, payload=b"", src="::"):
    """Somebody asks for it."""
    h.inject(
        Ether(src=PEER_MAC, dst="33:33:ff:00:00:77")
        / IPv6(src=src, dst=GROUP, hlim=255)
        / ICMPv6ND_NS(tgt=NEW)
        / payload
    )


def test_one_question_and_a_second_without_an_answer(h):
    """RFC 4862 5.4.2: from ::, to the solicited-node group, with a delay of 0-1 s; 5.1: DupAddrDetectTransmits 1."""
    add(h)
    h.at("1s")
    sent = h.sent[0].time
    question(h)
    h.at(sent - START + 10**9 - 1).expect_nothing()
    assert state(h) == "tentative"
    h.after(1)
    assert state(h) == "preferred"
    assert h.events() == {0: 1}
    h.frames()


def test_nothing_leaves_or_is_answered_while_it_is_tentative(h):
    """RFC 4862 5.4: not assigned; packets to it are dropped."""
    add(h)
    h.at("1s")
    question(h)
    probe(h, src=PEER[6])
    h.expect_nothing()
    u = h.open(2)
    h.sendto(u, b"x", "fd00::78", 7)
    assert h.expect_packet()[IPv6].src == OURS[6]
    h.after("3s").frames()


def test_its_neighbours_hear_of_a_new_address(h):
    """RFC 9131 6.1.2: unsolicited, to the routers, without override."""
    add(h)
    h.at("3s")
    packet = h.frames()[-1].packet
    na = packet[ICMPv6ND_NA]
    assert (packet[IPv6].src, packet[IPv6].dst, na.tgt, na.S, na.O, na.R) == (NEW, "ff02::2", NEW, 0, 0, 0)
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC


def test_an_advertisement_for_it_is_a_duplicate(h):
    """RFC 4862 5.4.4"""
    add(h)
    h.at("1s")
    question(h)
    na = ICMPv6ND_NA(tgt=NEW, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    h.inject(Ether(src=PEER_MAC, dst="33:33:00:00:00:01") / IPv6(src=NEW, dst="ff02::1", hlim=255) / na)
    assert state(h) == "duplicate"
    assert next(a.rival for a in h.interface.addresses() if a.address == NEW) == PEER_MAC
    assert h.events() == {0: 1}
    assert h.counted("AddressConflicts") == 1
    h.after("5s").expect_nothing()


def test_a_question_of_somebody_else_for_it_is_a_duplicate(h):
    """RFC 4862 5.4.3: two do the same at the same time."""
    add(h)
    h.at("1s")
    question(h)
    probe(h)
    assert state(h) == "duplicate"
    h.expect_nothing()


def test_address_resolution_for_it_is_none(h):
    """RFC 4862 5.4.3: a unicast source asks, not for itself."""
    add(h)
    h.at("1s").frames()
    probe(h, ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC), src=PEER[6])
    assert state(h) == "tentative"
    h.after("3s").frames()


def test_our_own_question_that_comes_back_is_none(h):
    """RFC 7527 4.1: told by its nonce."""
    add(h)
    h.at("1s")
    echo = question(h)
    h.inject(Ether(src=PEER_MAC, dst="33:33:ff:00:00:77", type=0x86DD) / bytes(echo)[14:])
    assert state(h) == "tentative"
    h.after("1s")
    assert state(h) == "preferred"
    h.frames()


def test_each_question_has_a_nonce_of_its_own(harness):
    """RFC 7527 4.1, RFC 3971 5.3.2: option 14, 6 random bytes"""
    nonces = set()
    for seed in (1, 2):
        h = harness(6, neighbours=False, seed=seed)
        add(h)
        h.at("1s")
        raw = bytes(question(h))[-8:]
        assert raw[:2] == b"\x0e\x01"
        nonces.add(raw[2:])
        h.after("3s").frames()
    assert len(nonces) == 2


def test_an_optimistic_address_speaks_without_its_link_address(h):
    """RFC 4429 2.2, 3.3: nothing that it says can replace what others know of its owner."""
    add(h, DETECT | AT_ONCE)
    question(h)
    assert state(h) == "optimistic"
    probe(h, ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC), src=PEER[6])
    na = h.expect_packet()[ICMPv6ND_NA]
    assert (na.tgt, na.S, na.O) == (NEW, 1, 0)
    h.interface.remove_address(OURS[6])
    u = h.open(2)
    h.sendto(u, b"x", "fd00::78", 7)
    packet = h.expect_packet()
    assert packet[IPv6].src == NEW
    assert ICMPv6NDOptSrcLLAddr not in packet
    h.after("1.5s")
    assert state(h) == "preferred"
    assert ICMPv6NDOptSrcLLAddr in h.frames()[-1].packet  # asked again, now as an owner
    h.after("10s").frames()


def test_an_optimistic_address_is_given_up_when_somebody_has_it(h):
    """RFC 4429 3.3: its owner speaks from the very address that we use."""
    add(h, DETECT | AT_ONCE)
    question(h)
    na = ICMPv6ND_NA(tgt=NEW, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    h.inject(Ether(src=PEER_MAC, dst="33:33:00:00:00:01") / IPv6(src=NEW, dst="ff02::1", hlim=255) / na)
    assert state(h) == "duplicate"
    probe(h, src=PEER[6])
    h.expect_nothing()


def test_another_address_is_preferred_to_an_optimistic_one(h):
    """RFC 4429 3.1: as if it were deprecated."""
    add(h, DETECT | AT_ONCE)
    h.frames()
    u = h.open(2)
    h.sendto(u, b"x", "fd00::76", 7)
    assert h.expect_packet()[IPv6].src == OURS[6]
    h.after("10s").frames()


def test_a_duplicate_link_local_address_is_replaced():
    """RFC 7217 6: another identifier, by DAD_Counter, three times at most."""
    h = Harness(6, neighbours=False)
    h.interface.autoconf(0)
    h.at("1s").frames()
    seen = []
    for _ in range(4):
        current = next(a for a in h.interface.addresses() if a.origin == "link-local")
        assert current.state == "tentative"
        seen.append(current.address)
        na = ICMPv6ND_NA(tgt=current.address, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
        h.inject(Ether(src=PEER_MAC, dst="33:33:00:00:00:01") / IPv6(src=current.address, dst="ff02::1", hlim=255) / na)
    assert len(set(seen)) == 4
    assert [a.state for a in h.interface.addresses() if a.origin == "link-local"] == ["duplicate"]
    h.stack.close()

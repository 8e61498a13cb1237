"""IPv4 address conflict detection (RFC 5227): asked three times, announced twice, defended."""

from __future__ import annotations

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from libos.net.interface import Interface

from .packets import OUR_MAC, OURS, PEER, PEER_MAC

NEW = "10.0.0.77"
BROADCAST = "ff:ff:ff:ff:ff:ff"
DETECT, AT_ONCE, KEEP = Interface.DETECT, Interface.AT_ONCE, Interface.KEEP


@pytest.fixture
def h(harness):
    return harness(4, neighbours=False)


def add(h, flags=DETECT, address=NEW):
    h.interface.set_address(f"{address}/24", flags)


def state(h, address=NEW):
    return next(a.state for a in h.interface.addresses() if a.address == address)


def arp(h, op=1, hwsrc=PEER_MAC, psrc="0.0.0.0", pdst=NEW, dst=BROADCAST):
    h.inject(Ether(src=hwsrc, dst=dst) / ARP(op=op, hwsrc=hwsrc, psrc=psrc, pdst=pdst))


def is_probe(packet):
    fields = packet[ARP]
    return (packet.dst, fields.op, fields.hwsrc, fields.psrc, fields.hwdst, fields.pdst) == (
        BROADCAST,
        1,
        OUR_MAC,
        "0.0.0.0",
        "00:00:00:00:00:00",
        NEW,
    )


def is_announcement(packet, address=NEW):
    fields = packet[ARP]
    return (packet.dst, fields.op, fields.hwsrc, fields.psrc, fields.pdst) == (BROADCAST, 1, OUR_MAC, address, address)


def settle(h):
    """Let the detection of a new address pass."""
    h.after("20s")
    h.frames()
    h.events()
    assert state(h) == "preferred"


def test_three_probes_then_two_announcements(h):
    """RFC 5227 1.1, 2.1.1, 2.3: PROBE_WAIT 0-1 s, probes 1-2 s apart, ANNOUNCE_WAIT 2 s, announcements 2 s apart."""
    start = h.now
    add(h)
    h.after("20s")
    frames = h.frames()
    assert [is_probe(f.packet) for f in frames] == [True] * 3 + [False] * 2
    assert all(is_announcement(f.packet) for f in frames[3:])
    t, second = [f.time - start for f in frames], 10**9
    assert 0 <= t[0] <= second
    assert second <= t[1] - t[0] <= 2 * second
    assert second <= t[2] - t[1] <= 2 * second
    assert t[3] - t[2] == 2 * second
    assert t[4] - t[3] == 2 * second


def test_the_first_probe_comes_at_a_random_time(harness):
    """RFC 5227 2.1.1: hosts that were switched on together do not ask together."""
    times = set()
    for seed in range(8):
        h = harness(4, neighbours=False, seed=seed)
        add(h)
        h.after("1s")
        times.add(h.frames()[0].time)
        h.after("20s").frames()
    assert len(times) == 8


def test_a_tentative_address_does_not_answer_nor_speak(h):
    """RFC 5227 2.1: not in use before it is known to be free."""
    add(h)
    h.after("1s").frames()
    arp(h, psrc=PEER[4])
    assert not [f for f in h.frames() if f.packet[ARP].op == 2]
    u = h.open(2)
    h.sendto(u, b"x", PEER[4], 7)
    assert h.frames()[-1].packet[ARP].psrc == OURS[4]
    h.after("20s").frames()


def test_python_hears_that_it_is_usable(h):
    add(h)
    assert h.events() == {}
    assert state(h) == "tentative"
    h.after("20s").frames()
    assert h.events() == {0: 1}
    assert h.events() == {}  # once
    assert state(h) == "preferred"


def test_an_answer_to_a_probe_is_a_conflict(h):
    """RFC 5227 2.1.1: the address is not used, and no question follows."""
    add(h)
    h.after("1s").frames()
    arp(h, op=2, psrc=NEW, pdst="0.0.0.0", dst=OUR_MAC)
    assert state(h) == "duplicate"
    assert h.events() == {0: 1}
    assert next(a.rival for a in h.interface.addresses() if a.address == NEW) == PEER_MAC
    assert h.counted("AddressConflicts") == 1
    h.after("20s").expect_nothing()
    arp(h, psrc=PEER[4])
    h.expect_nothing()


def test_a_probe_of_another_host_for_the_same_address_is_a_conflict(h):
    """RFC 5227 2.1.1: two want it at the same time."""
    add(h)
    h.after("1s").frames()
    arp(h)
    assert state(h) == "duplicate"
    h.expect_nothing()


def test_our_own_probe_that_comes_back_is_none(h):
    """RFC 5227 2.1.1: ... where the sender hardware address is not ours"""
    add(h)
    h.after("1s").frames()
    arp(h, hwsrc=OUR_MAC)
    assert state(h) == "tentative"
    h.after("20s").frames()


def test_a_probe_for_an_address_of_ours_is_answered(h):
    """RFC 5227 2.1.1: so that the other hears that it is taken."""
    add(h)
    settle(h)
    arp(h)
    reply = h.expect_packet()[ARP]
    assert (reply.op, reply.psrc) == (2, NEW)
    assert h.counted("AddressConflicts") == 0


def test_a_conflict_is_defended_once(h):
    """RFC 5227 2.4 (b): one announcement; the address stays."""
    add(h)
    settle(h)
    arp(h, op=2, psrc=NEW, pdst=PEER[4])
    assert is_announcement(h.expect_packet())
    assert state(h) == "preferred"
    h.after("10s")
    arp(h, op=2, psrc=NEW, pdst=PEER[4])
    assert is_announcement(h.expect_packet())
    assert state(h) == "preferred"


def test_a_second_conflict_within_ten_seconds_gives_it_up(h):
    """RFC 5227 2.4 (b), DEFEND_INTERVAL"""
    add(h)
    settle(h)
    arp(h, op=2, psrc=NEW, pdst=PEER[4])
    h.expect_packet()
    h.after("9.9s")
    arp(h, op=2, psrc=NEW, pdst=PEER[4])
    h.expect_nothing()
    assert state(h) == "duplicate"
    assert h.events() == {0: 1}


def test_an_address_that_is_kept_is_defended_for_ever(h):
    """RFC 5227 2.4 (c): but not more often than each ten seconds."""
    add(h, DETECT | KEEP)
    settle(h)
    for _ in range(3):
        arp(h, op=2, psrc=NEW, pdst=PEER[4])
        assert is_announcement(h.expect_packet())
        h.after("5s")
        arp(h, op=2, psrc=NEW, pdst=PEER[4])
        h.expect_nothing()
        assert state(h) == "preferred"
        h.after("5s")


def test_at_once_is_used_while_it_is_asked_for(h):
    """Not RFC 5227's way: the boot does not wait for it."""
    add(h, DETECT | AT_ONCE)
    assert state(h) == "optimistic"
    assert is_probe(h.expect_packet())
    arp(h, psrc=PEER[4])
    assert h.expect_packet()[ARP].psrc == NEW
    h.after("20s")
    assert [is_probe(f.packet) for f in h.frames()] == [True] * 2 + [False] * 2
    assert state(h) == "preferred"


def test_at_once_is_given_up_when_somebody_has_it(h):
    add(h, DETECT | AT_ONCE | KEEP)
    h.expect_packet()
    arp(h, op=2, psrc=NEW, pdst="0.0.0.0", dst=OUR_MAC)
    assert state(h) == "duplicate"
    arp(h, psrc=PEER[4])
    h.expect_nothing()


def test_the_pace_of_a_fast_link(h):
    """RFC 5227 1.1: other values where the link is known to deliver in less than a second."""
    h.interface.set_pace(50_000_000)
    add(h)
    h.after("350ms")
    assert state(h) == "preferred"
    h.after("1s").frames()


def test_a_link_that_came_up_again_is_announced(h):
    """RFC 5227 2.1, 2.3"""
    h.interface.announce()
    frames = h.frames()
    assert [f.packet[ICMPv6ND_NA].O for f in frames if ICMPv6ND_NA in f.packet] == [1, 1]  # RFC 4861 7.2.6
    assert [is_announcement(f.packet, OURS[4]) for f in frames if ARP in f.packet] == [True]
    h.after("2s")
    assert is_announcement(h.expect_packet(), OURS[4])


def test_an_announcement_updates_what_is_there_and_adds_nothing(h):
    """RFC 5227 3; RFC 826"""
    arp(h, psrc=PEER[4], pdst=PEER[4])
    assert h.interface.neighbours() == []
    arp(h, psrc=PEER[4], pdst=OURS[4])
    h.expect_packet()
    arp(h, hwsrc="02:00:00:00:00:99", psrc=PEER[4], pdst=PEER[4])
    assert [n.mac for n in h.interface.neighbours()] == ["02:00:00:00:00:99"]


def test_an_address_expires(h):
    """Deprecated when its preferred lifetime ends, gone with its valid one (RFC 4862 5.5.4; a DHCP lease alike)."""
    seconds = 10**9
    h.interface.set_address(f"{NEW}/24", preferred_until=h.now + 10 * seconds, valid_until=h.now + 20 * seconds)
    assert state(h) == "preferred"
    h.at("10s")
    assert state(h) == "deprecated"
    assert h.events() == {0: 1}
    h.interface.set_address(
        f"{NEW}/24", Interface.RENEW, preferred_until=h.now + 10 * seconds, valid_until=h.now + 20 * seconds
    )
    assert state(h) == "preferred"
    h.at("30s")
    assert [a.address for a in h.interface.addresses() if ":" not in a.address] == [OURS[4]]
    arp(h, psrc=PEER[4])
    h.expect_nothing()


def test_a_removed_address_is_silent_and_its_route_gone(harness):
    h = harness(4, neighbours=False, routes=False)
    h.interface.set_address("10.9.0.2/24")
    u = h.open(2)
    h.sendto(u, b"x", "10.9.0.1", 7)
    assert h.expect_packet()[ARP].psrc == "10.9.0.2"
    h.interface.remove_address("10.9.0.2")
    with pytest.raises(OSError, match="unreachable"):
        h.sendto(u, b"x", "10.9.0.1", 7)
    h.after("5s").frames()

"""Addresses formed in the prefixes that routers give (RFC 4862 5.5), with stable identifiers (RFC 7217)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import Ether

from libos.net.interface import Interface, InterfaceAddress

from .harness import Harness
from .packets import PEER_MAC
from .test_router_discovery import INFINITE, advert, prefix

P = "2001:db8:1::"
HOUR = 3600 * 10**9


def boot(seed: int = 1, flags: int = Interface.FORM_ADDRESSES) -> Harness:
    h = Harness(6, neighbours=False, routes=False, seed=seed)
    h.interface.autoconf(flags)
    h.at("3s").frames()
    h.events()
    return h


@pytest.fixture
def h() -> Iterator[Harness]:
    h = boot()
    yield h
    h.stack.run(h.now)
    h.link.drain()
    assert h.stack.memory()["buffers"] == 0
    h.stack.close()


def formed(h) -> list[InterfaceAddress]:
    return [a for a in h.interface.addresses() if a.origin == "slaac"]


def give(h, address=P, valid=1000, preferred=500, length=64, auto=1, on_link=0, **more):
    advert(h, prefix(address, length, on_link=on_link, auto=auto, valid=valid, preferred=preferred), **more)


def test_an_address_is_formed_and_checked(h):
    """RFC 4862 5.5.3 (d), 5.4: tentative first, for each prefix one."""
    give(h)
    (address,) = formed(h)
    assert address.state == "tentative"
    assert ipaddress.ip_address(address.address) in ipaddress.ip_network(f"{P}/64")
    h.after("1s")
    assert h.frames()[-1].packet[ICMPv6ND_NS].tgt == address.address
    h.after("1s")
    assert formed(h)[0].state == "preferred"
    assert h.events() == {0: 1}
    give(h)
    assert len(formed(h)) == 1


@pytest.mark.parametrize("far", ["2001:db8:ffff::1", "f000::1"], ids=["near", "of-another-prefix"])
def test_it_is_the_source_for_the_rest_of_the_world(h, far):
    """RFC 6724 5: rule 2, before the link-local one; rule 6, before a unique-local one that has more bits in common."""
    give(h)
    h.after("3s").frames()
    u = h.open(2)
    h.sendto(u, b"x", far, 7)
    assert h.frames()[-1].packet[IPv6].src == formed(h)[0].address


@pytest.mark.parametrize(
    "fields",
    [
        {"auto": 0},
        {"address": "fe80::"},
        {"preferred": 1001},
        {"valid": 0, "preferred": 0},
        {"length": 63},
        {"length": 80},
        {"address": "ff02::"},
    ],
    ids=["not-autonomous", "link-local", "preferred-longer", "not-valid", "63", "80", "group"],
)
def test_no_address_is_formed(h, fields):
    """RFC 4862 5.5.3 (a) to (d)"""
    give(h, **fields)
    assert formed(h) == []


def test_lifetimes(h):
    """RFC 4862 5.5.4: preferred, deprecated, gone."""
    give(h, valid=100, preferred=50)
    h.after("49s").frames()
    assert formed(h)[0].state == "preferred"
    h.after("1s")
    assert formed(h)[0].state == "deprecated"
    h.after("49s")
    assert formed(h)
    h.after("1s")
    assert formed(h) == []


def test_a_deprecated_address_is_no_source_if_there_is_another(h):
    """RFC 4862 5.5.4, RFC 6724 5 rule 3"""
    give(h, preferred=1)
    give(h, "2001:db8:2::")
    h.after("5s").frames()
    u = h.open(2)
    for target in ("2001:db8:1::1", "2001:db8:9::1"):
        h.sendto(u, b"x", target, 7)
        assert h.frames()[-1].packet[IPv6].src.startswith("2001:db8:2:")


def test_forever(h):
    """RFC 4861 4.6.2: all ones"""
    give(h, valid=INFINITE, preferred=INFINITE)
    h.after("9s")
    assert h.at("200000s").interface.addresses()
    assert formed(h)[0].state == "preferred"


def valid_for(h) -> float:
    return (formed(h)[0].valid_until - h.now) / 10**9


def test_a_longer_lifetime_is_taken(h):
    """RFC 4862 5.5.3 (e) 1: more than what is left, or more than two hours."""
    give(h, valid=100, preferred=10)
    give(h, valid=200, preferred=10)
    assert valid_for(h) == 200
    give(h, valid=20000)
    give(h, valid=7201)
    assert valid_for(h) == 7201


def test_the_last_two_hours_are_not_taken_away(h):
    """RFC 4862 5.5.3 (e) 2: with two hours or less left, what is shorter is ignored; the preferred lifetime is not."""
    give(h, valid=7000, preferred=7000)
    give(h, valid=1, preferred=0)
    assert valid_for(h) == 7000
    h.after("3s").frames()
    assert formed(h)[0].state == "deprecated"


def test_a_long_lifetime_is_cut_to_two_hours(h):
    """RFC 4862 5.5.3 (e) 3"""
    give(h, valid=100000)
    give(h, valid=1, preferred=1)
    assert valid_for(h) == 7200
    give(h, valid=INFINITE, preferred=INFINITE)
    give(h, valid=0, preferred=0)
    assert valid_for(h) == 7200


def identifier(address: str) -> int:
    return int(ipaddress.ip_address(address)) & (1 << 64) - 1


def test_identifiers_are_stable_and_differ_by_prefix_and_secret(h):
    """RFC 7217 3: the same prefix, the same identifier; else nothing in common."""
    give(h)
    give(h, "2001:db8:2::")
    one, two = (a.address for a in formed(h))
    assert identifier(one) != identifier(two)
    again, other = boot(), boot(seed=2)
    for machine in (again, other):
        give(machine)
    assert formed(again)[0].address == one
    assert identifier(formed(other)[0].address) != identifier(one)
    again.stack.close()
    other.stack.close()


def test_a_duplicate_is_replaced(h):
    """RFC 7217 6: the next by DAD_Counter, with the lifetimes of the first."""
    give(h)
    (first,) = formed(h)
    na = ICMPv6ND_NA(tgt=first.address, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
    h.inject(Ether(src=PEER_MAC, dst="33:33:00:00:00:01") / IPv6(src=first.address, dst="ff02::1", hlim=255) / na)
    (second,) = formed(h)
    assert second.address != first.address
    assert ipaddress.ip_address(second.address) in ipaddress.ip_network(f"{P}/64")
    assert (second.state, second.valid_until) == ("tentative", first.valid_until)


def test_at_once(h):
    """RFC 4429: the boot does not wait."""
    quick = boot(flags=Interface.FORM_ADDRESSES | Interface.AUTO_AT_ONCE)
    give(quick)
    assert formed(quick)[0].state == "optimistic"
    quick.stack.close()


def test_prefixes_are_bounded(h):
    for i in range(50):
        give(h, f"2001:db8:{i:x}::")
    assert len(formed(h)) == 8
    assert h.counted("RouterInfoDropped") == 42


def test_the_link_itself_is_said_apart(h):
    """RFC 5942 4: an address does not put its prefix on the link."""
    give(h, on_link=0)
    h.after("3s").frames()
    u = h.open(2)
    h.sendto(u, b"x", "2001:db8:1::1", 7)
    assert h.frames()[-1].packet.dst == "02:00:00:00:00:0a"  # to the router
    give(h, on_link=1)
    h.sendto(u, b"x", "2001:db8:1::2", 7)
    assert h.frames()[-1].packet[ICMPv6ND_NS].tgt == "2001:db8:1::2"
    h.after("9s").frames()

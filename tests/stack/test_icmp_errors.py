"""Errors that others report: by socket, by code, by what they quote (RFC 1122 3.2.2, RFC 5461, RFC 5927)."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from libos._native import lib
from libos.errors import check
from libos.net.routes import Route, routes

from .harness import fails
from .packets import FAR, ROUTER

LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
RECVERR = {4: 11, 6: 25}
DISCOVER = {4: 10, 6: 23}


def unreachable(h, code4, code6):
    return ICMP(type=3, code=code4) if h.family == 4 else ICMPv6DestUnreach(code=code6)


def about(h, error, inner, src=None):
    """``error`` about ``inner``, from a host on the way."""
    h.inject(h.ip(src=src or h.their) / error / Raw(bytes(inner)))


@pytest.fixture
def u(h):
    """A datagram socket that has sent something to port 9, and is connected there."""
    u = h.open(2)
    h.bind(u, 7)
    h.connect_udp(u, 9)
    return u


def sent(h, u):
    h.sendto(u, b"anybody?")
    return bytes(h.expect_packet().payload)[:48]


# --- datagram sockets ---


def test_soft_errors_are_for_who_asks(h, u):
    """RFC 1122 4.1.3.3; ip(7), IP_RECVERR: what may pass is told only to a socket that wants to hear all."""
    about(h, unreachable(h, 1, 3), sent(h, u))
    assert h.error(u) is None
    check(lib.sock_setopt(h.handle, u, LEVEL[h.family], RECVERR[h.family], 1))
    about(h, unreachable(h, 1, 3), sent(h, u))
    assert h.error(u) == "EHOSTUNREACH"


def test_who_is_not_connected_may_ask_too(h):
    u = h.open(2)
    h.sendto(u, b"x", h.their, 9)
    inner = bytes(h.expect_packet().payload)[:48]
    about(h, unreachable(h, 3, 4), inner)
    assert h.error(u) is None
    check(lib.sock_setopt(h.handle, u, LEVEL[h.family], RECVERR[h.family], 1))
    about(h, unreachable(h, 3, 4), inner)
    assert h.error(u) == "ECONNREFUSED"


@pytest.mark.parametrize(
    ("discover", "error"), [(0, None), (1, "EMSGSIZE"), (2, "EMSGSIZE")], ids=["dont", "want", "do"]
)
def test_too_big_is_told_to_who_discovers(h, u, discover, error):
    """RFC 1191 3, RFC 8201 4; ip(7), IP_MTU_DISCOVER"""
    check(lib.sock_setopt(h.handle, u, LEVEL[h.family], DISCOVER[h.family], discover))
    raw = h.ip(src=h.ours, dst=h.their) / UDP(sport=7, dport=9) / b"x"
    too_big = ICMP(type=3, code=4, nexthopmtu=1300) if h.family == 4 else ICMPv6PacketTooBig(mtu=1300)
    about(h, too_big, raw)
    assert h.error(u) == error


@pytest.mark.parametrize(
    ("code4", "code6", "error"),
    [
        (2, 1, ("ENOPROTOOPT", "EACCES")),
        (3, 4, ("ECONNREFUSED", "ECONNREFUSED")),
        (6, 5, ("ENETUNREACH", "EACCES")),
        (7, 6, ("EHOSTDOWN", "EACCES")),
        (8, 4, ("ENONET", "ECONNREFUSED")),
        (10, 4, ("EHOSTUNREACH", "ECONNREFUSED")),
        (13, 1, ("EHOSTUNREACH", "EACCES")),
        (15, 1, ("EHOSTUNREACH", "EACCES")),
    ],
)
def test_hard_errors_by_code(h, u, code4, code6, error):
    """As Linux names them."""
    about(h, unreachable(h, code4, code6), sent(h, u))
    assert h.error(u) == error[h.family == 6]


@pytest.mark.parametrize("code", [16, 255])
def test_codes_that_nobody_knows(h, u, code):
    about(h, unreachable(h, code, code), sent(h, u))
    assert h.error(u) is None


@pytest.mark.parametrize(
    "headers",
    [[IPv6ExtHdrDestOpt()], [IPv6ExtHdrRouting(segleft=0)], [IPv6ExtHdrFragment(m=1, id=3)], [IPv6ExtHdrDestOpt()] * 3],
    ids=["options", "routing", "fragment", "three"],
)
def test_the_quoted_packet_may_have_extension_headers(harness, headers):
    """RFC 4443 2.4 (c): as it was sent; a router in between may have added some."""
    h = harness(6)
    u = h.open(2)
    h.bind(u, 7)
    h.connect_udp(u, 9)
    inner = IPv6(src=h.ours, dst=h.their)
    for header in headers:
        inner /= header
    about(h, ICMPv6DestUnreach(code=4), inner / UDP(sport=7, dport=9) / b"data")
    assert h.error(u) == "ECONNREFUSED"


@pytest.mark.parametrize("cut", range(40, 64, 3))
def test_the_quoted_headers_may_be_cut_short(harness, cut):
    h = harness(6)
    inner = bytes(IPv6(src=h.ours, dst=h.their) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / UDP(sport=7, dport=9))
    about(h, ICMPv6DestUnreach(code=4), inner[:cut])
    assert h.counted("IcmpInErrors") == (cut < 64)


def test_a_later_fragment_says_nothing(h, u):
    """There are no ports in it."""
    inner = (
        IP(src=h.ours, dst=h.their, proto=17, frag=100) / Raw(bytes(16))
        if h.family == 4
        else IPv6(src=h.ours, dst=h.their) / IPv6ExtHdrFragment(offset=100, nh=17) / Raw(bytes(16))
    )
    about(h, unreachable(h, 3, 4), inner)
    assert h.counted("IcmpInErrors") == 1
    assert h.error(u) is None


# --- connections ---


def test_a_soft_error_is_the_reason_in_the_end(h):
    """RFC 1122 4.2.3.9, RFC 5461 4.1: an established connection goes on; if it dies, that is why."""
    _, c = h.established()
    h.send(c, b"data")
    data = bytes(h.expect_packet().payload)[:48]
    about(h, unreachable(h, 1, 3), data)
    assert h.state(c) == "ESTABLISHED"
    assert h.error(c) is None
    h.after("1200s")
    h.frames()
    assert h.error(c) == "EHOSTUNREACH"


def test_a_soft_error_is_forgotten_when_it_goes_on(h):
    p, c = h.established()
    h.send(c, b"data")
    data = bytes(h.expect_packet().payload)[:48]
    about(h, unreachable(h, 1, 3), data)
    p.rx("A", ack=5)
    h.send(c, b"more")
    h.after("1200s")
    h.frames()
    assert h.error(c) == "ETIMEDOUT"


def test_who_waits_for_a_silent_neighbour_hears_of_it(harness, family):
    """RFC 1122 2.3.2.2, RFC 4861 7.2.2: all that wait, and nobody else."""
    h = harness(family, routes=False)
    silent = "10.0.0.77" if family == 4 else "fd00::77"
    h.silent.add(silent)
    waiting = [h.connect(80 + n, silent) for n in range(3)]
    other = h.connect(80)
    asking, quiet = h.open(2), h.open(2)
    check(lib.sock_setopt(h.handle, asking, LEVEL[family], RECVERR[family], 1))
    for u in (asking, quiet):
        h.sendto(u, b"x", silent, 9)
    h.at("4s")
    h.frames()
    assert [h.error(c) for c in waiting] == ["EHOSTUNREACH"] * 3
    assert (h.error(other), h.state(other)) == (None, "SYN-SENT")
    assert (h.error(asking), h.error(quiet)) == ("EHOSTUNREACH", None)


def test_an_address_that_goes_takes_its_connections_along(h):
    extra = "10.0.0.50" if h.family == 4 else "fd00::50"
    h.stack.add_address(h.ifindex, extra + ("/24" if h.family == 4 else "/64"))
    _, kept = h.established()
    listener = h.open()
    h.bind(listener, 81, extra)
    check(lib.sock_listen(h.handle, listener, 4, 0))
    u = h.open(2)
    h.bind(u, 7, extra)
    h.connect_udp(u, 9)
    c = h.open()
    h.bind(c, 4000, extra)
    h.connect_again(c)
    h.frames()
    raw = socket.inet_pton(socket.AF_INET6, ("::ffff:" if h.family == 4 else "") + extra)
    check(lib.stack_remove_address(h.handle, h.ifindex, raw))
    assert (h.error(c), h.state(c)) == ("ECONNABORTED", "CLOSED")
    assert h.error(u) == "EADDRNOTAVAIL"
    assert (h.error(kept), h.state(kept)) == (None, "ESTABLISHED")
    h.frames()


# --- what is not believed, or not answered ---


def test_messages_that_say_nothing_to_us(harness):
    """RFC 6633 3 (source quench), RFC 1122 3.2.2.8 (timestamp), 3.2.2.9 (masks), 3.2.2.7 (information)"""
    h = harness(4)
    p, c = h.established()
    h.send(c, b"data")
    quoted = bytes(h.expect_packet().payload)[:28]
    for kind in (4, 13, 14, 15, 16, 17, 18):
        about(h, ICMP(type=kind), quoted)
    h.expect_nothing()
    assert h.error(c) is None
    p.rx("A", ack=5)


LINK_LOCAL_ROUTER, NEARER = "fe80::fe", {4: "10.0.0.253", 6: "fe80::fd"}


def redirect(h, *, src=None, target=None, **fields):
    """From the router of the default route: FAR is nearer by NEARER."""
    if h.family == 4:
        quoted = IP(src=h.ours, dst=FAR[4]) / UDP(sport=1, dport=9)
        h.inject(h.ip(src=src or ROUTER[4]) / ICMP(type=5, code=1, gw=target or NEARER[4]) / quoted)
    else:
        ip = IPv6(src=src or LINK_LOCAL_ROUTER, dst=h.ours, **{"hlim": 255, **fields})
        body = ICMPv6ND_Redirect(tgt=target or NEARER[6], dst=FAR[6])
        h.inject(ip / body / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:fd"))


def default(h):
    gateway = ROUTER[4] if h.family == 4 else LINK_LOCAL_ROUTER
    h.stack.add_route(h.ifindex, "0.0.0.0/0" if h.family == 4 else "::/0", gateway)


def way(h):
    """The gateway for FAR."""
    network = FAR[h.family] + ("/32" if h.family == 4 else "/128")
    return [row.gateway for row in routes(h.stack) if row.network == network]


def test_redirects_are_counted_and_ignored(harness, family):
    h = harness(family, routes=False)
    default(h)
    redirect(h)
    assert h.counted("IcmpInRedirects") == 1
    assert way(h) == []


def test_a_router_follows_no_redirects(harness, family):
    """RFC 4861 8.1, RFC 1812 5.2.7.2: whatever it was told."""
    h = harness(family, routes=False, accept_redirects=True, forwarding=True)
    default(h)
    redirect(h)
    assert way(h) == []


def test_redirects_are_followed_by_who_says_so(harness, family):
    """RFC 4861 8.3, RFC 1122 3.2.2.2: a route to that host, until it turns out to be dead."""
    h = harness(family, routes=False, accept_redirects=True)
    default(h)
    redirect(h)
    redirect(h)
    assert way(h) == [NEARER[family]]
    h.silent.add(NEARER[family])
    u = h.open(2)
    h.sendto(u, b"x", FAR[family], 9)
    h.at("4s")
    assert all(ARP in each.packet or UDP not in each.packet for each in h.frames())
    assert way(h) == []
    h.sendto(u, b"x", FAR[family], 9)
    assert UDP in h.expect_packet()


def test_redirects_that_are_not_believed(harness, family):
    """RFC 4861 8.1, RFC 1122 3.2.2.2: not from the router in use, not to a neighbour, not from this link, not to us."""
    h = harness(family, routes=False, accept_redirects=True)
    default(h)
    redirect(h, src="10.0.0.9" if family == 4 else "fe80::9")
    redirect(h, target="10.9.9.9" if family == 4 else "fd09::1")
    redirect(h, target=h.ours if family == 4 else "fe80::ff:fe00:2")
    if family == 6:
        redirect(h, hlim=254)
        redirect(h, src="fd00::fe")
    assert way(h) == []
    assert h.counted("IcmpInErrors") == (2 if family == 4 else 4)


def test_redirects_are_bounded(harness):
    h = harness(4, routes=False, accept_redirects=True)
    default(h)
    for n in range(40):
        quoted = IP(src=h.ours, dst=f"192.0.2.{n}") / UDP(sport=1, dport=9)
        h.inject(h.ip(src=ROUTER[4]) / ICMP(type=5, code=1, gw=NEARER[4]) / quoted)
    kept = [row.network for row in routes(h.stack) if row.gateway == NEARER[4]]
    assert kept == [f"192.0.2.{n}/32" for n in range(24, 40)]
    assert Route("0.0.0.0/0", h.ifindex, ROUTER[4]) in routes(h.stack)


def test_time_exceeded_on_the_way_is_soft(h, u):
    """RFC 1122 3.2.2.4"""
    error = ICMP(type=11, code=0) if h.family == 4 else ICMPv6TimeExceeded()
    about(h, error, sent(h, u))
    assert h.error(u) is None
    with fails("EAGAIN"):
        h.recvfrom(u)

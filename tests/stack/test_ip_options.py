"""Options of IP and IPv6 (ip(7), ipv6(7), RFC 3493, RFC 3542): what is set shows in what is sent."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from libos._native import lib
from libos.errors import check
from libos.net.routes import Route, set_route

from .harness import fails
from .packets import FAR, ROUTER

LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
HOPS = {4: socket.IP_TTL, 6: socket.IPV6_UNICAST_HOPS}
CLASS = {4: socket.IP_TOS, 6: socket.IPV6_TCLASS}
DISCOVER, MTU = {4: 10, 6: 23}, {4: 14, 6: 24}
DONTFRAG = 62
DONT, WANT, DO, PROBE, INTERFACE, OMIT = range(6)


def put(h, id, names, value):
    check(lib.sock_setopt(h.handle, id, LEVEL[h.family], names[h.family], value))


def get(h, id, names):
    return check(lib.sock_getopt(h.handle, id, LEVEL[h.family], names[h.family]))


def headers(h):
    """(hops, class, flags) of each packet that left. By hand, for the harness holds packets to the defaults."""
    h.stack.run(h.now)
    found = []
    for frame, _ in h.link.drain():
        ip = Ether(frame).payload
        if isinstance(ip, IP) and ip.proto in (6, 17):
            found.append((ip.ttl, ip.tos, str(ip.flags)))
        elif isinstance(ip, IPv6) and (TCP in ip or UDP in ip or ip.nh == 44):
            found.append((ip.hlim, ip.tc, ""))
    return found


@pytest.fixture
def met(h):
    h.meet()
    return h


def test_hops_and_class_of_datagrams(met):
    h, u = met, met.open(2)
    df = "DF" if h.family == 4 else ""
    for hops, tos in ((1, 0x10), (255, 0xB8)):
        put(h, u, HOPS, hops)
        put(h, u, CLASS, tos)
        assert (get(h, u, HOPS), get(h, u, CLASS)) == (hops, tos)
        h.sendto(u, b"x", h.their, 9)
        assert headers(h) == [(hops, tos, df)]
    put(h, u, HOPS, -1)
    put(h, u, CLASS, 0)
    h.sendto(u, b"x", h.their, 9)
    assert headers(h) == [(64, 0, df)]
    for wrong in (0, 256, -2):
        with fails("EINVAL"):
            put(h, u, HOPS, wrong)
    with fails("EINVAL"):
        put(h, u, CLASS, 256)


def test_hops_of_connections(met):
    h = met
    c = h.open()
    put(h, c, HOPS, 9)
    check(
        lib.sock_connect(
            h.handle, c, bytes(10) + b"\xff\xff\x0a\0\0\1" if h.family == 4 else b"\xfd" + bytes(14) + b"\1", 80
        )
    )
    assert [row[0] for row in headers(h)] == [9]
    h.abort(c)
    headers(h)


def test_fragments_have_them_all(met):
    h, u = met, met.open(2)
    put(h, u, HOPS, 7)
    put(h, u, CLASS, 0x20)
    h.sendto(u, bytes(3000), h.their, 9)
    sent = headers(h)
    assert len(sent) == 3
    assert {row[:2] for row in sent} == {(7, 0x20)}


@pytest.mark.parametrize(
    ("how", "small", "large"),
    [(DONT, "", 2), (WANT, "DF", 2), (DO, "DF", None), (PROBE, "DF", None), (INTERFACE, "DF", None), (OMIT, "", 2)],
    ids=["dont", "want", "do", "probe", "interface", "omit"],
)
def test_path_mtu_discovery(met, how, small, large):
    """ip(7), IP_MTU_DISCOVER: may what is too large be cut here, and on its way?"""
    h, u = met, met.open(2)
    put(h, u, DISCOVER, how)
    assert get(h, u, DISCOVER) == how
    h.sendto(u, b"x", h.their, 9)
    assert [row[2] for row in headers(h)] == [small if h.family == 4 else ""]
    if large is None:
        with fails("EMSGSIZE"):
            h.sendto(u, bytes(2000), h.their, 9)
    else:
        h.sendto(u, bytes(2000), h.their, 9)
        assert len(headers(h)) == large
    with fails("EINVAL"):
        put(h, u, DISCOVER, 6)


def test_dontfrag_is_a_switch(harness):
    """RFC 3542 11.2"""
    h = harness(6)
    u = h.open(2)
    check(lib.sock_setopt(h.handle, u, socket.IPPROTO_IPV6, DONTFRAG, 1))
    assert lib.sock_getopt(h.handle, u, socket.IPPROTO_IPV6, DONTFRAG) == 1
    with fails("EMSGSIZE"):
        h.sendto(u, bytes(2000), h.their, 9)


def test_probing_looks_beyond_what_is_known(met):
    """IP_PMTUDISC_PROBE: as large as the link takes, whatever the path is said to."""
    h, u = met, met.open(2)
    net = FAR[h.family] + ("/32" if h.family == 4 else "/128")
    set_route(h.stack, Route(net, h.ifindex, ROUTER[h.family], mtu=1300))
    put(h, u, DISCOVER, DO)
    with fails("EMSGSIZE"):
        h.sendto(u, bytes(1400), FAR[h.family], 9)
    put(h, u, DISCOVER, PROBE)
    h.sendto(u, bytes(1400), FAR[h.family], 9)
    assert UDP in h.expect_packet()


def test_the_mtu_of_a_path(h):
    u = h.open(2)
    with fails("ENOTCONN"):
        get(h, u, MTU)
    h.connect_udp(u, 9)
    assert get(h, u, MTU) == 1500


def test_options_of_ipv6_sockets_are_ipv6s(harness):
    """And of an IPv4 socket those of IPv4 alone are not asked for twice: unknown names are refused."""
    h = harness(4)
    u = h.open(2)
    for level, name in ((socket.IPPROTO_IP, 9999), (socket.IPPROTO_IPV6, 9999), (17, 1)):
        with fails("ENOPROTOOPT"):
            check(lib.sock_setopt(h.handle, u, level, name, 1))
        with fails("ENOPROTOOPT"):
            check(lib.sock_getopt(h.handle, u, level, name))

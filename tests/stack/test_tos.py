"""The TOS byte and the traffic class (RFC 2474 3; ip(7) IP_TOS, ipv6(7) IPV6_TCLASS)."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import UDP

from libos._native import lib
from libos.errors import check

from .harness import fails

EF = 0xB8  # expedited forwarding (RFC 3246)
IPV6_TCLASS = 67  # <bits/in.h>; Python's socket has it only where the libc does


def option(h):
    return (socket.IPPROTO_IP, socket.IP_TOS) if h.family == 4 else (socket.IPPROTO_IPV6, IPV6_TCLASS)


def set_tos(h, id, value):
    check(lib.sock_setopt(h.handle, id, *option(h), value))


def tos(packet):
    ip = packet.payload
    return ip.tos if ip.version == 4 else ip.tc


def test_of_a_connection(h):
    """RFC 9293 3.9.1.9 (MUST-48, SHLD-22): on all that it sends; RFC 3168 6.1: the ECN bits are TCP's own"""
    c = h.open()
    set_tos(h, c, EF | 3)
    assert lib.sock_getopt(h.handle, c, *option(h)) == EF | 3
    h.connect_again(c)
    assert tos(h.expect_packet()) == EF


def test_of_a_listeners_children(h):
    """RFC 9293 SHLD-21: from the SYN, ACK on; and it can change at any time"""
    listener = h.listen(80)
    set_tos(h, listener, EF)
    p = h.peer()
    p.rx("S", seq=0)
    assert tos(h.sent[0].packet) == EF
    p.expect("SA")
    p.rx("A", seq=1)
    c = h.accept(listener)
    h.send(c, b"x")
    assert tos(h.frames()[0].packet) == EF
    set_tos(h, c, 0)
    p.seen = 2
    p.rx("A")
    h.send(c, b"x")
    assert tos(h.frames()[0].packet) == 0


def test_of_datagrams(h):
    """All eight bits: who speaks QUIC sets ECN itself"""
    u = h.open(socket.SOCK_DGRAM)
    set_tos(h, u, EF | 2)
    h.sendto(u, b"x", h.their, 53)
    packet = h.expect_packet()
    assert UDP in packet
    assert tos(packet) == EF | 2


@pytest.mark.parametrize("value", [256, -2, 1 << 40])
def test_what_is_no_byte(h, value):
    u = h.open(socket.SOCK_DGRAM)
    with fails("EINVAL"):
        set_tos(h, u, value)
    set_tos(h, u, EF)
    set_tos(h, u, -1)  # ipv6(7): the default
    assert lib.sock_getopt(h.handle, u, *option(h)) == 0

"""The urgent mechanism (RFC 9293 3.8.5, RFC 6093): a mark in the stream, and no byte out of its place."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check
from libos.net.stack import Link

from .harness import READ

URGENT = 16


def rx(p, pointer, **fields):
    """A segment with URG arrives."""
    packet = p.segment("PAU", **fields)
    packet[TCP].urgptr = pointer
    p.h.inject(packet)
    p.h._run()


def unread(h, c):
    return check(lib.sock_urgent(h.handle, c))


def test_a_mark_arrives(h):
    """RFC 9293 3.8.5 (MUST-30, MUST-32, MUST-33): told to who asked, how far it is, and when it is passed"""
    p, c = h.established()
    check(lib.sock_want(h.handle, c, READ | URGENT))
    assert unread(h, c) == 0
    rx(p, 3, data=b"hurry up")
    assert h.events() == {c: READ | URGENT}
    assert unread(h, c) == 3
    assert h.recv(c, 2) == b"hu"
    assert unread(h, c) == 1
    assert h.recv(c, 1) == b"r"
    assert unread(h, c) == 0
    assert h.events() == {c: READ}
    assert h.recv(c) == b"ry up"  # in line: nothing is taken out
    h.after("40ms")
    p.expect("A")


def test_a_mark_ahead_of_its_data(h):
    """RFC 9293 3.8.5 (MUST-31, MUST-32): of any length, told before it has come, and again when it moves on"""
    p, c = h.established()
    check(lib.sock_want(h.handle, c, READ | URGENT))
    rx(p, 5000, data=b"x")
    assert unread(h, c) == 5000
    h.recv(c)
    assert h.events() == {c: URGENT}
    rx(p, 65535, data=b"y")
    assert unread(h, c) == 65535
    rx(p, 100, data=b"z")  # an older mark changes nothing
    assert unread(h, c) == 65535
    for _ in range(66):
        p.rx("PA", data=b"d" * 1000)
        h.recv(c)
    assert unread(h, c) == 0
    assert h.events() == {}
    h.frames()


@pytest.mark.parametrize("seq", [1, 4])
def test_a_mark_that_was_passed(h, seq):
    """It counts from the segment's own number, also where bytes of that have come before (RFC 9293 3.8.5 (MUST-62))"""
    p, c = h.established()
    p.rx("PA", data=b"abc")
    h.recv(c)
    rx(p, 3, seq=seq, data=b"abcdef"[seq - 1 :])
    assert unread(h, c) == (0 if seq == 1 else 3)
    h.recv(c)
    h.frames()
    h.after("40ms")
    h.frames()


def test_without_asking_nothing_is_different(h):
    p, c = h.established()
    rx(p, 1, data=b"data")
    assert h.events() == {c: READ}
    assert h.recv(c) == b"data"
    h.after("40ms")
    p.expect("A")
    assert lib.sock_getopt(h.handle, c, socket.SOL_SOCKET, socket.SO_OOBINLINE) == 1


def test_after_its_fin_the_peer_hurries_nobody(h):
    p, c = h.established()
    p.rx("FA")
    p.expect("A")
    rx(p, 1, seq=2, ack=1)
    assert unread(h, c) == 0
    h.frames()


def test_a_mark_is_sent(h):
    """RFC 9293 3.8.5 (MUST-30, MUST-31, MUST-62): in each segment; it names the byte behind the urgent data"""
    p, c = h.established(TCP_NODELAY=1)
    check(lib.sock_send_urgent(h.handle, c, b"x" * 1500, 1500))
    assert p.expect("AU", seq=1, length=1000).urgptr == 1500
    assert p.expect("PAU", seq=1001, length=500).urgptr == 500
    h.send(c, b"calm")
    p.expect("PA", seq=1501, data=b"calm")
    p.rx("A")


def test_one_that_is_far(h):
    """The pointer has 16 bits: as far as it goes (RFC 6093 3.3 has it so)"""
    p, c = h.established(ws=8, win=65535)
    check(lib.sock_send_urgent(h.handle, c, bytes(100_000), 100_000))
    assert p.expect("AU").urgptr == 65535
    h.abort(c)
    h.frames()


def test_with_a_link_that_cuts_segments(harness, family):
    """The same pointer in each of the pieces would be wrong in all but the first."""
    h = harness(family, caps=Link.CSUM | Link.TSO)
    p, c = h.established()
    check(lib.sock_send_urgent(h.handle, c, bytes(3000), 3000))
    for i in range(3):
        assert p.expect("PAU" if i == 2 else "AU", length=1000, gso=0).urgptr == 3000 - 1000 * i
    p.rx("A")
    h.send(c, bytes(3000))
    p.expect("PA", length=3000, gso=1000)
    p.rx("A")


def test_a_mark_before_the_handshake_ends(h):
    c = h.connect(80)
    check(lib.sock_send_urgent(h.handle, c, b"now", 3))
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    p.rx("SA", seq=0, ack=1)
    assert p.expect("PAU", seq=1, data=b"now").urgptr == 3
    p.rx("A")

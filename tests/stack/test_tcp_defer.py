"""LISTEN_DEFER and LISTEN_ANY_PORT: a SYN waits until the owner has decided. What a gateway lives by."""

from __future__ import annotations

import errno

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import ERROR, LISTEN_ANY_PORT, LISTEN_DEFER, REQUEST, WRITE, fails
from .packets import quoted


def test_deferred_syn_is_answered_when_admitted(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    h.expect_nothing()
    assert h.events() == {listener: REQUEST}
    c = h.accept(listener)
    assert h.state(c) == "SYN-RECEIVED"
    h.at("10s")
    p.rx("S", seq=0)  # it waits, and asks again
    h.expect_nothing()
    check(lib.sock_admit(h.handle, c))
    p.expect("SA", seq=0, ack=1)
    p.rx("A", seq=1, ack=1)
    check(lib.sock_want(h.handle, c, WRITE))
    assert h.events() == {c: WRITE}
    assert lib.sock_admit(h.handle, c) == -errno.EINVAL


def test_deferred_and_refused(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer(isn=0)
    p.rx("S", seq=5)
    c = h.accept(listener)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, errno.ECONNREFUSED))
    p.expect("RA", seq=0, ack=6)
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize(
    ("error", "v4", "v6"),
    [(errno.EHOSTUNREACH, (3, 1), (1, 3)), (errno.ENETUNREACH, (3, 0), (1, 0)), (errno.EACCES, (3, 13), (1, 1))],
)
def test_deferred_and_unreachable(h, error, v4, v6):
    """ICMP says why, and quotes the SYN."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    syn = p.segment("S", seq=0, mss=1000)
    h.inject(syn)
    c = h.accept(listener)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, error))
    packet = h.expect_packet()
    icmp = packet.payload.payload
    assert (icmp.type, icmp.code) == (v4 if h.family == 4 else v6)
    assert quoted(packet) == bytes(syn)


def test_deferred_and_reset_meanwhile(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    p.rx("R", seq=1)
    assert h.events() == {}
    p.rx("S", seq=0)
    c = h.accept(listener)
    p.rx("R", seq=1)
    assert h.events()[c] & ERROR
    assert lib.sock_admit(h.handle, c) == 0
    assert h.error(c) == "ECONNRESET"
    assert lib.sock_admit(h.handle, c) == -errno.EINVAL


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.EHOSTUNREACH])
def test_deferred_reset_and_then_rejected(h, error):
    """There is nobody left to tell."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    c = h.accept(listener)
    p.rx("R", seq=1)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, error))
    h.expect_nothing()
    assert h.states() == ["LISTEN"]


def test_deferred_and_forgotten(h):
    """Freed without an answer: nothing is said."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    h.peer().rx("S", seq=0)
    h.free(h.accept(listener))
    h.expect_nothing()
    assert h.states() == ["LISTEN"]


def test_a_deferring_listener_closes(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    for port in (1, 2, 3):
        h.peer(port=port).rx("S", seq=0)
    h.free(listener)
    assert h.states() == []
    h.expect_nothing()


@pytest.mark.parametrize("lost", [False, True])
def test_admitted_answered_and_closed_before_the_handshake_ends(h, lost):
    """RFC 9293 3.10.4, SYN-RECEIVED: data and FIN are queued until ESTABLISHED."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    c = h.accept(listener)
    check(lib.sock_admit(h.handle, c))
    h.send(c, b"answer")
    h.free(c)
    p.expect("SA", seq=0, ack=1)
    assert h.stack.lingering() == 1
    if lost:
        h.at("1s")
        p.expect("SA", seq=0, ack=1)
    p.rx("A", seq=1, ack=1)
    p.expect("FPA", seq=1, data=b"answer")
    p.rx("FA", seq=1, ack=8)
    p.expect("A", seq=8, ack=2)
    assert h.states() == ["LISTEN", "TIME-WAIT"]


def test_any_port(harness, family):
    """A gateway's listener takes every address and port; one of a kind."""
    h = harness(family, any_destination=True)
    listener = h.listen(0, flags=LISTEN_DEFER | LISTEN_ANY_PORT)
    far = "198.51.100.9" if family == 4 else "2001:db8::9"
    h.inject(h.ip(dst=far) / TCP(sport=1234, dport=4321, flags="S", seq=7))
    c = h.accept(listener)
    assert h.info(c).local[:2] == (far, 4321)
    check(lib.sock_admit(h.handle, c))
    packet = h.expect_packet()
    assert (packet.payload.src, str(packet[TCP].flags), packet[TCP].ack) == (far, "SA", 8)
    with fails("EADDRINUSE"):
        h.listen(0, flags=LISTEN_ANY_PORT)
    h.free(listener)
    h.listen(0, flags=LISTEN_ANY_PORT)  # its place is free at once


def test_any_port_is_for_gateways(h):
    with fails("EINVAL"):
        h.listen(0, flags=LISTEN_ANY_PORT)

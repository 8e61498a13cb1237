"""Low-water marks: TCP_NOTSENT_LOWAT (tcp(7)), SO_RCVLOWAT (socket(7)), and when a socket is writable or readable."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import READ, WRITE, fails
from .packets import payload_of

NOTSENT = socket.TCP_NOTSENT_LOWAT


def lengths(h):
    return [len(payload_of(s.packet[TCP])) for s in h.frames()]


def want(h, id, mask):
    check(lib.sock_want(h.handle, id, mask))


def test_writable_while_little_is_unsent(h):
    """tcp(7): what is on its way does not count, what waits does."""
    p, c = h.established(win=10_000)
    h.set(c, TCP_NOTSENT_LOWAT=4000)
    want(h, c, WRITE)
    assert h.option(c, NOTSENT, socket.IPPROTO_TCP) == 4000
    assert h.events() == {c: WRITE}
    assert h.send(c, b"x" * 100_000) == 4000
    with fails("EAGAIN"):
        h.send(c, b"x")
    assert h.events() == {}
    assert lengths(h) == [1000] * 4
    assert h.events() == {c: WRITE}  # all is sent, nothing is acknowledged
    while True:
        try:
            h.send(c, b"x" * 4000)
        except BlockingIOError:
            break
        h.frames()
    assert h.info(c).tx_queue == 10_000 + 4000  # a window under way, and so much behind it
    assert h.events() == {}
    p.rx("A", ack=6001, win=10_000)
    h.frames()
    assert h.events() == {c: WRITE}
    p.rx("R", seq=1)


def test_the_default_of_the_stack(harness, family):
    h = harness(family, notsent_lowat=2000)
    _, c = h.established()
    assert h.send(c, b"x" * 100_000) == 2000
    h.set(c, TCP_NOTSENT_LOWAT=0)
    assert h.send(c, b"x" * 100_000) == 100_000
    h.abort(c)
    h.frames()


def test_setting_it_tells_who_waits(h):
    """A larger mark, and the writer may go on."""
    _, c = h.established(win=0, TCP_NOTSENT_LOWAT=1000)
    want(h, c, WRITE)
    assert h.send(c, b"x" * 5000) == 1000
    assert h.events() == {}
    h.set(c, TCP_NOTSENT_LOWAT=3000)
    assert h.events() == {c: WRITE}
    h.abort(c)
    h.frames()


def test_children_have_it_from_their_listener(h):
    listener = h.listen(80, TCP_NOTSENT_LOWAT=1234, SO_RCVLOWAT=77, SO_RCVBUF=50_000, SO_SNDBUF=60_000)
    _, c = h.established(listener)
    assert h.option(c, NOTSENT, socket.IPPROTO_TCP) == 1234
    assert h.option(c, socket.SO_RCVLOWAT) == 77
    assert (h.option(c, socket.SO_RCVBUF), h.option(c, socket.SO_SNDBUF)) == (50_000, 60_000)


def test_a_large_buffer_does_not_wait_for_a_third(harness, family):
    """Writers are called when 256 KiB are free, or a third: a long path would run dry else."""
    h = harness(family, sndbuf=4 << 20)
    p, c = h.established(ws=7, win=65535)
    want(h, c, WRITE)
    assert h.send(c, bytes(5 << 20)) == 4 << 20
    acked = 0
    while acked < 250_000:
        acked += sum(lengths(h))
        p.rx("A", ack=1 + acked, win=65535)
        assert (h.events() == {}) == (acked < 256 << 10)
    h.abort(c)
    h.frames()


def test_readable_from_so_many_bytes_on(h):
    """socket(7): SO_RCVLOWAT"""
    p, c = h.established(SO_RCVLOWAT=1000)
    p.rx("PA", data=b"x" * 600)
    assert h.events() == {}
    p.rx("PA", data=b"x" * 300)
    assert h.events() == {}
    p.rx("PA", data=b"x" * 100)
    assert h.events() == {c: READ}
    assert len(h.recv(c, 500)) == 500
    assert h.events() == {}
    h.set(c, SO_RCVLOWAT=1)
    assert h.events() == {c: READ}
    assert len(h.recv(c)) == 500
    h.after("1s")
    h.frames()


@pytest.mark.parametrize("end", ["FA", "R"])
def test_the_end_is_readable_whatever_the_mark(h, end):
    """socket(7): also less than asked for, if nothing more can come"""
    p, c = h.established(SO_RCVLOWAT=1000)
    p.rx("PA", data=b"x" * 600)
    assert h.events() == {}
    p.rx(end, seq=601)
    assert h.events()[c] & READ
    assert len(h.recv(c)) == 600
    h.frames()


def test_a_mark_beyond_the_buffer(harness, family):
    """The window would shut first, and nobody be told: half a buffer is readable whatever was asked for."""
    h = harness(family, rcvbuf=8000)
    p, c = h.established(SO_RCVLOWAT=1_000_000)
    for _ in range(3):
        p.rx("A", data=b"x" * 1000)
    assert h.events() == {}
    p.rx("A", data=b"x" * 1000)
    assert h.events() == {c: READ}
    h.recv(c)
    h.after("1s")
    h.frames()

"""TCP when memory is short: moderation and not resets; what one peer can make us hold (RFC 9293 3.8.6, RFC 2018 8)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check
from libos.net.link.impairment import Impairment
from libos.net.stack import Link

from .crowd import Crowd
from .harness import WRITE, fails
from .wire import Wire

TINY = 2 << 20
DELAY = Impairment(delay=1_000_000, queue=20_000)


def wire(mtu: int = 1500, caps: int = 0) -> Wire:
    return Wire(how=DELAY, mtu=mtu, caps=caps, queue=60_000, a={"memory": TINY}, b={"memory": TINY})


@pytest.mark.parametrize("caps", [0, Link.ALL], ids=["plain", "offloads"])
def test_a_crowd_in_little_memory(caps):
    """200 connections, 10 KiB of memory for each: all come to the end, none is reset, and that is all that is used."""
    crowd = Crowd(wire(caps=caps), 200, 200 << 10)
    crowd.run()
    assert not crowd.errors
    assert set(crowd.got.values()) == {200 << 10}
    assert max(crowd.most) <= TINY
    assert crowd.wire.now < 3 * 10**9
    assert crowd.wire.a.counters()["TcpExtTCPMemoryPressures"] > 0, "memory was not short"
    crowd.close()


def test_who_does_not_read_does_not_stop_the_others():
    """Half of the applications never read: those connections wait, at a window of zero, for ever; the others end."""
    crowd = Crowd(wire(), 200, 200 << 10, reads=range(100, 200))
    crowd.run()
    assert not crowd.errors
    assert {crowd.got[number] for number in range(100, 200)} == {200 << 10}
    held = [row.rx_queue for row in crowd.wire.b.sockets() if row.type == "tcp" and row.state == "ESTABLISHED"]
    assert max(held) <= 128 << 10, "more than its window"
    for _ in range(2000):  # and for an hour they stay what they are
        crowd.wire.jump(crowd.wire.run(), most=10 * 10**9)
    assert crowd.wire.now > 3600 * 10**9
    assert not any(lib.sock_error(crowd.wire.a.handle, id) for id in crowd.sent)
    crowd.close()


def test_the_window_closes_as_data_is_read_when_memory_is_short(harness, family):
    """RFC 9293 3.8.6: moderation takes nothing back that was told; it comes with what is read."""
    h = harness(family, memory=512 << 10, rcvbuf=384 << 10)
    h.meet()
    p, c = h.established(mss=1460, ws=7)
    at, edge, free, short = 1, 65536, [], []

    def segment(edges: list[int]) -> None:
        nonlocal at, edge
        p.rx("A", seq=at, data=b"x" * 1000)
        at += 1000
        for s in h.frames():
            tcp = s.packet[TCP]
            now = (tcp.ack - p.isn) % 2**32 + (tcp.window << 3)
            assert now >= edge - 7, "taken back"
            edge = max(edge, now)
            edges.append(edge)

    while h.stack.memory()["in_use"] < 280 << 10:
        segment(free)
    told = edge
    while at + 1000 <= told:  # the reader keeps up, but memory stays short: the other half is held by others
        h.recv(c, 1000)
        segment(short)
    assert edge == told, "it opened while memory was short"
    h.recv(c)
    segment(free)
    assert edge > told
    h.after("1s")
    h.frames()


def test_no_memory_for_what_is_in_order(harness, family):
    """RFC 9293 3.8.6.1: a window of zero, which the peer probes for ever; not silence, of which it would die"""
    h = harness(family, memory=256 << 10, rcvbuf=4 << 20)
    h.meet()
    p, c = h.established(ws=7)
    at = 1
    while not h.counted("TcpExtTCPRcvQDrop"):
        h.frames()
        p.rx("A", seq=at, data=b"x" * 1000)
        at += 1000
        assert at < 1_000_000
    p.expect("A", ack=at - 1000, win=0)
    p.rx("A", seq=at - 1000, data=b"x" * 1000)
    p.expect("A", ack=at - 1000, win=0)
    h.recv(c)
    tcp = p.expect("A", ack=at - 1000)  # at once, and not when it is probed
    assert tcp.window << 7 >= 1000
    p.rx("A", seq=at - 1000, data=b"x" * 1000)
    h.after("1s")
    h.frames()


def test_what_is_out_of_order_is_given_up(harness, family):
    """RFC 2018 8: the receiver may discard what it has SACKed, if it runs out of memory"""
    h = harness(family, memory=256 << 10, rcvbuf=4 << 20)
    h.meet()
    listener = h.listen(80)
    p, c = h.established(listener, ws=7)
    for at in range(1001, 40_001, 1000):
        h.inject(p.segment("A", seq=1 + at, data=b"x" * 1000))
    h.frames()
    other, d = h.established(listener, port=40001, ws=7)
    at = 1
    while not h.counted("TcpExtTCPRcvQDrop"):
        other.rx("A", seq=at, data=b"y" * 1000)
        at += 1000
        assert at < 1_000_000
    h.frames()
    p.rx("A", seq=1, data=b"z" * 1000)
    assert h.counted("TcpExtOfoPruned") == 1
    p.seen = 1
    assert h.recv(c) == b"z" * 1000
    h.frames()
    h.abort(d)
    h.frames()


# --- what a peer can make us hold ---


@pytest.mark.parametrize("step", [1, 2, 100], ids=["in-order", "every-other", "far-apart"])
def test_tiny_segments_hold_little(harness, family, step):
    """One byte in each: what they hold in buffers is bounded, whatever the order."""
    h = harness(family, rcvbuf=256 << 10)
    p, c = h.established(ws=4)
    for at in range(500):
        h.inject(p.segment("A", seq=1 + (step > 1) + at * step, data=b"x"))
    h.frames()
    assert h.stack.memory()["in_use"] < (8192 if step == 1 else 2 * (256 << 10) * 2304 // 2048)
    if step == 1:
        assert len(h.recv(c)) == 500
    h.after("1s")
    h.frames()


def test_small_segments_out_of_order_share_buffers(harness, family):
    """They continue each other: as many bytes of buffers as it takes, and not one for each"""
    h = harness(family)
    p, c = h.established()
    for at in range(0, 20_000, 100):
        h.inject(p.segment("A", seq=2 + at, data=b"x" * 100))
    h.frames()
    assert h.stack.memory()["in_use"] < 2 * 20_000
    p.rx("A", seq=1, data=b"y")
    assert len(h.recv(c)) == 20_001
    h.frames()


def test_as_many_holes_as_it_likes(harness, family):
    """The number of runs is bounded, so that a peer cannot make each of its segments a long search."""
    h = harness(family, rcvbuf=8 << 20)
    p, c = h.established(ws=8)
    p.rx("A", seq=1, data=b"x")
    for at in range(1100):
        h.inject(p.segment("A", seq=10 + at * 4, data=b"x"))
    h.frames()
    assert h.counted("TcpExtTCPOFODrop") == 1100 - 1024
    p.rx("A", seq=2, data=b"y" * 8)
    assert len(h.recv(c)) == 10
    h.frames()


# --- writing ---


def test_writers_wait_while_memory_is_short(harness, family):
    """They are told when it is not: sending refuses, EV_WRITE comes back, nothing is lost."""
    h = harness(family, memory=512 << 10, sndbuf=4 << 20)
    h.meet()
    listener = h.listen(80)
    p, c = h.established(listener)
    q, d = h.established(listener, port=40001)
    check(lib.sock_want(h.handle, d, WRITE))
    taken = 0
    with fails("EAGAIN"):
        while True:
            taken += h.send(c, b"x" * 10_000)
    assert taken < 400_000
    assert h.events() == {d: WRITE}  # the other has its segment
    assert 0 < h.send(d, b"y" * 200_000) <= 64 << 10  # a quarter of memory, divided by two
    h.frames()
    acked = 1
    for _ in range(100):
        acked = min(acked + 10_000, taken + 1)
        p.rx("A", ack=acked)
        h.frames()
    q.rx("A", ack=1 + h.info(d).tx_queue)
    assert h.events() == {d: WRITE}
    assert h.send(d, b"y" * 10_000) == 10_000
    q.rx("R")
    h.frames()


# --- idle ---


def test_an_idle_connection_holds_nothing_but_itself(harness, family):
    """Itself, its places in the tables, and no buffer"""
    h = harness(family)
    _, _ = h.established(ts=1, ws=7)
    memory = h.stack.memory()
    assert (memory["in_use"], memory["buffers"]) == (0, 0)
    assert memory["socket_bytes"] <= 1024

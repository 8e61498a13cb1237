"""Pacing: new data spread over the round trip (RFC 9406 4.2 counts on it), but for the initial window."""

from __future__ import annotations

import socket

import pytest

from libos._native import lib
from libos.errors import check
from libos.net.stack import Link

from .flow import Flow

MSS = 1000
SO_MAX_PACING_RATE = 47  # <asm-generic/socket.h>
RTT = 100_000_000


def bursts(segments):
    """Bytes that left at one and the same time: [time, bytes]."""
    out = []
    for s in segments:
        if out and out[-1][0] == s.time:
            out[-1][1] += s.len
        else:
            out.append([s.time, s.len])
    return out


def limit(h, id, rate):
    check(lib.sock_setopt(h.handle, id, socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate))


def test_the_initial_window_goes_at_once(harness):
    """RFC 6928 1: short answers in one round trip; pacing begins behind it"""
    f = Flow(harness(queue=65536), rtt="100ms")
    f.run("300ms")
    sizes = [size for _, size in bursts(f.sent)]
    assert sizes[0] == 10 * MSS
    assert max(sizes[1:]) <= 4 * MSS  # two segments, or what an ACK for two let go
    f.finish()


def test_twice_the_window_in_slow_start(harness):
    """2 cwnd / srtt: a window of segments leaves in half a round trip"""
    h = harness()
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S")
    h.after(RTT)
    p.rx("SA", seq=0, ack=1, mss=MSS)
    p.expect("A")
    h.send(c, b"x" * 100_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    start = h.now
    p.rx("A", ack=10_001)  # cwnd is 20 segments: 400 segments a second, 2.5 ms each, in twos
    h.after(RTT)
    left = [(f.time - start, len(f.packet.payload.payload.payload)) for f in h.frames()]
    assert [n * 5_000_000 for n in range(10) for _ in range(2)] == [at for at, _ in left]
    assert {size for _, size in left} == {MSS}
    p.rx("A", ack=30_001)
    h.after("1ms")
    h.frames()


def test_a_fifth_more_in_congestion_avoidance(harness):
    """1.2 cwnd / srtt"""
    h = harness()
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S")
    h.after(RTT)
    p.rx("SA", seq=0, ack=1, mss=MSS)
    p.expect("A")
    h.send(c, b"x" * 100_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    for _ in range(3):
        p.rx("A", ack=1)
    assert len(h.frames()) == 3
    h.after(RTT)
    start = h.now
    p.rx("A", ack=12_001)
    assert (h.info(c).cwnd, h.info(c).ssthresh) == (8400, 8400)
    h.after(RTT)  # 100.8 segments a second, in twos
    left = [f.time - start for f in h.frames()]
    assert left == [pytest.approx(n * 2 * 10**9 / 100.8, abs=10) for n in range(4) for _ in range(2)]
    p.rx("A", ack=20_001)
    h.after("1ms")
    h.frames()


def test_timers_are_for_quanta_not_for_packets(harness):
    """At 100 MB/s a millisecond's worth goes at once"""
    f = Flow(harness(queue=65536, sndbuf=64 << 20), rtt="20ms")
    f.run("200ms")
    limit(f.h, f.id, 100_000_000)
    f.run("10ms")
    f.sent.clear()
    f.run("20ms")
    groups = bursts(f.sent)
    assert sum(size for _, size in groups) > 200_000
    assert max(size for _, size in groups) <= 102 * MSS
    f.finish()


@pytest.mark.parametrize("congestion", ["cubic", "reno"])
@pytest.mark.parametrize("caps", [0, Link.TSO | Link.CSUM], ids=["plain", "tso"])
def test_the_owner_may_set_a_bound(harness, congestion, caps):
    """SO_MAX_PACING_RATE (socket(7)): on any link, with any controller"""
    h = harness(queue=65536, congestion=congestion, caps=caps)
    f = Flow(h, rtt="50ms")
    assert lib.sock_getopt(h.handle, f.id, socket.SOL_SOCKET, SO_MAX_PACING_RATE) == 2**32 - 1
    limit(h, f.id, 200_000)
    assert lib.sock_getopt(h.handle, f.id, socket.SOL_SOCKET, SO_MAX_PACING_RATE) == 200_000
    f.run("2s")
    begin = f.now
    f.run("2s")
    assert sum(s.len for s in f.sent if s.time >= begin) == pytest.approx(400_000, rel=0.02)
    limit(h, f.id, -1)
    f.sent.clear()
    f.run("300ms")
    assert sum(s.len for s in f.sent) > 200_000
    f.finish()


def test_not_where_the_link_takes_bursts(harness):
    """LINK_TSO: one frame for 20 segments; spreading them would make it 20"""
    h = harness(caps=Link.TSO | Link.CSUM)
    f = Flow(h, rtt="100ms")
    f.run("150ms")
    groups = bursts(f.sent)
    assert groups[0][1] == 10 * MSS
    assert len(groups) == 2  # the window of the second round trip, on one ACK
    assert groups[1][1] == 20 * MSS
    f.finish()


def test_new_reno_is_not_paced(harness):
    f = Flow(harness(queue=65536, congestion="reno"), rtt="100ms", delayed=False)
    f.run("150ms")
    groups = bursts(f.sent)
    assert [size for _, size in groups] == [10 * MSS, 20 * MSS]
    f.finish()


def test_a_pause_is_not_made_up_for(harness):
    """What was not sent in time is not owed: after a pause there is a quantum, not a heap"""
    h = harness(queue=65536)
    f = Flow(h, rtt="50ms")
    limit(h, f.id, 100_000)
    f.run("2s")
    f.run("15s", writing=False)
    f.sent.clear()
    f.run("60ms")
    assert max(size for _, size in bursts(f.sent)) <= 3 * MSS
    f.finish()


def test_a_small_write_need_not_wait_for_a_whole_segment(harness):
    h = harness()
    p, c = h.established(TCP_NODELAY=1)
    limit(h, c, 1000)  # a segment a second, and two on credit
    for n in range(3):
        h.send(c, b"x" * 100)
        p.expect("PA", seq=1 + n * 100, length=100)
    p.rx("A")


def test_closing_is_not_held_up_for_ever(harness):
    h = harness()
    p, c = h.established()
    limit(h, c, 10_000)
    h.send(c, b"x" * 5000)
    h.shutdown(c)
    assert len(h.frames()) == 2
    p.rx("A", ack=2001)
    h.after("200ms")
    assert len(h.frames()) == 2
    p.rx("A", ack=4001)
    h.after("200ms")
    p.expect("FPA", seq=4001, length=1000)
    p.rx("FA", ack=5002)
    p.expect("A")

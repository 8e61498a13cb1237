"""Buffers that grow with the path: receiving (dynamic right-sizing) and sending; RFC 7323 2 for their window."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import TCP

from libos.net.link.impairment import Impairment
from libos.net.stack import Link

from .bulk import SECOND, Stream
from .wire import Wire

MS = 10**6
SO_SNDBUF, SO_RCVBUF = socket.SO_SNDBUF, socket.SO_RCVBUF


def stream(delay: int, rate: int, *, caps: int = Link.ALL, a=None, b=None, queue: int = 20_000, **options) -> Stream:
    how = Impairment(delay=delay // 2, rate=rate, queue=queue)
    return Stream(Wire(how=how, mtu=1500, caps=caps, queue=60_000, a=a, b=b), **options)


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6], ids=["v4", "v6"])
def test_a_long_fat_path(family):
    """100 ms, 1 Gbit/s, 12.5 MB under way: from small buffers, after slow start, at least 0.9 of the rate."""
    s = stream(100 * MS, 10**9, family=family)
    s.run_for(2 * SECOND)
    assert s.run_for(SECOND) >= 0.9e9
    assert s.option(s.wire.a, s.out, 1, SO_SNDBUF) > 12_500_000
    assert s.option(s.wire.b, s.into, 1, SO_RCVBUF) > 12_500_000
    assert s.info(s.wire.a, s.out).retransmits == 0
    s.close()


def test_a_short_path_keeps_small_buffers():
    """1 ms, 100 Mbit/s, a queue of 64 packets: what it needs, and not what it could have"""
    s = stream(MS, 10**8, caps=0, queue=64)
    s.run_for(SECOND // 2)
    assert s.run_for(SECOND // 2) >= 0.9e8
    assert s.option(s.wire.b, s.into, 1, SO_RCVBUF) <= 2 << 20
    s.close()


def test_without_timestamps_the_time_of_a_window_is_measured():
    """A peer without them, of which no echo tells the round trip"""
    s = stream(50 * MS, 10**8)
    s.run_for(3 * SECOND)
    assert s.run_for(SECOND) >= 0.9e8
    s.close()


def test_a_slow_reader_gets_no_larger_buffer():
    """It is what is read in a round trip that counts, and not what arrives."""
    s = stream(20 * MS, 10**8)
    s.run_for(SECOND // 10)
    before = s.option(s.wire.b, s.into, 1, SO_RCVBUF)
    s.reads = False
    s.run_for(SECOND)
    assert s.option(s.wire.b, s.into, 1, SO_RCVBUF) == before
    assert s.info(s.wire.b, s.into).rx_queue <= before
    s.reads = True
    assert s.run_for(2 * SECOND) > 0.5e8
    s.close()


@pytest.mark.parametrize("which", ["SO_RCVBUF", "SO_SNDBUF"])
def test_a_size_that_was_asked_for_stays(which):
    """socket(7), tcp(7): setting SO_RCVBUF or SO_SNDBUF turns the tuning off; throughput is a window a round trip."""
    s = stream(100 * MS, 10**9)
    s.run_for(SECOND // 2)
    end, id, name = (s.wire.b, s.into, SO_RCVBUF) if which == "SO_RCVBUF" else (s.wire.a, s.out, SO_SNDBUF)
    s.set(end, id, name, 1_000_000)
    s.run_for(SECOND)
    assert s.option(end, id, 1, name) == 1_000_000
    assert 0.5 * 8e7 < s.run_for(SECOND) < 1.2 * 8e7
    s.close()


def test_bounds_that_are_configured():
    """rcvbuf_max and sndbuf_max"""
    s = stream(100 * MS, 10**9, a={"sndbuf_max": 2 << 20}, b={"rcvbuf_max": 1 << 20})
    s.run_for(2 * SECOND)
    assert s.option(s.wire.b, s.into, 1, SO_RCVBUF) == 1 << 20
    assert s.option(s.wire.a, s.out, 1, SO_SNDBUF) == 2 << 20
    s.close()


def test_a_bound_is_a_quarter_of_memory_at_most():
    s = stream(100 * MS, 10**9, b={"memory": 8 << 20})
    s.run_for(3 * SECOND)
    assert s.option(s.wire.b, s.into, 1, SO_RCVBUF) <= 2 << 20
    s.close()


@pytest.mark.parametrize(("most", "shift"), [(1 << 20, 5), (16 << 20, 9), (64 << 20, 11)])
def test_the_scale_covers_what_the_buffer_may_become(harness, family, most, shift):
    """RFC 7323 2.2: it can be said on the SYN only"""
    h = harness(family, rcvbuf=64 << 10, rcvbuf_max=most)
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, ws=7, mss=1460)
    p.expect("SA", ws=shift, win=65535)


def test_the_window_grows_with_what_is_read(harness, family):
    """Each round trip twice as much as was read in the last: a transcript of it"""
    h = harness(family, rcvbuf=64 << 10, rcvbuf_max=4 << 20)
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, ws=7, mss=1460, ts=1000)
    p.expect("SA", ws=7)
    h.at("100ms")
    p.rx("A", seq=1, ack=1, ts=1100)
    c = h.accept(listener)
    at, told, ts = 1, [], 1100
    for trip in range(1, 7):
        size = 14_600 << (trip - 1)
        echo = p.ts_echo
        for _ in range(0, size, 1460):
            p.ts_echo = echo  # what this round trip sends answers the last ACK of the one before
            p.rx("A", seq=at, data=b"x" * 1460, ts=ts + 100 * trip)
            at += 1460
            h.recv(c)
        for s in h.frames():
            last = s.packet[TCP]
            p.ts_echo = dict(last.options)["Timestamp"][0]
        told.append(last.window << 7)
        h.after("100ms")
        assert told[-1] >= size, "the sender is stopped"
    assert told[-1] >= 4 * told[0]
    assert told == sorted(told)
    h.after("1s")
    h.frames()


def test_the_send_buffer_follows_the_window(harness, family):
    """Twice what may be under way; a connection that sends little keeps what it began with."""
    h = harness(family, sndbuf=32_000, sndbuf_max=1 << 20)
    p, c = h.established(ws=7)
    sizes, acked = [], 1
    for _ in range(6):
        while True:
            try:
                h.send(c, b"x" * 65536)
            except BlockingIOError:
                break
        acked += sum(len(s.packet[TCP].payload) for s in h.frames())
        p.rx("A", ack=acked, win=65535)
        sizes.append(h.option(c, SO_SNDBUF))
    assert sizes[0] == 32_000
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 4 * sizes[0]
    assert sizes[-1] >= h.info(c).cwnd
    p.rx("R")


@pytest.mark.slow
def test_many_small_writes_into_a_long_queue():
    """They share buffers: 16 MiB in writes of 100 bytes are a thousand buffers and not 160,000."""
    s = stream(100 * MS, 10**9, a={"sndbuf": 16 << 20}, chunk=100)
    s.run_for(SECOND // 4)
    queued = s.info(s.wire.a, s.out).tx_queue
    assert queued > 10 << 20
    assert s.wire.a.memory()["buffers"] < 3000
    s.run_for(SECOND)
    s.close()

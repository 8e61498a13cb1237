"""When data is acknowledged (RFC 9293 3.8.6.3, RFC 5681 4.2): soon, at once, or with an answer."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from libos.net.stack import Link

from .bulk import SECOND, Stream
from .wire import Wire


def acks(h):
    return [s.packet[TCP].ack for s in h.frames() if TCP in s.packet]


def test_at_once_while_a_peer_begins(harness, family):
    """RFC 5681 4.2 allows less: but slow start grows with each ACK, and a lone segment would wait for the timer."""
    h = harness(family, quickacks=4)
    p, c = h.established()
    for i in range(4):
        p.rx("PA", data=b"x" * 100)
        p.expect("A", ack=1 + 100 * (i + 1))
    p.rx("PA", data=b"x" * 100)
    h.after("39ms").expect_nothing()
    h.after("1ms")
    p.expect("A", ack=501)
    assert len(h.recv(c)) == 500


def test_at_once_again_after_a_pause(harness, family):
    """RFC 5681 4.1: its window is the initial one again"""
    h = harness(family, quickacks=1)
    p, _ = h.established()
    p.rx("PA", data=b"x")
    p.expect("A", ack=2)
    p.rx("PA", data=b"x")
    h.after("40ms")
    p.expect("A", ack=3)
    h.after("10s")
    p.rx("PA", data=b"x")
    p.expect("A", ack=4)


def test_an_answer_carries_the_ack(harness, family):
    """RFC 9293 3.8.6.3: who answers data with data is not quick; the answer is."""
    h = harness(family, quickacks=16)
    p, c = h.established(TCP_NODELAY=1)
    at = 1
    for _ in range(3):
        h.inject(p.segment("PA", data=b"question"))
        at += 8
        h.recv(c)
        h.send(c, b"answer")
        p.expect("PA", ack=at, data=b"answer")
    p.rx("PA", data=b"question")
    h.after("39ms").expect_nothing()
    h.send(c, b"answer")
    p.expect("PA", ack=at + 8)
    p.rx("A")
    h.after("1s").expect_nothing()


def test_every_second_full_segment_in_the_peers_size(harness, family):
    """RFC 9293 3.8.6.3, RFC 5681 4.2: full is what it sends, not what we would"""
    h = harness(family)
    p, c = h.established(mss=1460)
    p.rx("A", data=b"x" * 600)
    h.expect_nothing()
    p.rx("A", data=b"x" * 600)
    p.expect("A", ack=1201)
    p.rx("A", data=b"x" * 1400)
    p.expect_nothing()
    p.rx("A", data=b"x" * 1400)
    p.expect("A", ack=4001)
    assert len(h.recv(c)) == 4000


def test_small_segments_are_not_full_ones(harness, family):
    """RFC 9293 3.8.6.3: until they were read, for the reader may have an answer, that carries the ACK"""
    h = harness(family)
    p, c = h.established()
    for _ in range(10):
        p.rx("PA", data=b"x")
    h.expect_nothing()
    h.after("39ms")
    h.recv(c)
    h.send(c, b"answer")
    p.expect("PA", ack=11, data=b"answer")
    p.rx("A")
    for _ in range(10):
        p.rx("PA", data=b"x")
    h.expect_nothing()
    h.after("40ms")
    p.expect("A", ack=21)


def test_every_second_small_segment_that_was_read(harness, family):
    """RFC 5681 4.2 allows more ACKs than for each second full segment: a peer whose window is counted in segments
    would wait for the timer after each few bytes"""
    h = harness(family)
    p, c = h.established()
    for at in range(1, 40, 4):
        p.rx("PA", data=b"x")
        assert h.recv(c) == b"x"
        h.expect_nothing()
        p.rx("PA", data=b"yz!")
        h.expect_nothing()
        assert h.recv(c) == b"yz!"
        p.expect("A", ack=at + 4)
    assert h.counted("TcpExtDelayedACKs") == 0


def test_small_segments_read_at_once_are_acknowledged_at_once(harness, family):
    """However many they were, by one ACK; and not before all of them were read"""
    h = harness(family)
    p, c = h.established()
    for _ in range(300):
        p.rx("PA", data=b"x")
    assert h.recv(c, 299) == b"x" * 299
    h.expect_nothing()
    assert h.recv(c) == b"x"
    p.expect("A", ack=301)


def test_a_small_segment_behind_a_full_one(harness, family):
    """What ends a request that is longer than a segment: the answer carries its ACK, though it takes a while"""
    h = harness(family)
    p, c = h.established()
    p.rx("A", data=b"x" * 1000)
    p.rx("PA", data=b"x" * 500)
    assert len(h.recv(c)) == 1500
    h.after("39ms").expect_nothing()
    h.send(c, b"answer")
    p.expect("PA", ack=1501)
    p.rx("A")


def test_small_segments_of_before_do_not_count(harness, family):
    """They are counted from the last ACK on, whatever carried it."""
    h = harness(family)
    p, c = h.established(TCP_NODELAY=1)
    for at in range(1, 10):
        p.rx("PA", data=b"x")
        assert h.recv(c) == b"x"
        h.expect_nothing()
        h.send(c, b"answer")
        p.expect("PA", ack=at + 1)
        p.rx("A")


def test_the_delay_follows_the_arrivals(harness, family):
    """RFC 9293 3.8.6.3: less than half a second; longer than 40 ms where segments come slowly, for answers to carry it,
    and never longer than a round trip"""
    h = harness(family)
    h.listen(80)
    listener = h.owned[0]
    p = h.peer()
    p.rx("S", seq=0, mss=1000)
    p.expect("SA")
    h.after("300ms")
    p.rx("A", seq=1, ack=1)
    h.accept(listener)
    waits, oldest = [], 0
    for _ in range(12):
        oldest = oldest or h.now
        p.rx("PA", data=b"x")
        h.after("150ms")
        for s in h.frames():
            waits.append((s.time - oldest) // 10**6)
            oldest = 0
    assert waits[0] == 40
    assert waits[-1] == 200
    h.after("1s")
    h.frames()


@pytest.mark.parametrize("size", [4000, 20_000, 60_000])
def test_a_joined_segment_is_acknowledged_at_once(harness, family, size):
    """RFC 5681 4.2: however many segments the link has joined, they are more than two."""
    h = harness(family, caps=Link.ALL, rcvbuf=256 << 10)
    p, c = h.established(ws=7, mss=1460)
    p.rx("A", data=b"x" * size)
    p.expect("A", ack=1 + size)
    p.rx("A", data=b"x" * 2920)
    p.expect("A", ack=1 + size + 2920)
    assert len(h.recv(c)) == size + 2920
    h.after("1s")
    h.frames()


def test_between_stacks_with_offloads_no_ack_is_missed():
    """A bulk transfer of 64 KiB segments never waits for the delayed-ACK timer."""
    s = Stream(Wire(mtu=1500, caps=Link.ALL, a={"sndbuf_max": 1 << 20}, b={"rcvbuf_max": 1 << 20}))
    s.run(lambda: s.received > 20_000_000)
    assert s.wire.now - SECOND < 10**6, "nothing but ACKs was waited for, and these take no time here"
    assert s.wire.b.counters()["TcpExtDelayedACKs"] == 0
    s.close()


def test_no_ack_waits_longer_than_the_first_was_to(harness, family):
    """RFC 9293 3.8.6.3: the timer is not put off by more data"""
    h = harness(family)
    p, _ = h.established()
    p.rx("PA", data=b"x")
    h.after("30ms")
    p.rx("PA", data=b"x")
    h.after("10ms")
    p.expect("A", ack=3)

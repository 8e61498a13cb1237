"""TCP data (RFC 9293 3.7, 3.8; RFC 5681): both ways, out of order, acknowledgements, Nagle, slow start."""

from __future__ import annotations

import random

from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import READ, WRITE, fails
from .packets import payload_of


def lengths(h):
    """Of the segments that left just now."""
    return [len(payload_of(s.packet[TCP])) for s in h.frames()]


# --- receiving ---
def test_in_order(h):
    p, c = h.established()
    p.rx("PA", seq=1, data=b"hello ")
    p.rx("PA", seq=7, data=b"world")
    assert h.events()[c] & READ
    assert h.recv(c, 3) == b"hel"
    assert h.events()[c] & READ  # a level: there is more
    assert h.recv(c) == b"lo world"
    with fails("EAGAIN"):
        h.recv(c)
    assert h.events() == {}
    p.expect("A", seq=1, ack=12)


def test_sequence_numbers_wrap(h):
    """RFC 9293 3.4"""
    p, c = h.established(isn=2**32 - 3)
    p.rx("PA", seq=1, data=b"abcdefgh")
    p.rx("PA", seq=9, data=b"ij")
    assert h.recv(c) == b"abcdefghij"
    p.expect("A", ack=11)


def test_delayed_ack(h):
    """RFC 9293 3.8.6.3 (MUST-40, SHLD-18, SHLD-19): within 500 ms (here 40), and at every second full segment"""
    p, _ = h.established()
    h.at("100ms")
    p.rx("A", data=b"x" * 1000)
    h.at("139ms").expect_nothing()
    h.at("140ms")
    p.expect("A", ack=1001)
    h.at("200ms")
    p.rx("A", data=b"x" * 1000)
    h.expect_nothing()
    p.rx("A", data=b"x" * 1000)
    p.expect("A", ack=3001)
    h.at("1s").expect_nothing()
    assert h.counted("TcpExtDelayedACKs") == 1


def test_data_carries_the_ack(h):
    """RFC 9293 3.8.6.3, piggyback: then none is sent by itself."""
    p, c = h.established()
    p.rx("PA", data=b"question")
    h.send(c, b"answer")
    p.expect("PA", ack=9, data=b"answer")
    h.after("100ms").expect_nothing()
    p.rx("A")


def test_out_of_order(h):
    """RFC 5681 4.2; RFC 9293 SHLD-31, MAY-13: an ACK at once for each segment ahead of a gap, and when it is filled"""
    p, c = h.established()
    p.rx("A", seq=4, data=b"def")
    p.expect("A", ack=1)
    p.rx("A", seq=10, data=b"jkl")
    p.expect("A", ack=1)
    with fails("EAGAIN"):
        h.recv(c)
    p.rx("A", seq=1, data=b"abc")
    p.expect("A", ack=7)
    p.rx("A", seq=7, data=b"ghi")
    p.expect("A", ack=13)
    assert h.recv(c) == b"abcdefghijkl"
    assert h.counted("TcpExtTCPOFOQueue") == 2


def test_overlaps(h):
    """RFC 9293 3.10.7.4, seventh: each byte once, whichever segments it came in."""
    p, c = h.established()
    text = b"abcdefghijklmnopqrstuvwxyz"
    for a, b in [(10, 14), (12, 16), (8, 12), (9, 15), (20, 26), (18, 26), (3, 26), (10, 12), (0, 5), (0, 26)]:
        p.rx("A", seq=1 + a, data=text[a:b])
    h.frames()
    assert h.recv(c) == text


def test_copies_that_differ(h):
    """What has been delivered stays as it was; ahead of that one of the copies counts, and each place once."""
    p, c = h.established()
    p.rx("A", seq=4, data=b"DEF")
    p.rx("A", seq=5, data=b"efgh")
    p.rx("A", seq=3, data=b"cd")
    p.rx("A", seq=1, data=b"ab")
    p.rx("A", seq=1, data=b"XXXXXXXXi")
    h.frames()
    assert h.recv(c) == b"abcDEFghi"


def test_an_old_segment_is_acknowledged_again(h):
    """RFC 9293 3.10.7.4, first"""
    p, c = h.established()
    p.rx("PA", seq=1, data=b"hello")
    h.after("40ms")
    p.expect("A", ack=6)
    p.rx("PA", seq=1, data=b"hello")
    p.expect("A", ack=6)
    assert h.recv(c) == b"hello"
    with fails("EAGAIN"):
        h.recv(c)


def test_partly_old(h):
    p, c = h.established()
    p.rx("PA", seq=1, data=b"hello")
    p.rx("PA", seq=3, data=b"llo world")
    p.expect("A", ack=12)
    assert h.recv(c) == b"hello world"


def test_fin_out_of_order(h):
    p, c = h.established()
    p.rx("FA", seq=4, data=b"def")
    p.expect("A", ack=1)
    p.rx("A", seq=1, data=b"abc")
    p.expect("A", ack=8)
    assert h.recv(c) == b"abcdef"
    assert h.recv(c) == b""
    assert h.state(c) == "CLOSE-WAIT"


def test_a_bare_fin_out_of_order(h):
    p, c = h.established()
    p.rx("FA", seq=4)
    p.expect("A", ack=1)
    p.rx("A", seq=1, data=b"abc")
    p.expect("A", ack=5)
    assert (h.recv(c), h.recv(c)) == (b"abc", b"")


def test_nothing_counts_behind_a_fin(h):
    """RFC 9293 3.10.7.4, seventh: this should not occur; it is ignored, and not kept."""
    p, c = h.established()
    p.rx("A", seq=9, data=b"behind")
    p.expect("A", ack=1)
    p.rx("FA", seq=1, data=b"end")
    p.expect("A", ack=5)
    p.rx("PA", seq=5, data=b"more")
    assert (h.recv(c), h.recv(c)) == (b"end", b"")
    assert h.stack.memory()["buffers"] == 0


def test_urgent_and_unknown_flags_are_plain_data(h):
    p, c = h.established()
    p.rx("UPAEC", data=b"now")
    assert h.recv(c) == b"now"
    h.after("40ms")
    p.expect("A", ack=4)


def test_no_ack_flag_no_data(h):
    """RFC 9293 3.10.7.4, fifth: if the ACK bit is off, drop."""
    p, c = h.established()
    p.rx("P", data=b"x")
    h.after("1s").expect_nothing()
    with fails("EAGAIN"):
        h.recv(c)


# --- sending ---
def test_in_whole_segments(h):
    """RFC 9293 3.9.1.2 (MUST-61, SHLD-28): the last has PSH"""
    p, c = h.established()
    h.send(c, b"x" * 2500)
    p.expect("A", seq=1, length=1000)
    p.expect("A", seq=1001, length=1000)
    h.expect_nothing()  # Nagle: the rest is not full, and something is under way
    p.rx("A", ack=1001)
    h.expect_nothing()
    p.rx("A", ack=2001)
    p.expect("PA", seq=2001, length=500)
    p.rx("A")


def test_many_small_writes_become_few_segments(h):
    """RFC 9293 3.9.1.2 (SHLD-27, MAY-16)"""
    p, c = h.established()
    for _ in range(100):
        h.send(c, b"0123456789")
    p.expect("PA", data=b"0123456789" * 100)
    p.rx("A")


def test_nagle(h):
    """RFC 9293 3.7.4 (SHLD-7, MUST-60): one small segment at a time"""
    p, c = h.established()
    h.send(c, b"a")
    p.expect("PA", data=b"a")
    h.send(c, b"b")
    h.send(c, b"c")
    h.expect_nothing()
    p.rx("A", ack=2)
    p.expect("PA", data=b"bc")
    p.rx("A")


def test_nodelay(h):
    """RFC 9293 3.7.4 (MUST-17): the application can turn it off, also for what waits."""
    p, c = h.established()
    h.send(c, b"a")
    p.expect("PA", data=b"a")
    h.send(c, b"b")
    h.expect_nothing()
    h.set(c, TCP_NODELAY=1)
    p.expect("PA", data=b"b")
    h.send(c, b"c")
    p.expect("PA", data=b"c")
    p.rx("A")


def test_accepted_sockets_inherit(h):
    listener = h.listen(80, TCP_NODELAY=1, SO_KEEPALIVE=1, TCP_KEEPIDLE=77)
    _, c = h.established(listener)
    assert lib.sock_getopt(h.handle, c, 6, 1) == 1
    assert lib.sock_getopt(h.handle, c, 6, 4) == 77


def test_the_last_bytes_go_with_the_fin(h):
    """Nagle does not hold what a FIN follows."""
    p, c = h.established()
    h.send(c, b"a")
    p.expect("PA")
    h.send(c, b"b")
    h.shutdown(c)
    p.expect("FPA", seq=2, data=b"b")
    p.rx("A", ack=4)


def test_slow_start(h):
    """RFC 5681 3.1, RFC 6928; RFC 9293 MUST-19: ten segments, and one more for each that is acknowledged"""
    p, c = h.established()
    h.send(c, b"x" * 100_000)
    assert lengths(h) == [1000] * 10
    p.rx("A", ack=2001)
    assert lengths(h) == [1000] * 4
    p.rx("A", ack=14001)
    assert lengths(h) == [1000] * 24


def test_idle_restarts_slow(h):
    """RFC 5681 4.1: after an RTO of silence the window is the initial one again."""
    p, c = h.established()
    acked = 1
    for _ in range(2):
        h.send(c, b"x" * 20_000)
        while got := lengths(h):
            acked += sum(got)
            p.rx("A", ack=acked)
    assert h.info(c).cwnd > 20_000
    h.after("10s")
    h.send(c, b"x" * 100_000)
    assert lengths(h) == [1000] * 10


def test_no_more_than_their_window(h):
    """RFC 9293 3.8.6.2.1 (MUST-38)"""
    p, c = h.established(win=2500)
    h.send(c, b"x" * 10_000)
    assert lengths(h) == [1000, 1000]  # 500 more would be silly
    p.rx("A", ack=2001, win=2500)
    assert lengths(h) == [1000, 1000]


def test_a_small_window_is_not_silly(h):
    """RFC 9293 3.8.6.2.1 (3), MUST-38: half of the largest window that was seen is worth a segment"""
    p, c = h.established(win=800)
    h.send(c, b"x" * 10_000)
    p.expect("A", length=800)
    p.rx("A", ack=801, win=300)
    h.expect_nothing()
    p.rx("A", ack=801, win=400)
    p.expect("A", length=400)


def test_a_window_that_stays_silly_is_used_after_a_while(h):
    """RFC 9293 3.8.6.2.1 (4), MUST-38: the override time-out"""
    p, c = h.established(win=800)
    h.send(c, b"x" * 10_000)
    p.expect("A", length=800)
    p.rx("A", ack=801, win=100)
    h.after("199ms").expect_nothing()
    h.after("1ms")
    p.expect("A", length=100)


def test_window_updates_are_taken_from_newer_segments_only(h):
    """RFC 9293 3.10.7.4, fifth: SND.WL1, SND.WL2"""
    p, c = h.established(win=1000)
    p.rx("A", seq=1, data=b"ab", win=3000)
    h.send(c, b"x" * 10_000)
    assert lengths(h) == [1000] * 3
    p.rx("A", seq=1, ack=1, win=8000)  # older than the one above
    h.frames()
    assert h.info(c).tx_queue == 10_000
    p.rx("A", seq=3, ack=1, win=5000)
    assert lengths(h) == [1000] * 2


def test_a_window_that_shrinks(h):
    """RFC 9293 3.8.6 (MUST-34, SHLD-15): discouraged, but to be lived with: nothing new, and no crash"""
    p, c = h.established(win=8000)
    h.send(c, b"x" * 20_000)
    assert lengths(h) == [1000] * 8
    p.rx("A", ack=1001, win=1000)
    h.expect_nothing()
    p.rx("A", ack=8001, win=1000)
    assert lengths(h) == [1000]


# --- events and buffers ---
def test_send_takes_what_fits(harness, family):
    """Short, then EAGAIN; EV_WRITE when a third is free again."""
    h = harness(family, sndbuf=30_000)
    p, c = h.established()
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.send(c, b"x" * 100_000) == 30_000
    with fails("EAGAIN"):
        h.send(c, b"x")
    assert lengths(h) == [1000] * 10
    assert h.events() == {}
    p.rx("A", ack=9001)
    h.frames()
    assert h.events() == {}
    p.rx("A", ack=10001)
    h.frames()
    assert h.events() == {c: WRITE}
    assert h.send(c, b"x" * 100_000) == 10_000


def test_paused_reading(h):
    p, c = h.established()
    p.rx("PA", data=b"x")
    assert h.events() == {c: READ}
    check(lib.sock_want(h.handle, c, 0))
    assert h.events() == {}
    p.rx("PA", data=b"y")
    assert h.events() == {}
    check(lib.sock_want(h.handle, c, READ))
    assert h.events() == {c: READ}
    h.after("40ms")
    h.frames()


def test_bytes_are_what_was_sent(h):
    """Across buffers, segments, small and large writes"""
    random_ = random.Random(5)
    p, c = h.established()
    data = random_.randbytes(200_000)
    off, got = 0, bytearray()
    while len(got) < len(data):
        if off < len(data):
            off += h.send(c, data[off : off + random_.choice([1, 10, 999, 1000, 1001, 30_000])])
        for s in h.frames():
            tcp = s.packet[TCP]
            assert tcp.seq == (p.iss + 1 + len(got)) % 2**32
            got += payload_of(tcp)
        p.rx("A", ack=1 + len(got))
    assert bytes(got) == data


def test_bytes_are_what_was_received(h):
    random_ = random.Random(6)
    p, c = h.established()
    data, at, got = random_.randbytes(100_000), 0, bytearray()
    while at < len(data):
        n = random_.choice([1, 10, 500, 1000])
        p.rx("A", seq=1 + at, data=data[at : at + n])
        at += n
        if random_.random() < 0.3:
            got += h.recv(c, random_.choice([1, 100, 100_000]))
        h.frames()
    while len(got) < len(data):
        got += h.recv(c)
    assert bytes(got) == data
    h.after("40ms")
    h.frames()

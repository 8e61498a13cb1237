"""A peer, or somebody who pretends to be it, that means no good: RFC 5961 (blind attacks), PAWS, storms, memory."""

from __future__ import annotations

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from libos._native import lib
from libos.errors import check

from .harness import READ, WRITE, fails
from .packets import OUR_MAC, PEER_MAC


@pytest.mark.parametrize("seq", [2, 100, 60_000])
def test_a_reset_in_the_window_is_challenged(h, seq):
    """RFC 5961 3.2: only the exact number resets"""
    p, c = h.established()
    p.rx("R", seq=seq)
    p.expect("A", seq=1, ack=1)
    assert h.state(c) == "ESTABLISHED"
    assert h.counted("TcpExtTCPChallengeACK") == 1


@pytest.mark.parametrize("seq", [0, -1, 70_000_000])
def test_a_reset_outside_the_window_is_dropped(h, seq):
    """RFC 9293 3.10.7.4, first: and a RST is not acknowledged"""
    p, c = h.established()
    p.rx("R", seq=seq)
    h.expect_nothing()
    assert h.state(c) == "ESTABLISHED"


@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize("seq", [1, 100])
def test_a_syn_in_the_window_is_challenged(h, flags, seq):
    """RFC 5961 4.2"""
    p, c = h.established()
    p.rx(flags, seq=seq)
    p.expect("A", seq=1, ack=1)
    assert h.state(c) == "ESTABLISHED"
    assert h.counted("TcpExtTCPChallengeACK") == 1


def test_a_peer_that_restarted_gets_through(h):
    """RFC 5961 4.2: the challenge makes it send the RST with the exact number"""
    p, c = h.established()
    p.rx("S", seq=5000)
    tcp = p.expect("A", seq=1, ack=1)
    p.rx("R", seq=tcp.ack - p.isn)
    assert h.error(c) == "ECONNRESET"


@pytest.mark.parametrize("ack", [2, 1000, -70_000])
def test_an_ack_of_what_was_never_sent_is_challenged(h, ack):
    """RFC 5961 5.2; RFC 9293 MAY-12: the data with it is not taken"""
    p, c = h.established()
    p.rx("PA", data=b"forged", ack=ack)
    p.expect("A", seq=1, ack=1)
    with fails("EAGAIN"):
        h.recv(c)


def test_an_old_ack_within_the_window_is_harmless(h):
    p, c = h.established()
    h.send(c, b"abc")
    p.expect("PA")
    p.rx("A", ack=4)
    p.rx("PA", ack=1, data=b"late")
    assert h.recv(c) == b"late"
    h.after("40ms")
    p.expect("A", ack=5)


def test_challenges_are_limited(h):
    """RFC 5961 7: some hundred a second over all, but not a number that one could count on (CVE-2016-5696)"""
    listener = h.listen(80, backlog=200)
    peers = [h.established(listener, port=1000 + i)[0] for i in range(180)]
    resets = [bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / p.segment("R", seq=100)) for p in peers]
    numbers = []
    for second in range(1, 5):
        h.at(f"{second}s")
        for reset in resets:
            h.inject(reset)
            h.stack.run(h.now)
        numbers.append(len(h.frames()))
    assert all(50 <= n < 150 for n in numbers)
    assert len(set(numbers)) > 1
    assert h.counted("TcpExtTCPACKSkippedChallenge") == 4 * 180 - sum(numbers)


def test_challenges_of_one_connection_are_limited(h):
    """RFC 5961 7: so that nobody finds another's connections by what is left of the limit over all"""
    p, _ = h.established()
    answered = 0
    for i in range(100):
        h.at(f"{i * 10}ms")
        p.rx("R", seq=100)
        answered += len(h.frames())
    assert answered == 2
    assert h.counted("TcpExtTCPACKSkippedChallenge") == 98


def test_no_storm_of_acks(h):
    """Two ends that have lost each other: an empty segment outside the window is answered, but not each"""
    p, _ = h.established()
    answered = 0
    for i in range(100):
        h.at(f"{i * 10}ms")
        p.rx("A", seq=-1000)
        answered += len(h.frames())
    assert answered == 2
    assert h.counted("TcpExtTCPACKSkippedSeq") == 98


def test_stray_data_is_always_answered(h):
    """It may be that our ACK was lost."""
    p, _ = h.established()
    p.rx("PA", data=b"x")
    h.after("40ms")
    p.expect("A")
    for _ in range(5):
        p.rx("PA", seq=1, data=b"x")
        p.expect("A", ack=2)


def test_paws(h):
    """RFC 7323 5.3 R1: an older timestamp is acknowledged and dropped"""
    p, c = h.established(ts=1000)
    p.rx("PA", data=b"new", ts=2000)
    h.after("40ms")
    p.expect("A", ts=(None, 2000))
    p.rx("PA", data=b"old", ts=1999)
    p.expect("A", ack=4)
    assert h.recv(c) == b"new"
    with fails("EAGAIN"):
        h.recv(c)
    assert h.counted("TcpExtPAWSEstab") == 1


def test_paws_wraps(h):
    """RFC 7323 5.2: modulo 2^32"""
    p, c = h.established(ts=2**32 - 10)
    p.rx("PA", data=b"new", ts=5)
    assert h.recv(c) == b"new"
    h.after("40ms")
    p.expect("A", ts=(None, 5))


def test_paws_after_24_days(h):
    """RFC 7323 5.5: the clock may have gone once round"""
    p, c = h.established(ts=1000)
    h.after(f"{25 * 24 * 3600}s")
    p.rx("PA", data=b"long ago", ts=900)
    assert h.recv(c) == b"long ago"
    h.after("40ms")
    p.expect("A", ts=(None, 900))


def test_paws_on_a_machine_that_is_up_for_long(h):
    """The SYN's timestamp counts from when it came."""
    h.at(f"{25 * 24 * 3600}s")
    p, c = h.established(ts=1000)
    p.rx("PA", data=b"old", ts=999)
    p.expect("A", ack=1)
    with fails("EAGAIN"):
        h.recv(c)


def test_a_reset_needs_no_timestamp(h):
    """RFC 7323 5.2"""
    p, c = h.established(ts=1000)
    p.ts = None
    p.rx("R", seq=1)
    assert h.error(c) == "ECONNRESET"


def test_without_the_timestamp_that_was_agreed_on(h):
    """RFC 7323 3.2: dropped"""
    p, c = h.established(ts=1000)
    p.ts = None
    p.rx("PA", data=b"x")
    h.after("1s").expect_nothing()
    with fails("EAGAIN"):
        h.recv(c)


def test_a_forged_timestamp_does_not_shut_the_peer_out(h):
    """In the window, but with an ACK that cannot be: its timestamp is not remembered."""
    p, c = h.established(ts=1000)
    p.rx("PA", data=b"forged", ack=-2_000_000_000, ts=2**31 + 900)
    h.frames()
    p.rx("PA", seq=1, data=b"real", ts=1001)
    assert h.recv(c) == b"real"
    h.after("40ms")
    p.expect("A", ts=(None, 1001))


def test_a_timestamp_out_of_order_is_not_echoed(h):
    """RFC 7323 4.3: TSecr is of the segment that moved the window, not of one behind a hole"""
    p, _ = h.established(ts=1000)
    p.rx("A", seq=11, data=b"behind", ts=1005)
    p.expect("A", ack=1, ts=(None, 1000))
    p.rx("A", seq=1, data=b"0123456789", ts=1003)
    p.expect("A", ack=17, ts=(None, 1003))


def test_tiny_segments_out_of_order_are_bounded(harness, family):
    """Each may hold a large buffer: what they hold is bounded, not what they say."""
    h = harness(family, rcvbuf=65536, memory=4 << 20)
    p, c = h.established()
    for at in range(3, 1001, 2):
        h.inject(p.segment("A", seq=at, data=b"x"))
    assert h.counted("TcpExtTCPOFODrop") > 0
    h.frames()
    assert h.stack.memory()["in_use"] <= 3 * 65536
    p.rx("R", seq=1)
    assert h.error(c) == "ECONNRESET"
    assert h.stack.memory()["buffers"] == 0


def test_small_segments_in_order_share_buffers(harness, family):
    h = harness(family)
    p, c = h.established()
    for _ in range(500):
        h.inject(p.segment("A", data=b"x"))
    assert h.stack.memory()["in_use"] < 5000
    assert h.recv(c) == b"x" * 500
    h.after("1s")
    h.frames()


# --- the cap on memory ---


def test_memory_that_is_full_refuses_and_recovers(harness, family):
    """Data is not acknowledged, sends are short; headers still find room; all is well when it is read."""
    h = harness(family, memory=256 << 10, rcvbuf=4 << 20, sndbuf=4 << 20)
    h.meet()
    p, c = h.established(ws=7)  # so that all of the window is told before memory is short
    at = 0
    while h.counted("TcpExtTCPRcvQDrop") == 0:
        p.rx("A", seq=1 + at, data=b"x" * 1000)
        at += 1000
        assert at < 1_000_000
        h.frames()
    stuck = at - 1000
    with fails("EAGAIN"):
        while True:
            h.send(c, b"y" * 10_000)
    assert h.counted("TcpExtTCPMemoryPressures") > 0
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.events() == {c: READ}  # its queue has room, but it would be in vain
    p.rx("R", seq=stuck + 500)  # still answers: a challenge
    assert len(h.frames()) >= 1
    assert len(h.recv(c)) == stuck
    h.frames()
    assert h.events() == {c: WRITE}
    p.rx("A", seq=1 + stuck, data=b"x" * 1000)
    assert h.recv(c) == b"x" * 1000
    assert h.send(c, b"y" * 1000) == 1000
    h.after("40ms")
    h.frames()
    assert h.stack.memory()["in_use"] <= h.stack.memory()["limit"]


def test_small_packets_do_not_take_the_place_of_large_ones_for_ever(harness):
    """What is carved stays carved, but no size gets it all."""
    h = harness(4, memory=1 << 20)
    h.meet()
    sockets = [h.open(2) for _ in range(8)]
    for i, u in enumerate(sockets):
        h.bind(u, 100 + i)
    for i in range(8):
        raw = bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / h.ip() / UDP(sport=1, dport=100 + i) / b"x")
        for _ in range(1000):
            try:
                h.link.inject(raw, h.now)
            except OSError:
                break
    for u in sockets:
        h.free(u)
    assert h.stack.memory()["buffers"] == 0
    p, c = h.established()
    p.rx("PA", data=b"x" * 1400)
    assert len(h.recv(c)) == 1400
    assert h.send(c, b"y" * 60_000) == 60_000
    assert len(h.frames()) == 10


@pytest.mark.parametrize("memory", [4096, 16384, 65536, 131072])
def test_almost_no_memory(harness, family, memory):
    """Too little to work with: everything is refused, nothing breaks."""
    h = harness(family, memory=memory)
    u = h.open(2)
    h.listen(80)
    p = h.peer()
    for i in range(50):
        try:
            p.rx("S", seq=i)
        except OSError as exc:
            assert exc.errno == 105  # noqa: PT017 (ENOBUFS, or none)
        try:
            h.sendto(u, b"x" * 1000, h.their, 7)
        except OSError as exc:
            assert exc.errno == 105  # noqa: PT017
    h.at("1s")
    h.frames()
    h.at("200s")
    h.frames()


def test_no_more_sockets_than_configured(harness, family):
    h = harness(family, sockets=8)
    ids = [h.open() for _ in range(8)]
    with fails("EMFILE"):
        h.open()
    h.free(ids[0])
    h.states()
    h.open()


def test_a_full_queue_of_the_link_drops(harness, family):
    """Counted, and sent again by those who need it."""
    h = harness(family, queue=2)
    h.meet()
    p, c = h.established()
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 2
    assert h.link.stats()["tx_dropped"] == 3
    p.rx("A", ack=2001)
    while h.info(c).tx_queue:
        h.after("200ms")
        for s in h.frames():
            p.seen = max(p.seen, (s.packet["TCP"].seq - p.iss) % 2**32 + len(s.packet["Raw"].load))
        p.rx("A")
    assert p.seen == 5001

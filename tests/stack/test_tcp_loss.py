"""What is lost: retransmission (RFC 6298), fast retransmit and New Reno (RFC 5681, 6582), path MTU, keepalive."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig

from libos.net.stack import Link

from .harness import START
from .packets import payload_of


def sent(h, p):
    """(relative sequence number, length) of what left just now."""
    return [((s.packet[TCP].seq - p.iss + 2**31) % 2**32 - 2**31, len(payload_of(s.packet[TCP]))) for s in h.frames()]


# --- time-outs ---


def test_retransmission_backs_off(h):
    """RFC 6298 5.5, 5.6; RFC 9293 3.8.3 (MUST-20, SHLD-11, MUST-19): doubling, to 120 s at most; then ETIMEDOUT"""
    p, c = h.established()
    h.at("1s")
    h.send(c, b"hello")
    p.expect("PA", seq=1)
    at, wait = 1.0, 0.2  # the handshake took no time here, so RTO is its minimum
    for _ in range(15):
        at += wait
        h.at(f"{at:.6f}s")
        p.expect("PA", seq=1, data=b"hello")
        wait = min(wait * 2, 120)
    h.at(f"{at + wait - 0.001:.6f}s").expect_nothing()
    assert h.state(c) == "ESTABLISHED"
    h.at(f"{at + wait:.6f}s")
    assert h.error(c) == "ETIMEDOUT"
    assert h.state(c) == "CLOSED"
    assert h.counted("TcpExtTCPTimeouts") == 15
    assert h.counted("TcpRetransSegs") == 15
    assert h.counted("TcpExtTCPAbortOnTimeout") == 1


def test_the_first_sample(h):
    """RFC 6298 2.2; RFC 9293 MUST-18: SRTT is R, RTTVAR is R/2, RTO is SRTT + 4 RTTVAR"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    h.at("100ms")
    p.rx("SA", seq=0, ack=1)
    p.expect("A")
    info = h.info(c)
    assert (info.srtt, info.rttvar, info.rto) == (100_000_000, 50_000_000, 300_000_000)


def test_the_next_samples(h):
    """RFC 6298 2.3"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    h.at("100ms")
    p.rx("SA", seq=0, ack=1)
    p.expect("A")
    h.send(c, b"x")
    p.expect("PA")
    h.after("180ms")
    p.rx("A")
    info = h.info(c)
    assert info.rttvar == 50_000_000 * 3 // 4 + 80_000_000 // 4
    assert info.srtt == 100_000_000 * 7 // 8 + 180_000_000 // 8


def test_karn(h):
    """RFC 6298 3; RFC 9293 MUST-18: no sample from what was sent twice"""
    p, c = h.connected()
    h.at("1s")
    h.send(c, b"x")
    p.expect("PA")
    before = h.info(c)
    h.after(before.rto)
    p.expect("PA")
    h.after("50ms")
    p.rx("A")
    after = h.info(c)
    assert (after.srtt, after.rttvar) == (before.srtt, before.rttvar)
    h.send(c, b"y")
    p.expect("PA")
    h.after("50ms")
    p.rx("A")
    assert h.info(c).srtt != before.srtt


def test_timestamps_tell_which_copy_was_heard(h):
    """RFC 7323 4.1: with TSecr a retransmitted segment can be timed"""
    p, c = h.connected(ts=1)
    h.at("1s")
    h.send(c, b"x")
    p.expect("PA")
    h.after("200ms")
    p.expect("PA")
    h.after("120ms")
    p.rx("A")  # echoes the second copy
    assert h.info(c).srtt == 15_000_001  # 7/8 of the handshake, which took no time, and 1/8 of 120 ms


@pytest.mark.parametrize("echo", [2**31, 1, 2**31 - 1, -401, -1000])
def test_an_absurd_echo_is_no_sample(h, echo):
    p, c = h.connected(ts=1)
    h.send(c, b"x")
    p.expect("PA")
    h.after("200ms")
    p.expect("PA")
    before = h.info(c)
    p.rx("A", ts=(2, (p.ts_echo + echo) % 2**32))
    after = h.info(c)
    assert (after.srtt, after.rto) == (before.srtt, before.rto)


def test_an_echo_from_before_the_first_copy_is_no_sample(h):
    """RFC 6298 3: nor when all that was sent again is a tail loss probe, for which no window was cut"""
    p, c = h.connected(ts=1, sack=True)
    syn = p.ts_echo
    h.at("10s")
    h.send(c, b"x" * 1976)
    p.expect("A", length=988)
    p.expect("PA", length=988)
    h.after("10ms")
    p.expect("PA", seq=989)
    assert h.counted("TcpExtTCPLossProbes") == 1
    before = h.info(c)
    p.rx("A", ack=1977, ts=(2, syn))
    after = h.info(c)
    assert (after.srtt, after.rto) == (before.srtt, before.rto)


def test_an_ack_restarts_the_timer(h):
    """RFC 6298 5.3"""
    p, c = h.established()
    h.send(c, b"x" * 3000)
    assert sent(h, p) == [(1, 1000), (1001, 1000), (2001, 1000)]
    h.at("150ms")
    p.rx("A", ack=1001)
    h.at("349ms").expect_nothing()
    h.at("350ms")
    p.expect("A", seq=1001, length=1000)


def test_after_a_timeout_slow_start_from_one(harness, family):
    """RFC 5681 3.1; RFC 9293 MUST-19: cwnd is one segment, ssthresh half of what was under way"""
    h = harness(family, congestion="reno")
    p, c = h.established()
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    h.after("200ms")
    assert sent(h, p) == [(1, 1000)]
    assert (h.info(c).cwnd, h.info(c).ssthresh) == (1000, 5000)
    p.rx("A", ack=1001)
    assert sent(h, p) == [(10_001, 1000), (11_001, 1000)]  # RFC 5682 2.1 step 2b: was it lost at all?
    p.rx("A", ack=1001)  # step 3a: it was
    assert sent(h, p) == [(1001, 1000), (2001, 1000)]
    p.rx("A", ack=10_001)  # the others had arrived
    got = sent(h, p)
    assert got[0] == (12_001, 1000)
    assert h.info(c).cwnd >= 3000


def test_backoff_ends_with_an_ack(h):
    """RFC 6298 5.7 (in short): new data acknowledged, plain RTO again"""
    p, c = h.established()
    h.send(c, b"x")
    p.expect("PA")
    for wait in ("200ms", "400ms", "800ms"):
        h.after(wait)
        p.expect("PA", seq=1)
    p.rx("A", ack=2)
    h.send(c, b"y")
    p.expect("PA", seq=2)
    h.after("199ms").expect_nothing()
    h.after("1ms")
    p.expect("PA", seq=2)
    p.rx("A", ack=3)


def test_a_lost_fin_is_sent_again(h):
    p, c = h.established()
    h.free(c)
    p.expect("FA", seq=1)
    h.after("200ms")
    p.expect("FA", seq=1)
    h.after("400ms")
    p.expect("FA", seq=1)
    p.rx("FA", ack=2)
    p.expect("A", seq=2, ack=2)


def test_data_and_fin_lost(h):
    p, c = h.established()
    h.send(c, b"last words")
    h.free(c)
    p.expect("FPA", seq=1, data=b"last words")
    h.after("200ms")
    p.expect("FPA", seq=1, data=b"last words")
    p.rx("A", ack=12)
    assert h.states() == ["FIN-WAIT-2"]


def test_an_orphan_is_given_up_sooner(h):
    """Eight time-outs: nobody waits for it any more."""
    _, c = h.established()
    h.send(c, b"x")
    h.free(c)
    h.after("103s")
    h.frames()
    assert h.states() == []
    assert h.stack.memory()["buffers"] == 0


# --- fast retransmit ---


def test_three_duplicates_are_a_loss(harness, family):
    """RFC 5681 3.2: ssthresh is half of the flight; RFC 3042: the first two each let a new segment go;
    RFC 6937 3.1: then nothing goes until half has arrived"""
    h = harness(family, congestion="reno")
    p, c = h.established()
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    p.rx("A", ack=1)
    p.expect("A", seq=10_001, length=1000)
    p.rx("A", ack=1)
    p.expect("A", seq=11_001, length=1000)
    p.rx("A", ack=1)
    p.expect("A", seq=1, length=1000)
    h.expect_nothing()
    assert h.info(c).ssthresh == 6000
    p.rx("A", ack=1)
    p.rx("A", ack=1)
    h.expect_nothing()
    p.rx("A", ack=1)  # half of what was under way is: from here on one for one
    h.expect_nothing()
    p.rx("A", ack=1)
    p.expect("A", seq=12_001, length=1000)
    h.expect_nothing()
    p.rx("A", ack=13_001)
    assert h.info(c).cwnd == 6000
    assert h.counted("TcpExtTCPFastRetrans") == 1
    h.frames()


def test_partial_acks_repair_hole_after_hole(h):
    """RFC 6582 3.2 step 3: what a partial ACK stops at is lost, too"""
    p, c = h.established()
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    for _ in range(3):
        p.rx("A", ack=1)
    p.expect("A", seq=1, length=1000)
    p.rx("A", ack=3001)
    p.expect("A", seq=3001, length=1000)
    p.rx("A", ack=7001)
    p.expect("A", seq=7001, length=1000)
    h.expect_nothing()
    p.rx("A", ack=10_001)
    h.expect_nothing()
    assert h.counted("TcpExtTCPTimeouts") == 0
    assert h.counted("TcpRetransSegs") == 3


def test_what_is_no_duplicate(h):
    """RFC 5681 2: with data, with another window, or with nothing under way it is none"""
    p, c = h.established()
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 5
    for _ in range(4):
        p.rx("A", ack=1, data=b"d")
        h.frames()
    for i in range(4):
        p.rx("A", ack=1, win=60_000 + i)
    h.expect_nothing()
    p.rx("A", ack=5001)
    for _ in range(4):
        p.rx("A", ack=5001)
    h.expect_nothing()
    assert h.counted("TcpExtTCPFastRetrans") == 0


def test_not_twice_for_one_window(h):
    """RFC 6582 3.2 step 2, 4: duplicates of what was sent before a time-out begin no recovery"""
    p, c = h.established()
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    h.after("200ms")
    assert sent(h, p) == [(1, 1000)]
    for _ in range(5):
        p.rx("A", ack=1)
    assert sent(h, p) == []
    assert h.counted("TcpExtTCPFastRetrans") == 0
    p.rx("A", ack=10_001)
    h.frames()


def test_the_retransmission_is_lost_too(h):
    """RFC 5681 3.2: then the timer has it"""
    p, c = h.established()
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    for _ in range(3):
        p.rx("A", ack=1)
    p.expect("A", seq=1, length=1000)
    h.after("200ms")
    p.expect("A", seq=1, length=1000)
    p.rx("A", ack=10_001)


# --- path MTU ---


def too_big(h, mtu, inner):
    if h.family == 4:
        return h.ip(src="10.0.0.254") / ICMP(type=3, code=4, nexthopmtu=mtu) / inner[:28]
    return h.ip(src="fd00::fe") / ICMPv6PacketTooBig(mtu=mtu) / inner[:1232]


def test_path_mtu(h):
    """RFC 1191 6.4, RFC 8201 4: what was too big is sent again in smaller segments"""
    p, c = h.established(mss=1400)
    h.send(c, b"x" * 2800)
    packets = [s.packet for s in h.frames()]
    assert [len(payload_of(q[TCP])) for q in packets] == [1400, 1400]
    h.inject(too_big(h, 1300, bytes(packets[0].payload)))
    mss = 1300 - (40 if h.family == 4 else 60)
    assert sent(h, p) == [(1, mss), (1 + mss, mss), (1 + 2 * mss, 2800 - 2 * mss)]
    assert h.info(c).mss == mss
    p.rx("A", ack=2801)


@pytest.mark.parametrize("mtu", [68, 100, 551])
def test_path_mtu_has_a_floor(h, mtu):
    """RFC 1191 7.1 (552), RFC 8201 4 (1280): less than that is an attack"""
    p, c = h.established(mss=1400)
    h.send(c, b"x" * 1400)
    packet = h.expect_packet()
    h.inject(too_big(h, mtu, bytes(packet.payload)))
    assert h.info(c).mss == (552 - 40 if h.family == 4 else 1280 - 60)
    sizes = [n for _, n in sent(h, p)]
    assert max(sizes) == h.info(c).mss
    assert sum(sizes) == 1400
    p.rx("A", ack=1401)


def test_path_mtu_does_not_grow(h):
    p, c = h.established(mss=1400)
    h.send(c, b"x" * 1400)
    packet = h.expect_packet()
    h.inject(too_big(h, 9000, bytes(packet.payload)))
    h.expect_nothing()
    assert h.info(c).mss == 1400
    p.rx("A", ack=1401)


def test_path_mtu_of_an_old_segment(h):
    """RFC 5927 4.1: it must be about what is under way"""
    p, c = h.established(mss=1400)
    h.send(c, b"x" * 1400)
    packet = h.expect_packet()
    p.rx("A", ack=1401)
    h.inject(too_big(h, 1300, bytes(packet.payload)))
    assert h.info(c).mss == 1400


def test_path_mtu_with_tso(harness, family):
    h = harness(family, caps=Link.CSUM | Link.TSO)
    p, c = h.established(mss=1400)
    h.send(c, b"x" * 14_000)
    first = h.frames()
    assert [s.gso for s in first] == [1400]
    h.inject(too_big(h, 1300, bytes(first[0].packet.payload)))
    frames = h.frames()
    mss = 1300 - (40 if family == 4 else 60)
    assert [(s.gso, len(payload_of(s.packet[TCP]))) for s in frames] == [(mss, 11 * mss), (0, 14_000 - 11 * mss)]
    p.rx("A", ack=14_001)


# --- keepalive ---


def test_keepalive(h):
    """RFC 9293 3.8.4 (MUST-27, MUST-29, SHLD-12, MAY-5): questions after a silence; an answer, and it begins anew"""
    p, c = h.established(SO_KEEPALIVE=1, TCP_KEEPIDLE=10, TCP_KEEPINTVL=2, TCP_KEEPCNT=3)
    h.at("9.999s").expect_nothing()
    h.at("10s")
    p.expect("A", seq=0, length=0)
    p.rx("A", seq=1, ack=1)
    for second in (20, 22, 24):
        h.at(f"{second}s")
        p.expect("A", seq=0, length=0)
    h.at("25.999s").expect_nothing()
    h.at("26s")
    assert h.error(c) == "ETIMEDOUT"
    assert h.counted("TcpExtTCPKeepAlive") == 4


def test_their_keepalive_is_answered(h):
    """RFC 9293 3.8.4: a segment in front of the window"""
    p, _ = h.established()
    h.at("60s")
    p.rx("A", seq=0)
    p.expect("A", seq=1, ack=1)
    h.at("120s")
    p.rx("A", seq=0, data=b"\0")
    p.expect("A", seq=1, ack=1)


def test_keepalive_waits_for_what_is_under_way(h):
    """RFC 9293 3.8.4 (MUST-26): only when nothing is outstanding"""
    p, c = h.established(SO_KEEPALIVE=1, TCP_KEEPIDLE=5, TCP_KEEPINTVL=1, TCP_KEEPCNT=2)
    h.send(c, b"x")
    p.expect("PA", seq=1)
    h.at("60s")
    assert all(seq == 1 for seq, _ in sent(h, p))
    assert h.counted("TcpExtTCPKeepAlive") == 0
    p.rx("A", ack=2)
    assert h.state(c) == "ESTABLISHED"


def test_turned_off_again(h):
    """RFC 9293 3.8.4 (MUST-24)"""
    p, c = h.established(SO_KEEPALIVE=1, TCP_KEEPIDLE=10)
    h.set(c, SO_KEEPALIVE=0)
    h.at("100s")
    p.expect_nothing()


def test_the_clock_that_goes_back_is_not_believed(h):
    """Time that is told must not go back; where it does, nothing is measured with it."""
    p, c = h.established()
    h.at("1s")
    h.send(c, b"x")
    p.expect("PA")
    h.link.inject(bytes(h.frames() and b"") or b"\0" * 60, START)  # a frame with an old time
    h.stack.run(START)
    p.rx("A")
    assert h.info(c).rto < 2_000_000_000
    assert h.info(c).srtt < 1_000_000_000

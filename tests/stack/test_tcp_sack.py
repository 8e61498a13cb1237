"""Selective acknowledgement: RFC 2018, D-SACK (RFC 2883), and what a sender makes of them (RFC 8985, 6937, 3042)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from .packets import payload_of
from .test_tcp_loss import sent

RTT = "40ms"


def ready(h, *, ts=None, mss=1000, **options):
    """A connection of ours with SACK, its round trip known to take 40 ms."""
    c = h.connect(80, local_port=50_000, **options)
    p = h.peer(port=80, to=50_000)
    p.expect("S", seq=0)
    h.after(RTT)
    p.rx("SA", seq=0, ack=1, mss=mss, ts=ts, sack=True)
    p.expect("A", seq=1, ack=1)
    return p, c


# --- what is offered and told ---


def test_sack_is_offered_and_agreed(h):
    """RFC 2018 2: in a SYN"""
    c = h.connect(80, local_port=50_000)
    p = h.peer(port=80, to=50_000)
    tcp = p.expect("S")
    assert ("SAckOK", b"") in tcp.options
    p.rx("SA", seq=0, ack=1, sack=True)
    p.expect("A")
    p.rx("A", seq=101, data=b"x" * 100)
    p.expect("A", ack=1, sack=[(101, 201)])
    h.free(c)
    h.frames()


def test_no_sack_unless_offered(h):
    """RFC 2018 2: MUST NOT be sent to a peer that did not say so"""
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, mss=1000)
    tcp = p.expect("SA")
    assert ("SAckOK", b"") not in tcp.options
    p.rx("A", seq=1, ack=1)
    p.rx("A", seq=101, ack=1, data=b"x" * 100)
    p.expect("A", ack=1, sack=[])


def test_the_newest_block_is_first(h):
    """RFC 2018 4: the block with the segment that caused the ACK; then those told most recently"""
    p, _ = h.established(sack=True)
    p.rx("A", seq=1001, data=b"b" * 1000)
    p.expect("A", ack=1, sack=[(1001, 2001)])
    p.rx("A", seq=3001, data=b"d" * 1000)
    p.expect("A", ack=1, sack=[(3001, 4001), (1001, 2001)])
    p.rx("A", seq=5001, data=b"f" * 1000)
    p.expect("A", ack=1, sack=[(5001, 6001), (3001, 4001), (1001, 2001)])
    p.rx("A", seq=2001, data=b"c" * 1000)  # joins two
    p.expect("A", ack=1, sack=[(1001, 4001), (5001, 6001)])
    p.rx("A", seq=1, data=b"a" * 1000)
    p.expect("A", ack=4001, sack=[(5001, 6001)])
    p.rx("A", seq=4001, data=b"e" * 1000)
    p.expect("A", ack=6001, sack=[])


def test_a_fin_out_of_order_is_in_a_block(h):
    """RFC 2018 3: a FIN has a number of its own, and no block is empty"""
    p, _ = h.established(sack=True)
    p.rx("FA", seq=1001)
    p.expect("A", ack=1, sack=[(1001, 1002)])
    p.rx("A", seq=1, data=b"a" * 1000)
    p.expect("A", ack=1002, sack=[])


def test_at_most_four_blocks(h):
    """RFC 2018 3: four, or three beside a timestamp"""
    p, _ = h.established(sack=True)
    for i in range(6):
        p.rx("A", seq=101 + 200 * i, data=b"x" * 100)
        tcp = p.expect("A", ack=1)
    assert p._blocks(tcp) == [(1101, 1201), (901, 1001), (701, 801), (501, 601)]
    p, _ = h.established(sack=True, ts=1, port=40_001)
    for i in range(6):
        p.rx("A", seq=101 + 200 * i, data=b"x" * 100)
        tcp = p.expect("A", ack=1)
    assert p._blocks(tcp) == [(1101, 1201), (901, 1001), (701, 801)]


def test_data_goes_with_blocks(h):
    """RFC 9293 3.7.1, MUST-16: options take their room from the segment"""
    p, c = h.established(sack=True, ts=1)
    p.rx("A", seq=1001, data=b"x")
    p.expect("A", sack=[(1001, 1002)])
    h.send(c, b"y" * 3000)
    assert {n for _, n in sent(h, p)[:2]} == {1000 - 12 - 12}
    h.frames()


# --- D-SACK ---


def test_dsack_for_an_old_segment(h):
    """RFC 2883 4: a duplicate of what was acknowledged is told of once, below the ACK"""
    p, _ = h.established(sack=True)
    p.rx("PA", seq=1, data=b"a" * 500)
    h.after("100ms")
    h.frames()
    p.rx("PA", seq=1, data=b"a" * 500)
    p.expect("A", ack=501, sack=[(1, 501)])
    p.rx("PA", seq=501, data=b"b")
    h.after("40ms")
    p.expect("A", ack=502, sack=[])
    assert h.counted("TcpExtTCPDSACKOldSent") == 1


def test_dsack_for_a_part(h):
    """RFC 2883 4.1.1: only the part that came twice"""
    p, _ = h.established(sack=True)
    p.rx("PA", seq=1, data=b"a" * 500)
    h.after("100ms")
    h.frames()
    p.rx("PA", seq=301, data=b"a" * 400)
    p.expect("A", ack=701, sack=[(301, 501)])


def test_dsack_within_a_block(h):
    """RFC 2883 4.1.2: out of order, and twice: the duplicate first, then the block that holds it"""
    p, _ = h.established(sack=True)
    p.rx("A", seq=1001, data=b"b" * 1000)
    p.expect("A", ack=1, sack=[(1001, 2001)])
    p.rx("A", seq=1001, data=b"b" * 1000)
    p.expect("A", ack=1, sack=[(1001, 2001), (1001, 2001)])
    assert h.counted("TcpExtTCPDSACKOfoSent") == 1


# --- the sender ---


def test_limited_transmit(h):
    """RFC 3042 2: each of the first two duplicates lets a new segment go"""
    p, c = ready(h)
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    h.after("10ms")
    p.rx("A", ack=1, sack=[(1001, 2001)])
    p.expect("A", seq=10_001, length=1000)
    p.rx("A", ack=1, sack=[(1001, 3001)])
    p.expect("A", seq=11_001, length=1000)
    h.expect_nothing()
    assert h.counted("TcpRetransSegs") == 0


def test_three_sacked_segments_are_a_loss(h):
    """RFC 8985 6.2 step 4: while no reordering was seen, three of them count at once"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 4001)])
    p.expect("A", seq=1, length=1000)
    h.expect_nothing()
    assert h.counted("TcpExtTCPSackRecovery") == 1
    p.rx("A", ack=10_001)
    assert h.info(c).cwnd == h.info(c).ssthresh


def test_only_holes_are_sent_again(h):
    """RFC 2018 5, RFC 6675 5: what is SACKed is not"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=1, sack=[(7001, 10_001), (1001, 3001), (4001, 6001)])
    got = sent(h, p)
    assert got[0] == (1, 1000)
    p.rx("A", ack=3001, sack=[(4001, 6001), (7001, 10_001)])
    got += sent(h, p)
    p.rx("A", ack=6001, sack=[(7001, 10_001)])
    got += sent(h, p)
    assert got == [(1, 1000), (3001, 1000), (6001, 1000)]
    p.rx("A", ack=10_001)
    assert h.counted("TcpRetransSegs") == 3
    assert h.counted("TcpExtTCPTimeouts") == 0


def test_a_quarter_of_the_round_trip_for_reordering(h):
    """RFC 8985 6.2 step 4, 5: fewer than three are given min_RTT/4 more"""
    p, c = ready(h)
    h.send(c, b"x" * 3000)
    assert len(h.frames()) == 3
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 2001)])
    h.expect_nothing()
    h.after("9.9ms").expect_nothing()
    h.after("100us")
    p.expect("A", seq=1, length=1000)
    p.rx("A", ack=3001)


def test_reordering_widens_the_window(h):
    """RFC 8985 6.2 step 3: once seen, three SACKed segments are no loss by themselves"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 2001)])
    p.rx("A", ack=2001)  # the first was only late
    assert h.counted("TcpExtTCPSACKReorder") == 1
    p.rx("A", ack=2001, sack=[(3001, 7001)])
    h.expect_nothing()
    h.after("9.9ms").expect_nothing()
    h.after("100us")
    p.expect("A", seq=2001, length=1000)
    p.rx("A", ack=10_001)


def test_a_lost_retransmission_is_found(h):
    """RFC 8985 6.2: by time, without waiting for the timer"""
    p, c = ready(h)
    h.send(c, b"x" * 50_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 4001)])
    p.expect("A", seq=1, length=1000)
    h.after("1ms")
    p.rx("A", ack=1, sack=[(1001, 10_001)])
    new = sent(h, p)
    assert new, "and new data goes on"
    assert new[0] == (10_001, 1000)
    h.after(RTT)  # what was sent after the retransmission arrives, it does not
    p.rx("A", ack=1, sack=[(1001, 11_001)])
    assert (1, 1000) in sent(h, p)
    assert h.counted("TcpExtTCPLostRetransmit") == 1
    assert h.counted("TcpExtTCPTimeouts") == 0
    p.rx("A", ack=p.seen)
    h.frames()


def test_proportional_rate_reduction(harness, family):
    """RFC 6937 3.1: over the round trip as much is sent as ssthresh / RecoverFS of what arrives"""
    h = harness(family, congestion="reno")
    p, c = ready(h)
    h.send(c, b"x" * 100_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=5001)
    p.rx("A", ack=10_001)
    assert len(h.frames()) == 20
    h.after(RTT)
    out = []
    for n in range(1, 20):  # the first of the twenty is lost, the rest arrive one by one
        p.rx("A", ack=10_001, sack=[(11_001, 11_001 + 1000 * n)])
        out.append(len(h.frames()))
    ssthresh = h.info(c).ssthresh // 1000
    assert sum(out[:2]) == 2  # limited transmit
    assert abs(sum(out) - 2 - 17 * ssthresh // 22) <= 1
    assert max(out) <= 2
    p.rx("A", ack=p.seen)
    assert h.info(c).cwnd == h.info(c).ssthresh
    h.frames()


def test_sack_of_what_was_never_sent(h):
    """RFC 2018 4: blocks beyond snd_max or below snd_una mean nothing; nor do turned ones"""
    p, c = ready(h)
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 5
    h.after("10ms")
    for block in ((5001, 9001), (4001, 900_001), (3001, 2001), (2001, 2001), (-5000, -1000)):
        p.rx("A", ack=1, sack=[block])
    h.expect_nothing()
    p.rx("A", ack=5001)
    assert h.counted("TcpRetransSegs") == 0


def test_a_block_within_a_segment(h):
    """Less than a segment of ours is not SACKed: nobody can have received that"""
    p, c = ready(h)
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 5
    h.after(RTT)
    for n in range(1, 999, 7):
        p.rx("A", ack=1, sack=[(1001 + n, 2001), (2001, 2001 + n)])
    assert h.counted("TcpRetransSegs") == 0
    p.rx("A", ack=5001)
    h.frames()


def test_reneging(h):
    """RFC 2018 8: when the timer expires and the peer has dropped what it had, all of it is sent again"""
    p, c = ready(h)
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 5
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 5001)])
    p.expect("A", seq=1, length=1000)
    p.rx("A", ack=1001)  # and now it says nothing of the rest
    h.after("3s")
    assert (1001, 1000) in sent(h, p)
    assert h.counted("TcpExtTCPSACKReneging") == 1
    p.rx("A", ack=5001)
    h.frames()


# --- tail loss probes ---


def test_tail_loss_probe(h):
    """RFC 8985 7.2, 7.3: two round trips without an answer, and the last segment goes again, long before the RTO"""
    p, c = ready(h)
    h.send(c, b"x" * 3000)
    assert len(h.frames()) == 3
    h.after("79ms").expect_nothing()
    h.after("1ms")
    p.expect("PA", seq=2001, length=1000)
    assert h.counted("TcpExtTCPLossProbes") == 1
    h.after(RTT)
    p.rx("A", ack=1001, sack=[(2001, 3001)])
    p.expect("A", seq=1001, length=1000)  # found by the probe
    p.rx("A", ack=3001)
    assert h.counted("TcpExtTCPTimeouts") == 0


def test_tail_loss_probe_with_new_data(h):
    """RFC 8985 7.3: new data is the better probe"""
    p, c = ready(h, mss=1000)
    h.send(c, b"x" * 11_500)
    assert len(h.frames()) == 10
    h.after("80ms")
    p.expect("A", seq=10_001, length=1000)
    p.rx("A", ack=11_001)
    h.frames()


def test_a_probe_that_mends_a_loss_is_congestion(h):
    """RFC 8985 7.4.2: the window shrinks as for any loss"""
    p, c = ready(h)
    h.send(c, b"x" * 5000)
    assert len(h.frames()) == 5
    before = h.info(c).cwnd
    h.after(RTT)
    p.rx("A", ack=4001)
    h.after("300ms")
    assert sent(h, p)[0] == (4001, 1000)
    p.rx("A", ack=5001)
    assert h.info(c).ssthresh < before
    assert h.counted("TcpExtTCPLossProbeRecovery") + h.counted("TcpExtTCPTimeouts") == 1


def test_a_probe_that_was_not_needed(h):
    """RFC 8985 7.4.2: a D-SACK says that both copies arrived"""
    p, c = ready(h)
    h.send(c, b"x" * 3000)
    assert len(h.frames()) == 3
    h.after("80ms")
    p.expect("PA", seq=2001)
    before = h.info(c).cwnd
    p.rx("A", ack=3001, sack=[(2001, 3001)])
    assert h.counted("TcpExtTCPLossProbeRecovery") == 0
    assert h.info(c).cwnd >= before


def test_what_waited_behind_a_hole_is_no_round_trip(h):
    """RFC 6298 3: of three segments the last (TLP) and the first (RTO) went again; the late ACK is not the second's"""
    p, c = ready(h)
    h.send(c, b"x" * 3000)
    h.frames()
    before = h.info(c).srtt, h.info(c).rto
    h.after("5s")
    h.frames()
    p.rx("A", ack=3001)
    assert (h.info(c).srtt, h.info(c).rto) == before


def test_an_old_echo_with_a_dsack_is_no_round_trip(h):
    """RFC 2883 4: a retransmission asked for this ACK; all ACKs before were lost, and what it echoes is 5 s old"""
    p, c = ready(h, ts=1)
    h.send(c, b"x" * 900)
    p.expect("PA")
    old, before = p.ts_echo, (h.info(c).srtt, h.info(c).rto)
    h.after("5s")
    h.frames()
    p.rx("A", ack=901, sack=[(1, 901)], ts=(2, old))
    assert (h.info(c).srtt, h.info(c).rto) == before


# --- taking it back ---


def test_dsack_takes_a_reduction_back(h):
    """RFC 3708 2, RFC 2883 5: all that was sent again had arrived"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    before = h.info(c).cwnd
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 4001)])
    p.expect("A", seq=1, length=1000)
    assert h.info(c).cwnd < before
    p.rx("A", ack=10_001)
    p.rx("A", ack=10_001, sack=[(1, 1001)])
    assert h.counted("TcpExtTCPDSACKUndo") == 1
    assert h.info(c).cwnd >= before


def test_dsacks_of_a_network_that_makes_copies_take_nothing_back(h):
    """RFC 3708 2: more has come twice than was sent again: the copies are not ours, and excuse no loss"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    h.after(RTT)
    p.rx("A", ack=1001)
    p.rx("A", ack=1001, sack=[(1, 1001)])
    h.frames()
    p.rx("A", ack=1001, sack=[(2001, 5001)])
    p.expect("A", seq=1001, length=1000)
    reduced = h.info(c).ssthresh
    p.rx("A", ack=5001)
    p.rx("A", ack=5001, sack=[(3001, 4001)])
    assert h.counted("TcpExtTCPDSACKUndo") == 0
    assert h.counted("TcpExtTCPDSACKIgnoredDubious") == 2
    assert h.info(c).ssthresh <= reduced


def test_timestamps_take_a_reduction_back(h):
    """RFC 3522 3.2 (Eifel): the ACK echoes a time before the retransmission"""
    p, c = ready(h, ts=1)
    h.send(c, b"x" * 9880)
    assert len(h.frames()) == 10
    old = p.ts_echo
    before = h.info(c).cwnd
    h.after(RTT)
    p.rx("A", ack=1, sack=[(989, 989 + 3 * 988)])
    p.expect("A", seq=1)
    h.after("1ms")
    p.rx("A", ack=9881, ts=(2, old))
    assert h.counted("TcpExtTCPFullUndo") == 1
    assert h.info(c).cwnd >= before


def test_spurious_timeout(h):
    """RFC 5682 3.1 (F-RTO): after a time-out an ACK comes for what was sent once: nothing was lost"""
    p, c = ready(h)
    h.send(c, b"x" * 1000)
    p.expect("PA")
    h.after(RTT)
    p.rx("A", ack=1001)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    before = h.info(c).cwnd
    h.after("1s")  # the path is stuck
    assert sent(h, p)[-1][0] == 1001
    p.rx("A", ack=3001)
    assert h.counted("TcpExtTCPSpuriousRTOs") == 1
    assert h.info(c).cwnd >= before
    assert sent(h, p) == []
    p.rx("A", ack=11_001)
    assert h.counted("TcpRetransSegs") <= 3


def test_a_timeout_that_was_right(h):
    """RFC 5682 2.1 step 3a: duplicates after the time-out: what was lost goes again, in slow start"""
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    h.after("1s")
    h.frames()
    p.rx("A", ack=1001)
    got = sent(h, p)
    assert got[:1] == [(1001, 1000)]
    p.rx("A", ack=3001)
    assert sent(h, p)[0] == (3001, 1000)
    p.rx("A", ack=10_001)
    h.frames()
    assert h.counted("TcpExtTCPSpuriousRTOs") == 0


@pytest.mark.parametrize("tso", [False, True])
def test_a_burst_with_holes(harness, family, tso):
    """What the link cuts is tracked by the segments that it becomes."""
    from libos.net.stack import Link

    h = harness(family, caps=Link.CSUM | Link.TSO if tso else 0)
    p, c = ready(h)
    h.send(c, b"x" * 10_000)
    assert sum(len(payload_of(s.packet[TCP])) for s in h.frames()) == 10_000
    h.after(RTT)
    p.rx("A", ack=1, sack=[(1001, 2001), (3001, 4001), (5001, 10_001)])
    got = sent(h, p)
    for ack in (2001, 4001):
        p.rx("A", ack=ack, sack=[(5001, 10_001)] + ([(3001, 4001)] if ack < 3000 else []))
        got += sent(h, p)
    assert got == [(1, 1000), (2001, 1000), (4001, 1000)]
    p.rx("A", ack=10_001)

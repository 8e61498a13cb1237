"""Explicit congestion notification (RFC 3168; RFC 8511 for how much less)."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest

from libos._native import ffi, lib
from libos.errors import check
from libos.net.tcp_info import TCP_INFO_SIZE, tcp_info

from .flow import Flow

NOT_ECT, ECT1, ECT0, CE = range(4)


@pytest.fixture
def on(harness, family):
    """A stack that asks for ECN."""
    return harness(family, ecn=1)


def ecn(tcp):
    """The ECN field of the packet that a segment left in."""
    ip = tcp.underlayer
    return (ip.tos if ip.version == 4 else ip.tc) & 3


def capable(h, *, mss=1000, **options):
    """A connection that we opened, both ends willing."""
    c = h.connect(80, local_port=50000, **options)
    p = h.peer(port=80, to=50000)
    assert ecn(p.expect("SEC", seq=0)) == NOT_ECT
    p.rx("SAE", seq=0, ack=1, mss=mss)
    assert ecn(p.expect("A", seq=1, ack=1)) == NOT_ECT
    return p, c


def accepted(h, syn="SEC"):
    """A connection that the peer opened; the flags of our answer."""
    listener = h.listen(80)
    p = h.peer()
    p.rx(syn, seq=0, mss=1000)
    tcp = h.expect_packet().payload.payload
    p.iss, p.seen = tcp.seq, 1
    p.rx("A", seq=1)
    c = h.accept(listener)
    h.free(listener)
    return p, c, tcp


# --- who may use it ---


def test_by_default_it_is_for_the_peer_to_ask(h):
    """The option `ecn` is 2: our SYN is plain, and a peer's that asks is answered with ECE"""
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S")
    p.rx("SA", seq=0, ack=1)
    p.expect("A")
    h.abort(c)
    h.frames()
    _, _, answer = accepted(h)
    assert str(answer.flags) == "SAE"


@pytest.mark.parametrize("ecn_option", [0, 1, 2])
@pytest.mark.parametrize(("syn", "asks"), [("S", False), ("SE", False), ("SC", False), ("SEC", True)])
def test_an_ecn_setup_syn(harness, family, syn, asks, ecn_option):
    """RFC 9293 SHLD-8; RFC 3168 6.1.1: ECE and CWR together ask; the answer is ECE alone, no CWR, no ECT, no RST"""
    h = harness(family, ecn=ecn_option)
    p, c, answer = accepted(h, syn)
    assert str(answer.flags) == ("SAE" if asks and ecn_option else "SA")
    assert ecn(answer) == NOT_ECT
    h.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", length=1000)) == (ECT0 if asks and ecn_option else NOT_ECT)
    p.rx("A")


def test_no_listener_answers_as_to_any_syn(h):
    """RFC 9293 3.10.7.1: a RST that carries no ECN flags; that is about the port, not about ECN"""
    p = h.peer(to=81)
    p.rx("SEC", seq=0)
    p.expect("RA", ack=1)


@pytest.mark.parametrize("answer", ["SA", "SAC", "SAEC"])
def test_a_peer_that_does_not_speak_it(on, answer):
    """RFC 3168 6.1.1: only ECE alone agrees; ECE with CWR comes from one that echoes what it does not know"""
    c = on.connect(80, local_port=50000)
    p = on.peer(port=80, to=50000)
    p.expect("SEC", seq=0)
    p.rx(answer, seq=0, ack=1, mss=1000)
    p.expect("A", seq=1, ack=1)
    on.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", length=1000)) == NOT_ECT
    p.rx("A", data=b"y" * 100, tos=CE)
    on.after("40ms")
    p.expect("A")


def test_nobody_agrees_to_what_was_not_asked(h):
    """RFC 3168 6.1.1: ECE on the answer to a plain SYN says nothing"""
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S", seq=0)
    p.rx("SAE", seq=0, ack=1, mss=1000)
    p.expect("A", seq=1, ack=1)
    h.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", length=1000)) == NOT_ECT
    p.rx("A")


def test_a_syn_that_is_lost_is_tried_without(on):
    """RFC 3168 6.1.1.1: the retransmitted SYN does not ask, and then no data is ECT"""
    c = on.connect(80, local_port=50000)
    p = on.peer(port=80, to=50000)
    p.expect("SEC", seq=0)
    on.at("1s")
    p.expect("S", seq=0)
    on.at("3s")
    p.expect("S", seq=0)
    p.rx("SA", seq=0, ack=1, mss=1000)
    p.expect("A", seq=1, ack=1)
    on.send(c, b"x" * 1000)
    assert ecn(p.expect("PA")) == NOT_ECT
    p.rx("A")


def test_an_answer_to_the_first_syn_after_all(on):
    """RFC 3168 6.1.1: who sent a SYN that did not ask sets no ECT; but the peer may, and its marks are echoed"""
    c = on.connect(80, local_port=50000)
    p = on.peer(port=80, to=50000)
    p.expect("SEC", seq=0)
    on.at("1s")
    p.expect("S", seq=0)
    p.rx("SAE", seq=0, ack=1, mss=1000)
    p.expect("A", seq=1, ack=1)
    on.send(c, b"x" * 1000)
    assert ecn(p.expect("PA")) == NOT_ECT
    p.rx("A", data=b"y" * 100, tos=CE)
    p.expect("AE")


def test_a_syn_that_is_reset_is_tried_without(on):
    """RFC 3168 6.1.1.1: once; a second RST means it"""
    c = on.connect(80, local_port=50000)
    p = on.peer(port=80, to=50000)
    p.expect("SEC", seq=0)
    p.rx("RA", seq=0, ack=1)
    p.expect("S", seq=0)
    p.rx("RA", seq=0, ack=1)
    assert on.error(c) == "ECONNREFUSED"


def test_a_plain_syn_is_refused_at_once(h):
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S", seq=0)
    p.rx("RA", seq=0, ack=1)
    assert h.error(c) == "ECONNREFUSED"


def test_the_peer_falls_back(h):
    """RFC 3168 6.1.1: having heard a SYN that does not ask we answer so, and set no ECT"""
    listener = h.listen(80)
    p = h.peer()
    p.rx("SEC", seq=0, mss=1000)
    p.expect("SAE", seq=0)
    p.rx("S", seq=0, mss=1000)
    p.expect("SA", seq=0)
    p.rx("A", seq=1)
    c = h.accept(listener)
    h.send(c, b"x" * 1000)
    assert ecn(p.expect("PA")) == NOT_ECT
    p.rx("A")


def test_both_open_at_once(on):
    """RFC 3168 6.1.1, RFC 9293 figure 7: both SYNs ask, both answers agree"""
    c = on.connect(80, local_port=50000)
    p = on.peer(port=80, to=50000)
    p.expect("SEC", seq=0)
    p.rx("SEC", seq=0, mss=1000)
    p.expect("SAE", seq=0, ack=1)
    p.rx("SAE", seq=0, ack=1)
    on.frames()
    on.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", seq=1)) == ECT0
    p.rx("A", ack=1001)


def test_both_open_at_once_and_we_did_not_ask(h):
    """RFC 3168 6.1.1: who sent a SYN that does not ask sets no ECT, whatever the other's asks"""
    c = h.connect(80, local_port=50000)
    p = h.peer(port=80, to=50000)
    p.expect("S", seq=0)
    p.rx("SEC", seq=0, mss=1000)
    p.expect("SA", seq=0, ack=1)
    p.rx("SA", seq=0, ack=1)
    h.frames()
    h.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", seq=1)) == NOT_ECT
    p.rx("A", ack=1001)


@pytest.mark.parametrize(("ts", "kept"), [(1, True), (None, False)])
def test_a_cookie_keeps_it_in_its_timestamp(h, ts, kept):
    """RFC 3168 6.1.1: without a place to remember it in, a SYN that asks is answered like one that does not"""
    h.meet()
    listener = h.listen(80, backlog=1)
    h.peer(port=1).rx("S", seq=0)
    h.frames()  # that fills the queue
    p = h.peer()
    p.rx("SEC", seq=0, mss=1000, ts=ts)
    p.expect("SAE" if kept else "SA", seq=0)
    assert h.counted("TcpExtSyncookiesSent") == 1
    p.rx("A", seq=1)
    c = h.accept(listener)
    h.send(c, b"x" * 500)
    assert ecn(p.expect("PA")) == (ECT0 if kept else NOT_ECT)
    p.rx("A")


def test_tcp_info_tells(on):
    """tcp(7), TCPI_OPT_ECN"""

    def told(id):
        raw = ffi.new("uint8_t[]", TCP_INFO_SIZE)
        check(lib.sock_getsockopt(on.handle, id, socket.IPPROTO_TCP, socket.TCP_INFO, raw, TCP_INFO_SIZE))
        return tcp_info(bytes(ffi.buffer(raw)))

    _, c = capable(on)
    assert told(c).ecn
    assert told(c).max_pacing_rate == 2**64 - 1
    _, plain, _ = accepted(on, "S")
    assert not told(plain).ecn


# --- what is capable ---


def test_ect_is_on_new_data_alone(on):
    """RFC 3168 6.1.4, 6.1.5, 6.1.6: not on empty segments, retransmissions, probes"""
    p, c = capable(on)
    p.rx("A", data=b"y" * 3000)
    assert ecn(p.expect("A", ack=3001)) == NOT_ECT
    on.send(c, b"x" * 1000)
    assert ecn(p.expect("PA", seq=1)) == ECT0
    on.after("200ms")
    assert ecn(p.expect("PA", seq=1)) == NOT_ECT
    p.rx("A", ack=1001, win=0)
    on.send(c, b"x" * 1000)
    on.after("200ms")
    assert ecn(p.expect("A", seq=1000, length=0)) == NOT_ECT  # a window probe
    p.rx("A", ack=1001, win=65535)
    assert ecn(p.expect("PA", seq=1001)) == ECT0
    p.rx("A", ack=2001)
    on.shutdown(c)
    assert ecn(p.expect("FA", seq=2001)) == NOT_ECT
    p.rx("FA", ack=2002)
    p.expect("A")


# --- the receiver ---


def test_ece_until_cwr(h):
    """RFC 3168 6.1.3: ECE on every ACK from the marked packet on until CWR arrives; the first goes at once"""
    p, _, _ = accepted(h)
    p.rx("A", data=b"a" * 100, tos=ECT0)
    h.after("40ms")
    p.expect("A", ack=101)
    p.rx("A", data=b"b" * 100, tos=CE)
    p.expect("AE", ack=201)
    p.rx("A", data=b"c" * 100, tos=ECT0)
    h.after("40ms")
    p.expect("AE", ack=301)
    p.rx("AC", data=b"d" * 100, tos=ECT0)
    h.after("40ms")
    p.expect("A", ack=401)


def test_cwr_on_a_packet_that_is_marked_again(h):
    """RFC 3168 6.1.3: CWR ends the old echo, CE begins a new one"""
    p, _, _ = accepted(h)
    p.rx("A", data=b"a" * 100, tos=CE)
    p.expect("AE", ack=101)
    p.rx("AC", data=b"b" * 100, tos=CE)
    p.expect("AE", ack=201)


def test_our_data_carries_the_echo_too(h):
    p, c, _ = accepted(h)
    p.rx("A", data=b"a" * 100, tos=CE)
    p.expect("AE", ack=101)
    h.send(c, b"x" * 100)
    assert ecn(p.expect("PAE", ack=101)) == ECT0
    p.rx("A")


def test_marks_outside_the_window_are_not_believed(h):
    """RFC 3168 6.1.5: else anyone could slow the sender down"""
    p, _, _ = accepted(h)
    p.rx("A", seq=1_000_000, data=b"a" * 100, tos=CE)
    p.expect("A", ack=1)
    p.next = 1
    p.rx("A", data=b"a" * 100, tos=CE)
    p.expect("AE", ack=101)


def test_marks_on_empty_segments_say_nothing(h):
    """RFC 3168 6.1.4"""
    p, _, _ = accepted(h)
    p.rx("A", tos=CE)
    p.rx("A", data=b"a" * 100)
    h.after("40ms")
    p.expect("A", ack=101)


# --- the sender ---


def test_ece_slows_down_once_a_round_trip(on):
    """RFC 3168 6.1.2: CWR on the next new data; more ECE for the same window changes nothing. RFC 8511: by 0.85"""
    p, c = capable(on)
    on.send(c, b"x" * 10_000)
    assert len(on.frames()) == 10
    on.send(c, b"x" * 20_000)
    p.rx("AE", ack=1001)
    assert on.info(c).ssthresh == 8500
    for ack in range(2001, 10_001, 1000):
        p.rx("AE", ack=ack)
    left = on.frames()
    flags = [str(f.packet.payload.payload.flags) for f in left]
    assert flags[0] == "AC"
    assert set(flags[1:]) <= {"A", "PA"}
    assert on.info(c).ssthresh == 8500
    assert on.info(c).retransmits == 0
    assert on.counted("TcpExtTCPDeliveredCE") == 9
    p.seen = 30_001
    p.rx("AE", ack=10_001)
    assert on.info(c).ssthresh == 8500
    p.rx("AE", ack=11_001)  # beyond the window that was cut, and the peer has heard CWR
    assert on.info(c).ssthresh < 8500
    on.frames()


def test_ece_and_cwr_say_nothing_where_it_was_not_agreed_on(h):
    p, c = h.connected()
    h.send(c, b"x" * 10_000)
    assert len(h.frames()) == 10
    p.rx("AE", ack=10_001)
    assert h.info(c).ssthresh > 1 << 30
    p.rx("AC", data=b"y" * 100, ack=10_001, tos=CE)
    h.after("40ms")
    p.expect("A", ack=101)


def test_a_marking_path(harness):
    """Both halves over many round trips: the window is cut without a single retransmission, and CWR answers each"""
    f = Flow(harness(ecn=1, queue=65536), rtt="50ms", ecn=True, mark={150, 700, 1400})
    f.run("3s")
    ssthresh = [p.ssthresh for p in f.log]
    cuts = [(a, b) for a, b in pairwise(ssthresh) if a != b]
    assert len(cuts) == 3
    assert sum(bool(s.flags & 0x80) for s in f.sent) == 3
    assert f.h.info(f.id).retransmits == 0
    assert {s.ecn for s in f.sent} == {ECT0}
    f.finish()


def test_the_mark_of_cubic_and_of_reno(harness):
    """RFC 8311 4.1, RFC 8511 3.1: 0.85 of the flight remains for CUBIC, 0.8 for New Reno"""
    for name, wanted in (("cubic", 8500), ("reno", 8000)):
        h = harness(ecn=1, congestion=name)
        p, c = capable(h)
        h.send(c, b"x" * 10_000)
        assert len(h.frames()) == 10
        p.rx("AE", ack=2001)
        assert h.info(c).ssthresh == wanted
        p.rx("A", ack=10_001)

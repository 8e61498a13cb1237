"""TCP opens (RFC 9293 3.5, 3.10.1, 3.10.7): handshakes both ways, options, listeners."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import ERROR, READ, WRITE, fails
from .packets import PEER


def full(h, mtu=1500):
    """The MSS that a link's MTU leaves."""
    return mtu - (40 if h.family == 4 else 60)


# --- passive ---


def test_passive_open(h):
    """RFC 9293 figure 6 (MAY-3), from the side that listens"""
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, mss=1000, win=5000)
    p.expect("SA", seq=0, ack=1, mss=full(h), options=["MSS"])
    assert h.events() == {}
    with fails("EAGAIN"):
        h.accept(listener)
    p.rx("A", seq=1, ack=1)
    assert h.events() == {listener: READ}
    c = h.accept(listener)
    assert h.events().get(c, 0) & WRITE == 0  # nobody asked for it
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.events()[c] == WRITE
    assert h.info(c).remote[:2] == (h.their, 40000)
    assert h.info(c).local[:2] == (h.ours, 80)
    assert h.info(c).mss == 1000
    assert h.counted("TcpPassiveOpens") == 1


def test_the_syn_ack_is_sent_again(h):
    """RFC 6298 5.5: after 1, 3, 7, 15, 31 s; then nothing, and the child is gone."""
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA", seq=0, ack=1)
    for second in (1, 3, 7, 15, 31):
        h.at(f"{second}s")
        p.expect("SA", seq=0, ack=1)
    h.at("63s").expect_nothing()
    assert h.states() == ["LISTEN"]
    assert h.counted("TcpAttemptFails") == 1


def test_the_syn_again_is_answered_again(h):
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    first = p.expect("SA", seq=0, ack=1)
    h.at("500ms")
    p.rx("S", seq=0)
    assert p.expect("SA", seq=0, ack=1).seq == first.seq
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]


def test_a_reset_takes_the_half_open_child(h):
    """RFC 9293 3.10.7.4, second (MUST-11), SYN-RECEIVED after a passive open"""
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("R", seq=1)
    assert h.states() == ["LISTEN"]
    assert h.events() == {}
    assert h.error(listener) is None


@pytest.mark.parametrize("ack", [0, 2, -100])
def test_a_wrong_ack_in_syn_received(h, ack):
    """RFC 9293 3.10.7.4, fifth, SYN-RECEIVED: reset, with its number; the child stays."""
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1, ack=ack)
    p.expect("R", seq=ack)
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]


def test_data_with_the_last_ack_of_the_handshake(h):
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("PA", seq=1, ack=1, data=b"at once")
    assert h.recv(h.accept(listener)) == b"at once"
    h.after("40ms")
    p.expect("A", ack=8)


@pytest.mark.parametrize("flags", ["A", "SA", "FA", "PA", "RA", "R", "F", "", "SF", "P"])
def test_what_a_listener_does_not_take(h, flags):
    """RFC 9293 3.10.7.2: RST to an ACK; everything else but a SYN is dropped."""
    h.listen(80)
    p = h.peer()
    p.rx(flags, seq=0, ack=77)
    if "A" in flags and "R" not in flags:
        p.expect("R", seq=77)
    h.expect_nothing()
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize("flags", ["S", "A", "SA", "FA", "PA", "F", ""])
def test_a_closed_port(h, flags):
    """RFC 9293 3.10.7.1: RST, with its ACK as our number, or else acknowledging all of it"""
    p = h.peer(to=81, isn=0)
    p.rx(flags, seq=1000, ack=77, data=b"xyz")
    if "A" in flags:
        p.expect("R", seq=77)
    else:
        p.expect("RA", seq=0, ack=1003 + ("S" in flags) + ("F" in flags))
    assert h.counted("TcpOutRsts") == 1


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_a_reset_is_never_answered(h, flags):
    h.peer(to=81).rx(flags, seq=0, ack=1)
    h.expect_nothing()


def test_backlog(h):
    """listen(2): one more than the backlog may wait to be accepted. While they do SYNs are dropped, and tried again."""
    listener = h.listen(80, backlog=2)
    peers = [h.peer(port=40000 + i) for i in range(4)]
    for p in peers[:3]:
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("A", seq=1)
    peers[3].rx("S", seq=0)
    h.expect_nothing()
    assert h.counted("TcpExtListenOverflows") == 1
    assert h.counted("TcpExtListenDrops") == 1
    h.accept(listener)
    h.at("999ms")
    peers[3].rx("S", seq=0)
    peers[3].expect("SA")


def test_a_full_accept_queue_keeps_a_child_half_open(h):
    """listen(2): the ACK of its SYN is dropped, the SYN, ACK sent again, and then it may have a place."""
    listener = h.listen(80, backlog=2)
    peers = [h.peer(port=40000 + i) for i in range(4)]
    for p in peers[:2]:
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("A", seq=1)
    for p in peers[2:]:
        p.rx("S", seq=0)
        p.expect("SA")
    peers[2].rx("A", seq=1)
    peers[3].rx("A", seq=1)
    h.expect_nothing()
    assert h.states() == ["ESTABLISHED"] * 3 + ["LISTEN", "SYN-RECEIVED"]
    assert h.counted("TcpExtListenOverflows") == 1
    h.accept(listener)
    h.at("1s")
    peers[3].expect("SA", seq=0, ack=1)
    peers[3].rx("A", seq=1)
    assert h.states() == ["ESTABLISHED"] * 4 + ["LISTEN"]


def test_a_listener_that_closes_takes_its_children_with_it(h):
    """Those that nobody accepted hear a RST."""
    listener = h.listen(80)
    half, whole = h.peer(port=1), h.peer(port=2)
    for p in (half, whole):
        p.rx("S", seq=0)
        p.expect("SA")
    whole.rx("A", seq=1)
    h.free(listener)
    half.expect("R", seq=1)
    whole.expect("R", seq=1)
    assert h.states() == []


def test_a_stack_may_go_with_children_that_nobody_accepted(harness, family):
    h = harness(family)
    h.listen(80, backlog=64)
    for port in range(1, 40):
        p = h.peer(port=port)
        p.rx("S", seq=0)
        p.expect("SA")
        if port % 2:
            p.rx("A", seq=1)
    h.stack.close()
    h.finish = lambda: None


# --- active ---


def test_active_open(h):
    """RFC 9293 figure 6, from the side that calls"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S", seq=0, mss=full(h), ws=5, win=65535, options=["MSS", "SAckOK", "Timestamp", "WScale"])
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.events() == {}
    h.at("30ms")
    p.rx("SA", seq=0, ack=1, mss=1000, win=8000)
    p.expect("A", seq=1, ack=1, win=65535, options=[])
    assert h.events() == {c: WRITE}
    info = h.info(c)
    assert (info.state, info.mss, info.srtt) == ("ESTABLISHED", 1000, 30_000_000)
    assert h.counted("TcpActiveOpens") == 1


def test_active_open_with_all_options(h):
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S", ts=(None, 0))
    p.rx("SA", seq=0, ack=1, mss=1000, ws=2, ts=77, win=8000)
    p.expect("A", seq=1, ack=1, win=(1 << 20) >> 5, ts=(None, 77))
    p.rx("A", win=1000)
    h.send(c, b"x" * 9000)
    assert sum(len(s.packet[TCP].payload) for s in h.frames()) == 4 * 988  # 1000 << 2, in whole segments


def test_the_syn_is_sent_again_and_given_up(h):
    """RFC 6298 2.1, 5.5; RFC 9293 3.8.3 (MUST-22, MUST-23): after 1 s, then doubling; ETIMEDOUT after three minutes"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    for second in (1, 3, 7, 15, 31, 63, 127):
        h.at(f"{second}s")
        p.expect("S", seq=0)
    h.at("246s").expect_nothing()
    assert h.state(c) == "SYN-SENT"
    h.at("247s")
    assert h.events()[c] & ERROR
    assert h.error(c) == "ETIMEDOUT"
    assert h.state(c) == "CLOSED"


def test_refused(h):
    """RFC 9293 3.10.7.3, second: a RST with an ACK of our SYN"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    p.rx("RA", seq=0, ack=1)
    assert h.error(c) == "ECONNREFUSED"
    with fails("EPIPE"):
        h.send(c, b"x")


@pytest.mark.parametrize(("flags", "ack"), [("RA", 0), ("RA", 2), ("R", 0), ("A", 1), ("FA", 1), ("", 0)])
def test_what_does_not_end_an_open(h, flags, ack):
    """RFC 9293 3.10.7.3: a RST without an acceptable ACK, a segment without a SYN"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    p.rx(flags, seq=0, ack=ack)
    h.expect_nothing()
    assert h.state(c) == "SYN-SENT"


@pytest.mark.parametrize("flags", ["A", "SA"])
@pytest.mark.parametrize("ack", [0, 2, 1000])
def test_an_ack_of_what_was_not_sent_is_reset(h, flags, ack):
    """RFC 9293 3.10.7.3, first; 3.5.1 figure 9: an old duplicate, or a peer that crashed"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    p.rx(flags, seq=0, ack=ack)
    p.expect("R", seq=ack)
    assert h.state(c) == "SYN-SENT"
    h.at("1s")
    p.expect("S")


def test_simultaneous_open(h):
    """RFC 9293 3.5, figure 7 (MUST-10)"""
    c = h.connect(80, local_port=5000)
    p = h.peer(port=80, to=5000)
    p.expect("S", seq=0)
    p.rx("S", seq=0, mss=1000, win=8000)
    p.expect("SA", seq=0, ack=1)
    assert h.state(c) == "SYN-RECEIVED"
    p.rx("SA", seq=0, ack=1)
    assert h.state(c) == "ESTABLISHED"
    h.frames()
    p.seen = 1
    p.rx("PA", seq=1, data=b"hi")
    assert h.recv(c) == b"hi"
    h.after("40ms")
    p.expect("A", seq=1, ack=3)
    h.send(c, b"ho")
    p.expect("PA", seq=1, data=b"ho")


def test_connected_to_itself(harness, family):
    """The SYN arrives at the socket that sent it: a simultaneous open with oneself, as Linux has it."""
    h = harness(family)
    c = h.connect(5000, h.ours, local_port=5000)
    h.at("100ms")
    assert h.state(c) == "ESTABLISHED"
    h.send(c, b"to me")
    h.at("200ms")
    assert h.recv(c) == b"to me"
    h.at("1s").expect_nothing()


def test_data_queued_before_the_connection_is_there(h):
    c = h.connect(80)
    assert h.send(c, b"early") == 5
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S", data=b"")
    p.rx("SA", seq=0, ack=1)
    p.expect("PA", seq=1, ack=1, data=b"early")


def test_data_on_the_syn_ack_comes_again(h):
    """RFC 9293 3.10.7.3 lets it be kept; here it is not taken, and not acknowledged either."""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    p.rx("SA", seq=0, ack=1, data=b"fast")
    p.expect("A", ack=1)
    p.rx("PA", seq=1, data=b"fast")
    assert h.recv(c) == b"fast"
    h.after("40ms")
    p.expect("A", ack=5)


def test_free_while_connecting(h):
    """RFC 9293 3.10.4, SYN-SENT: deleted; a SYN, ACK that still comes is reset."""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    h.free(c)
    assert h.states() == []
    p.rx("SA", seq=0, ack=1)
    p.expect("R", seq=1)


def test_connect_errors(h):
    """RFC 9293 3.9.1.1 (MUST-46), and what connect(2) says"""
    c = h.connect(80)
    h.frames()
    with fails("EALREADY"):
        h.connect_again(c)
    with fails("ENETUNREACH"):
        h.connect(80, "224.0.0.1" if h.family == 4 else "ff02::1")
    with fails("EAFNOSUPPORT" if h.family == 4 else "ENETUNREACH"):
        h.connect(80, PEER[6] if h.family == 4 else "::ffff:255.255.255.255")
    with fails("EINVAL"):
        h.connect(0)


def test_the_initial_window_is_of_the_segment_size_agreed_on(harness, family):
    """RFC 6928 2, on a link with large frames to a peer with small ones"""
    h = harness(family, mtu=65535)
    p, c = h.connected(mss=1000)
    h.send(c, b"x" * 200_000)
    assert sum(len(s.packet[TCP].payload) for s in h.frames()) == 10_000
    p.rx("R", seq=1)


def test_after_a_lost_syn_one_segment(h):
    """RFC 5681 3.1: SYN lost, initial window of one, slow start goes on from there; RFC 6298 5.7: RTO of 3 s"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    h.at("1s")
    p.expect("S")
    p.rx("SA", seq=0, ack=1, mss=1000)
    p.expect("A")
    h.send(c, b"x" * 100_000)
    p.expect("A", length=1000)
    h.at("3.999s").expect_nothing()
    h.at("4s")
    p.expect("A", length=1000)
    p.rx("A")
    p.expect("A", length=1000)
    p.expect("A", length=1000)
    h.expect_nothing()


def test_the_echo_times_a_syn_that_was_sent_again(h):
    """RFC 7323 4: the answer echoes the second SYN's timestamp: a sample, and so no RTO of 3 s (RFC 6298 5.7)"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    h.at("1s")
    p.expect("S")
    h.at("1.05s")
    p.rx("SA", seq=0, ack=1, mss=1000, ts=(1, p.ts_echo))
    p.expect("A")
    assert (h.info(c).srtt, h.info(c).rto) == (50_000_000, 200_000_000)


def test_the_echo_times_a_syn_ack_that_was_sent_again(h):
    """RFC 7323 4, of a listener's child"""
    listener = h.listen(80)
    p = h.peer(to=80)
    p.rx("S", seq=0, mss=1000, ts=(1, 0))
    p.expect("SA")
    h.at("1s")
    p.expect("SA")
    h.at("1.05s")
    p.rx("A", seq=1, ack=1, ts=(2, p.ts_echo))
    assert h.info(h.accept(listener)).srtt == 50_000_000


def test_an_echo_of_the_first_syn_ack_times_nothing_after_the_second(h):
    """RFC 6298 3: it may have waited for a lost ACK; the first data's sample counts"""
    listener = h.listen(80)
    p = h.peer(to=80)
    p.rx("S", seq=0, mss=1000, ts=(1, 0))
    p.expect("SA")
    first = p.ts_echo
    h.at("1s")
    p.expect("SA")
    h.at("1.05s")
    p.rx("A", seq=1, ack=1, ts=(2, first))
    c = h.accept(listener)
    assert h.info(c).srtt == 0
    h.send(c, b"x" * 100)
    p.expect("PA")
    h.after("40ms")
    p.rx("A", ack=101)
    assert (h.info(c).srtt, h.info(c).rto) == (40_000_000, 200_000_000)

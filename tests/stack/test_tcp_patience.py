"""How long a connection is tried, kept and waited for, and who says so (tcp(7), socket(7), RFC 9293 3.8.3)."""

from __future__ import annotations

import socket
import struct

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import ERROR, LISTEN_DEFER, READ, REQUEST, fails


def linger(h, id, on, seconds):
    raw = struct.pack("ii", on, seconds)
    check(lib.sock_setsockopt(h.handle, id, socket.SOL_SOCKET, socket.SO_LINGER, raw, len(raw)))


def option(h, id, name):
    return check(lib.sock_getopt(h.handle, id, socket.IPPROTO_TCP, getattr(socket, name)))


# --- SYNs ---


def test_syncnt(h):
    """tcp(7), TCP_SYNCNT: so many SYNs are sent again"""
    c = h.connect(80, TCP_SYNCNT=2)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    for second in (1, 3):
        h.at(f"{second}s")
        p.expect("S")
    h.at("7s").expect_nothing()
    assert h.error(c) == "ETIMEDOUT"


def test_syncnt_of_a_listener(h):
    """Of its children's SYN, ACKs"""
    h.listen(80, TCP_SYNCNT=1)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    h.at("1s")
    p.expect("SA")
    h.at("3s").expect_nothing()
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize("value", [0, 128, -1])
def test_syncnt_out_of_range(h, value):
    with fails("EINVAL"):
        h.set(h.open(), TCP_SYNCNT=value)


@pytest.mark.parametrize(("seconds", "read"), [(0, 0), (1, 1), (2, 3), (7, 7), (8, 15), (100, 127), (10**6, 30127)])
def test_defer_accept_is_kept_in_timeouts(h, seconds, read):
    """tcp(7), TCP_DEFER_ACCEPT: rounded up to what 1, 2, 4 … s give; 120 s at most each"""
    c = h.listen(80, TCP_DEFER_ACCEPT=seconds)
    got = option(h, c, "TCP_DEFER_ACCEPT")
    assert got == read or (seconds == 10**6 and got > 20_000)


def test_defer_accept_waits_for_data(h):
    """tcp(7), TCP_DEFER_ACCEPT: the bare ACK is dropped; with data it is a connection."""
    listener = h.listen(80, TCP_DEFER_ACCEPT=3)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1)
    assert h.events() == {}
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]
    assert h.counted("TcpExtTCPDeferAcceptDrop") == 1
    h.at("900ms")
    p.rx("PA", seq=1, data=b"GET /")
    assert h.events() == {listener: READ}
    assert h.recv(h.accept(listener)) == b"GET /"
    h.after("40ms")
    p.expect("A", ack=6)


def test_defer_accept_ends(h):
    """Its last time-out sends the SYN, ACK once more: the ACK of that is taken, with data or without."""
    listener = h.listen(80, TCP_DEFER_ACCEPT=7)  # three time-outs
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1)
    h.at("3s").expect_nothing()  # the first two say nothing: the peer has our SYN
    h.at("7s")
    p.expect("SA")
    p.rx("A", seq=1)
    assert h.events() == {listener: READ}
    assert h.state(h.accept(listener)) == "ESTABLISHED"


def test_defer_accept_of_who_never_acknowledged(h):
    """Then the SYN, ACK is sent again as ever."""
    h.listen(80, TCP_DEFER_ACCEPT=7)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    h.at("1s")
    p.expect("SA")


# --- data ---


def test_rfc5482_user_timeout(h):
    """RFC 5482 1, RFC 9293 3.8.3: data that was sent again for so long without an answer ends the connection."""
    p, c = h.established(TCP_USER_TIMEOUT=2500)
    h.send(c, b"x")
    p.expect("PA", data=b"x")
    start = h.now
    while h.state(c) != "CLOSED":
        h.after("50ms")
        assert h.now - start < 10_000_000_000
    again = h.frames()
    assert len(again) >= 3
    assert 2_500_000_000 <= h.now - again[0].time <= 2_550_000_000  # from the first time-out on, as Linux counts
    assert h.error(c) == "ETIMEDOUT"
    assert h.counted("TcpExtTCPAbortOnTimeout") == 1


def test_user_timeout_starts_anew_with_an_answer(h):
    p, c = h.established(TCP_USER_TIMEOUT=2500)
    for i in range(3):
        h.send(c, b"x")
        h.after("2s")
        assert h.frames()
        p.rx("A", ack=2 + i)
    assert h.state(c) == "ESTABLISHED"


def test_user_timeout_of_a_shut_window(h):
    """tcp(7): also of data that waits for a window"""
    p, c = h.established(win=0, TCP_USER_TIMEOUT=5000)
    h.send(c, b"x")
    end = h.now + 20_000_000_000
    while h.state(c) != "CLOSED" and h.now < end:
        h.after("100ms")
        for _ in h.frames():
            p.rx("A", ack=1, win=0)  # it is alive, and takes nothing
    assert h.error(c) == "ETIMEDOUT"
    assert 5_000_000_000 <= h.now - 1_000_000_000 <= 7_500_000_000


def test_user_timeout_of_a_syn(h):
    c = h.connect(80, TCP_USER_TIMEOUT=1500)
    assert len(h.frames()) == 1
    h.at("2.6s")
    assert len(h.frames()) == 1
    assert h.error(c) == "ETIMEDOUT"


def test_user_timeout_stands_in_for_keepalive_probes(h):
    """tcp(7): with both, it decides when to give up, and TCP_KEEPCNT does not."""
    p, c = h.established(SO_KEEPALIVE=1, TCP_KEEPIDLE=10, TCP_KEEPINTVL=1, TCP_KEEPCNT=2, TCP_USER_TIMEOUT=15_000)
    for second in range(10, 15):
        h.at(f"{second}s")
        p.expect("A", seq=0)
    assert h.state(c) == "ESTABLISHED"
    h.at("15s")
    assert h.error(c) == "ETIMEDOUT"
    h.expect_nothing()


# --- closing ---


def test_linger_of_no_time_resets(h):
    """socket(7), SO_LINGER on with 0 s: RST, and what was queued is lost"""
    p, c = h.established(win=0)
    h.send(c, b"never")
    linger(h, c, 1, 0)
    h.free(c)
    p.expect("R", seq=1)
    assert h.states() == []


@pytest.mark.parametrize(("on", "seconds"), [(1, 5), (0, 0)])
def test_linger_of_some_time_does_not(h, on, seconds):
    p, c = h.established()
    linger(h, c, on, seconds)
    h.send(c, b"all of it")
    h.free(c)
    p.expect("FPA", data=b"all of it")
    p.rx("FA", ack=11)
    p.expect("A")


def test_linger2(h):
    """tcp(7), TCP_LINGER2: how long an orphan stays in FIN-WAIT-2"""
    p, c = h.established(TCP_LINGER2=5)
    h.free(c)
    p.expect("FA")
    p.rx("A", ack=2)
    h.at("4.9s")
    assert h.states() == ["FIN-WAIT-2"]
    h.at("5s")
    assert h.states() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_linger2_below_zero(h, when):
    """None at all: a RST instead"""
    p, c = h.established(TCP_LINGER2=-1)
    if when == "before":
        h.shutdown(c)
        p.expect("FA")
        p.rx("A", ack=2)
        h.free(c)
    else:
        h.free(c)
        p.expect("FA")
        p.rx("A", ack=2)
    p.expect("R", seq=2)
    assert h.states() == []
    assert h.counted("TcpExtTCPAbortOnLinger") == 1


@pytest.mark.parametrize(("value", "read"), [(0, 60), (5, 5), (1000, 120), (-7, -1)])
def test_linger2_read(h, value, read):
    c = h.open()
    h.set(c, TCP_LINGER2=value)
    assert lib.sock_getopt(h.handle, c, socket.IPPROTO_TCP, socket.TCP_LINGER2) == read


@pytest.mark.slow
def test_orphans_are_bounded(harness):
    """Beyond 16,384 connections that nobody owns, who is let go of is reset."""
    h = harness(4)
    listener = h.listen(80, backlog=1000)
    clients, ids = [], []
    for _ in range(17):
        clients += [h.connect(80, "127.0.0.1") for _ in range(964)]
        h.after("1ms")
        ids += [h.accept(listener) for _ in range(964)]
    for id in ids[:16_384]:
        h.free(id)
    assert h.counted("TcpExtTCPAbortOnMemory") == 0
    for id in ids[16_384:]:
        h.free(id)
    h.after("1ms")
    assert h.counted("TcpExtTCPAbortOnMemory") == len(ids) - 16_384 == 4
    assert sum(h.error(id) == "ECONNRESET" for id in clients) == 4


# --- what the owner has not decided ---


def test_a_held_child_does_not_wait_for_ever(h):
    """LISTEN_DEFER: who asked has given up after 127 s; so does what was kept of it."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    h.peer(port=1).rx("S", seq=0)
    h.at("127s")
    assert h.events() == {listener: REQUEST}
    h.at("128s")
    assert h.states() == ["LISTEN"]
    assert h.events() == {}
    h.peer(port=2).rx("S", seq=0)
    c = h.accept(listener)
    h.at("256s")
    assert h.events()[c] & ERROR
    assert h.error(c) == "ETIMEDOUT"
    h.expect_nothing()


def test_an_admitted_child_waits_as_any_other(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    c = h.accept(listener)
    check(lib.sock_admit(h.handle, c))
    p.expect("SA")
    p.rx("A", seq=1)
    h.at("300s")
    assert h.state(c) == "ESTABLISHED"


# --- small segments, quick ACKs ---


def test_cork(h):
    """tcp(7), TCP_CORK: only full segments until it is taken out"""
    p, c = h.established(TCP_NODELAY=1)
    h.set(c, TCP_CORK=1)
    h.send(c, b"x" * 1500)
    p.expect("A", seq=1, length=1000)
    h.expect_nothing()
    p.rx("A", ack=1001)
    h.expect_nothing()
    h.set(c, TCP_CORK=0)
    p.expect("PA", seq=1001, length=500)
    p.rx("A")


def test_cork_does_not_hold_for_ever(h):
    """tcp(7): for 200 ms; here for as long as the retransmission time-out, which is no less"""
    p, c = h.established(ts=1)
    h.set(c, TCP_CORK=1)
    h.send(c, b"x")
    h.at("199ms").expect_nothing()
    h.at("1100ms")
    assert {bytes(s.packet[TCP].payload) for s in h.frames()} == {b"x"}
    p.seen = 2
    p.rx("A")


def test_a_corked_end(h):
    """FIN takes the cork out"""
    p, c = h.established()
    h.set(c, TCP_CORK=1)
    h.send(c, b"x")
    h.shutdown(c)
    p.expect("FPA", data=b"x")
    p.rx("A", ack=3)


def test_quickack(h):
    """tcp(7), TCP_QUICKACK: no ACK waits; and one that does goes when it is set"""
    p, c = h.established()
    p.rx("PA", data=b"1")
    h.expect_nothing()
    h.set(c, TCP_QUICKACK=1)
    p.expect("A", ack=2)
    p.rx("PA", data=b"2")
    p.expect("A", ack=3)
    h.set(c, TCP_QUICKACK=0)
    p.rx("PA", data=b"3")
    h.expect_nothing()
    h.after("40ms")
    p.expect("A", ack=4)


def test_maxseg(h):
    """tcp(7), TCP_MAXSEG: what is offered, and no more than that is sent"""
    listener = h.listen(80, TCP_MAXSEG=700)
    assert option(h, listener, "TCP_MAXSEG") == 700
    p = h.peer()
    p.rx("S", seq=0, mss=1400)
    p.expect("SA", mss=700)
    p.rx("A", seq=1)
    c = h.accept(listener)
    assert option(h, c, "TCP_MAXSEG") == 700
    h.send(c, b"x" * 1400)
    p.expect("A", length=700)
    p.expect("PA", length=700)
    p.rx("A")
    c = h.connect(80, TCP_MAXSEG=600)
    assert h.peer(port=80, to=h.info(c).local[1]).expect("S", mss=600)


@pytest.mark.parametrize("value", [87, 32768, -1])
def test_maxseg_out_of_range(h, value):
    with fails("EINVAL"):
        h.set(h.open(), TCP_MAXSEG=value)

"""The end of a TCP connection (RFC 9293 3.6, 3.10.4, 3.10.5): FIN both ways, RST, TIME-WAIT, orphans."""

from __future__ import annotations

import errno

import pytest

from libos._native import ffi, lib
from libos.net.stack import Link

from .harness import ERROR, READ, fails


def test_we_close_first(h):
    """RFC 9293 figure 12 (MUST-13), TCP peer A"""
    p, c = h.established()
    h.free(c)
    p.expect("FA", seq=1, ack=1)
    assert h.states() == ["FIN-WAIT-1"]
    p.rx("A", seq=1, ack=2)
    assert h.states() == ["FIN-WAIT-2"]
    p.rx("FA", seq=1, ack=2)
    p.expect("A", seq=2, ack=2)
    assert h.states() == ["TIME-WAIT"]
    h.after("59.999s")
    assert h.states() == ["TIME-WAIT"]
    h.after("1ms")
    assert h.states() == []
    assert h.counted("TcpExtTW") == 1


def test_they_close_first(h):
    """RFC 9293 figure 12 (MUST-12), TCP peer B"""
    p, c = h.established()
    p.rx("FA", seq=1)
    p.expect("A", seq=1, ack=2)
    assert h.state(c) == "CLOSE-WAIT"
    assert h.events()[c] & READ
    assert h.recv(c) == b""
    h.send(c, b"not yet")
    p.expect("PA", data=b"not yet")
    h.free(c)
    h.frames()
    assert h.states() == ["LAST-ACK"]
    p.seen = 9
    p.rx("A", ack=9)
    assert h.states() == []


def test_fin_with_the_ack_of_ours(h):
    p, c = h.established()
    h.free(c)
    p.expect("FA", seq=1)
    p.rx("FA", seq=1, ack=2)
    p.expect("A", seq=2, ack=2)
    assert h.states() == ["TIME-WAIT"]


def test_simultaneous_close(h):
    """RFC 9293 figure 13"""
    p, c = h.established()
    h.free(c)
    p.expect("FA", seq=1, ack=1)
    p.rx("FA", seq=1, ack=1)
    p.expect("A", seq=2, ack=2)
    assert h.states() == ["CLOSING"]
    p.rx("A", seq=2, ack=2)
    assert h.states() == ["TIME-WAIT"]


def test_half_close(h):
    """RFC 9293 3.6, case 1: who has nothing more to say can still listen."""
    p, c = h.established()
    h.send(c, b"question")
    h.shutdown(c)
    p.expect("FPA", seq=1, data=b"question")
    with fails("EPIPE"):
        h.send(c, b"more")
    p.rx("A", ack=10)
    assert h.state(c) == "FIN-WAIT-2"
    h.after("300s")  # as long as it has an owner
    p.rx("PA", data=b"answer")
    assert h.recv(c) == b"answer"
    h.after("40ms")
    p.expect("A", ack=7)
    p.rx("FA")
    p.expect("A", ack=8)
    assert h.recv(c) == b""
    h.free(c)
    assert h.states() == ["TIME-WAIT"]


def test_shutdown_twice(h):
    p, c = h.established()
    h.shutdown(c)
    h.shutdown(c)
    p.expect("FA")
    p.rx("A")


def test_shutdown_without_a_connection(h):
    c = h.connect(80)
    h.frames()
    with fails("ENOTCONN"):
        h.shutdown(c)
    with fails("ENOTCONN"):
        h.shutdown(h.listen(81))
    with fails("ENOTCONN"):
        h.shutdown(h.open())


def test_queued_data_goes_before_the_fin(h):
    """RFC 9293 3.10.4: CLOSE means I have no more to send, not forget it"""
    p, c = h.established()
    h.send(c, b"x" * 25_000)
    h.free(c)
    got = 0
    while h.states() == ["FIN-WAIT-1"]:
        for s in h.frames():
            got += len(s.packet.getlayer("Raw").load) if s.packet.haslayer("Raw") else 0
            last = s.packet
        p.rx("A", ack=1 + got + ("F" in str(last["TCP"].flags)))
    assert got == 25_000
    assert h.states() == ["FIN-WAIT-2"]


# --- TIME-WAIT ---


def time_wait(h, **options):
    p, c = h.established(**options)
    h.free(c)
    p.expect("FA", seq=1)
    p.rx("FA", seq=1, ack=2)
    p.expect("A", ack=2)
    return p


def test_a_fin_again_is_acknowledged_again(h):
    """RFC 9293 3.10.7.4, eighth, TIME-WAIT: acknowledge, and wait 2 MSL anew"""
    p = time_wait(h)
    h.after("50s")
    p.rx("FA", seq=1, ack=2)
    p.expect("A", seq=2, ack=2)
    h.after("59s")
    assert h.states() == ["TIME-WAIT"]
    h.after("1s")
    assert h.states() == []


def test_a_newer_syn_reopens(h):
    """RFC 9293 3.6.1 (MAY-2): its number beyond the old one's; ours beyond what we used"""
    listener = h.listen(80)
    p = time_wait(h, listener=listener)
    old = p.iss
    p.rx("S", seq=100_000)
    tcp = p.expect("SA")
    assert 0 < (tcp.seq - old) % 2**32 < 2**31
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]


def test_ours_goes_beyond_what_was_used(harness, family):
    """RFC 9293 3.6.1: even if the old connection outran the clock of RFC 6528"""
    h = harness(family, caps=Link.CSUM | Link.TSO)
    listener = h.listen(80)
    p, c = h.established(listener, ws=10)
    for _ in range(10):
        h.send(c, b"x" * 200_000)
        for s in h.frames():
            p.seen += len(s.packet["Raw"].load)
        p.rx("A", win=65535)
    while h.info(c).tx_queue:
        for s in h.frames():
            p.seen += len(s.packet["Raw"].load)
        p.rx("A")
    end = (p.iss + p.seen) % 2**32
    assert p.seen > 1_000_000
    h.free(c)
    p.expect("FA")
    p.rx("FA")
    p.expect("A")
    p.rx("S", seq=100_000)
    assert 0 < (p.expect("SA").seq - end) % 2**32 < 2**31


@pytest.mark.parametrize("seq", [0, 1, -5000])
def test_an_older_syn_does_not(h, seq):
    """It is a segment outside the window, and acknowledged as such."""
    listener = h.listen(80)
    p = time_wait(h, listener=listener)
    p.rx("S", seq=seq)
    p.expect("A", seq=2, ack=2)
    assert h.states() == ["LISTEN", "TIME-WAIT"]


def test_a_newer_timestamp_reopens(h):
    """RFC 7323 appendix B.2 (a): then the number may be any"""
    listener = h.listen(80)
    p = time_wait(h, listener=listener, ts=100)
    p.rx("S", seq=-5000, ts=(101, 0))
    p.expect("SA")


def test_a_newer_syn_for_nobody_does_not(h):
    """Where nobody listens any more TIME-WAIT stays."""
    p = time_wait(h)
    p.rx("S", seq=100_000)
    p.expect("A", seq=2, ack=2)
    assert h.states() == ["TIME-WAIT"]


def test_a_port_in_time_wait_can_be_listened_on(h):
    """socket(7), SO_REUSEADDR: if both ask for it; see test_bind.py for all the rules"""
    time_wait(h)
    with fails("EADDRINUSE"):
        h.listen(80, SO_REUSEADDR=0)
    h.listen(80)


def test_a_port_in_time_wait_is_not_used_to_connect(h):
    c = h.connect(80, local_port=5000)
    p = h.peer(port=80, to=5000)
    p.expect("S")
    p.rx("SA", seq=0)
    p.expect("A")
    h.free(c)
    p.expect("FA")
    p.rx("FA")
    p.expect("A")
    again = h.open()
    h.set(again, SO_REUSEADDR=1)
    h.bind(again, 5000)
    with fails("EADDRINUSE"):
        h.connect_again(again, 80)
    h.connect_again(again, 81)
    h.frames()


def test_time_wait_keeps_no_buffers(h):
    """What was not read when the owner left is not kept for a minute."""
    p, c = h.established()
    h.shutdown(c)
    p.expect("FA")
    p.rx("FA", data=b"unread")
    p.expect("A")
    assert h.state(c) == "TIME-WAIT"
    assert h.stack.memory()["buffers"] > 0
    h.free(c)
    assert h.stack.memory()["buffers"] == 0


# --- RST ---


def test_abort(h):
    """RFC 9293 3.10.5"""
    p, c = h.established()
    h.send(c, b"lost")
    h.abort(c)
    p.expect("R", seq=1)
    h.expect_nothing()
    assert h.states() == []
    assert lib.sock_error(h.handle, c) == -errno.EBADF


@pytest.mark.parametrize("shut", [False, True], ids=["open", "shut-down"])
def test_close_with_unread_data_resets(h, shut):
    """RFC 9293 3.6.1 (SHLD-3), RFC 2525 2.17: what it sent was not read, and it should know"""
    p, c = h.established()
    if shut:
        h.shutdown(c)
        p.expect("FA")
        p.rx("A", ack=2)
    p.rx("PA", data=b"unread")
    h.free(c)
    p.expect("R", seq=2 if shut else 1)
    assert h.states() == []


def test_data_for_nobody_resets(h):
    """RFC 9293 3.6.1 (SHLD-3, MAY-1), RFC 1122 4.2.2.13: data after both halves were given up"""
    p, c = h.established()
    h.free(c)
    p.expect("FA")
    p.rx("A", ack=2)
    p.rx("PA", data=b"anybody?")
    p.expect("R", seq=2)
    assert h.states() == []
    assert h.counted("TcpExtTCPAbortOnData") == 1


def test_reset(h):
    """RFC 9293 3.10.7.4, second; MUST-12"""
    p, c = h.established()
    p.rx("PA", data=b"read me")
    p.rx("R", seq=8)
    assert h.events()[c] & ERROR
    assert h.recv(c) == b"read me"  # what came before is still there
    assert h.error(c) == "ECONNRESET"
    assert h.state(c) == "CLOSED"
    with fails("EPIPE"):
        h.send(c, b"x")
    assert h.recv(c) == b""
    assert h.counted("TcpEstabResets") == 1


def test_reset_before_it_was_accepted(h):
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1)
    p.rx("R", seq=1)
    assert h.events() == {}
    with fails("EAGAIN"):
        h.accept(listener)
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize("state", ["FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "CLOSE-WAIT"])
def test_reset_in_every_state(h, state):
    p, c = h.established()
    if state in ("CLOSE-WAIT", "LAST-ACK"):
        p.rx("FA")
    if state != "CLOSE-WAIT":
        h.free(c)
    h.frames()
    if state == "FIN-WAIT-2":
        p.rx("A", ack=2)
    if state == "CLOSING":
        p.rx("FA", ack=1)
        h.frames()
    assert h.states() == [state]
    p.rx("R", seq=p.next)
    assert h.states() == (["CLOSED"] if state == "CLOSE-WAIT" else [])
    if state == "CLOSE-WAIT":
        assert h.error(c) == "ECONNRESET"


# --- orphans ---


def test_fin_wait_2_does_not_last_for_an_orphan(h):
    """It has no owner who could wait: 60 s for the peer to say its FIN."""
    p, c = h.established()
    h.free(c)
    p.expect("FA")
    p.rx("A", ack=2)
    h.after("59s")
    assert h.states() == ["FIN-WAIT-2"]
    h.after("1s")
    assert h.states() == []


def test_lingering(h):
    """What a machine that goes down should still wait for"""
    p, c = h.established()
    h.send(c, b"bye")
    assert h.stack.lingering() == 0
    h.free(c)
    assert h.stack.lingering() == 1
    p.expect("FPA")
    p.rx("A", ack=5)
    assert h.stack.lingering() == 0


def test_ids_are_dead_at_once(h):
    """sock_free: EBADF for every call, though the connection lives on; and a new socket has another id"""
    p, c = h.established()
    h.free(c)
    p.expect("FA")
    buf = bytearray(16)
    raw = ffi.from_buffer(buf)
    calls = [
        lib.sock_send(h.handle, c, b"x", 1),
        lib.sock_recv(h.handle, c, raw, 16),
        lib.sock_free(h.handle, c),
        lib.sock_abort(h.handle, c),
        lib.sock_shutdown(h.handle, c),
        lib.sock_accept(h.handle, c),
        lib.sock_admit(h.handle, c),
        lib.sock_reject(h.handle, c, 111),
        lib.sock_want(h.handle, c, 1),
        lib.sock_error(h.handle, c),
        lib.sock_getopt(h.handle, c, 1, 3),
        lib.sock_setopt(h.handle, c, 1, 2, 1),
        lib.sock_bind(h.handle, c, bytes(16), 1),
        lib.sock_connect(h.handle, c, bytes(16), 1),
        lib.sock_listen(h.handle, c, 1, 0),
    ]
    assert calls == [-errno.EBADF] * len(calls)
    assert h.open() != c


@pytest.mark.parametrize("id", [-1, 0, 1, 2**40 - 1, 2**62, -(2**62)])
def test_ids_that_never_were(h, id):
    assert lib.sock_error(h.handle, id) == -errno.EBADF


def test_ids_differ_for_a_long_time(h):
    seen = set()
    for _ in range(1000):
        id = lib.sock_open(h.handle, 2, 2)
        assert id not in seen
        seen.add(id)
        lib.sock_free(h.handle, id)

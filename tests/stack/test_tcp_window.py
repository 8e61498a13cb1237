"""TCP windows (RFC 9293 3.8.6): ours, theirs, and the one that is shut."""

from __future__ import annotations

from scapy.layers.inet import TCP

from .packets import payload_of


def test_the_window_shuts_and_opens(harness, family):
    """RFC 9293 3.8.6 (MUST-39, MAY-8): told is kept; 3.8.6.2.2: it opens by a segment at least, and then we say so."""
    h = harness(family, rcvbuf=4000)
    p, c = h.established()
    assert p.win == 65535
    for at in range(1, 4001, 1000):
        p.rx("A", seq=at, data=b"x" * 1000)
    assert [s.packet[TCP].window for s in h.frames()] == [2000, 0]
    p.rx("A", seq=4001, data=b"y")  # a probe of one byte, RFC 9293 3.8.6.1
    p.expect("A", ack=4001, win=0)
    h.recv(c, 900)
    h.expect_nothing()
    h.recv(c, 100)
    p.expect("A", ack=4001, win=1000)
    p.rx("A", seq=4001, data=b"z" * 1000)
    h.after("40ms")
    p.expect("A", ack=5001, win=0)
    assert h.recv(c) == b"x" * 3000 + b"z" * 1000
    p.expect("A", ack=5001, win=4000)


def test_what_does_not_fit_the_window_is_cut(harness, family):
    """RFC 9293 3.10.7.4: trimmed to the window; the FIN behind it with it"""
    h = harness(family, rcvbuf=1000)
    p, c = h.established()
    p.rx("FA", seq=1, data=b"x" * 1100)
    p.expect("A", ack=1001, win=0)
    assert len(h.recv(c)) == 1000
    assert h.state(c) == "ESTABLISHED"
    p.expect("A", win=1000)


def test_a_fin_fits_into_a_shut_window(harness, family):
    """The peer fills the window and closes; then both closes must go through."""
    h = harness(family, rcvbuf=1000)
    p, c = h.established()
    p.rx("A", seq=1, data=b"x" * 1000)
    h.after("40ms")
    p.expect("A", ack=1001, win=0)
    p.rx("FA", seq=1001)
    p.expect("A", ack=1002, win=0)
    assert len(h.recv(c)) == 1000
    assert h.recv(c) == b""
    h.free(c)
    p.expect("FA", seq=1, ack=1002)
    p.rx("A", seq=1002, ack=2)
    assert h.states() == []


def test_data_and_fin_that_end_with_the_window(harness, family):
    h = harness(family, rcvbuf=1000)
    p, c = h.established()
    p.rx("FA", seq=1, data=b"x" * 1000)
    p.expect("A", ack=1002, win=0)
    assert (len(h.recv(c)), h.recv(c)) == (1000, b"")
    h.send(c, b"bye")
    p.expect("PA", seq=1, data=b"bye")
    p.rx("A", seq=1002, ack=4)
    h.free(c)
    p.expect("FA", seq=4)
    p.rx("A", seq=1002, ack=5)
    assert h.states() == []


def test_a_smaller_buffer_takes_nothing_back(h):
    """RFC 9293 3.8.6 (SHLD-14): do not shrink the window"""
    p, c = h.established(SO_RCVBUF=8192)
    h.set(c, SO_RCVBUF=4096)
    p.rx("A", seq=1, data=b"x" * 1000)
    p.rx("A", seq=1001, data=b"x" * 1000)
    p.expect("A", ack=2001, win=8192 - 2000)


def test_what_fits_a_window_that_shrank_is_sent_again(h):
    """RFC 9293 3.8.6 (SHLD-15, SHLD-16): nothing new, but what was sent before and still fits, as usual"""
    p, c = h.established(win=8000)
    h.send(c, b"x" * 20_000)
    assert len(h.frames()) == 8
    p.rx("A", ack=1, win=2000)
    h.expect_nothing()
    h.after("1s")
    again = [s.packet[TCP].seq - p.iss for s in h.frames()]
    assert again
    assert all(seq < 2000 for seq in again)
    p.rx("A", ack=8001, win=65535)
    h.frames()


# --- zero window ---
def test_zero_window_is_probed(h):
    """RFC 9293 3.8.6.1 (MUST-36, SHLD-29, SHLD-30): first after an RTO, then doubling; as long as the peer answers"""
    p, c = h.established(win=0)
    h.send(c, b"x" * 500)
    h.expect_nothing()
    h.after("200ms" if h.info(c).srtt else "1s")
    for wait in ("400ms", "800ms", "1600ms", "3200ms", "6400ms"):
        p.expect("A", seq=0, length=0)  # old, so that it must be answered
        p.rx("A", ack=1, win=0)
        h.after(wait)
    p.expect("A", seq=0, length=0)
    p.rx("A", ack=1, win=500)
    p.expect("PA", seq=1, length=500)
    p.rx("A")
    assert h.counted("TcpExtTCPWinProbe") == 6


def test_zero_window_for_an_hour(h):
    """RFC 9293 3.8.6.1 (MUST-37): it may stay shut for ever."""
    p, c = h.established(win=0)
    h.send(c, b"x")
    for _ in range(40):
        h.after("120s")
        for s in h.frames():
            assert len(payload_of(s.packet[TCP])) == 0
        p.rx("A", ack=1, win=0)
    assert h.state(c) == "ESTABLISHED"
    p.rx("A", ack=1, win=1)
    p.expect("PA", length=1)
    p.rx("A")


def test_a_window_that_shut_over_data_under_way(h):
    """RFC 9293 3.8.6.1 (MUST-35, SHLD-17, MAY-7): not given up while the peer says that it is there; else given up"""
    p, c = h.established()
    h.send(c, b"x" * 1000)
    p.expect("PA")
    p.rx("A", ack=1, win=0)
    for _ in range(30):
        h.after("120s")
        assert h.frames()
        p.rx("A", ack=1, win=0)
    assert h.state(c) == "ESTABLISHED"
    p.rx("A", ack=1001, win=1000)
    h.send(c, b"y")
    p.expect("PA", data=b"y")
    p.rx("A", ack=1002)


def test_a_shut_window_and_nobody_there(h):
    p, c = h.established()
    h.send(c, b"x" * 1000)
    p.expect("PA")
    p.rx("A", ack=1, win=0)
    h.after("1800s")
    h.frames()
    assert h.error(c) == "ETIMEDOUT"


def test_an_orphan_does_not_probe_for_ever(h):
    """RFC 9293 3.8.6.1 is for connections that somebody wants."""
    p, c = h.established(win=0)
    h.send(c, b"x")
    h.free(c)
    for _ in range(20):
        h.after("120s")
        h.frames()
        p.rx("A", ack=1, win=0)
    h.frames()
    assert h.states() == []

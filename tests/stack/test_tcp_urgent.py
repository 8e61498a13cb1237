"""Urgent data (RFC 9293 3.8.5, RFC 6093): announced by a pointer, and read in line."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import READ, fails
from .packets import payload_of

URGENT = 16  # EV_URGENT


def urge(h, p, pointer, flags="UPA", **fields):
    """A segment with that urgent pointer arrives."""
    packet = p.segment(flags, **fields)
    packet[TCP].urgptr = pointer
    h.inject(packet)
    h._run()


def left(h, c):
    return check(lib.sock_urgent(h.handle, c))


def send(h, c, data):
    return check(lib.sock_send_urgent(h.handle, c, data, len(data)))


def watched(h, **options):
    p, c = h.established(**options)
    check(lib.sock_want(h.handle, c, READ | URGENT))
    return p, c


def test_urgent_data_is_announced_and_read_in_line(h):
    """RFC 9293 3.8.5 (MUST-30, MUST-32, MUST-33, MUST-62), RFC 6093 6: the pointer names the byte behind it"""
    p, c = watched(h)
    assert (h.events(), left(h, c)) == ({}, 0)
    urge(h, p, 3, data=b"now then")
    assert h.events() == {c: READ | URGENT}
    assert left(h, c) == 3
    assert h.recv(c, 2) == b"no"
    assert (h.events(), left(h, c)) == ({c: READ | URGENT}, 1)
    assert h.recv(c, 1) == b"w"
    assert (h.events(), left(h, c)) == ({c: READ}, 0)
    assert h.recv(c) == b" then"
    assert h.events() == {}
    h.after("40ms")
    p.expect("A", ack=9)


def test_the_pointer_may_be_far_ahead(h):
    """RFC 9293 3.8.5 (MUST-31, MUST-32): urgent data longer than a segment is known before it has come"""
    p, c = watched(h)
    urge(h, p, 5000, data=b"x" * 1000)
    assert left(h, c) == 5000
    for at in range(1001, 5001, 1000):
        urge(h, p, 5001 - at, seq=at, data=b"x" * 1000)
    assert left(h, c) == 5000
    assert len(h.recv(c)) == 5000
    assert left(h, c) == 0
    h.after("40ms")
    h.frames()


def test_the_pointer_moves_on_and_not_back(h):
    """RFC 9293 3.8.5 (MUST-32): whenever it advances; 3.10.7.4, sixth: the larger of the two"""
    p, c = watched(h)
    urge(h, p, 1, data=b"abc")
    assert left(h, c) == 1
    urge(h, p, 2, data=b"def")
    assert left(h, c) == 5
    urge(h, p, 1, data=b"ghi")
    assert left(h, c) == 7
    urge(h, p, 1, seq=1, data=b"abc")
    assert left(h, c) == 7
    assert h.recv(c) == b"abcdefghi"
    assert left(h, c) == 0
    urge(h, p, 2, seq=1, data=b"abc")  # all of that was read
    assert (h.events(), left(h, c)) == ({}, 0)
    h.frames()


def test_urgent_without_data(h):
    """RFC 9293 3.10.2: the news may come before the data, which the window does not let through yet"""
    p, c = watched(h)
    urge(h, p, 4, flags="UA")
    assert h.events() == {c: URGENT}
    p.rx("PA", data=b"abcd")
    assert left(h, c) == 4
    assert h.recv(c) == b"abcd"
    h.after("40ms")
    p.expect("A", ack=5)


def test_urgent_when_the_window_is_shut(harness, family):
    """RFC 9293 3.4 (MUST-66): URG is heard with a receive window of zero"""
    h = harness(family, rcvbuf=1000)
    p, c = watched(h)
    p.rx("A", seq=1, data=b"x" * 1000)
    h.after("40ms")
    p.expect("A", ack=1001, win=0)
    urge(h, p, 1, seq=1001, data=b"!")
    p.expect("A", ack=1001, win=0)
    assert left(h, c) == 1001
    assert h.events()[c] & URGENT


@pytest.mark.parametrize("pointer", [0, 65535])
def test_pointers_that_mean_nothing(h, pointer):
    """RFC 6093 3: a flag without a pointer, and a pointer to what never comes"""
    p, c = watched(h)
    urge(h, p, pointer, data=b"abc")
    assert left(h, c) == pointer
    assert h.recv(c) == b"abc"
    p.rx("FA")
    assert h.recv(c) == b""
    h.free(c)
    h.frames()
    p.rx("A", ack=2)


def test_the_flag_means_nothing_to_who_does_not_ask(h):
    p, c = h.established()
    urge(h, p, 3, data=b"now")
    assert h.events() == {c: READ}
    assert h.recv(c) == b"now"
    h.after("40ms")
    p.expect("A", ack=4)


def test_urgent_data_is_sent_with_a_pointer_behind_it(h):
    """RFC 9293 3.8.5 (MUST-30, MUST-62)"""
    p, c = h.established()
    assert send(h, c, b"stop") == 4
    assert p.expect("PAU", seq=1, data=b"stop").urgptr == 4
    p.rx("A")
    h.send(c, b"go on")
    assert p.expect("PA", data=b"go on").urgptr == 0
    p.rx("A")


def test_all_that_is_queued_is_urgent(h):
    """RFC 9293 3.10.2: each segment before the end of it says so, those behind do not"""
    p, c = h.established(win=3000)
    h.send(c, b"x" * 2500)
    send(h, c, b"!")
    h.send(c, b"y" * 500)
    got = [(str(s.packet[TCP].flags), s.packet[TCP].urgptr, len(payload_of(s.packet[TCP]))) for s in h.frames()]
    assert got == [("AU", 2501, 1000), ("AU", 1501, 1000), ("AU", 501, 1000)]
    p.rx("A", ack=3001)
    assert p.expect("PA", seq=3001, length=1).urgptr == 0
    p.rx("A", ack=3002)


def test_the_news_goes_through_a_shut_window(h):
    """RFC 9293 3.10.2: told at once, with an empty segment if need be"""
    p, c = h.established(win=0)
    send(h, c, b"stop")
    assert p.expect("AU", seq=1, length=0).urgptr == 4
    p.rx("A", win=1000)
    assert p.expect("PAU", seq=1, data=b"stop").urgptr == 4
    p.rx("A")


def test_urgent_data_longer_than_the_pointer(harness, family):
    """RFC 9293 3.8.5 (MUST-31): 65535 at first, further on later"""
    h = harness(family)
    p, c = h.established(ws=7, win=65535)
    data = b"x" * 100_000
    assert send(h, c, data) == len(data)
    got, pointers = 0, []
    while got < len(data):
        for s in h.frames():
            tcp = s.packet[TCP]
            ahead = len(data) - got
            assert tcp.flags.U
            assert tcp.urgptr == min(ahead, 65535)
            pointers.append(tcp.urgptr)
            got += len(payload_of(tcp))
        p.rx("A", ack=1 + got, win=65535)
    assert pointers[0] == 65535
    assert pointers[-1] <= 1000


def test_urgent_data_is_sent_again_as_urgent(h):
    p, c = h.established()
    send(h, c, b"stop")
    p.expect("PAU")
    h.after("1s")
    again = h.frames()
    assert again
    assert all(s.packet[TCP].flags.U and s.packet[TCP].urgptr == 4 for s in again)
    p.rx("A", ack=5)


def test_urgent_before_the_connection_is_there(h):
    c = h.connect(80, local_port=5000)
    p = h.peer(port=80, to=5000)
    send(h, c, b"stop")
    assert p.expect("S").urgptr == 0
    p.rx("SA", seq=0)
    assert p.expect("PAU", data=b"stop").urgptr == 4
    p.rx("A")


def test_not_for_datagrams(h):
    u = h.open(2)
    with fails("ENOTSUP"):
        send(h, u, b"x")
    with fails("ENOTSUP"):
        left(h, u)

"""SYN cookies (RFC 4987 3.6): what a listener answers when it has no room for half-open children."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from .harness import LISTEN_DEFER, READ
from .packets import option


def full(h):
    return 1460 if h.family == 4 else 1440


@pytest.fixture
def listener(h):
    """Its SYN queue is full."""
    h.meet()
    id = h.listen(80, backlog=1)
    filler = h.peer(port=1)
    filler.rx("S", seq=0)
    filler.expect("SA")
    return id


def timestamp(packet):
    return option(packet, "Timestamp")


def test_a_cookie_makes_a_connection(h, listener):
    """RFC 4987 3.6: nothing is kept of the SYN; the ACK that fits brings the connection up."""
    p = h.peer()
    p.rx("S", seq=0, mss=1000)
    p.expect("SA", seq=0, ack=1, mss=full(h), options=["MSS"])
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]  # the one that fills the queue
    assert h.counted("TcpExtSyncookiesSent") == 1
    h.at("50ms")
    p.rx("A", seq=1, ack=1, win=2000)
    assert h.counted("TcpExtSyncookiesRecv") == 1
    assert h.counted("TcpPassiveOpens") == 2
    assert h.events() == {listener: READ}
    c = h.accept(listener)
    assert h.info(c).mss == 536  # the table's, not above the peer's
    h.send(c, b"x" * 536)
    p.expect("PA", seq=1, ack=1, length=536)


def test_data_with_the_ack_is_kept(h, listener):
    """RFC 4987 3.6: also where the bare ACK was lost"""
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("PA", seq=1, ack=1, data=b"GET /")
    c = h.accept(listener)
    assert h.recv(c) == b"GET /"
    h.after("40ms")
    p.expect("A", seq=1, ack=6)


def test_a_fin_with_the_ack_is_kept(h, listener):
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("FPA", seq=1, ack=1, data=b"x")
    p.expect("A", ack=3)
    c = h.accept(listener)
    assert (h.recv(c), h.recv(c)) == (b"x", b"")


@pytest.mark.parametrize("offered", [536, 1220, 1300, 1440, 1460, 9000])
def test_the_mss_survives(h, listener, offered):
    """RFC 4987 3.6: three bits tell one of eight, never above what the peer said"""
    p = h.peer()
    p.rx("S", seq=0, mss=offered)
    p.expect("SA")
    p.rx("A", seq=1)
    kept = h.info(h.accept(listener)).mss
    assert 0.4 * min(offered, full(h)) < kept <= min(offered, full(h))


@pytest.mark.parametrize("ws", [None, 0, 7, 14])
def test_window_scale_and_timestamps_survive(h, listener, ws):
    """RFC 4987 3.6, RFC 7323: in the low bits of the timestamp that the peer gives back"""
    p = h.peer()
    p.rx("S", seq=0, mss=1400, ws=ws, ts=100)
    tcp = p.expect("SA", ts=(None, 100), ws=None if ws is None else 5)
    assert (option(tcp, "WScale") is None) == (ws is None)
    first = timestamp(tcp)[0]
    h.at("20ms")
    p.rx("A", seq=1, win=1000, ts=120)
    c = h.accept(listener)
    h.send(c, b"x")
    sent = p.expect("PA", ts=(None, 120))
    assert 0 <= (timestamp(sent)[0] - first) % 2**32 < 20 + 64  # never back (RFC 7323 5.2), nor from the future
    assert sent.window == 65535 >> 0 if ws is None else sent.window == (1 << 20) >> 5
    p.rx("A")
    h.send(c, b"x" * 200_000)
    size = sum(len(s.packet[TCP].payload) for s in h.frames())
    assert size == 1000 if not ws else size > 10_000
    h.abort(c)
    h.frames()


def test_without_timestamps_no_window_scale(h, listener):
    """There is no place to keep it."""
    p = h.peer()
    p.rx("S", seq=0, mss=1400, ws=7)
    p.expect("SA", options=["MSS"])
    p.rx("A", seq=1, win=1000)
    c = h.accept(listener)
    h.send(c, b"x" * 5000)
    assert sum(len(s.packet[TCP].payload) for s in h.frames()) == 1000
    h.abort(c)
    h.frames()


@pytest.mark.parametrize(
    "wrong",
    [{"ack": 2}, {"ack": 0}, {"seq": 2}, {"seq": 0}, {"ack": 1 + (1 << 24)}, {"ack": 1 - (1 << 27)}, {"port": 40001}],
    ids=str,
)
def test_a_forged_ack_is_reset(h, listener, wrong):
    """RFC 4987 3.6: the hash covers both ends, the peer's number, the time and the MSS; RFC 9293 3.10.7.2"""
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.port = wrong.get("port", p.port)
    ack = wrong.get("ack", 1)
    p.rx("A", seq=wrong.get("seq", 1), ack=ack)
    p.expect("R", seq=ack)
    assert h.counted("TcpExtSyncookiesFailed") == 1
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]


@pytest.mark.parametrize(("wait", "good"), [("59s", True), ("200s", False)])
def test_a_cookie_grows_old(h, listener, wait, good):
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    h.at(wait)
    h.frames()
    fresh = h.peer(port=2)  # so that the listener has sent one lately
    filler = h.peer(port=3)
    filler.rx("S", seq=0)
    fresh.rx("S", seq=0)
    h.frames()
    p.rx("A", seq=1, ack=1)
    if good:
        h.accept(listener)
    else:
        p.expect("R", seq=1)
        assert h.counted("TcpExtSyncookiesFailed") == 1


def test_no_cookie_is_looked_for_at_a_listener_that_sent_none(h):
    """RFC 4987 3.6: a forger has nothing to guess at"""
    h.listen(80)
    p = h.peer()
    p.rx("A", seq=1, ack=1)
    p.expect("R", seq=1)
    assert h.counted("TcpExtSyncookiesFailed") == 0


def test_nor_long_after_the_last(h, listener):
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    h.at("121s")
    h.frames()
    p.rx("A", seq=1, ack=1)
    p.expect("R", seq=1)
    assert h.counted("TcpExtSyncookiesFailed") == 0


def test_a_cookie_and_no_place_to_wait(h, listener):
    """While the accept queue is full the ACK is dropped, and good when it comes again."""
    for port in (2, 3):
        p = h.peer(port=port)
        p.rx("S", seq=0)
        p.expect("SA")
        p.rx("A", seq=1)
    late = h.peer()
    late.rx("S", seq=0)
    h.expect_nothing()  # not even a SYN is taken now
    assert h.counted("TcpExtListenOverflows") == 1
    h.accept(listener)
    late.rx("S", seq=0)
    late.expect("SA")
    other = h.peer(port=4)
    other.rx("S", seq=0)
    other.expect("SA")
    other.rx("A", seq=1)
    late.rx("PA", seq=1, data=b"late")
    h.expect_nothing()
    h.accept(listener)
    late.rx("PA", seq=1, data=b"late")
    h.accept(listener)
    assert h.recv(h.accept(listener)) == b"late"
    h.after("40ms")
    late.expect("A", ack=5)


def test_the_ack_again_belongs_to_the_connection(h, listener):
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1, ack=1)
    p.rx("A", seq=1, ack=1)
    h.expect_nothing()
    assert h.counted("TcpExtSyncookiesRecv") == 1


def test_no_cookies_where_the_owner_decides(h):
    """LISTEN_DEFER: the answer would come before the decision. The SYN is dropped."""
    h.listen(80, backlog=1, flags=LISTEN_DEFER)
    for port in (1, 2, 3):
        h.peer(port=port).rx("S", seq=0)
    h.expect_nothing()
    assert h.counted("TcpExtListenOverflows") == 1
    assert h.counted("TcpExtSyncookiesSent") == 0


def test_syn_flood(h):
    """Memory stays flat, who is connected is served on, and who asks meanwhile gets through."""
    listener = h.listen(80, backlog=64)
    h.meet()
    old, c = h.established(listener, port=50_000)
    sockets = h.stack.memory()["sockets"]
    for port in range(1, 700):
        h.inject(h.peer(port=port).segment("S", seq=0))
    assert len(h.frames()) == 699
    assert h.stack.memory()["sockets"] == sockets + 64
    assert h.stack.memory()["in_use"] == 0
    assert h.counted("TcpExtSyncookiesSent") == 699 - 64
    h.send(c, b"still here")
    old.expect("PA", data=b"still here")
    old.rx("A")
    new, _ = h.established(listener, port=50_001)
    new.rx("PA", data=b"hello")
    h.after("40ms")
    new.expect("A", ack=6)
    h.at("64s")
    h.frames()
    assert h.states() == ["ESTABLISHED"] * 2 + ["LISTEN"]

"""TCP Fast Open (RFC 7413): data in the SYN, from both sides."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import READ, WRITE, fails
from .packets import option

REQUEST = [(34, b"")]
COOKIE = b"a cookie"


def show(cookie):
    return [(34, cookie)]


def cookie_of(tcp):
    """What a segment carries: None, or its bytes; a request has none."""
    found = option(tcp, "TFO")
    return struct.pack("!II", *found) if isinstance(found, tuple) else found


# --- the server ---


@pytest.fixture
def listener(h):
    h.meet()
    return h.listen(80, TCP_FASTOPEN=4)


@pytest.fixture
def cookie(h, listener):
    """The one that the listener gives to the peer."""
    p = h.peer(port=999)
    p.rx("S", seq=0, options=REQUEST)
    given = cookie_of(p.expect("SA", ack=1))
    p.rx("R", seq=1)
    assert h.counted("TcpExtTCPFastOpenCookieReqd") == 1
    return given


def test_a_cookie_is_given(h, listener, cookie):
    """RFC 7413 3, 4.1.2: to who asks; the same one again, another to somebody else"""
    assert len(cookie) == 8
    p = h.peer(port=1000)
    p.rx("S", seq=0, options=REQUEST, data=b"ignored")
    assert cookie_of(p.expect("SA", ack=1)) == cookie
    other = h.peer(port=1000)
    other.address = h.their + "7" if h.family == 6 else "10.0.0.17"
    other.rx("S", seq=0, options=REQUEST)
    assert cookie_of(other.expect("SA", ack=1)) != cookie


def test_data_in_the_syn(h, listener, cookie):
    """RFC 7413 4.2.2: acknowledged with the SYN, handed up and answered before the handshake ends"""
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"GET /", mss=1000)
    tcp = p.expect("SA", seq=0, ack=6)
    assert cookie_of(tcp) is None
    assert h.events() == {listener: READ}
    c = h.accept(listener)
    assert h.state(c) == "SYN-RECEIVED"
    assert h.recv(c) == b"GET /"
    h.send(c, b"200 OK")
    p.expect("PA", seq=1, ack=6, data=b"200 OK")
    assert h.counted("TcpExtTCPFastOpenPassive") == 1
    h.at("50ms")
    p.rx("A", seq=6, ack=7)
    assert h.state(c) == "ESTABLISHED"
    assert (h.info(c).tx_queue, h.info(c).srtt) == (0, 50_000_000)
    p.rx("PA", seq=6, data=b"more")
    assert h.recv(c) == b"more"
    h.after("50ms")  # a round trip
    p.expect("A", ack=10)


def test_an_ack_of_the_syn_alone(h, listener, cookie):
    """The answer that went ahead is still under way, and sent again if need be."""
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"GET /", mss=1000)
    p.expect("SA", ack=6)
    c = h.accept(listener)
    h.send(c, b"200 OK")
    p.expect("PA", seq=1, data=b"200 OK")
    h.at("10ms")
    p.rx("A", seq=6, ack=1)
    assert h.state(c) == "ESTABLISHED"
    assert (h.info(c).tx_queue, h.info(c).srtt) == (6, 10_000_000)
    h.after("5s")
    assert {(bytes(s.packet[TCP].payload), s.packet[TCP].seq - p.iss) for s in h.frames()} == {(b"200 OK", 1)}
    p.rx("A", seq=6, ack=7)
    assert h.info(c).tx_queue == 0


def test_the_syn_ack_is_lost(h, listener, cookie):
    """RFC 7413 4.2.2: it is sent again; so it is when the SYN comes again."""
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"GET /", mss=1000)
    p.expect("SA", seq=0, ack=6)
    c = h.accept(listener)
    h.send(c, b"200 OK")
    p.expect("PA", seq=1)
    h.at("1s")
    again = [s for s in h.frames() if "S" in str(s.packet[TCP].flags)]
    assert [(s.packet[TCP].seq, s.packet[TCP].ack - p.isn) for s in again] == [(p.iss, 6)]
    p.rx("S", seq=0, data=b"GET /", mss=1000)
    p.expect("SA", seq=0, ack=6)
    p.rx("A", seq=6, ack=7)
    assert h.state(c) == "ESTABLISHED"
    assert h.recv(c) == b"GET /"
    with fails("EAGAIN"):
        h.recv(c)


def test_it_is_given_up(h, listener, cookie):
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    c = h.accept(listener)
    h.at("64s")
    assert len([s for s in h.frames() if "S" in str(s.packet[TCP].flags)]) == 6
    assert h.error(c) == "ETIMEDOUT"


def test_closed_before_the_handshake_ends(h, listener, cookie):
    """RFC 7413 4.2.2: the answer and the FIN go at once; what they do to the state waits for the handshake."""
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"GET /", mss=1000)
    c = h.accept(listener)
    h.recv(c)
    h.send(c, b"bye")
    h.free(c)
    p.expect("SA", ack=6)
    p.expect("FPA", seq=1, data=b"bye")
    assert h.states() == ["LISTEN", "SYN-RECEIVED"]
    p.rx("A", seq=6, ack=1)
    assert h.states() == ["FIN-WAIT-1", "LISTEN"]
    p.rx("FA", seq=6, ack=5)
    p.expect("A", ack=7)


def test_a_cookie_without_data(h, listener, cookie):
    """RFC 7413 4.2.2: it may be accepted at once all the same, and speak first."""
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie))
    p.expect("SA", ack=1)
    c = h.accept(listener)
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.events()[c] == WRITE
    h.send(c, b"220 hello")
    p.expect("PA", seq=1, data=b"220 hello")
    p.rx("A", seq=1)


@pytest.mark.parametrize("wrong", [b"xxxxxxxx", b"short!", b"0123456789abcdef"])
def test_a_wrong_cookie(h, listener, cookie, wrong):
    """RFC 7413 4.1.2: an ordinary handshake, its data not acknowledged, and a good cookie for the next time"""
    p = h.peer()
    p.rx("S", seq=0, options=show(wrong), data=b"GET /")
    assert cookie_of(p.expect("SA", ack=1)) == cookie
    assert h.events() == {}
    assert h.counted("TcpExtTCPFastOpenPassiveFail") == 1
    p.rx("PA", seq=1, data=b"GET /")
    assert h.recv(h.accept(listener)) == b"GET /"
    h.after("40ms")
    p.expect("A", ack=6)


@pytest.mark.parametrize("length", [1, 3, 5, 18])
def test_cookies_of_lengths_that_cannot_be(h, listener, length):
    """RFC 7413 4.1.1: 4 to 16, even; else the option is as if unknown."""
    p = h.peer()
    p.rx("S", seq=0, options=show(b"x" * length))
    assert cookie_of(p.expect("SA", ack=1)) is None


def test_keys_change(h, listener, cookie):
    """RFC 7413 4.1.2: the one before is good, and its bearer is given a new one; then no more."""
    h.at("43200s")
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    new = cookie_of(p.expect("SA", ack=2))
    assert new not in (None, cookie)
    p.rx("R", seq=2)
    h.at("86400s")
    p = h.peer(port=1)
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    assert cookie_of(p.expect("SA", ack=1)) not in (None, cookie, new)
    p.rx("R", seq=1)
    p = h.peer(port=2)
    p.rx("S", seq=0, options=show(new), data=b"x")
    p.expect("SA", ack=2)


def test_only_so_many_at_a_time(h, listener, cookie):
    """RFC 7413 5.1: beyond the limit a SYN is an ordinary one; whoever is established makes room."""
    peers = [h.peer(port=port) for port in range(1, 6)]
    for p in peers:
        p.rx("S", seq=0, options=show(cookie), data=b"x")
    for p in peers[:4]:
        p.expect("SA", ack=2)
    peers[4].expect("SA", ack=1)
    assert h.counted("TcpExtTCPFastOpenListenOverflow") == 1
    peers[0].rx("A", seq=2)
    p = h.peer(port=6)
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    p.expect("SA", ack=2)


def test_those_that_were_reset_count_on(h, listener, cookie):
    """RFC 7413 5.1: a flood in another's name is answered by that one's RSTs; they must not make room."""
    for port in range(1, 5):
        p = h.peer(port=port)
        p.rx("S", seq=0, options=show(cookie), data=b"x")
        p.expect("SA", ack=2)
        p.rx("R", seq=2)
    p = h.peer(port=5)
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    p.expect("SA", ack=1)
    p.rx("R", seq=1)
    h.at("60s")
    p = h.peer(port=6)
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    p.expect("SA", ack=2)


def test_a_reset_after_it_was_accepted(h, listener, cookie):
    p = h.peer()
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    p.expect("SA", ack=2)
    c = h.accept(listener)
    p.rx("R", seq=2)
    assert h.recv(c) == b"x"
    assert h.error(c) == "ECONNRESET"


def test_only_for_listeners_that_asked_for_it(h):
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, options=REQUEST)
    assert cookie_of(p.expect("SA", ack=1)) is None


def test_not_while_cookies_are_sent(h):
    """A full SYN queue has its own cookies (RFC 4987), and those carry no data."""
    h.meet()
    h.listen(80, backlog=1, TCP_FASTOPEN=4)
    p = h.peer(port=1)
    p.rx("S", seq=0, options=REQUEST)
    cookie = cookie_of(p.expect("SA"))
    p = h.peer(port=2)
    p.rx("S", seq=0, options=show(cookie), data=b"x")
    p.expect("SA", ack=1, options=["MSS"])
    assert h.counted("TcpExtSyncookiesSent") == 1


# --- the client ---


def client(h, *, local_port=0, **options):
    c = h.connect(80, local_port=local_port, TCP_FASTOPEN_CONNECT=1, **options)
    return h.peer(port=80, to=h.info(c).local[1]), c


@pytest.fixture
def known(h):
    """We have a cookie of the peer's."""
    p, c = client(h)
    assert cookie_of(p.expect("S", data=b"")) == b""
    p.rx("SA", seq=0, ack=1, mss=1000, options=show(COOKIE))
    p.expect("A")
    h.abort(c)
    p.expect("R")


def test_a_cookie_is_asked_for(h):
    """RFC 7413 3, 4.1.3: with the first connection, whose data goes as ever"""
    p, c = client(h)
    h.send(c, b"GET /")
    assert cookie_of(p.expect("S", data=b"")) == b""
    p.rx("SA", seq=0, ack=1, mss=1000, options=show(COOKIE))
    p.expect("PA", seq=1, ack=1, data=b"GET /")
    p.rx("A", ack=6)


def test_data_goes_with_the_syn(h, known):
    """RFC 7413 4.2.1: the SYN waits for it."""
    p, c = client(h)
    check(lib.sock_want(h.handle, c, READ | WRITE))
    assert h.events() == {c: WRITE}
    h.at("5s").expect_nothing()
    h.send(c, b"GET /")
    assert cookie_of(p.expect("S", seq=0, data=b"GET /")) == COOKIE
    h.after("10ms")
    p.rx("SA", seq=0, ack=6, mss=1000, win=8000)
    p.expect("A", seq=6, ack=1, data=b"")
    assert (h.info(c).tx_queue, h.info(c).srtt) == (0, 10_000_000)
    assert h.counted("TcpExtTCPFastOpenActive") == 1
    p.rx("PA", seq=1, data=b"200 OK")
    assert h.recv(c) == b"200 OK"
    h.send(c, b"again")
    p.expect("PA", seq=6, ack=7, data=b"again")
    p.rx("A", ack=11)
    assert h.info(c).tx_queue == 0


def test_as_much_as_the_server_took_the_last_time(h, known):
    """RFC 7413 4.2.1: its MSS, less the options; the rest follows the SYN, ACK."""
    p, c = client(h, TCP_NODELAY=1)
    blob = bytes(range(256)) * 10
    h.send(c, blob)
    first = p.expect("S", length=960)
    assert bytes(first.payload) == blob[:960]
    p.rx("SA", seq=0, ack=961, mss=1000)
    p.expect("A", seq=961, data=blob[960:1960])
    p.expect("PA", seq=1961, data=blob[1960:])
    p.rx("A", ack=2561)
    assert h.info(c).tx_queue == 0


@pytest.mark.parametrize("taken", [0, 3])
def test_data_that_is_not_taken_is_sent_again(h, known, taken):
    """RFC 7413 4.2.1: what the SYN, ACK does not acknowledge goes at once."""
    p, c = client(h)
    h.send(c, b"GET /")
    p.expect("S", data=b"GET /")
    p.rx("SA", seq=0, ack=1 + taken, mss=1000)
    p.expect("PA", seq=1 + taken, data=b"GET /"[taken:])
    p.rx("A", ack=6)
    assert h.info(c).tx_queue == 0
    assert h.counted("TcpExtTCPFastOpenActiveFail") == (not taken)


def test_a_new_cookie_takes_the_place_of_the_old(h, known):
    p, c = client(h)
    h.send(c, b"1")
    p.expect("S")
    p.rx("SA", seq=0, ack=1, options=show(b"newer one by far"))
    p.expect("PA", data=b"1")
    p.rx("R", seq=1)
    p, c = client(h)
    h.send(c, b"2")
    tcp = p.expect("S", data=b"2")
    assert bytes(tcp)[20 : tcp.dataofs * 4].endswith(b"newer one by far")
    p.rx("RA", seq=0, ack=1)
    assert h.error(c) == "ECONNREFUSED"


def test_the_syn_with_data_is_lost(h, known):
    """RFC 7413 4.2.1, 4.1.3.1: sent again without it and the option; next time not tried, for a while"""
    p, c = client(h)
    h.send(c, b"GET /")
    p.expect("S", data=b"GET /")
    h.at("1s")
    assert cookie_of(p.expect("S", data=b"")) is None
    p.rx("SA", seq=0, ack=1, mss=1000)
    p.expect("PA", seq=1, data=b"GET /")
    p.rx("A", ack=6)
    p, c = client(h)
    h.send(c, b"GET /")
    assert cookie_of(p.expect("S", data=b"")) is None
    p.rx("SA", seq=0, ack=1)
    p.expect("PA")
    p.rx("R", seq=1)
    h.at("602s")
    p, c = client(h)
    h.send(c, b"GET /")
    assert cookie_of(p.expect("S", data=b"GET /")) == COOKIE
    p.rx("R", seq=1)
    h.abort(c)


def test_only_the_answer_is_late(h, known):
    """The SYN was heard after all: its data counts, though it was sent again without."""
    p, c = client(h)
    h.send(c, b"GET /")
    p.expect("S", data=b"GET /")
    h.at("1s")
    p.expect("S", data=b"")
    p.rx("SA", seq=0, ack=6, mss=1000)
    p.expect("A", seq=6)
    assert h.info(c).tx_queue == 0


def test_an_ack_beyond_the_data_is_reset(h, known):
    """RFC 9293 3.10.7.3, first"""
    p, c = client(h)
    h.send(c, b"GET /")
    p.expect("S")
    p.rx("SA", seq=0, ack=7)
    p.expect("R", seq=7)
    assert h.state(c) == "SYN-SENT"


def test_refused(h, known):
    p, c = client(h)
    h.send(c, b"GET /")
    p.expect("S")
    p.rx("RA", seq=0, ack=6)
    assert h.error(c) == "ECONNREFUSED"


def test_both_at_once(h, known):
    """RFC 7413 with RFC 9293 3.5, figure 7: then the data goes after the handshake"""
    p, c = client(h, local_port=5000)
    h.send(c, b"GET /")
    p.expect("S", data=b"GET /")
    p.rx("S", seq=0, mss=1000)
    assert cookie_of(p.expect("SA", seq=0, ack=1, data=b"")) is None
    p.rx("SA", seq=0, ack=1)
    p.expect("PA", seq=1, data=b"GET /")
    p.rx("A", seq=1, ack=6)
    h.frames()
    assert h.info(c).tx_queue == 0


def test_nobody_who_did_not_ask(h, known):
    p = h.peer(port=80, to=5000)
    h.connect(80, local_port=5000)
    assert cookie_of(p.expect("S")) is None


def test_the_cache_is_bounded(h):
    """64 servers; who was not needed for longest goes."""
    servers = [f"10.0.0.{i + 10}" if h.family == 4 else f"fd00::{i + 10:x}" for i in range(65)]
    for address in servers:
        c = h.connect(80, address, TCP_FASTOPEN_CONNECT=1)
        p = h.peer(port=80, to=h.info(c).local[1])
        p.address = address
        p.expect("S")
        p.rx("SA", seq=0, ack=1, options=show(COOKIE))
        p.expect("A")
        p.rx("R", seq=1)
        h.after("1ms")
    for address, cached in ((servers[0], False), (servers[-1], True)):
        c = h.connect(80, address, TCP_FASTOPEN_CONNECT=1)
        h.send(c, b"x")
        assert cookie_of(h.expect_packet()[TCP]) == (COOKIE if cached else b"")


def test_between_two_of_ours(harness, family):
    """Over loopback: request, then data with the SYN and its answer within one round trip."""
    h = harness(family)
    listener = h.listen(80, TCP_FASTOPEN=8)
    for turn in range(2):
        c = h.connect(80, h.ours, TCP_FASTOPEN_CONNECT=1)
        h.send(c, b"question")
        h.after("1ms")
        child = h.accept(listener)
        assert h.recv(child) == b"question"
        h.send(child, b"answer")
        h.after("1ms")
        assert h.recv(c) == b"answer"
        assert h.counted("TcpExtTCPFastOpenPassive") == h.counted("TcpExtTCPFastOpenActive") == turn
        h.free(c)
        h.free(child)
        h.after("100ms")

"""TCP opens (RFC 9293 3.5, 3.10.1, 3.10.7): handshakes both ways, options, listeners."""

from __future__ import annotations

import errno

import pytest
from scapy.layers.inet import TCP

from libos._native import lib
from libos.errors import check

from .harness import ERROR, LISTEN_ANY_PORT, LISTEN_DEFER, PEER, READ, REQUEST, WRITE, fails, quoted


def full(h, mtu=1500):
    """The MSS that a link's MTU leaves."""
    return mtu - (40 if h.family == 4 else 60)


# --- passive ---


def test_passive_open(h):
    """RFC 9293 figure 6, from the side that listens"""
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
    """RFC 9293 3.10.7.4, second, SYN-RECEIVED after a passive open"""
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
    """What is half open and what waits to be accepted counts; a SYN that finds no place is dropped, and tried again."""
    listener = h.listen(80, backlog=2)
    peers = [h.peer(port=40000 + i) for i in range(3)]
    for p in peers:
        p.rx("S", seq=0)
    peers[0].expect("SA")
    peers[1].expect("SA")
    h.expect_nothing()
    assert h.counted("TcpExtListenOverflows") == 1
    peers[0].rx("A", seq=1)
    peers[1].rx("A", seq=1)
    h.at("900ms")
    peers[2].rx("S", seq=0)
    h.expect_nothing()
    h.accept(listener)
    h.at("999ms")
    peers[2].rx("S", seq=0)
    peers[2].expect("SA")


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


# --- options ---


@pytest.mark.parametrize(("offered", "used"), [(None, 536), (1000, 1000), (9000, None), (0, None), (1, 64)])
def test_mss(h, offered, used):
    """RFC 9293 3.7.1: theirs, ours if it is less, the default if there is none; absurd ones are not obeyed."""
    if offered in (None, 0):
        used = 536 if h.family == 4 else 1220
    p, c = h.established(mss=offered)
    assert h.info(c).mss == (used or full(h))
    h.send(c, b"x" * 5000)
    p.expect("A", length=used or full(h))
    h.frames()


def test_small_mtu(harness, family):
    h = harness(family, mtu=1280)
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA", mss=full(h, 1280))


def test_no_options_offered_none_answered(h):
    """RFC 7323 2.2, 3.2: only in answer to a SYN that has them"""
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA", options=["MSS"])


@pytest.mark.parametrize(("rcvbuf", "shift"), [(65535, 0), (65536, 1), (1 << 20, 5), (64 << 20, 11)])
def test_window_scale(harness, family, rcvbuf, shift):
    """RFC 7323 2.2: the SYN's window is not scaled, all others are; both sides must have offered it, 0 too."""
    h = harness(family, rcvbuf=rcvbuf)
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, ws=7, win=1000)
    p.expect("SA", ws=shift, win=min(rcvbuf >> shift << shift, 65535))
    p.rx("A", seq=1, win=10)
    c = h.accept(listener)
    assert h.send(c, b"x" * 3000) == 3000
    got = sum(len(s.packet[TCP].payload) for s in h.frames())
    assert got == 536 * 2 if h.family == 4 else 1220  # 10 << 7 is room for so many
    p.rx("A", win=0, ack=1 + got)
    p.rx("PA", data=b"x", win=0)
    h.after("40ms")
    p.expect("A", ack=2, win=(rcvbuf - 1) >> shift)
    h.abort(c)
    h.frames()


def test_without_their_window_scale_there_is_none(h):
    """RFC 7323 2.2"""
    p, c = h.established(win=1000)
    h.send(c, b"x" * 3000)
    p.expect("A", length=1000)
    p.rx("A", data=b"x", win=10)
    h.after("40ms")
    p.expect("A", length=0, win=65535)
    p.rx("A", win=1000)
    p.expect("A", length=1000, win=65535)


def test_an_absurd_window_scale_is_14(h):
    """RFC 7323 2.3"""
    p, c = h.established(ws=200, win=65535)
    p.rx("PA", data=b"x", win=1)
    h.send(c, b"x" * 20000)
    assert sum(len(s.packet[TCP].payload) for s in h.frames()) == 10_000  # the initial window, not 1 << 200


def test_timestamps(h):
    """RFC 7323 3.2: offered and answered on the SYNs, then on every segment; TSecr echoes theirs."""
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, mss=1000, ts=100)
    first = p.expect("SA", ts=(None, 100), options=["MSS", "Timestamp"])
    value = dict(first.options)["Timestamp"][0]
    h.at("250ms")
    p.rx("A", seq=1, ack=1, ts=350)
    c = h.accept(listener)
    assert h.info(c).mss == 1000 - 12  # RFC 6691
    h.send(c, b"hello")
    p.expect("PA", ts=(value + 250, 350), data=b"hello", options=["Timestamp"])


def test_timestamps_differ_between_connections(h):
    """RFC 7323 5.4: an offset for each, so that they tell nothing of our uptime"""
    h.listen(80)
    values = set()
    for port in range(1, 6):
        p = h.peer(port=port)
        p.rx("S", seq=0, ts=1)
        values.add(dict(p.expect("SA").options)["Timestamp"][0])
    assert len(values) == 5


def test_sequence_numbers_differ_between_connections_and_go_on_with_time(h):
    """RFC 6528"""
    h.listen(80)
    numbers = set()
    for port in range(1, 6):
        p = h.peer(port=port)
        p.rx("S", seq=0)
        numbers.add(p.expect("SA").seq)
    assert len({n >> 16 for n in numbers}) == 5
    again = h.peer(port=1)
    p.rx("R", seq=1)
    h.peer(port=1).rx("R", seq=1)
    before = p.iss
    h.after("500ms")
    p.rx("S", seq=0)
    assert (p.expect("SA").seq - before) % 2**32 == 500_000 // 4
    del again


@pytest.mark.parametrize(
    "raw",
    [b"\x02\x00", b"\x02\x01", b"\x02\x05\x05\xb4", b"\x03", b"\x08\x0a\x00\x00", b"\x05\xff", b"\xff\x00"],
    ids=lambda raw: raw.hex(),
)
def test_malformed_options(h, raw):
    """RFC 9293 3.1, MUST-7: an illegal length is an error, not a crash. Here: the segment is dropped and counted."""
    h.listen(80)
    raw = raw.rjust((len(raw) + 3) // 4 * 4, b"\1")
    p = h.peer()
    tcp = TCP(sport=40000, dport=80, seq=0, flags="S", dataofs=5 + len(raw) // 4) / raw
    h.inject(h.ip() / tcp)
    h.expect_nothing()
    assert h.counted("TcpInErrs") == 1
    p.expect_nothing()


@pytest.mark.parametrize(
    "options",
    [[(253, b"abcd")], [("SAckOK", b"")], [("EOL", None), ("MSS", 1)], [("MSS", 1400), ("MSS", 600)]],
    ids=["unknown", "sack-ok", "after-end", "twice"],
)
def test_options_that_are_skipped(h, options):
    """RFC 9293 3.1, MUST-6"""
    h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, options=options)
    p.expect("SA", options=["MSS"])


@pytest.mark.parametrize("dataofs", [0, 4, 6, 15])
def test_data_offset_that_cannot_be(h, dataofs):
    h.listen(80)
    h.inject(h.ip() / TCP(sport=1, dport=80, flags="S", dataofs=dataofs))
    h.expect_nothing()
    assert h.counted("TcpInErrs") == 1


def test_wrong_checksum(h):
    h.listen(80)
    h.inject(h.ip() / TCP(sport=1, dport=80, flags="S", chksum=0x1234))
    h.expect_nothing()
    assert h.counted("TcpInCsumErrors") == 1


@pytest.mark.parametrize(("sport", "dport"), [(0, 80), (1, 0)])
def test_port_zero(h, sport, dport):
    h.inject(h.ip() / TCP(sport=sport, dport=dport, flags="S"))
    h.expect_nothing()
    assert h.counted("TcpInErrs") == 1


def test_land(h):
    """A SYN that claims to come from our own address and port"""
    h.listen(80)
    h.inject(h.ip(src=h.ours) / TCP(sport=80, dport=80, flags="S"))
    h.at("10s").expect_nothing()
    assert h.states() == ["LISTEN"]


# --- active ---


def test_active_open(h):
    """RFC 9293 figure 6, from the side that calls"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S", seq=0, mss=full(h), ws=5, win=65535, options=["MSS", "WScale", "Timestamp"])
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
    """RFC 6298 2.1, 5.5: after 1 s, then doubling; ETIMEDOUT after seven"""
    c = h.connect(80)
    p = h.peer(port=80, to=h.info(c).local[1])
    p.expect("S")
    for second in (1, 3, 7, 15, 31, 63):
        h.at(f"{second}s")
        p.expect("S", seq=0)
    h.at("127s")
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
    """RFC 9293 3.5, figure 7"""
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


# --- LISTEN_DEFER, LISTEN_ANY_PORT: what a gateway uses ---


def test_deferred_syn_is_answered_when_admitted(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    h.expect_nothing()
    assert h.events() == {listener: REQUEST}
    c = h.accept(listener)
    assert h.state(c) == "SYN-RECEIVED"
    h.at("10s")
    p.rx("S", seq=0)  # it waits, and asks again
    h.expect_nothing()
    check(lib.sock_admit(h.handle, c))
    p.expect("SA", seq=0, ack=1)
    p.rx("A", seq=1, ack=1)
    check(lib.sock_want(h.handle, c, WRITE))
    assert h.events() == {c: WRITE}
    assert lib.sock_admit(h.handle, c) == -errno.EINVAL


def test_deferred_and_refused(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer(isn=0)
    p.rx("S", seq=5)
    c = h.accept(listener)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, errno.ECONNREFUSED))
    p.expect("RA", seq=0, ack=6)
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize(
    ("error", "v4", "v6"),
    [(errno.EHOSTUNREACH, (3, 1), (1, 3)), (errno.ENETUNREACH, (3, 0), (1, 0)), (errno.EACCES, (3, 13), (1, 1))],
)
def test_deferred_and_unreachable(h, error, v4, v6):
    """ICMP says why, and quotes the SYN."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    syn = p.segment("S", seq=0, mss=1000)
    h.inject(syn)
    c = h.accept(listener)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, error))
    packet = h.expect_packet()
    icmp = packet.payload.payload
    assert (icmp.type, icmp.code) == (v4 if h.family == 4 else v6)
    assert quoted(packet) == bytes(syn)


def test_deferred_and_reset_meanwhile(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    p.rx("R", seq=1)
    assert h.events() == {}
    p.rx("S", seq=0)
    c = h.accept(listener)
    p.rx("R", seq=1)
    assert h.events()[c] & ERROR
    assert lib.sock_admit(h.handle, c) == 0
    assert h.error(c) == "ECONNRESET"
    assert lib.sock_admit(h.handle, c) == -errno.EINVAL


@pytest.mark.parametrize("error", [errno.ECONNREFUSED, errno.EHOSTUNREACH])
def test_deferred_reset_and_then_rejected(h, error):
    """There is nobody left to tell."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    c = h.accept(listener)
    p.rx("R", seq=1)
    h.owned.remove(c)
    check(lib.sock_reject(h.handle, c, error))
    h.expect_nothing()
    assert h.states() == ["LISTEN"]


def test_deferred_and_forgotten(h):
    """Freed without an answer: nothing is said."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    h.peer().rx("S", seq=0)
    h.free(h.accept(listener))
    h.expect_nothing()
    assert h.states() == ["LISTEN"]


def test_a_deferring_listener_closes(h):
    listener = h.listen(80, flags=LISTEN_DEFER)
    for port in (1, 2, 3):
        h.peer(port=port).rx("S", seq=0)
    h.free(listener)
    assert h.states() == []
    h.expect_nothing()


@pytest.mark.parametrize("lost", [False, True])
def test_admitted_answered_and_closed_before_the_handshake_ends(h, lost):
    """RFC 9293 3.10.4, SYN-RECEIVED: data and FIN are queued until ESTABLISHED."""
    listener = h.listen(80, flags=LISTEN_DEFER)
    p = h.peer()
    p.rx("S", seq=0)
    c = h.accept(listener)
    check(lib.sock_admit(h.handle, c))
    h.send(c, b"answer")
    h.free(c)
    p.expect("SA", seq=0, ack=1)
    assert h.stack.lingering() == 1
    if lost:
        h.at("1s")
        p.expect("SA", seq=0, ack=1)
    p.rx("A", seq=1, ack=1)
    p.expect("FPA", seq=1, data=b"answer")
    p.rx("FA", seq=1, ack=8)
    p.expect("A", seq=8, ack=2)
    assert h.states() == ["LISTEN", "TIME-WAIT"]


def test_any_port(harness, family):
    """A gateway's listener takes every address and port; one of a kind."""
    h = harness(family, any_destination=True)
    listener = h.listen(0, flags=LISTEN_DEFER | LISTEN_ANY_PORT)
    far = "198.51.100.9" if family == 4 else "2001:db8::9"
    h.inject(h.ip(dst=far) / TCP(sport=1234, dport=4321, flags="S", seq=7))
    c = h.accept(listener)
    assert h.info(c).local[:2] == (far, 4321)
    check(lib.sock_admit(h.handle, c))
    packet = h.expect_packet()
    assert (packet.payload.src, str(packet[TCP].flags), packet[TCP].ack) == (far, "SA", 8)
    with fails("EADDRINUSE"):
        h.listen(0, flags=LISTEN_ANY_PORT)
    h.free(listener)
    h.listen(0, flags=LISTEN_ANY_PORT)  # its place is free at once


def test_any_port_is_for_gateways(h):
    with fails("EINVAL"):
        h.listen(0, flags=LISTEN_ANY_PORT)


def test_syn_flood(h):
    """More SYNs than the backlog: bounded, counted, over after the retries; and then it serves again."""
    listener = h.listen(80, backlog=64)
    h.meet()
    for port in range(1, 200):
        h.inject(h.peer(port=port).segment("S", seq=0))
    assert len(h.frames()) == 64
    assert h.counted("TcpExtListenOverflows") == 199 - 64
    h.at("64s")
    h.frames()
    assert h.states() == ["LISTEN"]
    h.established(listener)

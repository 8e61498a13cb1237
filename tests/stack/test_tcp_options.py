"""TCP options (RFC 9293 3.1, 3.7.1; RFC 7323): what is offered, answered, and what is made of nonsense."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP


def full(h, mtu=1500):
    """The MSS that a link's MTU leaves."""
    return mtu - (40 if h.family == 4 else 60)


@pytest.mark.parametrize(("offered", "used"), [(None, 536), (1000, 1000), (9000, None), (0, None), (1, 64)])
def test_mss(h, offered, used):
    """RFC 9293 3.7.1 (MUST-14, MUST-15, MUST-16): theirs, ours if it is less, a default; absurd ones are not obeyed"""
    if offered in (None, 0):
        used = 536 if h.family == 4 else 1220
    p, c = h.established(mss=offered)
    assert h.info(c).mss == (used or full(h))
    h.send(c, b"x" * 5000)
    p.expect("A", length=used or full(h))
    h.frames()


def test_small_mtu(harness, family):
    """RFC 9293 3.7.1 (MUST-67, SHLD-5)"""
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
    """RFC 7323 2.2; RFC 9293 REC-1: not the SYN's window, all others; both sides must have offered it, 0 too.
    RFC 7323 2.4: what the scale cannot say is rounded up, or the right edge would go back."""
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
    p.expect("A", ack=2, win=-(-(rcvbuf - 1) >> shift))
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
    """RFC 6528; RFC 9293 3.4.1 (MUST-8, SHLD-1)"""
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
    [[(253, b"abcd")], [("EOL", None), ("MSS", 1)], [("MSS", 1400), ("MSS", 600)]],
    ids=["unknown", "after-end", "twice"],
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
    """RFC 9293 3.1 (MUST-3)"""
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

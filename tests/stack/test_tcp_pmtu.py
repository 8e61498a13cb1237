"""The path's MTU (RFC 1191, RFC 8201), black holes (RFC 2923), and the search with real data (RFC 4821, RFC 8899)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig

from .packets import payload_of


def too_big(h, mtu, inner):
    if h.family == 4:
        return h.ip(src="10.0.0.254") / ICMP(type=3, code=4, nexthopmtu=mtu) / inner[:28]
    return h.ip(src="fd00::fe") / ICMPv6PacketTooBig(mtu=mtu) / inner[:1232]


def headers(h):
    return 40 if h.family == 4 else 60


def sizes(h):
    """Whole packets, without Ethernet, that left just now with data in them."""
    return [len(s.packet.payload) for s in h.frames() if TCP in s.packet and payload_of(s.packet[TCP])]


class Path:
    """What ``p`` does when packets above ``mtu`` vanish: a segment is acknowledged, with SACK, if it came through."""

    def __init__(self, h, p, mtu):
        self.h, self.p, self.mtu = h, p, mtu
        self.got: set[tuple[int, int]] = set()
        self.una, self.sent = 1, []

    def turn(self) -> None:
        """All that has left arrives, or not; then one ACK."""
        any_came = False
        for s in self.h.frames():
            tcp, n = s.packet[TCP], len(payload_of(s.packet[TCP]))
            seq = (tcp.seq - self.p.iss) % 2**32
            if not n:
                continue
            self.sent.append(len(s.packet.payload))
            if len(s.packet.payload) <= self.mtu:
                self.got.add((seq, seq + n))
                any_came = True
        if not any_came:
            return
        for left, right in sorted(self.got):
            if left <= self.una < right:
                self.una = right
        self.got = {(a, b) for a, b in self.got if b > self.una}
        blocks: list[list[int]] = []
        for left, right in sorted(self.got):
            if blocks and blocks[-1][1] >= left:
                blocks[-1][1] = max(blocks[-1][1], right)
            else:
                blocks.append([left, right])
        self.p.rx("A", ack=self.una, sack=[(left, right) for left, right in blocks[:3]])


def fetch(h, p, c, mtu, size, *, step="10ms"):
    """``size`` bytes go over a path of ``mtu``; what was sent."""
    path, written = Path(h, p, mtu), 0
    for _ in range(600):
        if written < size:
            written += h.send(c, b"x" * min(size - written, 40_000)) if h.info(c).tx_queue < 200_000 else 0
        path.turn()
        if path.una == size + 1:
            return path
        h.after(step)
    raise AssertionError(f"stuck at {path.una} of {size}, {h.info(c)}")


# --- RFC 1191, RFC 8201 ---


@pytest.mark.parametrize(("mss", "mtu"), [(1460, 1492), (1400, 1006), (900, 552), (8960, 8166)])
def test_a_router_that_does_not_say(harness, mss, mtu):
    """RFC 1191 5, 7.1: the next plateau below what was sent; 552 is the floor"""
    h = harness(4, mtu=9000)
    p, c = h.established(mss=mss)
    h.send(c, b"x" * mss)
    packet = h.expect_packet()
    h.inject(too_big(h, 0, bytes(packet.payload)))
    assert h.info(c).mss == mtu - 40
    h.frames()
    p.rx("A", ack=mss + 1)


def test_the_next_connection_knows(harness, family):
    """RFC 8201 5.3: per destination; our own MSS option still says what the link takes (RFC 9293 3.7.1)"""
    h = harness(family)
    listener = h.listen(80)
    p, c = h.established(listener, mss=1400)
    h.send(c, b"x" * 1400)
    packet = h.expect_packet()
    h.inject(too_big(h, 1300, bytes(packet.payload)))
    h.frames()
    p.rx("A", ack=1401)
    q = h.peer(port=40001)
    q.rx("S", seq=0, mss=1400)
    q.expect("SA", mss=1500 - headers(h))
    q.rx("A", seq=1, ack=1)
    d = h.accept(listener)
    assert h.info(d).mss == 1300 - headers(h)
    h.at("601s")  # RFC 1191 6.3: after ten minutes
    r = h.peer(port=40002)
    r.rx("S", seq=0, mss=1400)
    r.expect("SA")
    r.rx("A", seq=1, ack=1)
    assert h.info(h.accept(listener)).mss == 1400


def test_what_is_known_is_bounded(harness):
    """A thousand destinations, of which somebody says that they take less: some are forgotten, and that is counted."""
    h = harness(4)
    listener = h.listen(80, backlog=1000)
    for i in range(300):
        p = h.peer(port=1000)
        p.address = f"192.0.{2 + i // 200}.{i % 200 + 20}"
        p.rx("S", seq=0, mss=1400)
        p.expect("SA")
        p.rx("A", seq=1, ack=1)
        c = h.accept(listener)
        h.send(c, b"x" * 1400)
        packet = h.expect_packet()
        h.inject(too_big(h, 1300, bytes(packet.payload)))
        h.frames()
        h.abort(c)
        h.frames()
    assert 0 < h.counted("IpExtPathMtuEvicted") <= 300 - 100


def test_it_may_be_more_again_after_ten_minutes(harness, family):
    """RFC 1191 6.3, RFC 8201 4: by a probe, on a connection that is still there"""
    h = harness(family, mtu_probing=1)
    p, c = h.established(mss=1460)
    full = h.info(c).mss
    h.send(c, b"x" * full)
    packet = h.expect_packet()
    h.inject(too_big(h, 1300, bytes(packet.payload)))
    h.frames()
    p.rx("A", ack=full + 1)
    p.seen = full + 1
    h.at("500s")
    path = Path(h, p, 1500)
    path.una = full + 1
    for _ in range(8):
        h.send(c, b"x" * 20_000)
        path.turn()
        h.after("1ms")
    while h.info(c).tx_queue:
        path.turn()
        h.after("1ms")
    assert max(path.sent) == 1300
    h.at("601s")
    for _ in range(20):
        h.send(c, b"x" * 20_000)
        path.turn()
        h.after("1ms")
    assert h.info(c).mss == full
    assert h.counted("TcpExtTCPMTUPSuccess") == 1
    p.rx("R", seq=1)
    h.frames()


# --- RFC 2923, RFC 4821 ---


@pytest.mark.parametrize("mtu", [1499, 1400, 1280])
def test_black_hole(harness, family, mtu):
    """RFC 2923 2.1, RFC 8899 4.4: large packets vanish, and nobody says so. It goes on, and finds what gets through."""
    h = harness(family, mtu_probing=1)
    p, c = h.established(mss=1460, ws=7, sack=True)
    path = fetch(h, p, c, mtu, 600_000)
    assert h.counted("TcpExtTCPBlackHole") == 1
    assert mtu - 16 <= h.info(c).mss + headers(h) <= mtu, "what it found"
    large = [size for size in path.sent if size > mtu]
    assert len(large) < 40, "few are lost to find out"


def test_no_black_hole_detection_unless_configured(harness, family):
    h = harness(family)
    p, c = h.established(mss=1460)
    h.send(c, b"x" * 5000)
    h.after("120s")
    assert min(sizes(h)) > 1400
    p.rx("R", seq=1)


def test_small_segments_that_are_lost_are_no_black_hole(harness, family):
    """RFC 4821 7.7: it is not their size"""
    h = harness(family, mtu_probing=1)
    p, c = h.established(mss=1460)
    h.send(c, b"x" * 300)
    for _ in range(6):
        h.after("20s")
    h.frames()
    assert h.info(c).mss == 1460 if family == 4 else 1440
    p.rx("A", ack=301)


def test_an_outage_is_no_black_hole_for_long(harness, family):
    """All is lost for a while: smaller segments are tried, and when it is over the first probe brings the size back."""
    h = harness(family, mtu_probing=1)
    p, c = h.established(mss=1460, ws=7, sack=True)
    full = h.info(c).mss
    h.send(c, b"x" * 100_000)
    h.after("10s")
    h.frames()
    assert h.info(c).mss < full
    path = Path(h, p, 1500)
    for _ in range(200):
        h.after("10ms")
        path.turn()
        if path.una == 100_001:
            break
    h.send(c, b"x" * 100_000)
    for _ in range(200):
        path.turn()
        h.after("10ms")
    assert path.una == 200_001
    assert h.info(c).mss == full


def test_a_lost_probe_is_no_congestion(harness, family):
    """RFC 4821 7.6.1, RFC 8899 3: the congestion window stays as it is."""
    h = harness(family, mtu_probing=2)
    p, c = h.established(mss=1460, ws=7, sack=True)
    assert h.info(c).mss + headers(h) == (1200 if family == 4 else 1280)
    path, before = Path(h, p, 1400), 0
    for _ in range(60):
        if h.info(c).tx_queue < 100_000:
            h.send(c, b"x" * 50_000)
        before = max(before, h.info(c).cwnd)
        path.turn()
        h.after("10ms")
        assert h.info(c).cwnd >= before // 2 + 1
    assert h.counted("TcpExtTCPMTUPFail") >= 2
    assert h.counted("TcpExtTCPMTUPSuccess") >= 1
    assert h.counted("TcpExtTCPTimeouts") == 0
    assert 1400 - 16 <= h.info(c).mss + headers(h) <= 1400
    assert h.info(c).cwnd >= before
    p.rx("R", seq=1)
    h.frames()


def test_the_search_ends_at_what_the_peer_takes(harness, family):
    """RFC 9293 3.7.1: never more than its MSS"""
    h = harness(family, mtu=9000, mtu_probing=2)
    p, c = h.established(mss=3000, ws=7, sack=True)
    path = fetch(h, p, c, 9000, 400_000)
    assert h.info(c).mss == 3000
    assert max(path.sent) == 3000 + headers(h)


def test_a_probe_waits_for_data_behind_it(harness, family):
    """RFC 4821 7.2: without it the loss of the probe would have to wait for the timer"""
    h = harness(family, mtu_probing=2)
    p, c = h.established(mss=1460, ws=7, sack=True)
    for i in range(20):
        h.send(c, b"x" * 1000)
        assert sizes(h) == [1000 + headers(h)]
        p.rx("A", ack=1 + 1000 * (i + 1))
    assert h.info(c).mss + headers(h) < 1400


# --- small segments ---


def test_a_peer_that_wants_tiny_segments(harness, family):
    """CVE-2019-11479: 64 bytes at least; CVE-2019-11477, 11478: SACKs of every other one do not cut up our queue."""
    h = harness(family)
    p, c = h.established(mss=1, ws=7, sack=True)
    h.send(c, b"x" * 100_000)
    before = h.stack.memory()["buffers"]
    seqs = [((s.packet[TCP].seq - p.iss) % 2**32, len(payload_of(s.packet[TCP]))) for s in h.frames()]
    assert {n for _, n in seqs} == {64}
    for seq, n in seqs[1::2]:
        p.rx("A", ack=1, sack=[(seq, seq + n)])
        h.frames()
    assert h.stack.memory()["buffers"] <= before
    p.rx("R", seq=1)

"""Lines and the wire made of two, by hand on a virtual clock: what happens to the n-th frame, and when it comes out."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from libos.net.link.impairment import Impairment
from libos.net.link.wire import Wire
from libos.net.stack import Link, Stack
from libos.rand import Rng

from .harness import START

US, MS = 10**3, 10**6
FRAME = bytes(12) + b"\x88\xb5" + bytes(86)  # 100 bytes of an EtherType for experiments (IEEE 802)


def frame(number: int, size: int = 100) -> bytes:
    return FRAME[:14] + number.to_bytes(4, "big") + bytes(size - 18)


class ByHand:
    """A wire whose ends are manual links: frames go in at a time, and come out at one."""

    def __init__(self, there: Impairment, back: Impairment | None = None, seed: int = 1, **wire: Any) -> None:
        rng = Rng(seed)
        self.a, self.b = Link.manual(rng), Link.manual(rng)
        self.wire = Wire(self.a, self.b, there, back or there, rng=rng, **wire)
        self.now = START

    def pass_frames(self, count: int, gap: int = 0, backwards: bool = False, size: int = 100) -> list[tuple[int, int]]:
        """(number, ns after the first went in) of all that come out, of ``count`` frames ``gap`` ns apart."""
        source, sink = (self.b, self.a) if backwards else (self.a, self.b)
        begin, out = self.now, []
        for number in range(count):
            self._until(begin + number * gap, sink, out, begin)
            source.inject(frame(number, size), self.now)
        self._until(1 << 62, sink, out, begin)
        return out

    def _until(self, when: int, sink: Link, out: list[tuple[int, int]], begin: int) -> None:
        while True:
            due = self.wire.run(self.now)
            out += [(int.from_bytes(data[14:18], "big"), self.now - begin) for data, _ in sink.drain()]
            if due > when:
                self.now = max(self.now, when) if when < 1 << 62 else self.now
                return
            self.now = max(due, self.now)


@pytest.fixture
def by_hand() -> Iterator[Any]:
    made: list[ByHand] = []

    def make(*args: Any, **wire: Any) -> ByHand:
        made.append(ByHand(*args, **wire))
        return made[-1]

    yield make
    for each in made:
        each.wire.close()


def test_each_direction_has_its_own(by_hand):
    wire = by_hand(Impairment(delay=10 * MS), Impairment(delay=MS))
    assert wire.pass_frames(2) == [(0, 10 * MS), (1, 10 * MS)]
    assert wire.pass_frames(2, backwards=True) == [(0, MS), (1, MS)]


def test_the_fate_of_the_nth_frame_is_the_seeds(by_hand):
    """Neither when frames go in nor what goes the other way changes which are lost."""
    how = Impairment(loss=0.3, duplicate=0.1, reorder=0.1, delay=MS, jitter=MS)
    one, two, other = by_hand(how, seed=5), by_hand(how, seed=5), by_hand(how, seed=6)
    two.pass_frames(50, backwards=True)
    survivors = sorted(n for n, _ in one.pass_frames(300))
    assert survivors == sorted(n for n, _ in two.pass_frames(300, gap=3 * MS))
    assert survivors != sorted(n for n, _ in other.pass_frames(300))


def test_the_directions_of_one_seed_differ(by_hand):
    wire = by_hand(Impairment(loss=0.3, seed=9))
    assert wire.pass_frames(300) != wire.pass_frames(300, backwards=True)


@pytest.mark.parametrize(("loss", "burst"), [(0.05, 0), (0.05, 5), (0.3, 3)])
def test_losses_in_runs(by_hand, loss, burst):
    """Gilbert's model: the same share of frames, in runs of the mean length asked for."""
    wire = by_hand(Impairment(loss=loss, burst=burst, seed=3))
    survivors = {n for n, _ in wire.pass_frames(20_000, gap=US)}
    gone = [n not in survivors for n in range(20_000)]
    runs = sum(now and not before for before, now in zip([False, *gone], gone, strict=False))
    assert sum(gone) / 20_000 == pytest.approx(loss, rel=0.25)
    assert sum(gone) / runs == pytest.approx(burst or 1 / (1 - loss), rel=0.2)


def test_all_lost_in_runs(by_hand):
    assert by_hand(Impairment(loss=1.0, burst=4, seed=3)).pass_frames(100) == []


def test_jitter_that_keeps_order(by_hand):
    wire = by_hand(Impairment(delay=10 * MS, jitter=5 * MS, keep_order=True, seed=3))
    out = wire.pass_frames(200, gap=100 * US)
    assert [n for n, _ in out] == list(range(200))
    assert len({t - n * 100 * US for n, t in out}) > 20
    assert all(10 * MS <= t - n * 100 * US < 15 * MS for n, t in out)


def test_a_bottleneck_drops_at_its_tail(by_hand):
    """1 Mbit/s takes 800 us a frame; 4 ms of buffer are five frames beyond the one on the line."""
    wire = by_hand(Impairment(rate=10**6, buffer=4 * MS, delay=7 * MS))
    out = wire.pass_frames(20)
    assert out == [(n, (n + 1) * 800 * US + 7 * MS) for n in range(6)]
    assert wire.wire.stats()[0]["dropped"] == 14


def test_what_is_under_way_takes_no_place_in_the_buffer(by_hand):
    wire = by_hand(Impairment(rate=10**6, buffer=MS, delay=100 * MS))
    assert len(wire.pass_frames(50, gap=800 * US)) == 50


def test_a_bucket_lets_a_pause_be_made_good(by_hand):
    """After a pause 8 ms of line, ten frames, leave at once; then one every 800 us."""
    wire = by_hand(Impairment(rate=10**6, bucket=8 * MS))
    assert [t for _, t in wire.pass_frames(12)] == [0] * 10 + [800 * US, 1600 * US]


def test_more_than_the_queue_holds(by_hand):
    wire = by_hand(Impairment(delay=MS, queue=10))
    assert len(wire.pass_frames(15)) == 10
    counts = wire.wire.stats()[0]
    assert (counts["in_packets"], counts["out_packets"], counts["dropped"], counts["held"]) == (15, 10, 5, 0)


def test_it_says_how_late_it_was(by_hand):
    wire = by_hand(Impairment(delay=MS))
    wire.a.inject(frame(0), wire.now)
    wire.wire.run(wire.now + MS + 30 * US)
    counts = wire.wire.stats()[0]
    assert (counts["out_packets"], counts["late_ns"], counts["latest_ns"]) == (1, 30 * US, 30 * US)


# --- changed while it runs -------------------------------------------------------------------------------------------


def test_what_is_under_way_keeps_its_time(by_hand):
    wire = by_hand(Impairment(delay=10 * MS))
    wire.a.inject(frame(0), wire.now)
    wire.wire.impair(0, Impairment(delay=MS))
    assert wire.pass_frames(2) == [(0, MS), (1, MS), (0, 10 * MS)]
    wire.wire.impair(0, Impairment(delay=10 * MS, keep_order=True))
    wire.a.inject(frame(7), wire.now)
    wire.wire.impair(0, Impairment(delay=MS, keep_order=True))
    assert wire.pass_frames(1) == [(7, 10 * MS), (0, 10 * MS)]


def test_the_choices_go_on(by_hand):
    """A change begins no new stream, nor does it matter that there was one."""
    lossy, better = Impairment(loss=0.5, seed=4), Impairment(loss=0.2)
    one, two = by_hand(lossy), by_hand(lossy)
    first = one.pass_frames(100)
    assert two.pass_frames(100) == first
    for each in (one, two):
        each.wire.impair(0, better)
    assert len(one.pass_frames(100)) > 65
    two.wire.impair(0, lossy)
    again = two.pass_frames(100)
    assert again != first
    assert len(again) < 65


def test_a_smaller_queue_drops_nothing_that_it_holds(by_hand):
    wire = by_hand(Impairment(delay=MS, queue=50))
    for number in range(50):
        wire.a.inject(frame(number), wire.now)
    wire.wire.impair(0, Impairment(delay=MS, queue=10))
    wire.a.inject(frame(50), wire.now)
    assert wire.wire.stats()[0]["dropped"] == 1
    assert len(wire.pass_frames(0)) == 50


def test_a_queue_of_bytes(by_hand):
    wire = by_hand(Impairment(delay=MS, queue_bytes=1000))
    assert len(wire.pass_frames(15)) == 10
    assert len(wire.pass_frames(15, size=60)) == 15
    assert len(wire.pass_frames(15, size=1001)) == 0
    counts = wire.wire.stats()[0]
    assert (counts["dropped"], counts["buffer_full"], counts["held"], counts["held_bytes"]) == (20, 0, 0, 0)


def test_a_partition_one_way(by_hand):
    """What has gone in arrives; nothing more goes in, and the other direction knows nothing of it."""
    wire = by_hand(Impairment(delay=MS))
    wire.a.inject(frame(0), wire.now)
    wire.wire.block(0)
    assert wire.pass_frames(3, gap=US) == [(0, MS)]
    assert wire.pass_frames(1, backwards=True) == [(0, MS)]
    wire.wire.block(0, False)
    assert wire.pass_frames(1) == [(0, MS)]
    counts = wire.wire.stats()[0]
    assert (counts["blocked"], counts["in_packets"], counts["out_packets"]) == (3, 5, 2)


def test_a_pulled_cable(by_hand):
    wire = by_hand(Impairment(delay=MS))
    for link in (wire.a, wire.b):
        link.inject(frame(0), wire.now)
    wire.wire.set_down()
    assert wire.wire.stats()[0]["held"] == 0
    assert wire.pass_frames(3) == wire.pass_frames(3, backwards=True) == []
    wire.wire.set_down(False)
    assert wire.pass_frames(1) == [(0, MS)]
    assert [each["down"] for each in wire.wire.stats()] == [4, 4]


def test_clogged_until_a_time(by_hand):
    wire = by_hand(Impairment(delay=MS))
    wire.wire.clog(0, START + 20 * MS)
    assert wire.pass_frames(3, gap=9 * MS) == [(0, 20 * MS), (1, 20 * MS), (2, 20 * MS)]
    assert wire.wire.stats()[0]["late_ns"] == 0
    assert wire.pass_frames(1) == [(0, MS)]


def test_clogged_until_it_is_cleared(by_hand):
    """All that is due comes out at once, in its order; the rest when it is due."""
    wire = by_hand(Impairment(delay=MS))
    wire.wire.clog(0)
    out: list[tuple[int, int]] = []
    for number in range(3):
        wire.a.inject(frame(number), wire.now + number * MS // 2)
    assert wire.wire.run(wire.now + 10**12) == 2**64 - 1
    wire.now += 3 * MS // 2
    wire.wire.clog(0, wire.now)
    begin = wire.now
    wire._until(1 << 62, wire.b, out, begin)
    assert out == [(0, 0), (1, 0), (2, MS // 2)]
    assert wire.wire.stats()[0]["late_ns"] == 0


def test_a_clogged_line_still_has_its_bounds(by_hand):
    wire = by_hand(Impairment(queue=10))
    wire.wire.clog(0)
    for number in range(15):
        wire.a.inject(frame(number), wire.now)
    assert (wire.wire.stats()[0]["held"], wire.wire.stats()[0]["dropped"]) == (10, 5)
    wire.wire.clog(0, 0)
    assert len(wire.pass_frames(0)) == 10


def test_no_such_direction(by_hand):
    wire = by_hand(Impairment())
    with pytest.raises(ValueError, match="direction 2"):
        wire.wire.block(2)


# --- latency ---------------------------------------------------------------------------------------------------------


def latencies(by_hand, distribution, count=4000):
    """In units of the jitter, over a delay of ten of them."""
    wire = by_hand(Impairment(delay=10 * MS, jitter=MS, distribution=distribution, seed=3))
    return sorted((t - n * US) / MS - 10 for n, t in wire.pass_frames(count, gap=US))


def test_latency_is_uniform(by_hand):
    got = latencies(by_hand, "uniform")
    assert 0 <= got[0] < 0.01
    assert 0.99 < got[-1] < 1
    assert got[2000] == pytest.approx(0.5, abs=0.03)


def test_latency_is_normal(by_hand):
    """Its mean and deviation, and its quantiles as the standard library knows them."""
    got = latencies(by_hand, "normal")
    assert statistics.mean(got) == pytest.approx(0, abs=0.05)
    assert statistics.stdev(got) == pytest.approx(1, rel=0.03)
    for share in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        assert got[int(share * 4000)] == pytest.approx(statistics.NormalDist().inv_cdf(share), abs=0.15)


def test_latency_has_a_heavy_tail(by_hand):
    """Pareto's, of shape 2: its quantiles, and one in a thousand that is thirty times what is usual."""
    got = latencies(by_hand, "pareto")
    assert got[0] >= 0
    for share in (0.1, 0.25, 0.5, 0.75, 0.9, 0.99):
        assert got[int(share * 4000)] == pytest.approx((1 - share) ** -0.5 - 1, rel=0.2, abs=0.01)
    assert 20 < got[-1] < 1023


def test_latency_is_never_negative(by_hand):
    wire = by_hand(Impairment(delay=MS, jitter=10 * MS, distribution="normal", seed=3))
    times = [t for _, t in wire.pass_frames(300)]
    assert min(times) == 0
    assert max(times) > 20 * MS


# --- the digest ------------------------------------------------------------------------------------------------------


def digests(wire):
    return [each["digest"] for each in wire.wire.stats()]


def test_the_digest_is_that_of_what_happened(by_hand):
    how = Impairment(loss=0.2, duplicate=0.1, corrupt=0.1, delay=MS, jitter=MS, seed=5)
    one, two = by_hand(how), by_hand(how)
    assert one.pass_frames(100) == two.pass_frames(100)
    assert digests(one) == digests(two)
    assert len(set(digests(one))) == 2


@pytest.mark.parametrize(
    "what", ["time", "bytes", "length", "order", "count", "block", "clog", "impair", "down", "seed"]
)
def test_the_digest_tells_everything_apart(by_hand, what):
    how = Impairment(delay=MS, jitter=MS, seed=5)
    one, two = by_hand(how), by_hand(how._replace(seed=6) if what == "seed" else how)
    for wire, other in ((one, False), (two, True)):
        frames = [frame(number) for number in range(3)]
        if other and what == "bytes":
            frames[1] = frames[1][:-1] + b"\1"
        if other and what == "length":
            frames[1] += b"\0"
        if other and what == "order":
            frames.reverse()
        if other and what == "count":
            frames.pop()
        if other and what in ("block", "clog", "down"):
            {"block": lambda w: w.block(0, False), "clog": lambda w: w.clog(0, 1), "down": lambda w: w.set_down(False)}[
                what
            ](wire.wire)
        if other and what == "impair":
            wire.wire.impair(0, how)
        for each in frames:
            wire.a.inject(each, wire.now + (other and what == "time"))
    assert digests(one)[0] != digests(two)[0]


@pytest.mark.parametrize("size", [60, 63, 64, 65, 127, 128, 1000, 1514])
def test_every_byte_counts(by_hand, size):
    seen = set()
    for at in range(0, size, max(1, size // 40)):
        wire = by_hand(Impairment(seed=1))
        wire.a.inject(bytes(at) + b"\1" + bytes(size - at - 1), wire.now)
        seen.add(digests(wire)[0])
    assert len(seen) == len(range(0, size, max(1, size // 40)))


# --- and whole -------------------------------------------------------------------------------------------------------


def test_frames_under_way_when_it_ends(by_hand):
    wire = by_hand(Impairment(delay=MS, duplicate=1.0, corrupt=0.5))
    for number in range(20):
        wire.a.inject(frame(number), wire.now)
    assert wire.wire.stats()[0]["held"] == 40


@pytest.mark.parametrize("caps", [0, Link.CSUM, Link.ALL], ids=["plain", "sums", "segments"])
def test_two_stacks_and_a_wire(caps):
    """Sums and segments that one stack leaves to the device reach the other as they must."""
    rng, now = Rng(1), START
    stacks, ends = [], []
    for n in (1, 2):
        stack = Stack(rng, now)
        ours, far = Link.pair(rng, mtu=1500, caps=caps)
        index = stack.add_link(ours)
        stack.add_address(index, f"10.0.0.{n}/24")
        stacks.append(stack)
        ends.append(far)
    wire = Wire(*ends, Impairment(delay=MS), Impairment(delay=2 * MS), rng=rng)
    got = exchange(stacks, wire, now)
    assert got == bytes(range(256)) * 1000
    assert not sum(stack.counters()["TcpRetransSegs"] + stack.counters()["TcpInCsumErrors"] for stack in stacks)
    wire.close()
    for stack in stacks:
        stack.close()


def exchange(stacks: list[Stack], wire: Wire, now: int) -> bytes:
    """256,000 bytes from the first to the second."""
    from libos._native import ffi, lib
    from libos.net.stack import pack_address

    a, b = stacks
    data, sent, got = bytes(range(256)) * 1000, 0, b""
    listener = lib.sock_open(b.handle, 1, 2)
    lib.sock_bind(b.handle, listener, pack_address("0.0.0.0"), 80)
    lib.sock_listen(b.handle, listener, 4, 0)
    caller, called = lib.sock_open(a.handle, 1, 2), -1
    lib.sock_connect(a.handle, caller, pack_address("10.0.0.2"), 80)
    buf = ffi.new("uint8_t[]", 65536)
    while len(got) < len(data):
        due = min(a.run(now), b.run(now), wire.run(now))
        called = lib.sock_accept(b.handle, listener) if called < 0 else called
        n = lib.sock_send(a.handle, caller, data[sent:], len(data) - sent)
        sent += max(n, 0)
        while called >= 0 and (n := lib.sock_recv(b.handle, called, buf, 65536)) > 0:
            got += bytes(ffi.buffer(buf, n))
        now = max(now + 10 * US, min(due, now + MS))
        assert now < START + 10**11, (sent, len(got))
    return got

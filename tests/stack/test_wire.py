"""Lines and the wire made of two, by hand on a virtual clock: what happens to the n-th frame, and when it comes out."""

from __future__ import annotations

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

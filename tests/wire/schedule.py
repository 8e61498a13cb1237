"""Schedules of application calls, and playing one over any two endpoints.

A schedule is a conversation. In each turn both sides write (in pieces of any size) and read what the other writes in
that turn (after a pause, in their own pieces); then it ends in one of the ways of ENDS. What each program sees does not
depend on timing: :func:`expected` says what that is, without any network. A side that waits to be told of a reset
writes a byte now and then, for the RST may have been lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, get_args

from .endpoints import Endpoint, Reset
from .worlds import World

__all__ = ["ENDS", "Schedule", "Seen", "Side", "Turn", "expected", "play"]

MS = 10**6
NUDGE = 50 * MS

End = Literal["a-first", "b-first", "both", "a-abort", "a-abort-midway", "a-unread", "a-gone"]
ENDS: tuple[End, ...] = get_args(End)
# a-first: a ends its stream; b reads that, writes `tail` bytes, and closes. b-first: the same, b ends first.
# both: both end their streams at once.
# a-abort: after all is read, a resets. a-abort-midway: with `tail` bytes under way.
# a-unread: b writes `tail` bytes, and a closes without reading them (RFC 1122 4.2.2.13: a reset).
# a-gone: a closes; b reads the end and writes until it is told that nobody is there.


@dataclass(frozen=True)
class Side:
    """In one turn: the sizes of its writes; how it reads."""

    writes: tuple[int, ...]
    piece: int = 65536  # bytes asked for at once
    pause: int = 0  # ms before it begins to read, and after the first piece


@dataclass(frozen=True)
class Turn:
    a: Side
    b: Side


@dataclass(frozen=True)
class Schedule:
    turns: tuple[Turn, ...]
    end: End
    tail: int = 1000


@dataclass(frozen=True)
class Seen:
    """By one program: how many bytes (all of them as the other wrote them), and how it ended."""

    count: int
    kind: Literal["eof", "reset", "left"]  # left: it went by itself
    exact: bool = True  # whether count is certain; else it is the most that can come


def expected(schedule: Schedule) -> tuple[Seen, Seen]:
    """What a and b must see."""
    to_a = sum(sum(turn.b.writes) for turn in schedule.turns)
    to_b = sum(sum(turn.a.writes) for turn in schedule.turns)
    tail = schedule.tail
    match schedule.end:
        case "a-first":
            return Seen(to_a + tail, "eof"), Seen(to_b, "eof")
        case "b-first":
            return Seen(to_a, "eof"), Seen(to_b + tail, "eof")
        case "both":
            return Seen(to_a, "eof"), Seen(to_b, "eof")
        case "a-abort":
            return Seen(to_a + 1, "left"), Seen(to_b, "reset")
        case "a-abort-midway":
            return Seen(to_a + 1, "left"), Seen(to_b + tail, "reset", exact=False)
        case "a-unread":
            return Seen(to_a, "left"), Seen(to_b, "reset")
        case "a-gone":
            return Seen(to_a, "left"), Seen(to_b, "reset")


_PERIOD = {who: bytes((i * 167 + i // 251 + ord(who)) & 255 for i in range(251 * 256)) for who in "ab"}


def stream(who: str, start: int, size: int) -> bytes:
    """Bytes of the endless stream that a or b writes; no power of two divides its period."""
    period = _PERIOD[who]
    at = start % len(period)
    return (period * ((at + size) // len(period) + 1))[at : at + size]


class Player:
    """One side, as a generator that yields whenever it has to wait."""

    def __init__(self, who: str, endpoint: Endpoint, world: World) -> None:
        self.who, self.endpoint, self.world = who, endpoint, world
        self.other = "b" if who == "a" else "a"
        self.written = self.read = 0
        self.kind: Literal["eof", "reset", "left"] = "left"

    def run(self, schedule: Schedule) -> Generator[None]:
        try:
            for turn in schedule.turns:
                mine, theirs = (turn.a, turn.b) if self.who == "a" else (turn.b, turn.a)
                yield from self.converse(mine, sum(theirs.writes))
            first = schedule.end.split("-")[0] in (self.who, "both")
            tail = 0 if schedule.end == "a-abort" else schedule.tail
            yield from getattr(self, "end_" + schedule.end.split("-")[:2][-1])(first, tail)
        except Reset:
            self.kind = "reset"
            self.endpoint.close()

    def converse(self, mine: Side, count: int) -> Generator[None]:
        """Write mine, read count bytes, both as they can go on."""
        writes, until = list(mine.writes), self.read + count
        pending, resume, paused = memoryview(b""), self.world.now() + mine.pause * MS, False
        while writes or pending or self.read < until:
            moved = False
            if not pending and writes:
                size = writes.pop(0)
                pending = memoryview(stream(self.who, self.written, size))
                self.written += size
                moved = not size
            if pending and (n := self.endpoint.send(pending)) is not None:
                pending, moved = pending[n:], True
            if self.read < until and self.world.now() >= resume and self.take(min(mine.piece, until - self.read)):
                moved = True
                if not paused:
                    paused, resume = True, self.world.now() + mine.pause * MS
            if not moved:
                yield

    def take(self, most: int) -> bool:
        """Read once; whether there was something."""
        data = self.endpoint.recv(most)
        if data is None:
            return False
        assert data, f"{self.who}: the end of the stream after {self.read} bytes"
        assert data == stream(self.other, self.read, len(data)), f"{self.who}: other bytes than sent, after {self.read}"
        self.read += len(data)
        return True

    def write(self, size: int) -> Generator[None]:
        yield from self.converse(Side((size,)), 0)

    def read_to_end(self) -> Generator[None]:
        while (data := self.endpoint.recv(65536)) != b"":
            if data is None:
                yield
                continue
            assert data == stream(self.other, self.read, len(data)), f"{self.who}: other bytes than sent at the end"
            self.read += len(data)
        self.kind = "eof"

    def wait_for_reset(self, *, reading: bool) -> Generator[None]:
        nudge = self.world.now() + NUDGE
        while True:
            if reading and (data := self.endpoint.recv(65536)) is not None:
                assert data, f"{self.who}: an orderly end instead of a reset"
                assert data == stream(self.other, self.read, len(data))
                self.read += len(data)
            if self.world.now() >= nudge:
                self.endpoint.send(b"?")
                nudge = self.world.now() + NUDGE
            yield

    # --- the ends: `first` is the side that they are named for ---

    def end_first(self, first: bool, tail: int) -> Generator[None]:
        if first:
            self.endpoint.shutdown()
            yield from self.read_to_end()
        else:
            yield from self.read_to_end()
            yield from self.write(tail)
        self.endpoint.close()

    def end_both(self, first: bool, tail: int) -> Generator[None]:
        self.endpoint.shutdown()
        yield from self.read_to_end()
        self.endpoint.close()

    def end_abort(self, first: bool, tail: int) -> Generator[None]:
        # Not before b, which says so, has read all and waits for it: else it could overtake what b is to read.
        yield from self.converse(Side((0,) if first else (1,)), 1 if first else 0)
        if first:
            if tail:
                self.endpoint.send(stream(self.who, self.written, tail))
            self.endpoint.abort()
        else:
            yield from self.wait_for_reset(reading=True)

    def end_unread(self, first: bool, tail: int) -> Generator[None]:
        if first:
            while not self.endpoint.unread():
                yield
            self.endpoint.close()
        else:
            yield from self.write(max(tail, 1))
            yield from self.wait_for_reset(reading=True)

    def end_gone(self, first: bool, tail: int) -> Generator[None]:
        if first:
            self.endpoint.close()
            return
        yield from self.read_to_end()
        yield from self.wait_for_reset(reading=False)


def play(schedule: Schedule, world: World) -> tuple[Seen, Seen]:
    """Over ``world``; what a and b have seen. What they must see, where a count is not certain, is put in its place."""
    players = Player("a", world.a, world), Player("b", world.b, world)
    running: list[Generator[None]] = [player.run(schedule) for player in players]
    give_up = world.now() + world.limit
    while running:
        running = [each for each in running if _step(each)]
        world.advance()
        assert world.now() < give_up, [(p.who, p.written, p.read) for p in players]
    seen = []
    for player, wanted in zip(players, expected(schedule), strict=True):
        certain = wanted.exact or player.read > wanted.count
        seen.append(Seen(player.read if certain else wanted.count, player.kind, wanted.exact))
    return seen[0], seen[1]


def _step(each: Generator[None]) -> bool:
    return next(each, Callable) is not Callable

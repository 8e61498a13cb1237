"""Answers for as long as they hold: positive ones by their TTL, negative ones by their zone's SOA (RFC 2308), failures
for a moment (RFC 9520: 1 s, twice as long after each in a row, up to 30 s, which is less than the 5 minutes that it
allows: a program that waits for its name server is to notice when it is back).

Bounded in entries and in records; the one longest unused goes first. ``now`` is in ns.
"""

from __future__ import annotations

from collections import OrderedDict

from libos.net.names.message import Answer, Question, Status

__all__ = ["Cache"]

SECOND = 1_000_000_000
FAILURE_NS = 1 * SECOND
FAILURE_MAX_NS = 30 * SECOND


class _Entry:
    __slots__ = ("answer", "begin", "end")

    def __init__(self, answer: Answer, begin: int, end: int) -> None:
        self.answer = answer
        self.begin = begin
        self.end = end

    @property
    def weight(self) -> int:
        return max(1, len(self.answer.records))


class Cache:
    """``entries``, ``records``: how many it holds at most."""

    def __init__(self, entries: int = 1024, records: int = 8192) -> None:
        self._limit = entries
        self._records_limit = records
        self._records = 0
        self._entries: OrderedDict[Question, _Entry] = OrderedDict()  # the longest unused first
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, question: Question, now: int) -> Answer | None:
        """The answer, with the time that is left of its TTL."""
        entry = self._entries.get(question)
        if entry is None or now >= entry.end:
            return None
        self._entries.move_to_end(question)
        return entry.answer._replace(ttl=-(-(entry.end - now) // SECOND))

    def put(self, question: Question, answer: Answer, now: int) -> None:
        """Keep it; in place of what was there."""
        before = self._entries.pop(question, None)
        if before is not None:
            self._records -= before.weight
        life = self._failure_life(before, now) if answer.status is Status.FAILURE else answer.ttl * SECOND
        if life == 0:
            return
        entry = self._entries[question] = _Entry(answer, now, now + life)
        self._records += entry.weight
        while len(self._entries) > self._limit or self._records > self._records_limit:
            _, old = self._entries.popitem(last=False)
            self._records -= old.weight
            self.evicted += 1

    def _failure_life(self, before: _Entry | None, now: int) -> int:
        if before is None or before.answer.status is not Status.FAILURE:
            return FAILURE_NS
        life = before.end - before.begin
        return min(2 * life, FAILURE_MAX_NS) if now < before.end + 2 * life else FAILURE_NS

    def clear(self) -> None:
        self._entries.clear()
        self._records = 0

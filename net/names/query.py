"""One question on its way to an answer: what to ask whom next. No I/O, no clock, no waiting.

    while (step := query.step()) is not None:
        send step.wire to step.server, by TCP or UDP, and wait for at most step.timeout seconds
        query.received(each message, now) until that is True; or query.failed(now)
    query.answer

Each server in turn, `attempts` times around, with twice the time in each round. A server is asked again at once when
the answer was truncated (by TCP, RFC 7766 5), when it does not know EDNS (without, RFC 6891 7), and when the case of
the question came back otherwise than it was sent or too many strays came (by TCP, which cannot be forged from aside;
RFC 5452 9.3).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from libos.net.names.message import Answer, Asked, Question, Status, Verdict, ask, read
from libos.net.names.servers import Server
from libos.rand import Rng

__all__ = ["Query", "Step"]

STRAYS_MAX = 64  # messages for one step that are not for us: then somebody is guessing


class Step(NamedTuple):
    """What to do next."""

    server: Server
    tcp: bool
    wire: bytes
    timeout: float


class Query:
    """``servers``: in the order in which to ask. ``counts`` is added to. ValueError: there can be no such question."""

    def __init__(
        self,
        question: Question,
        servers: list[Server],
        rng: Rng,
        *,
        timeout: float,
        attempts: int,
        counts: Counter[str],
    ) -> None:
        self.answer: Answer | None = None
        self.asked_anyone = False  # a question left this machine: that nobody could tell is worth remembering
        self.question = question
        self._rng = rng
        self._counts = counts
        self._tries = [(server, timeout * 2**round) for round in range(attempts) for server in servers]
        self._tcp = False
        self._strays = 0
        self._asked: Asked = ask(question, rng, edns=True, mixed_case=True)

    def step(self) -> Step | None:
        """None: it is over, and ``answer`` holds."""
        if self.answer is None and not self._tries:
            self.answer = Answer(Status.FAILURE, self.question.name)
        if self.answer is not None:
            return None
        server, timeout = self._tries[0]
        self._asked = ask(self.question, self._rng, edns=server.edns, mixed_case=server.mixed_case)
        self._strays = 0
        self._counts["tcp" if self._tcp else "udp"] += 1
        return Step(server, self._tcp, self._asked.wire, timeout)

    def received(self, wire: bytes, now: int) -> bool:
        """A message from the server that the step named. False: wait on, it was nothing."""
        self.asked_anyone = True
        found = read(self._asked, wire)
        server = self._tries[0][0]
        if found is Verdict.FOLDED and self._tcp:  # it is the server itself that does so
            server.mixed_case = False
            return True
        if isinstance(found, Answer):
            self.answer = found
            server.answered()
        elif found is Verdict.STRAY:
            self._counts["strays"] += 1
            self._strays += 1
            if not self._tcp and self._strays < STRAYS_MAX:
                return False
            self._by_tcp(now)
        elif found is Verdict.NO_EDNS:
            server.edns = False
        elif found in (Verdict.TRUNCATED, Verdict.FOLDED):
            self._by_tcp(now)
        else:
            self.failed(now)
        return True

    def _by_tcp(self, now: int) -> None:
        if self._tcp:  # it had its chance
            self.failed(now)
        else:
            self._tcp = True

    def failed(self, now: int, *, remote: bool = True) -> None:
        """This server did not help: it was silent, refused, or said that it cannot tell. ``remote`` False: nothing
        ever left this machine, and nobody is to be blamed."""
        server, _ = self._tries.pop(0)
        self._tcp = False
        self._counts["failures"] += 1
        if remote:
            self.asked_anyone = True
            server.failed(now)

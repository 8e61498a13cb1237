"""Congestion control in Python: a controller is asked once for each round trip of a connection, never for each packet.

C gathers what a round trip showed (:class:`Round`); the controller answers with a window, a pacing rate, both or
neither (:class:`Answer`). Until its first window C opens the window in slow start; whenever something is lost or
marked, C cuts it to ``beta`` at once and the controller hears of it with the next round. So a controller that is slow,
or wrong, or silent, is still safe for the network; one that raises is replaced by CUBIC for that connection.

    class Gentle:
        def on_round(self, r: Round) -> Answer | None:
            return Answer(cwnd=r.cwnd + r.mss) if r.limited else None

    stack.register_congestion_control("gentle", Gentle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"gentle")

Calls come in the order in which the rounds ended, from :meth:`Controllers.consult`: the machine's network calls it in
the turn of its loop, :meth:`Stack.events` when a stack is driven by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from libos._native import ffi, lib
from libos.errors import check

__all__ = ["Answer", "Controller", "Controllers", "Round"]

BATCH = 64

logger = logging.getLogger(__name__)


class Round(NamedTuple):
    """One round trip of one connection. Times are ns, sizes bytes."""

    now: int
    duration: int
    rtt_min: int  # the least measured in this round; 0: none was
    rtt_last: int
    srtt: int
    acked: int
    retransmits: int  # segments sent again
    cwnd: int
    flight: int  # under way when the last acknowledgement came
    mss: int
    limited: bool  # the window was what held the sender back
    slow_start: bool  # C still opens the window by itself
    lost: bool  # something was, and the window cut, since the last round
    timeout: bool
    marked: bool  # by ECN, likewise

    @property
    def delivery_rate(self) -> int:
        """Bytes a second."""
        return self.acked * 10**9 // self.duration if self.duration else 0


class Answer(NamedTuple):
    """``cwnd`` in bytes (two segments at least; the first one ends slow start), None: as it is. ``pacing_rate`` in
    bytes a second, 0: by window and round-trip time."""

    cwnd: int | None = None
    pacing_rate: int = 0


class Controller(Protocol):
    """Of one connection."""

    def on_round(self, r: Round, /) -> Answer | None:
        """A round trip has ended. None: go on as before."""


Factory = Callable[[], Controller]


class Controllers:
    """The controllers of one stack: how to make them, and those of the connections that there are."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._factories: list[Factory] = []
        self._of: dict[int, Controller] = {}
        self._rounds = ffi.new("struct cong_round[]", BATCH)

    def __len__(self) -> int:
        """Connections that have one."""
        return len(self._of)

    def register(self, name: str, factory: Factory, beta: float) -> None:
        """Raises ``FileExistsError`` for a name that is taken, ``OSError`` for one that is none."""
        check(lib.stack_cong_register(self._handle, name.encode(), round(beta * 1000)), name)
        self._factories.append(factory)

    def consult(self) -> None:
        """Ask the controllers of all connections of which a round trip has ended."""
        while True:
            n = check(lib.stack_cong_rounds(self._handle, self._rounds, BATCH))
            for raw in self._rounds[0:n]:
                self._one(raw)
            if n < BATCH:
                return

    def _one(self, raw: Any) -> None:
        id, flags = raw.id, raw.flags
        if flags & lib.CONG_ROUND_ENDED:
            self._of.pop(id, None)
            return
        try:
            if flags & lib.CONG_ROUND_FIRST:
                self._of[id] = self._factories[raw.controller]()
            answer = self._of[id].on_round(_round(raw, flags))
            if answer is not None:
                cwnd = 0 if answer.cwnd is None else min(max(round(answer.cwnd), 1), 2**32 - 1)
                lib.stack_cong_answer(self._handle, id, cwnd, min(max(round(answer.pacing_rate), 0), 2**64 - 1))
        except Exception:
            logger.exception("congestion control of connection %d failed; CUBIC goes on", id)
            lib.stack_cong_fallback(self._handle, id)  # which reports the end of this controller


def _round(raw: Any, flags: int) -> Round:
    return Round(
        now=raw.now,
        duration=raw.duration,
        rtt_min=raw.rtt_min,
        rtt_last=raw.rtt_last,
        srtt=raw.srtt,
        acked=raw.acked,
        retransmits=raw.retransmits,
        cwnd=raw.cwnd,
        flight=raw.flight,
        mss=raw.mss,
        limited=bool(flags & lib.CONG_ROUND_LIMITED),
        slow_start=bool(flags & lib.CONG_ROUND_SLOW_START),
        lost=bool(flags & lib.CONG_ROUND_LOST),
        timeout=bool(flags & lib.CONG_ROUND_TIMEOUT),
        marked=bool(flags & lib.CONG_ROUND_MARKED),
    )

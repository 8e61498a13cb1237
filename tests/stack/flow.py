"""A bulk transfer from the stack to a peer that is nothing but a path and an acknowledgement clock.

For congestion control: what counts is when segments leave and when their ACKs come back, over thousands of round trips,
so no packet is built or parsed by scapy here but the handshake's. The path is a model in plain Python: half of the
round trip each way, optionally a bottleneck with a queue in front, a rule that loses and one that marks::

    f = Flow(harness(4, congestion="cubic"), rtt="100ms", lose={50})
    f.run("10s")
    f.log  # one Point for each ACK: time, bytes acknowledged, the stack's cwnd and ssthresh after it

The peer answers every second segment, and at once what is out of order, without SACK.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from libos._native import ffi, lib

from .harness import START, WRITE, Harness, ns
from .packets import OUR_MAC, PEER_MAC, internet_checksum

SHIFT = 10  # the peer's window scale
CHUNK = bytes(1 << 18)
ECE, CWR, ACK = 0x40, 0x80, 0x10


class Segment(NamedTuple):
    """One that left: when (ns from the start), where in the stream, how long, its TCP flags and its ECN field."""

    time: int
    seq: int
    len: int
    flags: int
    ecn: int


class Point(NamedTuple):
    """The connection right after an ACK for new data."""

    time: int
    acked: int
    cwnd: int
    ssthresh: int


def constant(value: int) -> Callable[[int], int]:
    return lambda _: value


class Flow:
    """``lose``: numbers of data segments, counted as they leave, that never arrive; ``mark``: that arrive with CE.
    ``outage``: from when to when nothing arrives at all."""

    def __init__(
        self,
        h: Harness,
        *,
        rtt: str | Callable[[int], int] = "100ms",
        mss: int = 1000,
        rate: int = 0,
        queue: int = 1 << 30,
        lose: Container[int] = (),
        mark: Container[int] = (),
        outage: tuple[str, str] = ("0s", "0s"),
        ecn: bool = False,
        delayed: bool = True,
        events: bool = True,
        **options: int,
    ) -> None:
        assert h.family == 4
        self.h, self.mss, self.lose, self.mark, self.ecn = h, mss, lose, mark, ecn
        self.rtt = rtt if callable(rtt) else constant(ns(rtt))
        self.rate, self.queue, self.delayed = rate, queue, delayed
        self.outage = range(ns(outage[0]), ns(outage[1]))
        self.events = events
        self.log: list[Point] = []
        self.sent: list[Segment] = []
        self.dropped = 0
        self._last = 0  # arrival: the path keeps the order
        self._free_at = 0  # when the bottleneck has sent all that it holds
        self._due: deque[tuple[int, int, int, int]] = deque()  # arrivals: time, seq, len, ecn
        self._next, self._held = 1, {}  # of the receiver
        self._owed, self._echo, self._arrived = 0, False, 0
        self.id = h.connect(80, local_port=50000, **options)
        self.peer = h.peer(port=80, to=50000)
        self.peer.expect("SEC" if ecn else "S")
        h.after(self.rtt(0))
        self.peer.rx("SAE" if ecn else "SA", mss=mss, ws=SHIFT)
        self.peer.expect("A")
        self.iss = self.peer.iss or 0
        self.acked = 1
        lib.sock_want(h.handle, self.id, WRITE)

    # --- the clock ---

    @property
    def now(self) -> int:
        return self.h.now - START

    def run(self, duration: str | int, *, writing: bool = True) -> Flow:
        """Let it go on for so long, the application writing all that it can."""
        h, end = self.h, self.h.now + ns(duration)
        while True:
            if writing:
                while lib.sock_send(h.handle, self.id, CHUNK, len(CHUNK)) == len(CHUNK):
                    pass
            deadline = h.stack.run(h.now)
            if self.events and h.stack.events(4):  # what a controller answered
                deadline = h.stack.run(h.now)
            self._depart()
            due = min(deadline, self._due[0][0] if self._due else end, end)
            if due >= end and (not self._due or self._due[0][0] > end):
                h.now = end
                return self
            h.now = max(h.now, due)
            while self._due and self._due[0][0] <= h.now:
                self._arrive(*self._due.popleft()[1:])

    def write(self, length: int) -> None:
        """The application writes so much, and no more until told."""
        assert lib.sock_send(self.h.handle, self.id, bytes(length), length) == length

    # --- the path ---

    def _depart(self) -> None:
        h = self.h
        for frame, gso in h.link.drain():
            length = struct.unpack_from("!H", frame, 16)[0] - 20 - (frame[46] >> 4) * 4
            if not length:
                continue
            seq = (struct.unpack_from("!I", frame, 38)[0] - self.iss) % 2**32
            assert gso or length <= self.mss
            self.sent.append(Segment(self.now, seq, length, frame[47], frame[15] & 3))
            number, leaves = len(self.sent) - 1, h.now
            if self.rate:
                backlog = max(0, self._free_at - h.now) * self.rate // 10**9
                if backlog > self.queue:
                    self.dropped += 1
                    continue
                leaves = self._free_at = max(self._free_at, h.now) + (length + 54) * 10**9 // self.rate
            if number not in self.lose and self.now not in self.outage:
                ce = 3 if number in self.mark and frame[15] & 3 else 0
                self._last = max(self._last, leaves + self.rtt(self.now))
                self._due.append((self._last, seq, length, ce | frame[47] & CWR))

    # --- the peer; its answer is there at once, for the whole round trip was on the way to it ---

    def _arrive(self, seq: int, length: int, ecn: int) -> None:
        if ecn & CWR:
            self._echo = False
        if ecn & 3 == 3:
            self._echo = True
        new = seq == self._next
        if new:
            self._next += length
            while self._next in self._held:
                self._next += self._held.pop(self._next)
                new = False  # a hole was filled: RFC 5681 4.2, at once
        elif seq > self._next:
            self._held[seq] = length
        self._owed += 1
        if not new or not self.delayed or self._owed >= 2 or ecn or not self._due:
            self._owed = 0
            self.ack()

    def ack(self) -> None:
        """The peer acknowledges all that it has in order."""
        flags = ACK | (ECE if self._echo else 0)
        tcp = struct.pack(
            "!HHIIBBHHH", 80, 50000, self.peer.isn + 1, (self.iss + self._next) % 2**32, 5 << 4, flags, 65535, 0, 0
        )
        pseudo = bytes([10, 0, 0, 1, 10, 0, 0, 2, 0, 6]) + struct.pack("!H", len(tcp))
        tcp = tcp[:16] + struct.pack("!H", internet_checksum(pseudo + tcp)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, 6, 0) + pseudo[:8]
        ip = ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:]
        macs = bytes.fromhex((OUR_MAC + PEER_MAC).replace(":", ""))
        self.h.link.inject(macs + b"\x08\x00" + ip + tcp, self.h.now)
        if self._next > self.acked:
            cwnd, ssthresh = self.windows()
            self.log.append(Point(self.now, self._next - self.acked, cwnd, ssthresh))
            self.acked = self._next

    def windows(self) -> tuple[int, int]:
        """cwnd and ssthresh now."""
        raw, cursor = ffi.new("struct sock_info *"), ffi.new("uint64_t *")
        while lib.stack_next_socket(self.h.handle, cursor, raw):
            if raw.id == self.id:
                return raw.cwnd, raw.ssthresh
        raise AssertionError("the connection is gone")

    def finish(self) -> None:
        """Away with it, and nothing said about the RST."""
        self.h.abort(self.id)
        self.h.frames()

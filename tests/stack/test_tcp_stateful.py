"""Two stacks, a bad wire and their owners, in any order that hypothesis thinks of: the little sister of fuzz_tcp.c.

Each end writes a known stream. Whatever the wire does to packets, what is read is a beginning of what was written; and
once the wire behaves, everything arrives, both ends close, and nothing is left.
"""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from libos.net.drive import Drive

MS = 1_000_000
STREAM = random.Random(4).randbytes(1 << 20)
HOSTS = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
BITS, AF = {4: "/24", 6: "/64"}, {4: socket.AF_INET, 6: socket.AF_INET6}

side = st.sampled_from([0, 1])


class End:
    """One host, its socket, and how far its streams have come."""

    def __init__(self, family: int, which: int, **config: int) -> None:
        self.drive = Drive(seed=which + 1, address=HOSTS[family][which] + BITS[family], **config)
        self.fd = -1
        self.written = self.read = 0
        self.shut = self.ended = False
        self.wire: list[bytes] = []

    def collect(self) -> None:
        self.wire += [packet for _, packet in self.drive.take()]

    def write(self, size: int) -> None:
        if self.shut:
            return
        with contextlib.suppress(BlockingIOError):
            self.written += self.drive.send(self.fd, STREAM[self.written : self.written + size])
        self.collect()

    def read_some(self, size: int) -> bool:
        """Is there more?"""
        if self.ended:
            return False
        try:
            data = self.drive.recv(self.fd, size)
        except BlockingIOError:
            return False
        assert data == STREAM[self.read : self.read + len(data)]
        self.read += len(data)
        self.ended = not data
        self.collect()
        return bool(data)


class Connection(RuleBasedStateMachine):
    """A connection from ``ends[0]`` to ``ends[1]``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.ends: list[End] = []

    @initialize(
        family=st.sampled_from([4, 6]),
        rcvbuf=st.sampled_from([4096, 30_000, 1 << 20]),
        sndbuf=st.sampled_from([8192, 1 << 20]),
        mtu=st.sampled_from([1280, 1500]),
    )
    def connect(self, family: int, rcvbuf: int, sndbuf: int, mtu: int) -> None:
        self.ends = [End(family, which, rcvbuf=rcvbuf, sndbuf=sndbuf, mtu=mtu) for which in (0, 1)]
        a, b = self.ends
        listener = b.drive.socket(AF[family])
        b.drive.bind(listener, (HOSTS[family][1], 80))
        b.drive.listen(listener)
        a.fd = a.drive.socket(AF[family])
        a.drive.connect_ex(a.fd, (HOSTS[family][1], 80))
        for end in self.ends:
            end.collect()
        self.settle()
        b.fd, _ = b.drive.accept(listener)
        b.drive.close(listener)

    def deliver(self, which: int, *, keep: bool = False) -> None:
        wire = self.ends[which].wire
        if wire:
            self.ends[1 - which].drive.inject(wire[0] if keep else wire.pop(0))
            self.ends[1 - which].collect()

    def settle(self) -> None:
        for _ in range(20_000):
            if not any(end.wire for end in self.ends):
                return
            self.deliver(0)
            self.deliver(1)
        raise AssertionError("they talk for ever")

    def advance(self, ns: int) -> None:
        self.now += ns
        for end in self.ends:
            end.drive.advance(to=self.now)
            end.collect()

    @rule(which=side, size=st.sampled_from([1, 100, 1448, 5000, 60_000]))
    def write(self, which: int, size: int) -> None:
        self.ends[which].write(size)

    @rule(which=side, size=st.sampled_from([1, 1000, 1 << 20]))
    def read(self, which: int, size: int) -> None:
        self.ends[which].read_some(size)

    @rule(which=side, count=st.integers(1, 10))
    def arrive(self, which: int, count: int) -> None:
        for _ in range(count):
            self.deliver(which)

    @rule(which=side, count=st.integers(1, 5))
    def lose(self, which: int, count: int) -> None:
        del self.ends[which].wire[:count]

    @rule(which=side)
    def come_twice(self, which: int) -> None:
        self.deliver(which, keep=True)

    @rule(which=side, seed=st.integers(0, 9))
    def reorder(self, which: int, seed: int) -> None:
        random.Random(seed).shuffle(self.ends[which].wire)

    @rule(ms=st.sampled_from([0, 1, 10, 40, 100, 250, 1000]))
    def wait(self, ms: int) -> None:
        self.advance(ms * MS)

    @rule(which=side)
    def nodelay(self, which: int) -> None:
        self.ends[which].drive.setsockopt(self.ends[which].fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ends[which].collect()

    @precondition(lambda self: not all(end.shut for end in self.ends))
    @rule(which=side)
    def shut(self, which: int) -> None:
        end = self.ends[which]
        if not end.shut:
            end.shut = True
            end.drive.shutdown(end.fd, socket.SHUT_WR)
            end.collect()

    @invariant()
    def nobody_reads_what_was_not_written(self) -> None:
        for end, peer in zip(self.ends, reversed(self.ends), strict=True):
            assert end.read <= peer.written

    @invariant()
    def what_leaves_fits(self) -> None:
        for end in self.ends:
            assert all(len(packet) <= 1500 for packet in end.wire)

    @invariant()
    def memory_is_bounded(self) -> None:
        for end in self.ends:
            memory: dict[str, Any] = end.drive.memory()
            assert memory["in_use"] <= memory["reserved"] <= memory["limit"]

    def teardown(self) -> None:
        """The wire behaves: all arrives, both close, nothing is left."""
        if not self.ends:
            return
        for which in (0, 1):
            self.shut(which)
        for _ in range(2000):
            self.settle()
            for end in self.ends:
                while end.read_some(1 << 20):
                    pass
            if all(end.ended for end in self.ends):
                break
            due = min((end.drive.due for end in self.ends if end.drive.due is not None), default=None)
            for end in self.ends:
                end.collect()
            if not any(end.wire for end in self.ends):
                assert due is not None, "something is missing, and nobody asks for it"
                self.advance(max(due - self.now, 0))
        assert [end.read for end in self.ends] == [end.written for end in reversed(self.ends)]
        for end in self.ends:
            end.drive.close(end.fd)
            end.collect()
        for _ in range(5):
            self.settle()
            self.advance(100_000 * MS)
        for end in self.ends:
            memory = end.drive.memory()
            assert (memory["sockets"], memory["buffers"]) == (0, 0)
            end.drive.free()


TestConnection = Connection.TestCase
TestConnection.settings = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)

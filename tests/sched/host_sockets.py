"""Host sockets as the tests drive them: a set on a reactor, its calls with bytes instead of pointers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libos._native import ffi, lib
from libos.clock import MonotonicClock
from libos.errors import HostError, check
from libos.sched.reactor import EV_READ, Reactor

from .conftest import cast

MS = 1_000_000
AGAIN = -errno.EAGAIN
BUFFER = 1 << 20
Pair = tuple[socket.socket, socket.socket]


class HostSockets:
    """A ``struct host_sockets`` and the events of its turns, by id."""

    def __init__(self, handle: Any) -> None:
        self.reactor = handle
        out = ffi.new("struct host_sockets **")
        check(lib.hosts_new(out, handle), "hosts_new")
        self.handle: Any = out[0]
        self.base: int = lib.hosts_base(self.handle)
        self._events = ffi.new("uint64_t[]", 1024)
        self.lent: dict[int, bytes] = {}  # kept for the kernel
        self._buffer = ffi.new("uint8_t[]", BUFFER)

    def turn(self, timeout: int = 0) -> dict[int, int]:
        n = check(lib.reactor_turn(self.reactor, timeout, self._events, 1024), "turn")
        events = [(event >> 16, event & 0xFFFF) for event in ffi.unpack(self._events, n)] if n else []
        assert len({token for token, _ in events}) == len(events)  # each at most once a turn
        return {token - self.base: mask for token, mask in events}

    def until(self, done: Callable[[], object], turns: int = 1000) -> None:
        """Turns until ``done()`` is true."""
        for _ in range(turns):
            if done():
                return
            self.turn(10 * MS)
        raise AssertionError("it did not come to pass")

    def wait_for(self, id: int, mask: int) -> int:
        """Turns until that socket reports some of ``mask``; what it reports."""
        for _ in range(1000):
            if (got := self.turn(100 * MS).get(id, 0)) & mask:
                return got
        raise AssertionError(f"socket {id} never reported {mask}")

    def open(self, sock: socket.socket, want: int = EV_READ) -> int:
        id = check(lib.host_open(self.handle, sock.fileno()), "open")
        self.want(id, want)
        return id

    def listen(self, sock: socket.socket, want: int = EV_READ) -> int:
        id = check(lib.host_listen(self.handle, sock.fileno()), "listen")
        self.want(id, want)
        return id

    def want(self, id: int, mask: int) -> None:
        check(lib.host_want(self.handle, id, mask), "want")

    def accept(self, id: int) -> int:
        return int(lib.host_accept(self.handle, id))

    def readable(self, id: int) -> int:
        return int(lib.host_readable(self.handle, id))

    def recv(self, id: int, size: int = BUFFER) -> bytes | int:
        n = lib.host_recv(self.handle, id, self._buffer, size)
        return bytes(ffi.buffer(self._buffer, n)) if n > 0 else int(n)

    def send(self, id: int, data: bytes) -> int:
        return int(lib.host_send(self.handle, id, data, len(data)))

    def lend(self, id: int, data: bytes) -> int:
        rc = int(lib.host_lend(self.handle, id, data, len(data)))
        if rc == 0:
            self.lent[id] = data
        return rc

    def still_lent(self, id: int) -> int:
        return int(lib.host_lent(self.handle, id))

    def queued(self, id: int) -> int:
        return int(lib.host_queued(self.handle, id))

    def shutdown(self, id: int) -> int:
        return int(lib.host_shutdown(self.handle, id))

    def error(self, id: int) -> int:
        return int(lib.host_error(self.handle, id))

    def close(self, id: int) -> int:
        return int(lib.host_close(self.handle, id))

    def counters(self) -> dict[str, int]:
        out = ffi.new("uint64_t[]", lib.HOSTS_COUNTERS)
        lib.hosts_counters(self.handle, out)
        names = ("live", "received", "sent", "sends", "starved", "moved", "refused", "memory")
        return dict(zip(names, ffi.unpack(out, lib.HOSTS_COUNTERS), strict=True))

    def free(self) -> None:
        if self.handle is not None:
            lib.hosts_free(self.handle)
            self.handle = None


def small_ring(entries: int) -> Any:
    """A reactor on a ring with so few entries, for ``lib.reactor_free``. Raises HostError where there is none."""
    Reactor("io_uring", clock=MonotonicClock()).close()  # loads liburing, or says why not
    import liburing  # type: ignore[import-untyped]

    out = ffi.new("struct reactor **")
    check(lib.reactor_new_ring(out, os.fsencode(liburing.liburing.__file__), entries, 0), "ring")
    return out[0]


@contextlib.contextmanager
def sockets_of(kind: str, probe: Any) -> Iterator[HostSockets]:
    kind, _, special = kind.partition("-")
    try:
        reactor = Reactor(kind, clock=MonotonicClock(10**15))  # type: ignore[arg-type]
    except HostError as error:
        pytest.skip(str(error))
    if special == "before_6.1":
        probe.lib.probe_without_multishot_receive(cast(probe.ffi, reactor))
    elif special == "before_6.12":
        probe.lib.probe_without_shared_buffers(cast(probe.ffi, reactor))
    sockets = HostSockets(reactor.handle)
    try:
        yield sockets
    finally:
        sockets.free()
        reactor.close()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    return ours, far


def unread(sock: socket.socket) -> bytes:
    """All that has arrived."""
    data = bytearray()
    with contextlib.suppress(BlockingIOError):
        while piece := sock.recv(1 << 20):
            data += piece
    return bytes(data)


def all_of(sockets: HostSockets, id: int, size: int) -> bytes:
    """The next ``size`` bytes, in turns."""
    data = bytearray()
    while len(data) < size:
        sockets.wait_for(id, EV_READ)
        piece = sockets.recv(id)
        assert isinstance(piece, bytes), piece
        data += piece
    assert len(data) == size
    return bytes(data)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def many(sockets: HostSockets, count: int) -> tuple[list[Pair], list[int]]:
    pairs = [socket.socketpair() for _ in range(count)]
    for ours, _ in pairs:
        ours.setblocking(False)
    return pairs, [sockets.open(ours) for ours, _ in pairs]


def echo(sockets: HostSockets, ids: list[int], fars: list[socket.socket], rounds: int) -> None:
    """Each of ``fars`` sends and gets back what it sent."""
    known = set(ids)
    for i in range(rounds):
        message = b"round %d " % i * 20
        for far in fars:
            far.send(message)
        missing = dict.fromkeys(ids, len(message))
        while missing:
            for id in sockets.turn(100 * MS):
                assert id in known
                piece = sockets.recv(id)
                if isinstance(piece, bytes):
                    missing[id] -= len(piece)
                    if not missing[id]:
                        del missing[id]
                    assert sockets.send(id, piece) == len(piece)
        sockets.turn()
        for far in fars:
            got = b""
            while len(got) < len(message):
                got += far.recv(1000)
            assert got == message


def close_all(sockets: HostSockets, pairs: list[Pair], ids: list[int]) -> None:
    for id in ids:
        assert sockets.close(id) == 0
    for ours, far in pairs:
        ours.close()
        far.close()

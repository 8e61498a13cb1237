"""A stream of bytes from ``a`` to ``b`` of a :class:`Wire`, as fast as it goes, timed by the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import SocketInfo, Stack, pack_address

from .harness import ERROR, READ, WRITE
from .packets import AF, ANY, OURS
from .wire import CHUNK, Wire

SECOND = 10**9


class Stream:
    """One connection over ``wire``: what ``a`` writes when it may, ``b`` reads when there is something."""

    def __init__(self, wire: Wire, *, family: int = 4, port: int = 80, chunk: int = CHUNK, **options: int) -> None:
        self.wire, self.received, self.chunk = wire, 0, chunk
        self.listener = check(lib.sock_open(wire.b.handle, 1, AF[family]))
        check(lib.sock_bind(wire.b.handle, self.listener, ANY[family], port))
        check(lib.sock_listen(wire.b.handle, self.listener, 4, 0))
        self.out = check(lib.sock_open(wire.a.handle, 1, AF[family]))
        check(lib.sock_connect(wire.a.handle, self.out, pack_address(OURS[family]), port))
        check(lib.sock_want(wire.a.handle, self.out, WRITE))
        self.into: int | None = None
        self.reads = True
        self._data, self._buf = bytes(chunk), ffi.new("uint8_t[]", 1 << 20)

    def _pump(self) -> bool:
        """What the two applications do now. True: something."""
        a, b, busy = self.wire.a, self.wire.b, False
        for id, mask in a.events():
            assert not mask & ERROR, lib.sock_error(a.handle, id)
            while id == self.out and lib.sock_send(a.handle, id, self._data, self.chunk) > 0:
                busy = True
        for id, mask in b.events():
            assert not mask & ERROR, lib.sock_error(b.handle, id)
            if id == self.listener:
                self.into = check(lib.sock_accept(b.handle, id))
                busy = True
            while mask & READ and self.reads and id == self.into:
                n = lib.sock_recv(b.handle, id, self._buf, 1 << 20)
                if n <= 0:
                    break
                self.received += n
                busy = True
        return busy

    def run(self, until: Callable[[], bool], *, steps: int = 1_000_000) -> None:
        for _ in range(steps):
            due = self.wire.run()
            if until():
                return
            if not self._pump():
                self.wire.jump(due)
        raise AssertionError("it takes for ever")

    def run_for(self, time: int) -> float:
        """Bits a second that were received in the next ``time`` ns."""
        end, before = self.wire.now + time, self.received
        self.run(lambda: self.wire.now >= end)
        return (self.received - before) * 8 * SECOND / time

    def info(self, stack: Stack, id: int) -> SocketInfo:
        return next(row for row in stack.sockets() if row.id == id)

    def option(self, stack: Stack, id: int, level: int, name: int) -> int:
        return int(check(lib.sock_getopt(stack.handle, id, level, name)))

    def set(self, stack: Stack, id: int, name: int, value: int) -> None:
        check(lib.sock_setopt(stack.handle, id, 1, name, value))

    def close(self) -> None:
        """Both ends reset, and nothing left."""
        wire: Any = self.wire
        lib.sock_abort(wire.a.handle, self.out)
        if self.into is not None:
            lib.sock_abort(wire.b.handle, self.into)
        lib.sock_abort(wire.b.handle, self.listener)
        wire.settle()
        wire.finish()

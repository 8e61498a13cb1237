"""Many connections at once over a :class:`Wire`: each sends ``size`` bytes from ``a`` to ``b`` and ends."""

from __future__ import annotations

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import pack_address

from .harness import ERROR, READ, WRITE
from .packets import AF, ANY, OURS
from .wire import Wire


class Crowd:
    """``reads`` says which connections (by their number) have an application that reads."""

    def __init__(self, wire: Wire, count: int, size: int, *, family: int = 4, reads: range | None = None) -> None:
        self.wire, self.size = wire, size
        self.reads = range(count) if reads is None else reads
        self.listener = check(lib.sock_open(wire.b.handle, 1, AF[family]))
        check(lib.sock_bind(wire.b.handle, self.listener, ANY[family], 80))
        check(lib.sock_listen(wire.b.handle, self.listener, 4096, 0))
        self.sent: dict[int, int] = {}
        self.got: dict[int, int] = {}  # by the peer's port
        self.ended: set[int] = set()
        self.errors: list[int] = []
        self.most = [0, 0]  # bytes of buffers ever in use, of each stack
        self._ids: dict[int, int] = {}  # of b, to the number of the connection
        self._numbers: dict[int, int] = {}  # ports
        for number in range(count):
            id = check(lib.sock_open(wire.a.handle, 1, AF[family]))
            check(lib.sock_bind(wire.a.handle, id, ANY[family], 10000 + number))
            check(lib.sock_connect(wire.a.handle, id, pack_address(OURS[family]), 80))
            check(lib.sock_want(wire.a.handle, id, WRITE))
            self.sent[id] = 0
        self._data, self._buf = bytes(65536), ffi.new("uint8_t[]", 65536)

    def _write(self) -> bool:
        a, busy = self.wire.a, False
        for id, mask in a.events():
            if mask & ERROR:
                self.errors.append(lib.sock_error(a.handle, id))
                continue
            n = lib.sock_send(a.handle, id, self._data, min(65536, self.size - self.sent[id]))
            if n > 0:
                busy = True
                self.sent[id] += n
                if self.sent[id] == self.size:
                    check(lib.sock_shutdown(a.handle, id))
        return busy

    def _accept(self) -> None:
        b, name = self.wire.b, ffi.new("struct sock_name *")
        while (id := lib.sock_accept(b.handle, self.listener)) >= 0:
            if lib.sock_getname(b.handle, id, 1, name) < 0:
                continue
            number = name.port - 10000
            self._ids[id], self.got[number] = number, 0
            if number not in self.reads:
                check(lib.sock_want(b.handle, id, 0))

    def _read(self) -> bool:
        b, busy = self.wire.b, False
        for id, mask in b.events():
            if id == self.listener:
                self._accept()
                busy = True
                continue
            if mask & ERROR:
                self.errors.append(lib.sock_error(b.handle, id))
            if mask & READ:
                number, n = self._ids[id], lib.sock_recv(b.handle, id, self._buf, 65536)
                self.got[number] += max(n, 0)
                busy |= n > 0
                if n == 0:
                    self.ended.add(number)
                    check(lib.sock_want(b.handle, id, 0))
        return busy

    def run(self, *, steps: int = 400_000) -> None:
        """Until all whose application reads have come to the end."""
        for _ in range(steps):
            due = self.wire.run()
            busy = self._write() | self._read()
            for i, stack in enumerate((self.wire.a, self.wire.b)):
                self.most[i] = max(self.most[i], stack.memory()["in_use"])
            if len(self.ended) == len(self.reads) or self.errors:
                return
            if not busy:
                self.wire.jump(due)
        raise AssertionError(f"stuck: {len(self.ended)} of {len(self.reads)} have ended")

    def close(self) -> None:
        for id in self.sent:
            lib.sock_abort(self.wire.a.handle, id)
        for id in self._ids:
            lib.sock_abort(self.wire.b.handle, id)
        lib.sock_abort(self.wire.b.handle, self.listener)
        self.wire.settle()
        self.wire.finish()

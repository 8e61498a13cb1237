"""Two stacks and the wire between them, on one virtual clock that jumps from deadline to deadline."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.link.impairment import Impairment
from libos.net.stack import Link, Stack, pack_address
from libos.rand import Rng

from .harness import ERROR, NEVER, READ, START, WRITE
from .packets import AF, ANY, OURS, PEER

CHUNK = 65536


class Wire:
    """``a`` calls, ``b`` listens. What wraps ``a``'s end of the pair is the test's: give it as ``wrap``."""

    def __init__(
        self,
        *,
        seed: int = 1,
        how: Impairment | None = None,
        wrap: Any = None,
        a: Any = None,
        b: Any = None,
        **pair: Any,
    ) -> None:
        """``a``, ``b``: settings of the two stacks."""
        rng = Rng(seed)
        self.now = START
        self.server = OURS  # where b is
        self.a, self.b = Stack(rng, self.now, **(a or {})), Stack(rng, self.now, **(b or {}))
        self.link, far = Link.pair(rng, **pair)
        if how is not None:
            self.link = self.link.with_impairment(how, rng)
        if wrap is not None:
            self.link = wrap(self.link)
        self.far, self.moved = far, 0
        for stack, link, ours in ((self.a, self.link, PEER), (self.b, far, OURS)):
            index = stack.add_link(link)
            stack.add_address(index, ours[4] + "/24")
            stack.add_address(index, ours[6] + "/64")

    def run(self) -> int:
        """Run both until nothing more happens at this moment. When something will."""
        for _ in range(10_000):
            due = min(self.a.run(self.now), self.b.run(self.now))
            stats = self.far.stats()
            moved = stats["rx_packets"] + stats["tx_packets"]
            if due > self.now and moved == self.moved:
                return due
            self.moved = moved
        raise AssertionError("it does not come to rest")

    def jump(self, due: int, most: int = 10**9) -> None:
        """The clock moves to ``due``, but not further than ``most`` ns."""
        self.now = min(max(due, self.now), self.now + most)

    def transfer(self, size: int, family: int, *, seed: int = 7, steps: int = 200_000) -> tuple[str, str]:
        """``size`` bytes from ``a`` to ``b`` and as many back; the digests of what was sent and of what came."""
        rnd = random.Random(seed)
        data = [rnd.randbytes(size), rnd.randbytes(size)]
        sent, got = [0, 0], [hashlib.sha256(), hashlib.sha256()]
        received = [0, 0]
        listener = check(lib.sock_open(self.b.handle, 1, AF[family]))
        check(lib.sock_bind(self.b.handle, listener, ANY[family], 80))
        check(lib.sock_listen(self.b.handle, listener, 4, 0))
        c = check(lib.sock_open(self.a.handle, 1, AF[family]))
        check(lib.sock_connect(self.a.handle, c, pack_address(self.server[family]), 80))
        check(lib.sock_want(self.a.handle, c, READ | WRITE))
        ends: list[tuple[Stack, int | None]] = [(self.a, c), (self.b, None)]
        buf = ffi.new("uint8_t[]", CHUNK)
        for _ in range(steps):
            due, busy = self.run(), False
            for who, (stack, id) in enumerate(ends):
                for ready, mask in stack.events():
                    busy |= bool(mask & READ) or sent[who] < size
                    if ready == listener and who == 1 and id is None:
                        accepted = check(lib.sock_accept(stack.handle, listener))
                        check(lib.sock_want(stack.handle, accepted, READ | WRITE))
                        ends[1] = (stack, accepted)
                        continue
                    assert not mask & ERROR, lib.sock_error(stack.handle, ready)
                    if mask & READ:
                        n = lib.sock_recv(stack.handle, ready, buf, CHUNK)
                        if n > 0:
                            got[who].update(ffi.buffer(buf, n))
                            received[who] += n
                        elif n == 0:  # the end, which would be told for ever
                            check(lib.sock_want(stack.handle, ready, WRITE))
                    if mask & WRITE and sent[who] < size:
                        n = lib.sock_send(stack.handle, ready, data[who][sent[who] :], min(CHUNK, size - sent[who]))
                        sent[who] += max(n, 0)
                        if sent[who] == size:
                            check(lib.sock_shutdown(stack.handle, ready))
            if received == [size, size]:
                break
            if not busy:
                self.jump(due)
        else:
            raise AssertionError(f"stuck: sent {sent}, received {received}: {self.a.sockets()} {self.b.sockets()}")
        for stack, id in ends:
            check(lib.sock_free(stack.handle, id))
        check(lib.sock_free(self.b.handle, listener))
        sums = [hashlib.sha256(d).hexdigest() for d in data]
        return "".join(sums), got[1].hexdigest() + got[0].hexdigest()

    def settle(self) -> None:
        """Nothing is on the wire any more, and no timer runs."""
        while (due := self.run()) != NEVER:
            self.jump(due)

    def finish(self) -> None:
        """All is given back, once the last timers have run out."""
        end = self.now + 400 * 10**9
        while self.now < end and (self.a.memory()["sockets"] or self.b.memory()["sockets"]):
            self.jump(self.run())
        self.run()
        try:
            for stack in (self.a, self.b):
                memory = stack.memory()
                assert (memory["sockets"], memory["buffers"]) == (0, 0), (memory, stack.sockets())
        finally:
            self.close()

    def close(self) -> None:
        self.a.close()
        self.b.close()

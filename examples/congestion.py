"""Congestion control in Python: one that watches the delay, beside CUBIC, on the same path.

    python examples/congestion.py

Two hosts on a virtual clock, and 100 Mbit/s with 40 ms of delay and a large buffer between them. CUBIC fills the
buffer, and everybody behind it waits; a controller that compares each round trip with the shortest it has seen keeps
some ten segments there, and the path as full (in the manner of FAST TCP: Wei, Jin, Low, Hegde 2006). It is asked once
for each round trip; all that happens for each packet is in C.
"""

from __future__ import annotations

import socket
import sys

from libos._native import ffi, lib
from libos.errors import check
from libos.net.congestion import Answer, Round
from libos.net.link.impairment import Impairment
from libos.net.stack import Link, Stack, pack_address
from libos.rand import Rng

RATE, DELAY, BUFFER = 100_000_000, 20_000_000, 4000  # bit/s; ns each way; packets
SECONDS = 10
WAITING = 10  # segments of ours in the buffer


class Delay:
    """Keeps about ``WAITING`` segments in the path's buffer: each round trip halfway to the window for that."""

    def __init__(self) -> None:
        self.base = sys.maxsize

    def on_round(self, r: Round) -> Answer | None:
        if not r.rtt_min or not r.limited:
            return None
        self.base = min(self.base, r.rtt_min)
        fits = r.cwnd * self.base // r.rtt_min
        if r.slow_start and r.cwnd - fits < WAITING * r.mss:
            return None
        return Answer(cwnd=(r.cwnd + fits + WAITING * r.mss) // 2)


def transfer(name: str) -> dict[str, float]:
    """Send as much as goes for ``SECONDS``; what it was like."""
    rng, now = Rng(7), 1_000_000_000
    near, far = Link.pair(rng, mtu=1500, caps=Link.CSUM, queue=1 << 16)
    path = Impairment(rate=RATE, delay=DELAY, queue=BUFFER)
    ends = []
    for link, address in ((near.with_impairment(path, rng), "10.0.0.1/24"), (far, "10.0.0.2/24")):
        stack = Stack(rng.fork(), now, sndbuf=16 << 20, rcvbuf=16 << 20)
        stack.add_address(stack.add_link(link), address)
        stack.register_congestion_control("delay", Delay)
        stack.set_congestion_control(name)
        ends.append(stack)
    a, b = ends
    listener = check(lib.sock_open(b.handle, socket.SOCK_STREAM, socket.AF_INET))
    check(lib.sock_bind(b.handle, listener, pack_address("0.0.0.0"), 80))
    check(lib.sock_listen(b.handle, listener, 1, 0))
    sender = check(lib.sock_open(a.handle, socket.SOCK_STREAM, socket.AF_INET))
    check(lib.sock_connect(a.handle, sender, pack_address("10.0.0.2"), 80))

    chunk, buffer, received, accepted, delays = bytes(1 << 18), ffi.new("uint8_t[]", 1 << 20), 0, -1, []
    end = now + SECONDS * 10**9
    while now < end:
        deadline = min(a.run(now), b.run(now))
        a.events()
        b.events()
        if accepted < 0:
            accepted = lib.sock_accept(b.handle, listener)
        lib.sock_send(a.handle, sender, chunk, len(chunk))
        while accepted >= 0 and (n := lib.sock_recv(b.handle, accepted, buffer, 1 << 20)) > 0:
            received += n
        if now > end - SECONDS * 5 * 10**8:
            delays.append(a.sockets()[0].srtt)
        now = max(now + 100_000, min(deadline, now + 1_000_000))
    again = a.counters()["TcpRetransSegs"]
    for stack in ends:
        stack.close()
    return {"Mbit/s": received * 8 / SECONDS / 1e6, "RTT, ms": sum(delays) / len(delays) / 1e6, "sent again": again}


def main() -> None:
    for name in ("cubic", "delay"):
        print(f"{name:8}", *(f"{key}: {value:8.1f}" for key, value in transfer(name).items()), sep="  ")


if __name__ == "__main__":
    main()

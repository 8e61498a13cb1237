"""One stack by hand: what arrives at which time, and what must leave.

A test reads as a transcript (packetdrill's idea). The stack sits on a manual link and a virtual clock; the test is
everybody else on the wire. Packets are built and taken apart by scapy, which knows nothing of our code::

    h = harness(family=4)
    listener = h.listen(80)
    p = h.peer(to=80)
    p.rx("S", seq=0, mss=1460)
    p.expect("SA", seq=0, ack=1, mss=1460)
    p.rx("A", seq=1, ack=1)
    h.at("40ms")

Sequence numbers are relative: 0 is each side's SYN. ``expect`` is strict about every field it names, about the order,
and about the time: the frame must have left at the very instant that the clock shows. Every frame that leaves is
checked for its lengths and checksums. ARP and neighbour solicitations are answered for every address but those in
``silent``, unless ``neighbours=False``: then they are frames like all others. Groups are
reported (every IPv6 address is in one) in tests that ask for it (``reports=True``).

:meth:`Harness.finish` is the end of every test: nothing unexpected left, and once the sockets are closed and the
timers have run out, no buffer and no socket remains.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from libos._native import ffi, lib
from libos.errors import check
from libos.net.interface import Interface
from libos.net.stack import Link, SocketInfo, Stack, pack_address, unpack_address
from libos.rand import Rng

from .packets import AF, ANY, OUR_MAC, OURS, PEER, PEER_MAC, ROUTER, neighbour_answer, parse
from .peer import Peer

READ, WRITE, ERROR, REQUEST = 1, 2, 4, 8
LISTEN_DEFER, LISTEN_ANY_PORT = 1, 2
NEVER = 2**64 - 1
UNNAMED = {"TCP_FASTOPEN_CONNECT": 30}  # options that this Python has no name for (linux/tcp.h)
START = 1_000_000_000
UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


def ns(time: str | int) -> int:
    """Nanoseconds of ``"40ms"``, ``"1.5s"``, or of a plain number of them."""
    if isinstance(time, int):
        return time
    unit = time.lstrip("0123456789.")
    return round(float(time[: -len(unit)]) * UNITS[unit])


@contextlib.contextmanager
def fails(name: str) -> Iterator[None]:
    """The block raises the OSError of that errno: ``with fails("ENETUNREACH"): ...``"""
    with pytest.raises(OSError) as caught:  # noqa: PT011 (which one is what is asked here)
        yield
    assert errno.errorcode[caught.value.errno or 0] == name, caught.value


class Sent(NamedTuple):
    """A frame that left: when, what, and the segment size it is to be cut to (0: none)."""

    time: int
    packet: Packet
    gso: int


class Harness:
    """A stack, its link, its clock, and everybody else."""

    def __init__(
        self,
        family: int = 4,
        *,
        caps: int = 0,
        mtu: int = 1500,
        queue: int = 4096,
        seed: int = 1,
        neighbours: bool = True,
        routes: bool = True,
        reports: bool = False,
        **stack: Any,
    ) -> None:
        self.family = family
        self.caps = caps
        self.now = START
        # Transcripts are about one thing: buffers that stay as they are, and no ACK that is not due, unless asked for.
        stack.setdefault("rcvbuf_max", stack.setdefault("rcvbuf", 1 << 20))
        stack.setdefault("sndbuf_max", stack.setdefault("sndbuf", 1 << 20))
        stack.setdefault("quickacks", 0)
        stack.setdefault("mtu_probing", 0)
        self.stack = Stack(Rng(seed), self.now, reports=reports, **stack)
        self.handle = self.stack.handle
        mac = bytes.fromhex(OUR_MAC.replace(":", ""))
        self.link = Link.manual(Rng(seed), mtu=mtu, caps=caps, queue=queue, mac=mac)
        self.ifindex = self.stack.add_link(self.link)
        self.interface = Interface(self.stack, self.ifindex)
        self.stack.add_address(self.ifindex, OURS[4] + "/24")
        self.stack.add_address(self.ifindex, OURS[6] + "/64")
        if routes:
            self.stack.add_route(self.ifindex, "0.0.0.0/0", ROUTER[4])
            self.stack.add_route(self.ifindex, "::/0", ROUTER[6])
        self.hops = 64
        self.answers_neighbours = neighbours
        self.silent: set[str] = set()
        self.others: list[Link] = []
        self.tagged: list[Packet] = []  # frames of VLANs, which a test looks at by itself
        self.sent: list[Sent] = []
        self.owned: list[int] = []
        self.ours, self.their = OURS[family], PEER[family]
        self._counted: dict[str, int] = {}

    def add_link(self, *addresses: str) -> tuple[Link, int]:
        """One more link, whose frames the test moves by itself; and its index."""
        link = Link.manual(Rng(9), mac=bytes([2, 0, 0, 0, 1, len(self.others)]))
        self.others.append(link)
        index = self.stack.add_link(link)
        for address in addresses:
            self.stack.add_address(index, address)
        return link, index

    # --- time ---

    def at(self, time: str | int) -> Harness:
        """Let the clock run to ``time`` after the start; the stack runs whenever it asked to."""
        target = START + ns(time)
        assert target >= self.now, "time does not go back"
        for _ in range(100_000):
            deadline = self._run()
            if deadline > target:
                break
            self.now = max(self.now, deadline)
        else:
            raise AssertionError("the stack asks to be run again and again without time going on")
        self.now = target
        self._run()
        return self

    def after(self, time: str | int) -> Harness:
        return self.at(self.now - START + ns(time))

    def _run(self) -> int:
        for _ in range(100):
            deadline = self.stack.run(self.now)
            if not self._collect():
                return deadline
        raise AssertionError("the neighbours talk for ever")

    def _collect(self) -> bool:
        """Take what has left. True: a neighbour was answered."""
        answered = False
        for frame, gso in self.link.drain():
            if frame[12:14] == b"\x81\0":
                self.tagged.append(Ether(frame))
                continue
            packet = parse(frame, checksums=not self.caps & Link.CSUM, hops=self.hops)
            answer = neighbour_answer(packet, self.silent) if self.answers_neighbours else None
            if answer is None:
                self.sent.append(Sent(self.now, packet, gso))
            else:
                self.link.inject(answer, self.now)
                answered = True
        return answered

    # --- frames ---

    def inject(self, packet: Packet | bytes) -> None:
        """A frame arrives. A packet without its Ethernet header gets one."""
        if isinstance(packet, Packet) and not isinstance(packet, Ether):
            packet = self.frame(packet)
        self.link.inject(bytes(packet), self.now)

    def frame(self, packet: Packet) -> Packet:
        return Ether(src=PEER_MAC, dst=OUR_MAC) / packet

    def ip(self, **fields: Any) -> Packet:
        """An IP header from the peer to us."""
        layer = IP if self.family == 4 else IPv6
        return layer(**{"src": self.their, "dst": self.ours, **fields})

    def meet(self) -> None:
        """Let the stack learn where the peer is, so that nothing has to wait for that."""
        if self.family == 4:
            arp = ARP(op=1, hwsrc=PEER_MAC, psrc=self.their, pdst=self.ours)
            self.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / arp)
        else:
            ns = ICMPv6ND_NS(tgt=self.ours) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
            self.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / self.ip(hlim=255) / ns)
        self.expect_packet()

    def frames(self) -> list[Sent]:
        """All that has left and was not looked at yet."""
        self._run()
        frames, self.sent = self.sent, []
        return frames

    def expect_packet(self) -> Packet:
        """The next packet that left, now."""
        self._run()
        assert self.sent, f"nothing left at {self._clock()}"
        time, packet, _ = self.sent.pop(0)
        assert time == self.now, f"left at {(time - START) / 1e6} ms, not at {self._clock()}: {packet.summary()}"
        return packet

    def expect_nothing(self) -> None:
        self._run()
        assert not self.sent, f"unexpected at {self._clock()}: {[s.packet.summary() for s in self.sent]}"

    def _clock(self) -> str:
        return f"{(self.now - START) / 1e6} ms"

    # --- sockets: the calls of net/api.h, checked ---

    def open(self, kind: int = socket.SOCK_STREAM, family: int | None = None) -> int:
        id = check(lib.sock_open(self.handle, kind, AF[family or self.family]))
        self.owned.append(id)
        return id

    def bind(self, id: int, port: int, address: str | None = None, family: int | None = None) -> None:
        raw = ANY[family or self.family] if address is None else pack_address(address)
        check(lib.sock_bind(self.handle, id, raw, port))

    def listen(self, port: int, *, backlog: int = 16, flags: int = 0, **options: int) -> int:
        """With SO_REUSEADDR, as servers do."""
        id = self.open()
        self._set(id, {"SO_REUSEADDR": 1, **options})
        if not flags & LISTEN_ANY_PORT:
            self.bind(id, port)
        check(lib.sock_listen(self.handle, id, backlog, flags))
        return id

    def connect(self, port: int, address: str | None = None, *, local_port: int = 0, **options: int) -> int:
        id = self.open()
        self._set(id, {"SO_REUSEADDR": 1, **options} if local_port else options)
        if local_port:
            self.bind(id, local_port)
        check(lib.sock_connect(self.handle, id, pack_address(address or self.their), port))
        return id

    def accept(self, listener: int) -> int:
        id = check(lib.sock_accept(self.handle, listener))
        self.owned.append(id)
        return id

    def _set(self, id: int, options: dict[str, int]) -> None:
        for name, value in options.items():
            level = socket.IPPROTO_TCP if name.startswith("TCP_") else socket.SOL_SOCKET
            number = getattr(socket, name, None) or UNNAMED[name]
            check(lib.sock_setopt(self.handle, id, level, number, value))

    def set_option(self, id: int, level: int, name: int, value: int) -> None:
        """For options that Python has no name for."""
        check(lib.sock_setopt(self.handle, id, level, name, value))

    def set(self, id: int, **options: int) -> None:
        """``h.set(c, TCP_NODELAY=1)``"""
        self._set(id, options)

    def option(self, id: int, name: int, level: int = socket.SOL_SOCKET) -> int:
        return check(lib.sock_getopt(self.handle, id, level, name))

    def send(self, id: int, data: bytes) -> int:
        return check(lib.sock_send(self.handle, id, data, len(data)))

    def recv(self, id: int, most: int = 1 << 20) -> bytes:
        """``b""`` at the end of the stream; BlockingIOError when there is nothing."""
        buf = ffi.new("uint8_t[]", most)
        return bytes(ffi.buffer(buf, check(lib.sock_recv(self.handle, id, buf, most))))

    def shutdown(self, id: int) -> None:
        check(lib.sock_shutdown(self.handle, id))

    def free(self, id: int) -> None:
        self.owned.remove(id)
        check(lib.sock_free(self.handle, id))

    def abort(self, id: int) -> None:
        self.owned.remove(id)
        check(lib.sock_abort(self.handle, id))

    def error(self, id: int) -> str | None:
        """The pending error by its name, and clear it."""
        code = check(lib.sock_error(self.handle, id))
        return errno.errorcode[code] if code else None

    def sendto(self, id: int, data: bytes, address: str | None = None, port: int = 0) -> int:
        name = ffi.NULL
        if address is not None:
            name = ffi.new("struct sock_name *", {"addr": pack_address(address), "port": port})
        return check(lib.sock_sendto(self.handle, id, data, len(data), name, ffi.NULL))

    def recvfrom(self, id: int) -> tuple[bytes, str, int]:
        buf, name = ffi.new("uint8_t[]", 65536), ffi.new("struct sock_name *")
        n = check(lib.sock_recvfrom(self.handle, id, buf, 65536, name, ffi.NULL))
        return bytes(ffi.buffer(buf, n)), unpack_address(bytes(ffi.buffer(name.addr))), name.port

    def connect_again(self, id: int, port: int = 80) -> None:
        check(lib.sock_connect(self.handle, id, pack_address(self.their), port))

    def connect_udp(self, id: int, port: int, address: str | None = None) -> None:
        check(lib.sock_connect(self.handle, id, pack_address(address or self.their), port))

    def events(self) -> dict[int, int]:
        return dict(self.stack.events())

    def info(self, id: int) -> SocketInfo:
        return next(row for row in self.stack.sockets() if row.id == id)

    def state(self, id: int) -> str:
        return self.info(id).state

    def states(self) -> list[str]:
        """Of all TCP sockets, sorted."""
        self._run()
        return sorted(row.state for row in self.stack.sockets() if row.type == "tcp")

    def counted(self, name: str) -> int:
        """How much a counter grew since it was last asked for."""
        value = self.stack.counters()[name]
        grown, self._counted[name] = value - self._counted.get(name, 0), value
        return grown

    # --- conversations ---

    def peer(self, to: int = 80, port: int = 40000, **options: Any) -> Peer:
        return Peer(self, port, to, **options)

    def established(
        self,
        listener: int | None = None,
        *,
        port: int = 40000,
        mss: int | None = 1000,
        ws: int | None = None,
        ts: int | None = None,
        sack: bool | None = None,
        win: int = 65535,
        isn: int = 5_000_000,
        **options: int,
    ) -> tuple[Peer, int]:
        """A connection that the peer opened: the peer, and our socket."""
        own = listener is None
        listener = self.listen(80, **options) if listener is None else listener
        p = self.peer(port=port, isn=isn)
        p.rx("S", seq=0, mss=mss, ws=ws, ts=ts, sack=sack, win=win)
        p.expect("SA", seq=0, ack=1)
        p.rx("A", seq=1, ack=1, win=win >> (ws or 0))
        c = self.accept(listener)
        if own:
            self.free(listener)
        return p, c

    def connected(
        self,
        *,
        mss: int | None = 1000,
        ws: int | None = None,
        ts: int | None = None,
        sack: bool | None = None,
        win: int = 65535,
        local_port: int = 50000,
        **options: int,
    ) -> tuple[Peer, int]:
        """A connection that we opened: the peer, and our socket."""
        c = self.connect(80, local_port=local_port, **options)
        p = self.peer(port=80, to=local_port)
        p.expect("S", seq=0)
        p.rx("SA", seq=0, ack=1, mss=mss, ws=ws, ts=ts, sack=sack, win=win)
        p.expect("A", seq=1, ack=1)
        return p, c

    # --- the end ---

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """``with Harness() as h``: for tests that make many."""
        if kind is None:
            self.finish()
        else:
            self.stack.close()

    def finish(self) -> None:
        """Nothing unexpected left; and nothing is kept of what was."""
        try:
            self.expect_nothing()
            for id in self.owned:
                lib.sock_abort(self.handle, id)
            self._run()
            self.after("300s")
            for link in self.others:
                link.drain()
            memory = self.stack.memory()
            assert (memory["buffers"], memory["in_use"]) == (0, 0), f"buffers kept: {memory}"
            assert memory["sockets"] == 0, f"sockets kept: {self.stack.sockets()}"
            assert self.stack.counters()["TcpCurrEstab"] == 0
            assert self.stack.run(self.now) == NEVER, "something still wants to run"
        finally:
            self.stack.close()

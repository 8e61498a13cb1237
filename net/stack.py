"""The cffi face of the C stack: :class:`Stack` and :class:`Link`.

Only this module, the transports and the gateway call ``lib.sock_*`` and ``lib.stack_*``; everything above them sees
Python types. Ownership: a :class:`Link` owns its C link until :meth:`Stack.add_link` or a wrapper takes it over; a
:class:`Stack` frees all that it holds in :meth:`Stack.close`, and must be detached from its reactor first.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from libos._native import ffi, lib
from libos.errors import check
from libos.net.congestion import Controllers, Factory
from libos.net.link.impairment import Impairment
from libos.rand import Rng

__all__ = [
    "Link",
    "SocketInfo",
    "Stack",
    "pack_address",
    "pack_impairment",
    "parse_interface",
    "random_mac",
    "unpack_address",
    "unpack_name",
]

STATES = (
    "",  # Linux numbers them from 1
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
)

_V4_PREFIX = bytes(10) + b"\xff\xff"


def pack_address(text: str) -> bytes:
    """The 16 bytes that C knows an address by: IPv4 as ``::ffff:a.b.c.d``. A scope (``%eth0``) is dropped.

    Raises ``ValueError`` if ``text`` is no numeric address.
    """
    try:
        return _V4_PREFIX + socket.inet_pton(socket.AF_INET, text)
    except OSError:
        pass
    try:
        return socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        raise ValueError(f"{text!r} is no IPv4 or IPv6 address") from None


def unpack_address(raw: bytes) -> str:
    """The text of a 16-byte address."""
    if raw.startswith(_V4_PREFIX):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)


def unpack_name(name: Any) -> tuple[str, int] | tuple[str, int, int, int]:
    """A ``struct sock_name`` as Python's socket address: two parts for IPv4, four for IPv6 (``socket(7)``).

    An IPv4 peer of an ``AF_INET6`` socket shows as ``::ffff:a.b.c.d``, as it does with the kernel.
    """
    raw = bytes(ffi.buffer(name.addr))
    if name.family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[12:]), name.port
    return socket.inet_ntop(socket.AF_INET6, raw), name.port, 0, name.ifindex


def parse_interface(text: str) -> tuple[bytes, int]:
    """``"10.0.0.2/24"`` as the packed address and the length of its prefix. Raises ``ValueError``."""
    interface = ipaddress.ip_interface(text)
    return pack_address(str(interface.ip)), interface.network.prefixlen


def random_mac(rng: Rng) -> bytes:
    """A random, locally administered, unicast address (IEEE 802-2014 8.2)."""
    raw = bytearray(rng.bytes(6))
    raw[0] = raw[0] & 0xFC | 0x02
    return bytes(raw)


_DISTRIBUTIONS = ("uniform", "normal", "pareto")  # JITTER_*


def pack_impairment(how: Impairment, rng: Rng | None) -> Any:
    """``struct impairment``. Without a seed of its own, ``rng`` gives one (None: none is needed)."""
    seed = (0, 0) if how.seed is None else (how.seed & (1 << 64) - 1, how.seed >> 64)
    if how.seed is None and rng is not None:
        seed = rng.seed128()
    return ffi.new(
        "struct impairment *",
        {
            "loss_ppm": round(how.loss * 1e6),
            "burst": how.burst,
            "reorder_ppm": round(how.reorder * 1e6),
            "duplicate_ppm": round(how.duplicate * 1e6),
            "corrupt_ppm": round(how.corrupt * 1e6),
            "queue": how.queue,
            "queue_bytes": how.queue_bytes,
            "distribution": _DISTRIBUTIONS.index(how.distribution),
            "flags": lib.IMPAIR_KEEP_ORDER if how.keep_order else 0,
            "delay_ns": how.delay,
            "jitter_ns": how.jitter,
            "rate_bps": how.rate,
            "buffer_ns": how.buffer,
            "bucket_ns": how.bucket,
            "seed": seed,
        },
    )


class SocketInfo(msgspec.Struct, frozen=True):
    """One row of ``ss``: queues in bytes, times in ns, windows in bytes.

    LISTEN: ``rx_queue`` connections wait to be accepted, ``tx_queue`` may. ``timer``: the next to go off (``on``,
    ``keepalive``, ``timewait``, ``persist``, or empty), in ``timer_left``. ``options``: what both ends agreed on.
    """

    id: int
    type: str
    state: str
    local: tuple[Any, ...]
    remote: tuple[Any, ...]
    rx_queue: int
    tx_queue: int
    srtt: int
    rttvar: int
    rto: int
    cwnd: int
    ssthresh: int
    mss: int
    retransmits: int
    congestion: str = ""
    options: tuple[str, ...] = ()
    wscale: tuple[int, int] = (0, 0)
    in_flight: int = 0
    sacked: int = 0
    lost: int = 0
    backoff: int = 0
    timer: str = ""
    timer_left: int = 0
    orphan: bool = False
    owner: str = ""


_OPTIONS = tuple(  # by their bits
    tuple(
        name
        for bit, name in ((lib.SOCK_TIMESTAMPS, "ts"), (lib.SOCK_SACK, "sack"), (lib.SOCK_WSCALE, "wscale"))
        if flags & bit
    )
    for flags in range(8)
)
_TIMERS = ("", "on", "keepalive", "timewait", "persist")


class Link:
    """A network device, in C. Made by one of the class methods; given to a stack by :meth:`Stack.add_link`."""

    CSUM = 1
    TSO = 2
    LRO = 4
    ALL = CSUM | TSO | LRO

    def __init__(self, handle: Any, mac: bytes) -> None:
        self._handle: Any = handle
        self._owned = True
        self.mac = mac

    @classmethod
    def pair(
        cls, rng: Rng, *, mtu: int = 65520, caps: int = ALL, queue: int = 4096, mac: bytes | None = None
    ) -> tuple[Link, Link]:
        """Two ends in memory. They must be driven by one thread. ``mac``: the first one's."""
        a, b = ffi.new("struct link **"), ffi.new("struct link **")
        mac_a, mac_b = mac or random_mac(rng), random_mac(rng)
        check(lib.link_new_pair(a, b, mtu, caps, mac_a, mac_b, queue))
        return cls(a[0], mac_a), cls(b[0], mac_b)

    @classmethod
    def tap(cls, reactor: Any, fd: int, rng: Rng, *, mtu: int = 1500, caps: int = ALL) -> Link:
        """An open TAP device with IFF_VNET_HDR; the link closes ``fd``. ``reactor``: ``Reactor.handle``."""
        out, mac = ffi.new("struct link **"), random_mac(rng)
        check(lib.link_new_tap(out, reactor, fd, mtu, caps, mac))
        return cls(out[0], mac)

    @classmethod
    def manual(cls, rng: Rng, *, mtu: int = 1500, caps: int = 0, queue: int = 4096, mac: bytes | None = None) -> Link:
        """A link whose frames a test moves: :meth:`inject`, :meth:`drain`."""
        out, mac = ffi.new("struct link **"), mac or random_mac(rng)
        check(lib.link_new_manual(out, mtu, caps, mac, queue))
        return cls(out[0], mac)

    def with_pcap(self, fd: int, epoch_offset: int, *, snaplen: int = 262144, live: bool = True) -> Link:
        """This link, with all that passes written to ``fd`` (taken over). ``epoch_offset``: ns from clock to 1970.
        ``live``: soon after it passed; otherwise when there is much of it, and when the link is freed."""
        out = ffi.new("struct link **")
        check(lib.link_new_pcap(out, self._handle, fd, epoch_offset, snaplen, live))
        self._owned = False
        return Link(out[0], self.mac)

    def with_impairment(self, how: Impairment, rng: Rng) -> Link:
        """This link, made worse."""
        out = ffi.new("struct link **")
        check(lib.link_new_impair(out, self._handle, pack_impairment(how, rng)))
        self._owned = False
        return Link(out[0], self.mac)

    def take(self) -> Any:
        """Give the C link to a new owner."""
        self._owned = False
        return self._handle

    @property
    def mtu(self) -> int:
        return int(lib.link_mtu(self._handle))

    def stats(self) -> dict[str, int]:
        """Frames and bytes so far, as in ``/proc/net/dev``. Not after the owner has freed the link."""
        raw = ffi.new("struct link_stats *")
        lib.link_stats(self._handle, raw)
        return {
            name: getattr(raw, name)
            for name in ("rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped")
        }

    def inject(self, frame: bytes, now: int) -> None:
        """A frame arrives on a manual link."""
        check(lib.link_inject(self._handle, frame, len(frame), now))

    def drain(self) -> list[tuple[bytes, int]]:
        """The frames that left a manual link since the last call, each with the segment size to cut it to (0: none)."""
        buf, gso, frames = ffi.new("uint8_t[]", 70000), ffi.new("unsigned *"), []
        while n := check(lib.link_drain(self._handle, buf, 70000, gso)):
            frames.append((bytes(ffi.buffer(buf, n)), gso[0]))
        return frames

    def close(self) -> None:
        """Free it, if nobody has taken it over."""
        if self._owned:
            self._owned = False
            lib.link_free(self._handle)


class Stack:
    """One host's TCP/IP. ``handle`` is what ``lib.sock_*`` take; ``poller`` is what a reactor attaches.

    ``forwarding``: it is a router too, and passes on what is for others (``True``, or for one family: ``4``, ``6``).
    """

    def __init__(
        self,
        rng: Rng,
        now: int,
        *,
        memory: int = 256 << 20,
        sockets: int = 1 << 20,
        rcvbuf: int = 128 << 10,
        sndbuf: int = 256 << 10,
        rcvbuf_max: int = 16 << 20,
        sndbuf_max: int = 16 << 20,
        notsent_lowat: int = 0,
        quickacks: int = 16,
        mtu_probing: int = 1,
        any_destination: bool = False,
        reports: bool = True,
        accept_redirects: bool = False,
        forwarding: bool | Literal[4, 6] = False,
        congestion: str = "cubic",
        ecn: int = 2,
    ) -> None:
        config = ffi.new(
            "struct stack_config *",
            {
                "seed": rng.seed128(),
                "memory": memory,
                "sockets": sockets,
                "rcvbuf": rcvbuf,
                "sndbuf": sndbuf,
                "rcvbuf_max": rcvbuf_max,
                "sndbuf_max": sndbuf_max,
                "notsent_lowat": notsent_lowat,
                "quickacks": quickacks,
                "mtu_probing": mtu_probing,
                "flags": (lib.STACK_ANY_DESTINATION if any_destination else 0)
                | (0 if reports else lib.STACK_NO_REPORTS)
                | (lib.STACK_ACCEPT_REDIRECTS if accept_redirects else 0)
                | (lib.STACK_FORWARD4 if forwarding in (True, 4) else 0)
                | (lib.STACK_FORWARD6 if forwarding in (True, 6) else 0),
                "ecn": ecn,
            },
        )
        out = ffi.new("struct stack **")
        check(lib.stack_new(out, config, now))
        self.handle: Any = out[0]
        self.poller: Any = lib.stack_poller(self.handle)
        self.controllers = Controllers(self.handle)
        try:
            self.set_congestion_control(congestion)
        except OSError:
            self.close()
            raise

    @classmethod
    def view(cls, handle: Any) -> Stack:
        """Somebody else's stack, to look at: for its owner to close."""
        stack = cls.__new__(cls)
        stack.handle, stack.poller = handle, None
        return stack

    def add_link(self, link: Link) -> int:
        """Take the link over; its interface index."""
        index = check(lib.stack_add_link(self.handle, link._handle))
        link.take()
        return index

    def add_vlan(self, ifindex: int, id: int) -> int:
        """An interface for the frames with the tag ``id`` on the link of ``ifindex`` (IEEE 802.1Q); its index."""
        return check(lib.stack_add_vlan(self.handle, ifindex, id))

    def add_address(self, ifindex: int, interface: str) -> None:
        """An address with its network, as ``"10.0.0.2/24"``."""
        addr, prefix = parse_interface(interface)
        check(lib.stack_add_address(self.handle, ifindex, addr, prefix), interface)

    def add_route(self, ifindex: int, network: str, gateway: str | None = None) -> None:
        """A route to ``network`` (``"0.0.0.0/0"``), through ``gateway`` or, without one, on the link itself."""
        net = ipaddress.ip_network(network)
        hop = ffi.NULL if gateway is None else pack_address(gateway)
        dest = pack_address(str(net.network_address))
        check(lib.stack_add_route(self.handle, ifindex, dest, net.prefixlen, hop), network)

    def run(self, now: int) -> int:
        """By hand: timers and output up to ``now``. The next deadline, in ns."""
        return int(lib.stack_run(self.handle, now))

    def events(self, most: int = 1024) -> list[tuple[int, int]]:
        """By hand: what is to be reported, as (socket id, mask)."""
        raw = ffi.new("uint64_t[]", most)
        n = lib.stack_events(self.handle, raw, most)
        events = [(word >> 16, word & 0xFFFF) for word in ffi.unpack(raw, n)] if n else []
        if events and events[0][0] == 0 and (own := events[0][1]) & lib.EV_REQUEST:  # round trips have ended
            self.controllers.consult()
            events[:1] = [(0, own & ~lib.EV_REQUEST)] if own & ~lib.EV_REQUEST else []
        return events

    def congestion_controls(self) -> list[str]:
        """The names of all that can be chosen with ``TCP_CONGESTION``."""
        names, i = [], 0
        while name := lib.stack_congestion_name(self.handle, i):
            names.append(ffi.string(name).decode())
            i += 1
        return names

    def set_congestion_control(self, name: str) -> None:
        """For TCP sockets from now on. Raises ``FileNotFoundError``."""
        check(lib.stack_set_congestion(self.handle, name.encode()), name)

    def register_congestion_control(self, name: str, factory: Factory, *, beta: float = 0.7) -> None:
        """Congestion control in Python, see :mod:`libos.net.congestion`. ``factory`` makes the controller of one
        connection; ``beta``, 0.1 to 1, of the window remains after a loss."""
        self.controllers.register(name, factory, beta)

    def counters(self) -> dict[str, int]:
        """All counters by their SNMP (``nstat``) names."""
        n = lib.stack_counter_count()
        raw = ffi.new("uint64_t[]", n)
        lib.stack_counters(self.handle, raw)
        return {ffi.string(lib.stack_counter_name(i)).decode(): value for i, value in enumerate(ffi.unpack(raw, n))}

    def memory(self) -> dict[str, int]:
        """Bytes of packet buffers (``limit``, ``reserved``, ``in_use``), ``buffers``, ``sockets``, ``socket_bytes``."""
        raw = ffi.new("struct stack_memory *")
        lib.stack_memory(self.handle, raw)
        names = ("limit", "reserved", "in_use", "buffers", "sockets", "socket_bytes")
        return {name: getattr(raw, name) for name in names}

    def sockets(self) -> list[SocketInfo]:
        """Every socket, with its state and queues."""
        return list(self.each_socket())

    def each_socket(self, owner: Callable[[int], str] = lambda id: "") -> Iterator[SocketInfo]:
        """The same one by one, for who has other things to do between; sockets may come and go meanwhile. ``owner``
        says whose a socket is."""
        cursor, raw = ffi.new("uint64_t *"), ffi.new("struct sock_info *")
        while lib.stack_next_socket(self.handle, cursor, raw):
            yield SocketInfo(
                id=raw.id,
                type="tcp" if raw.type == socket.SOCK_STREAM else "udp",
                state=STATES[raw.state],
                local=unpack_name(raw.local),
                remote=unpack_name(raw.remote),
                rx_queue=raw.rx_queue,
                tx_queue=raw.tx_queue,
                srtt=raw.srtt_ns,
                rttvar=raw.rttvar_ns,
                rto=raw.rto_ns,
                cwnd=raw.cwnd,
                ssthresh=raw.ssthresh,
                mss=raw.mss,
                retransmits=raw.retransmits,
                congestion=ffi.string(raw.cong).decode(),
                options=_OPTIONS[raw.flags],
                wscale=(raw.wscale_out, raw.wscale_in),
                in_flight=raw.in_flight,
                sacked=raw.sacked,
                lost=raw.lost,
                backoff=raw.backoff,
                timer=_TIMERS[raw.timer],
                timer_left=raw.timer_ns,
                orphan=bool(raw.orphan),
                owner=owner(raw.id),
            )

    def lingering(self) -> int:
        """Closed connections that still have something to get through."""
        return int(lib.stack_lingering(self.handle))

    def close(self) -> None:
        """Free everything. Idempotent."""
        if self.handle is not None:
            lib.stack_free(self.handle)
            self.handle = self.poller = None

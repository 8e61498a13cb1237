"""A stack driven from outside, as a conformance suite drives one: the Python face of ``net/drive.h``.

Sockets by the calls and errors of the manual pages, packets in at given times, packets out with the time at which they
left, and a clock that moves only when it is told to. No thread, no wall clock::

    d = Drive(address="192.0.2.2/24")
    fd = d.socket()
    d.bind(fd, ("192.0.2.2", 80))
    d.listen(fd)
    d.inject(syn, at=1_000_000)
    [(when, packet)] = d.take()

Times are ns and begin at 0. Each call is one turn of the stack: what it makes necessary has left when it returns. No
call blocks; where one of a blocking socket would wait it raises ``BlockingIOError``. The same calls in the same order
give the same packets, byte for byte. ``docs/driving.md`` has whole conversations.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import SocketInfo, Stack
from libos.net.tcp_info import TCP_INFO_SIZE, TcpInfo, tcp_info

__all__ = ["Drive"]

_NEVER = 2**64 - 1
_PACKET_MAX = 65536 + 18
_SOCKADDR_MAX = 128


def _pack_sockaddr(address: tuple[Any, ...]) -> bytes:
    """``(host, port)`` or ``(host, port, flowinfo, scope)``, numeric, as a ``struct sockaddr_in`` or ``_in6``."""
    host, port = address[0], address[1]
    if ":" in host:
        scope = address[3] if len(address) > 3 else 0
        raw = socket.inet_pton(socket.AF_INET6, host)
        return struct.pack("=H2sI16sI", socket.AF_INET6, port.to_bytes(2, "big"), 0, raw, scope)
    raw = socket.inet_pton(socket.AF_INET, host or "0.0.0.0")
    return struct.pack("=H2s4s8x", socket.AF_INET, port.to_bytes(2, "big"), raw)


def _unpack_sockaddr(raw: bytes) -> tuple[Any, ...]:
    family, port = struct.unpack_from("=H", raw)[0], int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port, 0, struct.unpack_from("=I", raw, 24)[0]


class Drive:
    """One host on one link. ``level``: ``"ip"`` (bare packets, nobody to ask for) or ``"ethernet"`` (frames, with ARP).

    ``address`` is one interface (``"10.0.0.2/24"``) or several. ``config`` are members of ``struct stack_config``:
    ``memory``, ``sockets``, ``rcvbuf``, ``sndbuf`` …
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        address: str | Iterable[str] = ("10.0.0.2/24", "fd00::2/64"),
        mtu: int = 1500,
        level: str = "ip",
        **config: int,
    ) -> None:
        if level not in ("ip", "ethernet"):
            raise ValueError(f"level is {level!r}: it may be 'ip' or 'ethernet'")
        raw = ffi.new("struct stack_config *")
        lib.drive_defaults(raw)
        raw.seed = (seed & _NEVER, seed >> 64 & _NEVER)
        for name, value in config.items():
            setattr(raw, name, value)
        out = ffi.new("struct drive **")
        check(lib.drive_new(out, raw, mtu, lib.DRIVE_ETHERNET if level == "ethernet" else 0))
        self._drive: Any = out[0]
        self._stack = Stack.view(lib.drive_stack(self._drive))
        self._buffer = ffi.new("uint8_t[]", _PACKET_MAX)
        for interface in (address,) if isinstance(address, str) else address:
            check(lib.drive_address(self._drive, str(ipaddress.ip_interface(interface)).encode()), interface)

    def route(self, network: str, gateway: str | None = None) -> None:
        """Ethernet only: at level ``"ip"`` all addresses are on the link."""
        hop = ffi.NULL if gateway is None else gateway.encode()
        check(lib.drive_route(self._drive, network.encode(), hop), network)

    # --- time and packets ---

    @property
    def now(self) -> int:
        """ns since the drive was made."""
        return int(lib.drive_now(self._drive))

    @property
    def due(self) -> int | None:
        """When the stack has something to do next; None: not before somebody calls or a packet comes."""
        due = int(lib.drive_due(self._drive))
        return None if due == _NEVER else due

    def advance(self, to: int | None = None, *, by: int | None = None) -> int:
        """Let the clock run to ``to``, or on ``by`` ns; the stack runs whenever it asked to. The new time."""
        if (to is None) == (by is None):
            raise TypeError("advance() takes to= or by=")
        check(lib.drive_advance(self._drive, self.now + (by or 0) if to is None else to))
        return self.now

    def inject(self, packet: bytes, at: int | None = None) -> None:
        """The clock moves to ``at`` (None: stays); then the packet arrives."""
        packet = bytes(packet)
        check(lib.drive_inject(self._drive, self.now if at is None else at, packet, len(packet)))

    def take(self) -> list[tuple[int, bytes]]:
        """The packets that left since the last call, each with the time at which it did."""
        at, packets = ffi.new("uint64_t *"), []
        while n := check(lib.drive_take(self._drive, at, self._buffer, _PACKET_MAX)):
            packets.append((int(at[0]), bytes(ffi.buffer(self._buffer, n))))
        return packets

    # --- sockets ---

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> int:
        return check(lib.drive_socket(self._drive, family, type, proto))

    def bind(self, fd: int, address: tuple[Any, ...]) -> None:
        raw = _pack_sockaddr(address)
        check(lib.drive_bind(self._drive, fd, ffi.from_buffer("struct sockaddr *", raw), len(raw)))

    def listen(self, fd: int, backlog: int = 128) -> None:
        check(lib.drive_listen(self._drive, fd, backlog))

    def accept(self, fd: int) -> tuple[int, tuple[Any, ...]]:
        """The connection's descriptor, and its peer. BlockingIOError: there is none yet."""
        return self._named(lib.drive_accept, fd)

    def connect(self, fd: int, address: tuple[Any, ...]) -> None:
        """TCP: always raises; BlockingIOError (EINPROGRESS) is how it begins well. See :meth:`connect_ex`."""
        if error := self.connect_ex(fd, address):
            raise OSError(error, os.strerror(error))

    def connect_ex(self, fd: int, address: tuple[Any, ...]) -> int:
        """0, or an errno."""
        raw = _pack_sockaddr(address)
        return -int(lib.drive_connect(self._drive, fd, ffi.from_buffer("struct sockaddr *", raw), len(raw)))

    def send(self, fd: int, data: bytes, flags: int = 0) -> int:
        """How much was taken."""
        return check(lib.drive_sendto(self._drive, fd, data, len(data), flags, ffi.NULL, 0))

    def sendto(self, fd: int, data: bytes, address: tuple[Any, ...], flags: int = 0) -> int:
        raw = _pack_sockaddr(address)
        to = ffi.from_buffer("struct sockaddr *", raw)
        return check(lib.drive_sendto(self._drive, fd, data, len(data), flags, to, len(raw)))

    def recv(self, fd: int, size: int = 65536, flags: int = 0) -> bytes:
        """``b""`` at the end of the stream."""
        buffer = ffi.new("uint8_t[]", max(size, 1))
        n = check(lib.drive_recvfrom(self._drive, fd, buffer, size, flags, ffi.NULL, ffi.NULL))
        return bytes(ffi.buffer(buffer, n))

    def recvfrom(self, fd: int, size: int = 65536, flags: int = 0) -> tuple[bytes, tuple[Any, ...]]:
        buffer = ffi.new("uint8_t[]", max(size, 1))
        n, peer = self._named(lib.drive_recvfrom, fd, buffer, size, flags)
        return bytes(ffi.buffer(buffer, n)), peer

    def shutdown(self, fd: int, how: int) -> None:
        check(lib.drive_shutdown(self._drive, fd, how))

    def close(self, fd: int) -> None:
        check(lib.drive_close(self._drive, fd))

    def getsockname(self, fd: int) -> tuple[Any, ...]:
        return self._named(lib.drive_getsockname, fd)[1]

    def getpeername(self, fd: int) -> tuple[Any, ...]:
        return self._named(lib.drive_getpeername, fd)[1]

    def setsockopt(self, fd: int, level: int, name: int, value: int | bytes) -> None:
        raw = struct.pack("=i", value) if isinstance(value, int) else bytes(value)
        check(lib.drive_setsockopt(self._drive, fd, level, name, raw, len(raw)))

    def getsockopt(self, fd: int, level: int, name: int, size: int = 0) -> int | bytes:
        """An int; with ``size``, up to so many bytes, as ``socket.socket.getsockopt``."""
        buffer, length = ffi.new("uint8_t[]", max(size, 4)), ffi.new("unsigned *", size or 4)
        check(lib.drive_getsockopt(self._drive, fd, level, name, buffer, length))
        raw = bytes(ffi.buffer(buffer, length[0]))
        return raw if size else int.from_bytes(raw, "little", signed=True)

    def poll(self, fd: int) -> int:
        """``select.POLL*`` that hold now."""
        return check(lib.drive_poll(self._drive, fd))

    def tcp_info(self, fd: int) -> TcpInfo:
        """``struct tcp_info``, as Linux fills it."""
        raw = self.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        assert isinstance(raw, bytes)
        return tcp_info(raw)

    def _named(self, call: Any, fd: int, *arguments: Any) -> tuple[int, tuple[Any, ...]]:
        """A call that ends in (addr, &len): what it returns, and the address."""
        raw, size = ffi.new("uint8_t[]", _SOCKADDR_MAX), ffi.new("unsigned *", _SOCKADDR_MAX)
        rc = check(call(self._drive, fd, *arguments, ffi.cast("struct sockaddr *", raw), size))
        return rc, _unpack_sockaddr(bytes(ffi.buffer(raw, size[0])))

    # --- what else there is to see ---

    def counters(self) -> dict[str, int]:
        """All counters by their SNMP (``nstat``) names."""
        return self._stack.counters()

    def memory(self) -> dict[str, int]:
        return self._stack.memory()

    def sockets(self) -> list[SocketInfo]:
        """As ``ss`` shows them; connections that live on after ``close`` too."""
        return self._stack.sockets()

    # --- the end ---

    def free(self) -> None:
        """End it, with all that it has. Idempotent."""
        if self._drive is not None:
            lib.drive_free(self._drive)
            self._drive = None

    def __enter__(self) -> Drive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.free()

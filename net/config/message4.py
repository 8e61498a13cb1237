"""DHCPv4 messages (RFC 2131, 2; RFC 2132): parsed strictly, emitted plainly, in both directions."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from libos.net.config.fields import BadMessage

__all__ = ["Kind", "Message", "Option", "addresses", "routes"]

COOKIE = b"\x63\x82\x53\x63"
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_SIZE_MIN = 300  # a BOOTP message: some relays drop what is shorter (RFC 1542, 2.1)
_NOWHERE = bytes(4)
_EACH_MAX = 16


class Kind(IntEnum):
    """Option 53 (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


class Option(IntEnum):
    """RFC 2132; RFC 3397 (119), RFC 3442 (121)."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    DOMAIN = 15
    MTU = 26
    BROADCAST = 28
    ADDRESS = 50
    LEASE = 51
    OVERLOAD = 52
    KIND = 53
    SERVER = 54
    PARAMETERS = 55
    MESSAGE = 56
    SIZE = 57
    T1 = 58
    T2 = 59
    CLIENT = 61
    SEARCH = 119
    ROUTES = 121
    END = 255


@dataclass(frozen=True, slots=True)
class Message:
    """Addresses are packed. ``options`` by their numbers, those that came in pieces put together (RFC 3396)."""

    kind: Kind
    xid: int
    mac: bytes
    options: Mapping[int, bytes] = field(default_factory=lambda: MappingProxyType({}))
    reply: bool = False
    secs: int = 0
    broadcast: bool = False
    ciaddr: bytes = _NOWHERE
    yiaddr: bytes = _NOWHERE

    def emit(self) -> bytes:
        head = _HEADER.pack(
            2 if self.reply else 1,
            1,
            len(self.mac),
            0,
            self.xid,
            min(self.secs, 0xFFFF),
            0x8000 if self.broadcast else 0,
            self.ciaddr,
            self.yiaddr,
            _NOWHERE,
            _NOWHERE,
            self.mac,
            b"",
            b"",
        )
        parts = [head, COOKIE, bytes((Option.KIND, 1, self.kind))]
        for code, value in self.options.items():
            for at in range(0, len(value) or 1, 255):
                piece = value[at : at + 255]
                parts.append(bytes((code, len(piece))) + piece)
        return (b"".join(parts) + b"\xff").ljust(_SIZE_MIN, b"\0")

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Raises BadMessage."""
        if len(data) < _HEADER.size + len(COOKIE):
            raise BadMessage("too short")
        op, htype, hlen, _, xid, secs, flags, ci, yi, _, _, chaddr, sname, file = _HEADER.unpack_from(data)
        if op not in (1, 2) or htype != 1 or hlen != 6 or data[_HEADER.size :][:4] != COOKIE:
            raise BadMessage("not DHCP over Ethernet")
        options: dict[int, bytes] = {}
        _read_options(data[_HEADER.size + len(COOKIE) :], options)
        overload = options.get(Option.OVERLOAD, b"\0")[:1]  # RFC 2132, 9.3; the order is RFC 3396's, 7
        if overload in (b"\1", b"\3"):
            _read_options(file, options)
        if overload in (b"\2", b"\3"):
            _read_options(sname, options)
        try:
            kind = Kind(options.pop(Option.KIND, b"")[0])
        except (IndexError, ValueError):
            raise BadMessage("no kind of DHCP message that we know") from None
        return cls(kind, xid, chaddr[:6], MappingProxyType(options), op == 2, secs, bool(flags & 0x8000), ci, yi)


def _read_options(data: bytes, options: dict[int, bytes]) -> None:
    at = 0
    while at < len(data):
        code = data[at]
        if code == Option.PAD:
            at += 1
            continue
        if code == Option.END:
            return
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise BadMessage(f"option {code} goes on behind the end")
        options[code] = options.get(code, b"") + data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def addresses(data: bytes) -> tuple[str, ...]:
    """A list of IPv4 addresses; those that can be nobody's are left out."""
    if len(data) % 4:
        raise BadMessage("not a list of addresses")
    each = (ipaddress.IPv4Address(data[at : at + 4]) for at in range(0, len(data), 4))
    return tuple(str(a) for a in each if usable(a))[:_EACH_MAX]


def usable(a: ipaddress.IPv4Address) -> bool:
    """Could a host have it?"""
    return not (a.is_unspecified or a.is_multicast or a.is_loopback or a == ipaddress.IPv4Address("255.255.255.255"))


def routes(data: bytes) -> tuple[tuple[str, str | None], ...]:
    """RFC 3442: networks, each with its router; None: on the link."""
    found: list[tuple[str, str | None]] = []
    at = 0
    while at < len(data):
        bits = data[at]
        size = (bits + 7) // 8
        if bits > 32 or at + 1 + size + 4 > len(data):
            raise BadMessage("not a list of routes")
        dest = data[at + 1 : at + 1 + size].ljust(4, b"\0")
        router = ipaddress.IPv4Address(data[at + 1 + size : at + 5 + size])
        network = ipaddress.IPv4Network((int.from_bytes(dest, "big"), bits), strict=False)
        if router.is_unspecified or usable(router):
            found.append((str(network), None if router.is_unspecified else str(router)))
        at += 5 + size
    return tuple(found[:_EACH_MAX])

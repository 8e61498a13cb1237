"""DHCPv6 messages between client and server (RFC 8415, 8, 21): parsed strictly, emitted plainly, in both directions."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from libos.net.config.fields import BadMessage

__all__ = ["Address", "IaNa", "Kind", "Message", "Option", "Status", "addresses", "pack_options", "status"]

FOREVER = 0xFFFFFFFF
_ADDRESSES_MAX = 8
_OPTIONS_MAX = 64
_IA = struct.Struct("!III")
_ADDRESS = struct.Struct("!16sII")

Options = tuple[tuple[int, bytes], ...]


class Kind(IntEnum):
    """RFC 8415, 7.3."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    INFORMATION = 11


class Option(IntEnum):
    """RFC 8415, 21; RFC 3646 (23, 24)."""

    CLIENT = 1
    SERVER = 2
    IA_NA = 3
    ADDRESS = 5
    REQUESTED = 6
    PREFERENCE = 7
    ELAPSED = 8
    STATUS = 13
    RAPID_COMMIT = 14
    DNS = 23
    SEARCH = 24
    REFRESH = 32
    SOL_MAX_RT = 82
    INF_MAX_RT = 83


class Status(IntEnum):
    """RFC 8415, 21.13."""

    SUCCESS = 0
    UNSPECIFIED = 1
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5


@dataclass(frozen=True, slots=True)
class Address:
    """RFC 8415, 21.6: lifetimes in seconds."""

    address: str
    preferred: int
    valid: int

    def emit(self) -> bytes:
        return _ADDRESS.pack(ipaddress.IPv6Address(self.address).packed, self.preferred, self.valid)


@dataclass(frozen=True, slots=True)
class IaNa:
    """RFC 8415, 21.4: times in seconds; 0: the client's choice."""

    iaid: int
    t1: int = 0
    t2: int = 0
    addresses: tuple[Address, ...] = ()
    status: int = Status.SUCCESS

    def emit(self) -> bytes:
        inner: list[tuple[int, bytes]] = [(Option.ADDRESS, a.emit()) for a in self.addresses]
        if self.status:
            inner.append((Option.STATUS, self.status.to_bytes(2, "big")))
        return _IA.pack(self.iaid, self.t1, self.t2) + pack_options(inner)

    @classmethod
    def parse(cls, data: bytes) -> IaNa:
        if len(data) < _IA.size:
            raise BadMessage("half an identity association")
        inner = _read_options(data[_IA.size :])
        found = [_address(value) for code, value in inner if code == Option.ADDRESS]
        iaid, t1, t2 = _IA.unpack_from(data)
        return cls(iaid, t1, t2, tuple(a for a in found if a)[:_ADDRESSES_MAX], status(inner))


def _address(data: bytes) -> Address | None:
    """None: none that a host could have, or one whose lifetimes make no sense (21.6)."""
    if len(data) < _ADDRESS.size:
        raise BadMessage("half an address")
    raw, preferred, valid = _ADDRESS.unpack_from(data)
    if preferred > valid or status(_read_options(data[_ADDRESS.size :])) or not _usable(ipaddress.IPv6Address(raw)):
        return None
    return Address(str(ipaddress.IPv6Address(raw)), preferred, valid)


def _usable(a: ipaddress.IPv6Address) -> bool:
    return not (a.is_unspecified or a.is_multicast or a.is_loopback or a.is_link_local or a.ipv4_mapped)


@dataclass(frozen=True, slots=True)
class Message:
    """``options`` in their order, each as often as it came."""

    kind: Kind
    xid: int
    options: Options = ()

    def emit(self) -> bytes:
        return bytes((self.kind,)) + self.xid.to_bytes(3, "big") + pack_options(self.options)

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Raises BadMessage."""
        if len(data) < 4:
            raise BadMessage("too short")
        try:
            kind = Kind(data[0])
        except ValueError:
            raise BadMessage("no kind of DHCPv6 message that we know") from None
        return cls(kind, int.from_bytes(data[1:4], "big"), _read_options(data[4:]))

    def first(self, code: Option) -> bytes | None:
        return next((value for each, value in self.options if each == code), None)

    def number(self, code: Option, size: int) -> int | None:
        """Of an option that holds one; None: it is not there, or is of another size."""
        value = self.first(code)
        return int.from_bytes(value, "big") if value is not None and len(value) == size else None

    def ia(self, iaid: int) -> IaNa | None:
        """Our identity association."""
        every = (IaNa.parse(value) for code, value in self.options if code == Option.IA_NA)
        return next((ia for ia in every if ia.iaid == iaid), None)


def pack_options(options: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("!HH", code, len(value)) + value for code, value in options)


def _read_options(data: bytes) -> Options:
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if at + 4 > len(data) or len(found) == _OPTIONS_MAX:
            raise BadMessage("half an option, or too many")
        code, length = struct.unpack_from("!HH", data, at)
        value = data[at + 4 : at + 4 + length]
        if len(value) < length:
            raise BadMessage(f"option {code} goes on behind the end")
        found.append((code, value))
        at += 4 + length
    return tuple(found)


def status(options: Options) -> int:
    """RFC 8415, 21.13: without the option, success."""
    value = next((value for code, value in options if code == Option.STATUS), b"\0\0")
    if len(value) < 2:
        raise BadMessage("half a status")
    return int.from_bytes(value[:2], "big")


def addresses(data: bytes | None) -> tuple[str, ...]:
    """A list of name servers (RFC 3646, 3)."""
    if data is None or len(data) % 16:
        return ()
    each = (ipaddress.IPv6Address(data[at : at + 16]) for at in range(0, len(data), 16))
    return tuple(str(a) for a in each if _usable(a) or a.is_link_local)[:_ADDRESSES_MAX]

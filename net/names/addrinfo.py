"""getaddrinfo(3): what was asked for, what needs no asking, and what comes out, as glibc has it.

Where it differs: raw sockets are left out, for a machine has none; a port outside 0 to 65535 is an error; and a name
that cannot be encoded (IDNA, labels too long) is EAI_NONAME, where CPython raises UnicodeError.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from libos.net.names.errors import gai_error
from libos.net.names.hosts import Hosts

if TYPE_CHECKING:
    from libos.net.names.order import Source

__all__ = ["AddrInfo", "Found", "Wanted", "family_of", "infos", "known", "text_of"]

AddrInfo = tuple[int, int, int, str, Any]

_KINDS = ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))
_FAMILIES = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)
_ANY = MappingProxyType({socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"})
_LOOPBACK = MappingProxyType({socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"})
_IDN_FLAGS = 0x3C0  # AI_IDN and its kin: taken, and needed by nobody, for Python has done it
_FLAGS = int(
    socket.AI_PASSIVE | socket.AI_CANONNAME | socket.AI_NUMERICHOST | socket.AI_V4MAPPED | socket.AI_ALL
    | socket.AI_ADDRCONFIG | socket.AI_NUMERICSERV
) | _IDN_FLAGS  # fmt: skip
_NUMBERS_AND_DOTS = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}", re.IGNORECASE | re.ASCII)


class Found(NamedTuple):
    """Addresses of a name, and its canonical name."""

    addresses: Sequence[str]
    name: str


class Wanted(NamedTuple):
    """What a call asks for, checked. ``kinds``: each socket type and protocol with its port."""

    host: str | None
    family: int
    flags: int
    kinds: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(
        cls,
        host: str | bytes | None,
        port: int | str | bytes | None,
        family: int,
        type: int,
        proto: int,
        flags: int,
        configured: Callable[[], set[int]],
    ) -> Wanted:
        """``configured``: the families of which the machine has an address, loopback aside (AI_ADDRCONFIG)."""
        if host is None and port is None:
            raise gai_error(socket.EAI_NONAME)
        if flags & ~_FLAGS or (host is None and flags & socket.AI_CANONNAME):
            raise gai_error(socket.EAI_BADFLAGS)
        if family not in _FAMILIES:
            raise gai_error(socket.EAI_FAMILY)
        kinds = _kinds(port, type, proto, flags)
        if flags & socket.AI_ADDRCONFIG:
            has = set(configured())
            if family != socket.AF_UNSPEC and family not in has:
                raise gai_error(socket.EAI_NONAME, host)
            if family == socket.AF_UNSPEC and len(has) == 1:
                family = has.pop()
        return cls(None if host is None else text_of(host), family, flags, kinds)

    @property
    def families(self) -> tuple[int, ...]:
        """Which to look for."""
        if self.family == socket.AF_UNSPEC or (self.family == socket.AF_INET6 and self.flags & socket.AI_V4MAPPED):
            return socket.AF_INET6, socket.AF_INET
        return (self.family,)

    def fitting(self, addresses: Iterable[str]) -> list[str]:
        """Those of the family, IPv4 as ``::ffff:a.b.c.d`` where that is wanted."""
        if self.family == socket.AF_UNSPEC:
            return list(addresses)
        same = [address for address in addresses if family_of(address) == self.family]
        mapped = self.family == socket.AF_INET6 and self.flags & socket.AI_V4MAPPED
        if mapped and (not same or self.flags & socket.AI_ALL):
            same += [f"::ffff:{address}" for address in addresses if ":" not in address]
        return same


def _kinds(port: int | str | bytes | None, type: int, proto: int, flags: int) -> tuple[tuple[int, int, int], ...]:
    service = bytes(port).decode("ascii", "replace") if isinstance(port, (bytes, bytearray)) else port
    named = isinstance(service, str) and service and not service.isdecimal()
    if named and flags & socket.AI_NUMERICSERV:
        raise gai_error(socket.EAI_NONAME, service)
    possible = [(t, p) for t, p in _KINDS if type in (0, t) and proto in (0, p)]
    if not possible:
        raise gai_error(socket.EAI_SOCKTYPE if type else socket.EAI_SERVICE)
    if named:
        from libos.net.names.services import port_of  # most callers know the number

        kinds = tuple((t, p, number) for t, p in possible if (number := port_of(str(service), p)) is not None)
        if not kinds:
            raise gai_error(socket.EAI_SERVICE, service)
        return kinds
    number = int(service or 0)
    if not 0 <= number <= 65535:
        raise OverflowError("port must be 0-65535.")
    return tuple((t, p, number) for t, p in possible)


def known(wanted: Wanted, hosts: Hosts) -> Found | None:
    """What needs no asking: no host, an address, a name of the hosts table. None: DNS must tell."""
    host = wanted.host
    if host is None:
        addresses = _ANY if wanted.flags & socket.AI_PASSIVE else _LOOPBACK
        return Found([addresses[family] for family in addresses if wanted.family in (0, family)], "")
    address = _numeric(host, wanted.family)
    if address is not None:
        if wanted.family == socket.AF_INET and (mapped := _mapped(address)):
            address = mapped
        fitting = wanted.fitting([address])
        if not fitting:
            raise gai_error(socket.EAI_ADDRFAMILY, host)
        return Found(fitting, host)
    if wanted.flags & socket.AI_NUMERICHOST:
        raise gai_error(socket.EAI_NONAME, host)
    entry = hosts.find(host)
    if entry is None:
        return None
    fitting = wanted.fitting(entry.addresses)
    if not fitting:
        raise gai_error(socket.EAI_NODATA if entry.addresses else socket.EAI_NONAME, host)
    return Found(fitting, entry.name)


def _numeric(host: str, family: int) -> str | None:
    """The address that ``host`` is, in its canonical text; None: a name. EAI_NONAME: a scope that there is not."""
    if _NUMBERS_AND_DOTS.fullmatch(host):  # inet_aton(3): 127.1 and 0x7f000001 too
        try:
            return socket.inet_ntop(socket.AF_INET, socket.inet_aton(host))
        except OSError:
            return None
    plain, percent, scope = host.partition("%")
    try:
        address = socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, plain))
    except OSError:
        return None
    if percent and not (scope.isascii() and scope.isdecimal() and int(scope) < 1 << 32):
        raise gai_error(socket.EAI_ADDRFAMILY if family == socket.AF_INET else socket.EAI_NONAME, host)
    return f"{address}%{int(scope)}" if percent else address


def _mapped(address: str) -> str | None:
    four = ipaddress.IPv6Address(address.partition("%")[0]).ipv4_mapped if ":" in address else None
    return str(four) if four else None


def infos(wanted: Wanted, found: Found, source: Source) -> list[AddrInfo]:
    """Addresses in the order in which they are best tried, each with every kind of socket that was asked for."""
    addresses = list(dict.fromkeys(found.addresses))
    if len(addresses) > 1:
        from libos.net.names.order import sorted_addresses  # not before there is something to sort

        addresses = sorted_addresses(addresses, source)
    canonical = found.name if wanted.flags & socket.AI_CANONNAME else ""
    result: list[AddrInfo] = []
    for address in addresses:
        for type, proto, port in wanted.kinds:
            result.append((family_of(address), type, proto, canonical, _sockaddr(address, port)))
            canonical = ""  # the first has it
    return result


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _sockaddr(address: str, port: int) -> tuple[Any, ...]:
    if ":" not in address:
        return (address, port)
    host, _, scope = address.partition("%")
    return (host, port, 0, int(scope or 0))


def text_of(host: str | bytes) -> str:
    """A host's name in ASCII (RFC 3490; the standard library's codec)."""
    try:
        text = bytes(host).decode("ascii") if isinstance(host, (bytes, bytearray)) else host
        return text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        raise gai_error(socket.EAI_NONAME, host) from None

"""One interface of a Stack: its addresses with their states, its neighbours, what routers say on it.

A face over ``lib.stack_*`` for whoever configures a machine; it holds no state of its own, so several may stand for one
interface. Times are ns of the stack's clock, :data:`NEVER` is for ever. ``OSError`` says what C refused.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import pack_address, parse_interface, unpack_address

if TYPE_CHECKING:
    from libos.net.stack import Stack

__all__ = ["NEVER", "Advertised", "Interface", "InterfaceAddress", "Neighbour", "addresses_of"]

NEVER: int = lib.REACTOR_NEVER
LOOPBACK = 1  # its index in every stack
_STATES = ("tentative", "optimistic", "preferred", "deprecated", "duplicate")
_ORIGINS = ("static", "link-local", "slaac")
_NEIGHBOUR_STATES = ("", "INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED")


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """``state``: tentative, optimistic, preferred, deprecated, duplicate (RFC 4862, 5.5.4). ``rival``: the link address
    of who has it too, where it is known."""

    ifindex: int
    address: str
    prefix: int
    state: str
    origin: str
    preferred_until: int
    valid_until: int
    rival: str

    @property
    def usable(self) -> bool:
        return self.state in ("optimistic", "preferred", "deprecated")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry of the neighbour cache; ``state`` by RFC 4861, 7.3.2; ``held``: packets that wait for it."""

    address: str
    mac: str
    state: str
    router: bool
    held: int


@dataclass(frozen=True, slots=True)
class Advertised:
    """What routers say of the link (RFC 4861, 6.3.4). ``heard``: one has spoken at all."""

    heard: bool
    managed: bool
    other: bool
    routers: int
    hop_limit: int
    mtu: int


def addresses_of(stack: Stack) -> list[InterfaceAddress]:
    """On all its interfaces, but for loopback's."""
    cursor, raw, found = ffi.new("uint64_t *"), ffi.new("struct stack_address *"), []
    while lib.stack_next_address(stack.handle, cursor, raw):
        if raw.ifindex == LOOPBACK:
            continue
        found.append(
            InterfaceAddress(
                ifindex=raw.ifindex,
                address=unpack_address(bytes(raw.addr)),
                prefix=raw.prefix,
                state=_STATES[raw.state],
                origin=_ORIGINS[raw.origin],
                preferred_until=raw.preferred_until,
                valid_until=raw.valid_until,
                rival=_mac_text(bytes(raw.rival)),
            )
        )
    return found


class Interface:
    """Interface ``index`` of ``stack``."""

    DETECT: int = lib.ADDRESS_DETECT
    AT_ONCE: int = lib.ADDRESS_AT_ONCE
    KEEP: int = lib.ADDRESS_KEEP
    NO_ROUTE: int = lib.ADDRESS_NO_ROUTE
    RENEW: int = lib.ADDRESS_RENEW
    FORM_ADDRESSES: int = lib.AUTOCONF_ADDRESSES
    AUTO_AT_ONCE: int = lib.AUTOCONF_AT_ONCE

    def __init__(self, stack: Stack, index: int) -> None:
        self.index = index
        self._stack = stack
        self._handle = stack.handle

    def set_address(
        self, interface: str, flags: int = 0, *, preferred_until: int = NEVER, valid_until: int = NEVER
    ) -> None:
        """Add ``"10.0.0.2/24"``, or (``RENEW``) give it new lifetimes."""
        addr, prefix = parse_interface(interface)
        check(
            lib.stack_set_address(self._handle, self.index, addr, prefix, flags, preferred_until, valid_until),
            interface,
        )

    def remove_address(self, address: str) -> None:
        check(lib.stack_remove_address(self._handle, self.index, pack_address(address)), address)

    def addresses(self) -> list[InterfaceAddress]:
        """All, in no order that means anything."""
        return [a for a in addresses_of(self._stack) if a.ifindex == self.index]

    def add_route(self, network: str, gateway: str | None = None) -> None:
        dest, prefix, hop = _route(network, gateway)
        check(lib.stack_add_route(self._handle, self.index, dest, prefix, hop), network)

    def remove_route(self, network: str, gateway: str | None = None) -> None:
        dest, prefix, hop = _route(network, gateway)
        check(lib.stack_remove_route(self._handle, self.index, dest, prefix, hop), network)

    def set_mtu(self, mtu: int) -> None:
        """The largest IPv4 packet."""
        check(lib.stack_set_mtu(self._handle, self.index, mtu), f"MTU {mtu}")

    def set_pace(self, ns: int) -> None:
        """How long the standards' second of address detection takes here."""
        check(lib.stack_set_pace(self._handle, self.index, ns))

    def announce(self) -> None:
        """The link has come up again: tell the neighbours where our addresses are."""
        check(lib.stack_announce(self._handle, self.index))

    def autoconf(self, flags: int) -> None:
        """Listen to routers from now on: FORM_ADDRESSES, AUTO_AT_ONCE."""
        check(lib.stack_autoconf(self._handle, self.index, flags))

    def advertised(self) -> Advertised:
        raw = ffi.new("struct stack_advertised *")
        check(lib.stack_advertised(self._handle, self.index, raw))
        return Advertised(bool(raw.heard), bool(raw.managed), bool(raw.other), raw.routers, raw.hop_limit, raw.mtu)

    def servers(self) -> list[str]:
        """Name servers that routers gave (RFC 8106); a link-local one carries its scope."""
        cursor, raw, found = ffi.new("uint64_t *"), ffi.new("struct sock_name *"), []
        while lib.stack_next_server(self._handle, cursor, raw):
            if raw.ifindex == self.index:
                address = unpack_address(bytes(raw.addr))
                found.append(f"{address}%{raw.ifindex}" if ipaddress.ip_address(address).is_link_local else address)
        return found

    def domains(self) -> list[str]:
        """Search domains that routers gave, on any interface."""
        cursor, raw, found = ffi.new("uint64_t *"), ffi.new("char[]", 254), []
        while lib.stack_next_domain(self._handle, cursor, raw):
            found.append(ffi.string(raw).decode())
        return found

    def neighbours(self) -> list[Neighbour]:
        cursor, raw, found = ffi.new("uint64_t *"), ffi.new("struct stack_neighbour *"), []
        while lib.stack_next_neighbour(self._handle, cursor, raw):
            if raw.ifindex == self.index:
                found.append(
                    Neighbour(
                        unpack_address(bytes(raw.addr)),
                        _mac_text(bytes(raw.mac)),
                        _NEIGHBOUR_STATES[raw.state],
                        bool(raw.router),
                        raw.held,
                    )
                )
        return found


def _mac_text(mac: bytes) -> str:
    return mac.hex(":") if any(mac) else ""


def _route(network: str, gateway: str | None) -> tuple[bytes, int, object]:
    net = ipaddress.ip_network(network)
    return pack_address(str(net.network_address)), net.prefixlen, ffi.NULL if gateway is None else pack_address(gateway)

"""The hosts table: names that need no asking.

Entries come from the machine's configuration and from files in the format of hosts(5); of two for one name, the earlier
counts. ``localhost`` and whatever ends in ``.localhost`` is the loopback (RFC 6761 6.3), unless the table says
otherwise; ``.invalid`` (RFC 6761 6.4) and ``.onion`` (RFC 7686 2) never exist. Names compare without regard to case
and to a dot at their end.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Host", "Hosts", "canonical", "read_hosts"]

LOOPBACK = ("127.0.0.1", "::1")
_NEVER = ("invalid", "onion")


class Host(NamedTuple):
    """One name's entry. ``name``: the canonical one, of which that may be an alias. No addresses: there is no such."""

    name: str
    addresses: tuple[str, ...]


class Hosts:
    """``entries``: addresses by name. ``lines``: ``(address, names)`` as :func:`read_hosts` gives them."""

    def __init__(
        self,
        entries: Mapping[str, Iterable[str]] = MappingProxyType({}),
        lines: Iterable[tuple[str, list[str]]] = (),
    ) -> None:
        found: dict[str, tuple[str, list[str]]] = {}
        self._names: dict[str, str] = {}
        for name, addresses in entries.items():
            for address in addresses:
                self._add(found, address, [name])
        for address, names in lines:
            self._add(found, address, names)
        for address in LOOPBACK:
            if "localhost" not in entries:
                self._add(found, address, ["localhost"])
        self._hosts = {name: Host(official, tuple(addresses)) for name, (official, addresses) in found.items()}

    def _add(self, found: dict[str, tuple[str, list[str]]], address: str, names: list[str]) -> None:
        address = str(ipaddress.ip_address(address))
        self._names.setdefault(address, names[0].rstrip("."))
        for name in names:
            _, addresses = found.setdefault(canonical(name), (names[0].rstrip("."), []))
            if address not in addresses:
                addresses.append(address)

    def find(self, name: str) -> Host | None:
        """The entry of a name; None: DNS must tell."""
        name = canonical(name)
        host = self._hosts.get(name)
        if host is None:
            last = name.rpartition(".")[2]
            if last == "localhost":
                return Host(name, LOOPBACK)
            if last in _NEVER:
                return Host(name, ())
        return host

    def name_of(self, address: str) -> str | None:
        """The first name that the table has for a numeric address (without its scope)."""
        name = self._names.get(address)
        if name is None and ipaddress.ip_address(address).is_loopback:
            return "localhost"  # all of 127.0.0.0/8 is this machine
        return name


def canonical(name: str) -> str:
    """The form in which names are compared."""
    return name.rstrip(".").lower()


def read_hosts(text: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of a hosts(5) file. Lines that do not begin with an address are skipped, as they are everywhere."""
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or ("",)
        try:
            ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            continue
        if names:
            yield address.partition("%")[0], names

"""Between Python's socket addresses and C's ``struct sock_name``, each pair made once and remembered.

A datagram costs one of each in both directions, and a server speaks with few peers at a time, so a small table saves
most of the conversions. The table is bounded: when it is full it starts anew.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from libos._native import ffi
from libos.net.stack import pack_address, unpack_name

__all__ = ["Address", "Names", "is_numeric"]

Address = tuple[str, int] | tuple[str, int, int, int]

_TABLE_MAX = 4096
_NAME_SIZE = ffi.sizeof("struct sock_name")


def is_numeric(host: str) -> bool:
    """Whether ``host`` is an address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class Names:
    """A table of names in both directions. What it returns is shared: not to be written to."""

    __slots__ = ("_addresses", "_names")

    def __init__(self) -> None:
        self._addresses: dict[bytes, Address] = {}
        self._names: dict[Any, Any] = {}

    def address(self, name: Any) -> Address:
        """``("10.0.0.2", port)`` or ``("fd00::2", port, flowinfo, scope)`` of a ``struct sock_name``."""
        key: bytes = ffi.buffer(name, _NAME_SIZE)[:]
        address = self._addresses.get(key)
        if address is None:
            if len(self._addresses) >= _TABLE_MAX:
                self._addresses.clear()
            address = self._addresses[key] = unpack_name(name)
        return address

    def name(self, address: Address, family: int) -> Any:
        """The ``struct sock_name *`` of a numeric address. OSError, ValueError: it is not one of this family."""
        key = (address, family)
        name = self._names.get(key)
        if name is None:
            if len(self._names) >= _TABLE_MAX:
                self._names.clear()
            name = self._names[key] = self._new_name(address, family)
        return name

    @staticmethod
    def _new_name(address: Address, family: int) -> Any:
        host, port = address[:2]
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        name: Any = ffi.new("struct sock_name *")
        name.addr = pack_host(host, family)
        name.port = port
        name.family = family
        name.ifindex = address[3] if len(address) > 3 else 0
        return name


def pack_host(host: str, family: int) -> bytes:
    """16 bytes of a numeric host of ``family``; empty: any address. gaierror: a name, or of another family."""
    if not host:
        host = "0.0.0.0" if family == socket.AF_INET else "::"
    elif host == "<broadcast>":
        host = "255.255.255.255"
    host = host.partition("%")[0]
    if (":" in host) != (family == socket.AF_INET6) or not is_numeric(host):
        if family == socket.AF_INET6 and is_numeric(host):
            raise socket.gaierror(socket.EAI_ADDRFAMILY, f"Address family for hostname not supported: {host}")
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host} (a socket takes addresses)")
    return pack_address(host)

"""getnameinfo(3): from a socket address to the names of its host and its service."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from libos.net.names.errors import gai_error
from libos.net.names.services import service_of

__all__ = ["nameinfo"]

_IDN_FLAGS = 0xE0  # NI_IDN and its kin
_FLAGS = _IDN_FLAGS | int(
    socket.NI_NUMERICHOST | socket.NI_NUMERICSERV | socket.NI_NOFQDN | socket.NI_NAMEREQD | socket.NI_DGRAM
)


async def nameinfo(
    sockaddr: Any, flags: int, reverse: Callable[[str], Awaitable[str | None]], domains: tuple[str, ...]
) -> tuple[str, str]:
    """``reverse``: a numeric address's name, None if it has none. ``domains``: ours, which NI_NOFQDN cuts off."""
    if flags & ~_FLAGS:
        raise gai_error(socket.EAI_BADFLAGS)
    if not isinstance(sockaddr, tuple) or not 2 <= len(sockaddr) <= 4:
        raise TypeError("getnameinfo() argument 1 must be a tuple of 2 to 4 items")
    host, port, *more = sockaddr
    plain, _, scope = str(host).partition("%")
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        raise gai_error(socket.EAI_NONAME, host) from None
    if not 0 <= port <= 65535:
        raise OverflowError("port must be 0-65535.")
    name = None
    if not flags & socket.NI_NUMERICHOST:
        name = await reverse(str(address))
        if name is not None and flags & socket.NI_NOFQDN:
            name = next((name[: -len(d) - 1] for d in domains if name.lower().endswith(f".{d}")), name)
    if name is None:
        if flags & socket.NI_NAMEREQD:
            raise gai_error(socket.EAI_NONAME, host)
        scope = scope or (str(more[1]) if len(more) > 1 and more[1] else "")
        name = f"{address}%{scope}" if scope and address.is_link_local else str(address)
    proto = socket.IPPROTO_UDP if flags & socket.NI_DGRAM else socket.IPPROTO_TCP
    service = None if flags & socket.NI_NUMERICSERV else service_of(port, proto)
    return name, service or str(port)

"""The routing table of a stack, as ``ip route`` has it: listed, changed.

``Stack.add_route`` is the short way to a plain route.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import Stack, pack_address, unpack_address

__all__ = ["Route", "delete_route", "routes", "set_route"]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of ``ip route``. ``gateway`` None: on the link; ``source`` None: chosen; ``mtu`` 0: the link's."""

    network: str
    ifindex: int
    gateway: str | None = None
    source: str | None = None
    metric: int = 0
    mtu: int = 0


def set_route(stack: Stack, route: Route) -> None:
    """Add it, or put it in place of the one with the same network, interface and metric.

    ValueError: its network or an address is none.
    """
    check(lib.stack_set_route(stack.handle, _pack(route)), route.network)


def delete_route(stack: Stack, route: Route) -> None:
    """ProcessLookupError: there is none with that network, interface and metric (and gateway, if one is named)."""
    check(lib.stack_delete_route(stack.handle, _pack(route)), route.network)


def routes(stack: Stack) -> list[Route]:
    """In the order in which they are tried: longest prefix, lowest metric."""
    cursor, raw, rows = ffi.new("uint64_t *"), ffi.new("struct stack_route *"), []
    while lib.stack_next_route(stack.handle, cursor, raw):
        rows.append(_unpack(raw))
    return rows


def _pack(route: Route) -> Any:
    net = ipaddress.ip_network(route.network)
    return ffi.new(
        "struct stack_route *",
        {
            "dest": pack_address(str(net.network_address)),
            "prefix": net.prefixlen,
            "gateway": bytes(16) if route.gateway is None else pack_address(route.gateway),
            "source": bytes(16) if route.source is None else pack_address(route.source),
            "ifindex": route.ifindex,
            "metric": route.metric,
            "mtu": route.mtu,
        },
    )


def _unpack(raw: Any) -> Route:
    gateway, source = bytes(ffi.buffer(raw.gateway)), bytes(ffi.buffer(raw.source))
    return Route(
        network=f"{unpack_address(bytes(ffi.buffer(raw.dest)))}/{raw.prefix}",
        ifindex=raw.ifindex,
        gateway=unpack_address(gateway) if any(gateway) else None,
        source=unpack_address(source) if any(source) else None,
        metric=raw.metric,
        mtu=raw.mtu,
    )

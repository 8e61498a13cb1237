"""A machine's network to look at: ``Machine.net``.

Everything here is read afresh with each call and changes nothing, :meth:`~NetView.resolve` aside, which may ask name
servers. The names of things are those of ``ss``, ``nstat`` and ``ip``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from libos._native import lib
from libos.net.interface import Interface, InterfaceAddress, Neighbour
from libos.net.routes import routes
from libos.net.stack import SocketInfo

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["InterfaceAddress", "Neighbour", "NetView", "Route", "SocketInfo"]


@dataclass(frozen=True, slots=True)
class Route:
    """``gateway`` empty: on the link itself."""

    network: str
    gateway: str
    interface: int


class NetView:
    """See the module."""

    def __init__(self, network: StackNetwork) -> None:
        self._network = network
        self._stack = network.stack

    def sockets(self) -> list[SocketInfo]:
        """Every socket: type, state, addresses, queues, round-trip time, congestion window … and whose it is.

        ``owner``: the class of the protocol that it serves, as far as that is known.
        """
        return list(self.each_socket())

    def each_socket(self) -> Iterator[SocketInfo]:
        """The same one by one; sockets may come and go meanwhile."""
        sinks, base = self._network.sinks, self._network.base
        return self._stack.each_socket(lambda id: _owner(sinks.get(base | id)))

    def counters(self) -> dict[str, int]:
        """Since boot, by their SNMP (``nstat``) names."""
        return self._stack.counters()

    def addresses(self) -> dict[int, list[InterfaceAddress]]:
        """By interface; 1 is the loopback."""
        found = {index: Interface(self._stack, index).addresses() for index in self._interfaces()}
        return {index: addresses for index, addresses in found.items() if addresses}

    def neighbours(self) -> dict[int, list[Neighbour]]:
        """Who is known, or looked for, on each interface."""
        found = {index: Interface(self._stack, index).neighbours() for index in self._interfaces()}
        return {index: neighbours for index, neighbours in found.items() if neighbours}

    def routes(self) -> list[Route]:
        """The longest prefix first."""
        return [Route(row.network, row.gateway or "", row.ifindex) for row in routes(self._stack)]

    async def resolve(self, name: str, type: str = "") -> list[Any]:
        """Look a name up, from a coroutine on one of the machine's loops.

        Without a type: addresses, the hosts table and getaddrinfo(3)'s order included. ``"A"``, ``"AAAA"``, ``"PTR"``,
        ``"CNAME"``, ``"NS"``: strings. ``"SRV"``: :class:`~libos.net.names.message.Service`, in the order to try them.
        ``"MX"``: (preference, name). ``"TXT"``: bytes. Others: text as in a zone file. Raises ``socket.gaierror``.
        """
        network, loop = self._network, asyncio.get_running_loop()
        if type:
            return list((await network.resolver.query(network, loop, name, type)).records)
        infos = await network.getaddrinfo(loop, name, None, type=socket.SOCK_STREAM)
        return [info[4][0] for info in infos]

    def _interfaces(self) -> range:
        return range(1, lib.STACK_INTERFACES_MAX + 1)


def _owner(sink: Callable[..., object] | None) -> str:
    """Whose events ``sink`` takes: a transport's protocol, what a server makes."""
    who: Any = sink
    while isinstance(who, partial):  # of a context's run()
        who = next((arg for arg in who.args if callable(arg)), who.func)
    if not isinstance(who, asyncio.BaseTransport):  # which is called itself
        who = getattr(who, "__self__", None)
    for attribute in ("_protocol", "_app_protocol", "_factory"):  # a transport's; under TLS, the application's
        who = getattr(who, attribute, None) or who
    if who is None:
        return ""
    named = who if hasattr(who, "__qualname__") else type(who)
    return f"{named.__module__}.{named.__qualname__}"

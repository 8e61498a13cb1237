"""TCP connections of a machine's stack as asyncio transports.

A :class:`~libos.sched.stream.StreamTransport` over a :class:`~libos.net.sockets.StackSocket`; a write is one call of
the stack, without a system call. One thing differs from the host's sockets: ``abort()`` resets the connection, where a
kernel socket would still send what it had queued.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from libos.net.endpoint import NetworkEndpoint
from libos.net.sockets import StackSocket
from libos.sched.endpoint import set_nodelay
from libos.sched.stream import StreamTransport

if TYPE_CHECKING:
    from libos.net.network import StackNetwork
    from libos.net.server import StackServer

__all__ = ["StackTransport"]


class StackTransport(NetworkEndpoint, StreamTransport):
    """A TCP connection."""

    __slots__ = ("_ends", "_network")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        network: StackNetwork,
        sock: StackSocket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: StackServer | None = None,
    ) -> None:
        self._know(network, sock)
        super().__init__(loop, sock, protocol, waiter, extra, server)
        if server is None:  # else its listener has it
            set_nodelay(sock)

    def _before_the_end(self) -> None:
        self.get_extra_info("socket")  # it shows a closed one from now on, as asyncio's do
        super()._before_the_end()

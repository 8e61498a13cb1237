"""What a Loop asks of a network that is not the host's.

:class:`libos.sched.loop.Loop` hands over asyncio's network methods with itself as the first argument; everything
else about them, signatures, results and exceptions, is asyncio's. The layer above implements this; nothing
here imports it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Network"]

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Network(Protocol):
    """TCP, UDP and names of one machine."""

    def owns(self, sock: Any) -> bool:
        """Whether ``sock`` is a socket of this network (and not, say, a UNIX socket of the host)."""
        ...

    async def create_connection(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Any,
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[Any, Any]: ...

    async def create_server(
        self, loop: asyncio.AbstractEventLoop, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any: ...

    async def create_datagram_endpoint(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Any,
        local_addr: Any = None,
        remote_addr: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]: ...

    async def connect_accepted_socket(
        self, loop: asyncio.AbstractEventLoop, protocol_factory: Any, sock: Any, **options: Any
    ) -> tuple[Any, Any]: ...

    async def getaddrinfo(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str | bytes | None,
        port: int | str | bytes | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]: ...

    async def getnameinfo(self, loop: asyncio.AbstractEventLoop, sockaddr: Any, flags: int = 0) -> tuple[str, str]: ...

    # For the sockets that it owns:

    async def sock_connect(self, loop: asyncio.AbstractEventLoop, sock: Any, address: Any) -> None: ...

    async def sock_accept(self, loop: asyncio.AbstractEventLoop, sock: Any) -> tuple[Any, Any]: ...

    async def sock_recv(self, loop: asyncio.AbstractEventLoop, sock: Any, n: int) -> bytes: ...

    async def sock_recv_into(self, loop: asyncio.AbstractEventLoop, sock: Any, buf: WriteableBuffer) -> int: ...

    async def sock_recvfrom(self, loop: asyncio.AbstractEventLoop, sock: Any, bufsize: int) -> tuple[bytes, Any]: ...

    async def sock_recvfrom_into(
        self, loop: asyncio.AbstractEventLoop, sock: Any, buf: WriteableBuffer, nbytes: int = 0
    ) -> tuple[int, Any]: ...

    async def sock_sendall(self, loop: asyncio.AbstractEventLoop, sock: Any, data: ReadableBuffer) -> None: ...

    async def sock_sendto(
        self, loop: asyncio.AbstractEventLoop, sock: Any, data: ReadableBuffer, address: Any
    ) -> int: ...

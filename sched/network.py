"""What a Loop asks of a network that is not the host's.

:class:`libos.sched.loop.Loop` hands over asyncio's network methods with itself as the first argument; everything
else about them, signatures, results and exceptions, is asyncio's. The layer above implements this; nothing
here imports it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Network"]


class Network(Protocol):
    """TCP, UDP and names of one machine."""

    def owns(self, sock: Any) -> bool:
        """Whether ``sock`` is a socket of this network (and not, say, a UNIX socket of the host)."""
        ...

    # asyncio's methods, with the loop in front.

    @property
    def create_connection(self) -> Callable[..., Coroutine[Any, Any, tuple[Any, Any]]]: ...
    @property
    def create_server(self) -> Callable[..., Coroutine[Any, Any, Any]]: ...
    @property
    def create_datagram_endpoint(self) -> Callable[..., Coroutine[Any, Any, tuple[Any, Any]]]: ...
    @property
    def connect_accepted_socket(self) -> Callable[..., Coroutine[Any, Any, tuple[Any, Any]]]: ...

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

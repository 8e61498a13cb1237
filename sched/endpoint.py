"""What transports of streams and of datagrams share: their socket, the events that they want, and how they end.

:class:`Endpoint` is a mix-in for asyncio's transports. What it asks of its socket, ``_end``, is
:class:`EndpointSocket`; the machine's sockets have it, and so have the host's (``host.py``).

What a protocol can observe is asyncio's: ``connection_made`` before anything else, ``connection_lost`` exactly once and
last, both through ``call_soon``; an exception of the protocol goes to the loop's exception handler and ends this
connection only; callbacks run in the context in which reading began.

Ownership: a transport owns its socket, from construction until ``connection_lost`` has returned. EV_READ is not wanted
before ``connection_made``, nor while reading is paused; a sink looks at ``_want`` once more, because its event may
have been queued before.
"""

from __future__ import annotations

import abc
import asyncio
import contextvars
import errno
import logging
import socket
import sys
import warnings
from asyncio import sslproto
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from libos.errors import os_error
from libos.sched.reactor import EV_ERROR, EV_GONE, EV_READ

if TYPE_CHECKING:
    import ssl

__all__ = [
    "OUT_OF_RESOURCES", "Endpoint", "EndpointSocket", "logger", "over_tls", "server_attach", "server_detach",
    "set_nodelay", "start_endpoint",
]  # fmt: skip

TransportT = TypeVar("TransportT", bound=asyncio.BaseTransport)

logger = logging.getLogger("asyncio")

OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # accepting can go on after a rest
LOUD = EV_ERROR | EV_GONE  # cannot be switched off


class EndpointSocket(Protocol):
    """A socket under a transport."""

    def adopt(self, sink: Callable[[int], object]) -> None:
        """Hand all its events to ``sink``, from now to the end."""

    def want(self, mask: int) -> None:
        """Which events are to come; EV_ERROR always does."""

    def take_error(self) -> int:
        """The errno of what has gone wrong since last asked, or 0."""

    def abort(self) -> None:
        """Nothing more is sent or read, and there are no more events."""

    def close(self) -> None:
        """Let go of it for good. May be called twice, and after abort()."""


class Endpoint:
    """A transport over one socket. A subclass has the slots, and says what it has queued."""

    if not TYPE_CHECKING:
        __slots__ = ()
    else:
        _closing: bool
        _conn_lost: int  # connection_lost is on its way; then, writes since
        _context: contextvars.Context | None  # None until reading begins
        _end: Any  # an EndpointSocket; None: released
        _eof_received: bool
        _extra: dict[str, Any]
        _loop: asyncio.AbstractEventLoop
        _paused: bool
        _protocol: Any
        _want: int

        def _drop_queue(self) -> None: ...
        @abc.abstractmethod
        def get_write_buffer_size(self) -> int: ...

    def _begin(self, end: EndpointSocket, protocol: asyncio.BaseProtocol, sink: Callable[[int], object]) -> None:
        """The socket is ours from now on; not even what it has ready is taken before connection_made."""
        self._want = LOUD
        self._closing = False
        self._conn_lost = 0
        self._paused = False
        self._eof_received = False
        self._context = None
        self.set_protocol(protocol)
        end.adopt(sink)
        self._end = end

    def _announce(self, waiter: asyncio.Future[None] | None) -> None:
        """connection_made, and only then read, and only then tell the waiter."""
        self._loop.call_soon(self._made)
        if waiter is not None:
            self._loop.call_soon(_wake, waiter)

    def _made(self) -> None:
        self._context = contextvars.copy_context()
        try:
            self._protocol.connection_made(self)
        finally:
            self._start_reading()

    def _run(self, call: Callable[..., Any], *args: Any) -> Any:
        """A call of the protocol's, in its context."""
        assert self._context is not None
        return self._context.run(call, *args)

    def _start_reading(self) -> None:
        if not self._closing and not self._paused and not self._eof_received:
            self._set_want(self._want | EV_READ)

    def _set_want(self, want: int) -> None:
        if self._end is not None:
            self._want = want
            self._end.want(want & ~LOUD)

    # --- asyncio.BaseTransport and ReadTransport -----------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        if self._closing or self._paused:
            return
        self._paused = True
        self._set_want(self._want & ~EV_READ)

    def resume_reading(self) -> None:
        if self._closing or not self._paused:
            return
        self._paused = False
        self._start_reading()

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._set_want(self._want & ~EV_READ)
        if not self.get_write_buffer_size():
            self._lose(None)

    def abort(self) -> None:
        self._force_close(None)

    # --- its end -------------------------------------------------------------------------------------------------

    def _lose(self, exc: BaseException | None) -> None:
        self._conn_lost += 1
        self._loop.call_soon(self._call_connection_lost, exc, context=self._context)

    def _force_close(self, exc: BaseException | None) -> None:
        """Nothing more is sent or read. asyncio's sslproto and sendfile call it by this name."""
        if self._conn_lost:
            return
        self._drop_queue()
        self._closing = True
        self._set_want(LOUD)
        if self._end is not None:
            self._before_the_end()
            self._end.abort()
        self._lose(exc)

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=exc)
        else:
            self._report(exc, message)
        self._force_close(exc)

    def _report(self, exc: BaseException, message: str) -> None:
        self._loop.call_exception_handler(
            {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
        )

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        try:
            self._protocol.connection_lost(exc)
        finally:
            self._release()

    def _before_the_end(self) -> None:
        """The socket is about to go: the last moment to ask it anything."""

    def _release(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            self._before_the_end()
            end.close()
        self._protocol = None
        self._context = None

    def _gone(self) -> None:
        """The network goes down: no callback, for the loop may be closed; the socket must not be touched again."""
        if self._end is None:
            return
        self._drop_queue()
        self._closing = True
        self._before_the_end()
        self._end.abort()
        if not self._conn_lost and not self._loop.is_closed():
            self._lose(os_error(errno.ENETDOWN))
        self._end = None

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._end is not None:
            if not getattr(self._loop, "abandoned", False):
                _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._end.close()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def start_endpoint(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    sock: EndpointSocket,
    make: Callable[[asyncio.BaseProtocol, asyncio.Future[None]], TransportT],
) -> tuple[TransportT, asyncio.BaseProtocol]:
    """A protocol and its transport on ``sock``, connection_made called. On any failure the socket is closed."""
    try:
        protocol = protocol_factory()
        waiter = loop.create_future()
        transport = make(protocol, waiter)
    except BaseException:
        sock.close()
        raise
    try:
        await waiter
    except BaseException:
        transport.close()
        raise
    return transport, protocol


def over_tls(
    make: Callable[[asyncio.BaseProtocol], object],
    loop: asyncio.AbstractEventLoop,
    protocol: asyncio.BaseProtocol,
    context: ssl.SSLContext | None,
    waiter: asyncio.Future[None] | None = None,
    server_side: bool = False,
    server_hostname: str | None = None,
    **timeouts: float | None,
) -> Any:
    """The transport that ``protocol`` gets: TLS over the one that ``make`` puts under it. ``context`` None: asyncio's.
    ``timeouts`` are those of ``create_connection``."""
    protocol_class: Any = sslproto.SSLProtocol  # typeshed knows an older one
    tls = protocol_class(loop, protocol, context, waiter, server_side, server_hostname, **timeouts)
    make(tls)
    return tls._app_transport


def set_nodelay(sock: Any) -> None:
    """As asyncio does with each TCP socket; connections inherit it from their listener."""
    if sock.type == socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def server_attach(server: Any, transport: asyncio.BaseTransport) -> None:
    """A connection of an ``asyncio.Server`` begins: its ``wait_closed`` waits for it."""
    if sys.version_info >= (3, 13):
        server._attach(transport)
    else:
        server._attach()


def server_detach(server: Any, transport: asyncio.BaseTransport) -> None:
    if sys.version_info >= (3, 13):
        server._detach(transport)
    else:
        server._detach()

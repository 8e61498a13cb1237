"""What transports of streams and of datagrams share: their socket, the events that they want, and how they end.

Ownership: a transport owns its StackSocket, from construction until ``connection_lost`` has returned. EV_READ is not
wanted before ``connection_made``, nor while reading is paused; a sink looks at ``_want`` once more, because its event
may have been queued before.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import warnings
from asyncio import transports, trsock
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from libos._native import ffi, lib
from libos.errors import os_error
from libos.net.sockets import EV_ERROR, EV_GONE, EV_READ, EV_WRITE, StackSocket

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["EndpointTransport", "logger", "start_endpoint"]

TransportT = TypeVar("TransportT", bound=asyncio.BaseTransport)

logger = logging.getLogger("asyncio")

_LOUD = EV_ERROR | EV_GONE  # cannot be switched off


class EndpointTransport(transports._FlowControlMixin):
    """A transport over one StackSocket. A subclass says what its events do (_sink) and what it has queued."""

    __slots__ = (
        "__weakref__", "_closing", "_conn_lost", "_ends", "_eof_received", "_handle", "_id", "_network", "_paused",
        "_protocol", "_run", "_sock", "_want",
    )  # fmt: skip

    # asyncio's, which type checkers do not know of
    _loop: asyncio.AbstractEventLoop
    _protocol_paused: bool
    if TYPE_CHECKING:

        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        network: StackNetwork,
        sock: StackSocket,
        protocol: asyncio.BaseProtocol,
        extra: dict[str, Any] | None,
    ) -> None:
        self._sock: StackSocket | None = None  # for __del__
        super().__init__({} if extra is None else extra, loop)
        self._extra: dict[str, Any]
        self._ends = sock.names()  # as text only when somebody asks; the socket may be gone by then
        self._network = network
        self._handle = network.handle
        self._id = sock.id
        self._want = _LOUD  # not even what C has ready is taken before connection_made
        self._closing = False
        self._conn_lost = 0  # connection_lost is on its way; then, writes since
        self._paused = False
        self._eof_received = False
        self._run: Any = None  # until reading begins
        self.set_protocol(protocol)
        sock.adopt(self._sink())
        self._sock = sock

    def _sink(self) -> Callable[[int], object]:
        raise NotImplementedError

    def _begin(self, waiter: asyncio.Future[None] | None) -> None:
        """connection_made, and only then read, and only then tell the waiter."""
        self._loop.call_soon(self._made)
        if waiter is not None:
            self._loop.call_soon(_wake, waiter)

    def _made(self) -> None:
        self._run = contextvars.copy_context().run
        try:
            self._protocol.connection_made(self)
        finally:
            self._start_reading()

    def _start_reading(self) -> None:
        if not self._closing and not self._paused and not self._eof_received:
            self._set_want(self._want | EV_READ)

    def _set_want(self, want: int) -> None:
        if self._sock is not None:
            self._want = want
            lib.sock_want(self._handle, self._id, want & (EV_READ | EV_WRITE))

    # --- asyncio.BaseTransport and ReadTransport -----------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol: Any = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        extra = self._extra
        if name not in extra:
            if name == "sockname":
                extra[name] = self._network.names.address(ffi.addressof(self._ends, 0))
            elif name == "socket" and self._sock is not None:
                extra[name] = trsock.TransportSocket(self._sock)  # type: ignore[arg-type]
            elif name == "peername":
                extra[name] = self._network.names.address(ffi.addressof(self._ends, 1)) if self._ends[1].port else None
        return extra.get(name, default)

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
        self._loop.call_soon(self._call_connection_lost, exc)

    def _force_close(self, exc: BaseException | None) -> None:
        """Nothing more is sent or read. asyncio's sslproto and sendfile call it by this name."""
        if self._conn_lost:
            return
        self._drop_queue()
        self._closing = True
        self._set_want(_LOUD)
        if self._sock is not None:
            self._sock.abort()  # its names stay in _extra
        self._lose(exc)

    def _drop_queue(self) -> None:
        raise NotImplementedError

    def _fatal_error(self, exc: BaseException, message: str) -> None:
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

    def _release(self) -> None:
        self.get_extra_info("socket")  # it shows a closed one from now on, as asyncio's do
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._protocol = None
        self._run = None

    def _gone(self) -> None:
        """The network goes down: no callback, for the loop may be closed; the socket must not be touched again."""
        if self._sock is None:
            return
        self._drop_queue()
        self._closing = True
        self.get_extra_info("socket")
        self._sock.abort()
        if not self._conn_lost and not self._loop.is_closed():
            self._lose(os_error(errno.ENETDOWN))
        self._sock = None

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._sock.close()

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "closing" if self._closing else "open"
        names = f"{self.get_extra_info('sockname')} -> {self.get_extra_info('peername')}"
        return f"<{type(self).__name__} {state} {names}>"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def start_endpoint(
    loop: asyncio.AbstractEventLoop,
    protocol_factory: Callable[[], asyncio.BaseProtocol],
    sock: StackSocket,
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

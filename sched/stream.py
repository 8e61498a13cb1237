"""Connected byte streams as asyncio transports, whoever's sockets they are.

This is the road of every byte between a socket and an application, so the common case is C and short
(``objects/stream.c``): an event of the reactor calls the Stream, one call of the socket fills one bytes object, and
``data_received`` gets it; ``write`` hands its bytes to one call of the socket. No Handle, no callback queue. Here is
the rest: what the socket did not take waits in ``_queue`` until EV_WRITE; ends; errors.

It needs of the loop only what ``asyncio.AbstractEventLoop`` promises, so it also works on a loop that is not ours.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
from asyncio import constants
from collections.abc import Iterable
from typing import Any, Protocol

from libos._loop import Stream
from libos.errors import os_error
from libos.sched.endpoint import Endpoint, EndpointSocket, logger, server_attach, server_detach
from libos.sched.reactor import EV_ERROR, EV_GONE, EV_READ, EV_SENT, EV_WRITE

__all__ = ["StreamSocket", "StreamTransport"]

EAGAIN = -errno.EAGAIN


class StreamSocket(EndpointSocket, Protocol):
    """A connected stream socket under a transport."""

    def stream(self) -> tuple[int, int, int]:
        """Its ``struct stream_ops``, their owner, and its id there (sched/stream.h)."""

    def shutdown(self, how: int, /) -> None:
        """``SHUT_WR``: the end of the stream, after all that was written."""

    def offer(self, data: Any, /) -> int:
        """Bytes of it taken, or ``-errno``."""

    def lend(self, data: memoryview, /) -> bool:
        """Whether the socket sends ``data`` from where it is, until lent() says that it has. EV_WRITE tells."""

    def lent(self) -> bool:
        """Whether it still reads what it was lent."""

    def unsent(self) -> int:
        """Bytes taken that would be lost if it were closed now. EV_SENT tells when there are none."""


class StreamTransport(Endpoint, Stream):
    """A connection."""

    __slots__ = (
        "__weakref__", "_closing", "_conn_lost", "_empty_waiter", "_end", "_eof", "_eof_received", "_error", "_lent",
        "_paused", "_queue", "_queued", "_server",
    )  # fmt: skip

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: StreamSocket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        self._end = None  # for __del__
        super().__init__({} if extra is None else extra, loop)
        self._queue: collections.deque[memoryview] | None = None
        self._queued = 0
        self._lent = False  # the first of the queue is with the kernel, which reads it where it is
        self._eof = False
        self._error = 0  # an errno that came while reading was paused
        self._empty_waiter: asyncio.Future[None] | None = None  # of a sendfile
        self._server = None
        self._bind(*end.stream())
        self._begin(end, protocol, self)
        # write() may hand its bytes straight to C: connected, not closed for writing, nothing queued before them.
        self._direct = True
        if server is not None:
            server_attach(server, self)
            self._server = server
        self._announce(waiter)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._protocol_paused = False  # this one has not been told to pause, and must not be told to resume
        if isinstance(protocol, asyncio.BufferedProtocol):
            self._data_received = None
        else:
            self._data_received = getattr(protocol, "data_received", None)

    # --- what the C half does not do -----------------------------------------------------------------------------

    def _protocol_failed(self, what: str, exc: BaseException) -> None:
        self._fatal_error(exc, f"Fatal error: protocol.{what}() call failed.")

    def _read_nothing(self, count: int) -> None:
        """Readable, and no data: the end of the stream (0), or an error (``-errno``)."""
        # A reset may have been told to a send already; what reads then finds the end of the stream.
        if error := self._end.take_error() or self._error or -count:
            self._fatal_error(os_error(error), "Fatal read error on socket transport")
            return
        self._eof_received = True
        self._set_want(self._want & ~EV_READ)
        try:
            keep_open = self._run(self._protocol.eof_received)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._fatal_error(exc, "Fatal error: protocol.eof_received() call failed.")
        else:
            if not keep_open:
                self.close()

    def _ready_rarely(self, mask: int) -> None:
        """EV_GONE, EV_ERROR, EV_WRITE or EV_SENT."""
        if mask & EV_GONE:
            self._gone()
            return
        if mask & EV_ERROR:
            error = self._end.take_error()
            if self._paused and self._queue is None and not self._closing:
                self._error = error  # there may be data before it, for when reading is resumed
            elif error:
                self._fatal_error(os_error(error), "Fatal error on socket transport")
            return
        if mask & EV_WRITE and self._queue is not None:
            self._flush()
        if mask & EV_SENT:
            self._sent()

    # --- writing -------------------------------------------------------------------------------------------------

    def _write_rest(self, data: bytes | bytearray | memoryview, count: int) -> None:
        """What write() could not do at once, after ``count`` bytes went (or an error came)."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._empty_waiter is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not data:
            return
        if self._conn_lost:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
            return
        if count < 0 and count != EAGAIN:
            self._write_failed(count)
            return
        if type(data) is not bytes:
            data = bytes(data)  # the caller may change it afterwards
        rest = memoryview(data)[max(count, 0) :]
        untried = self._direct and not count  # too much to copy, or no plain bytes
        first = self._queue is None
        if self._queue is None:
            self._queue = collections.deque()
            self._direct = False
        self._queue.append(rest)
        self._queued += len(rest)
        if untried and not self._push():
            return
        if not self._queue:
            self._queue = None
            self._direct = True
            return
        if first:
            self._set_want(self._want | EV_WRITE)
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _push(self) -> bool:
        """Hand the socket what it takes of the queue. False: it failed, and that has been seen to."""
        assert self._queue is not None
        while self._queue:
            chunk = self._queue[0]
            if self._lent:
                if self._end.lent():
                    break
                self._lent = False
                count = len(chunk)
            elif self._end.lend(chunk):
                self._lent = True
                break
            else:
                count = self._end.offer(chunk)
            if count < 0:
                if count != EAGAIN:
                    self._write_failed(count)
                    return False
                break
            self._queued -= count
            if count < len(chunk):
                self._queue[0] = chunk[count:]
                break
            self._queue.popleft()
        return True

    def _flush(self) -> None:
        if not self._push():
            return
        if self._protocol_paused:
            self._run(self._maybe_resume_protocol)  # may write, close or abort
        if self._queue is not None and not self._queue:
            self._queue = None
            self._set_want(self._want & ~EV_WRITE)
            if self._closing:
                if not self._conn_lost:
                    self._lose(None)
            elif self._eof:
                self._end.shutdown(socket.SHUT_WR)
            elif self._empty_waiter is not None:
                self._sent()
            else:
                self._direct = True

    def _write_failed(self, count: int) -> None:
        error = self._end.take_error() or -count
        self._fatal_error(os_error(error), "Fatal write error on socket transport")

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        self._direct = False
        if self._queue is None:
            self._end.shutdown(socket.SHUT_WR)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self._queued

    def _sent(self) -> None:
        """Perhaps all that was written is with the network now, for whoever waits for that."""
        if self._queue is not None or self._end.unsent():
            self._set_want(self._want | EV_SENT)
            return
        self._set_want(self._want & ~EV_SENT)
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_result(None)
        if self._closing and not self._conn_lost:
            self._lose(None)

    # asyncio's sendfile goes past the transport, by these names.

    def _make_empty_waiter(self) -> asyncio.Future[None]:
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        self._empty_waiter = self._loop.create_future()
        self._direct = False
        self._sent()
        return self._empty_waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        self._direct = self._queue is None and not self._closing and not self._eof

    # --- its end -------------------------------------------------------------------------------------------------

    def _lose(self, exc: BaseException | None) -> None:
        self._direct = False
        super()._lose(exc)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._conn_lost and self._end is not None:
            # Closed in this iteration already: connection_lost() is on its way, and waits for nothing now.
            self._before_the_end()
            self._end.abort()
        super()._force_close(exc)

    def _call_connection_lost(self, exc: BaseException | None) -> None:
        if exc is None and self._end is not None and self._end.unsent():
            self._conn_lost = 0  # not yet: it can still be aborted
            self._sent()
            return
        if exc is None and self._want and (error := self._end.take_error()):  # it wants nothing once it was aborted
            exc = os_error(error)  # the last of what was written did not go
        super()._call_connection_lost(exc)
        if self._empty_waiter is not None and not self._empty_waiter.done():
            self._empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    def _drop_queue(self) -> None:
        self._direct = False
        self._queue = None
        self._queued = 0

    def _before_the_end(self) -> None:
        self._unbind()

    def _release(self) -> None:
        super()._release()
        self._data_received = None
        server, self._server = self._server, None
        if server is not None:
            server_detach(server, self)

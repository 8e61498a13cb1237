"""TCP connections of a machine's stack as asyncio transports.

This is the road of every byte between the stack and an application, so the common case is short: the reactor calls
:meth:`StackTransport._ready` with an event mask, one C call fills the network's shared receive buffer, one slice of it
goes to ``data_received``; ``write`` hands its bytes to one C call. No Handle, no callback queue, no system call. What
the send queue does not take waits in ``_queue`` until EV_WRITE.

What a protocol can observe is asyncio's selector transport: ``connection_made`` before anything else,
``connection_lost`` exactly once and last, both through ``call_soon``; an exception of the protocol goes to the
loop's exception handler and ends this connection only; callbacks run in the context in which reading began.
One thing differs: ``abort()`` resets the connection, where a kernel socket would still send what it had queued.

It needs of the loop only what ``asyncio.AbstractEventLoop`` promises, so it also works on a loop that is not ours.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
from asyncio import constants
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.errors import os_error
from libos.net.endpoint import EndpointTransport, logger
from libos.net.sockets import EV_ERROR, EV_GONE, EV_READ, EV_WRITE, StackSocket

if TYPE_CHECKING:
    from libos.net.network import StackNetwork
    from libos.net.server import StackServer

__all__ = ["StackTransport"]

# Names of the module, so that the hot path finds them without looking into lib.
_sock_recv = lib.sock_recv
_sock_send = lib.sock_send
_EAGAIN = -errno.EAGAIN


class StackTransport(EndpointTransport, asyncio.Transport):
    """A TCP connection."""

    __slots__ = (
        "_data_received", "_direct", "_eof", "_error", "_queue", "_queued", "_rx", "_rx_bytes", "_rx_size", "_server",
    )  # fmt: skip

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

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
        # write() may hand its bytes straight to C: connected, not closed for writing, nothing queued before them.
        self._direct = False
        self._queue: collections.deque[memoryview] | None = None
        self._queued = 0
        self._eof = False
        self._error = 0  # an errno that came while reading was paused
        self._rx = network.rx
        self._rx_bytes = network.rx_bytes
        self._rx_size = len(network.rx_bytes)
        self._server = server
        super().__init__(loop, network, sock, protocol, extra)
        if server is None:  # else its listener has it
            lib.sock_setopt(self._handle, self._id, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._direct = True
        if server is not None:
            server.attach(self)
        self._begin(waiter)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._data_received: Any = None
        if not isinstance(protocol, asyncio.BufferedProtocol):
            self._data_received = getattr(protocol, "data_received", None)
        if self._sock is not None:
            self._sock.adopt(self._sink())

    def _sink(self) -> Callable[[int], object]:
        return self._ready_buffered if self._data_received is None else self._ready

    # --- events --------------------------------------------------------------------------------------------------

    def _ready(self, mask: int) -> None:
        mask &= self._want  # the event may have been queued before reading was paused
        if mask & EV_READ:
            count = _sock_recv(self._handle, self._id, self._rx, self._rx_size)
            if count > 0:
                try:
                    self._run(self._data_received, self._rx_bytes[:count])
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:
                    self._fatal_error(exc, "Fatal error: protocol.data_received() call failed.")
            else:
                self._ready_empty(count)
            mask &= ~(EV_READ | EV_ERROR)  # reading on comes to the error after what arrived before it
        if mask:
            self._ready_rarely(mask)

    def _ready_buffered(self, mask: int) -> None:
        mask &= self._want
        if mask & EV_READ:
            try:
                count = self._run(self._fill_buffer)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                self._fatal_error(exc, "Fatal error: a call of the buffered protocol failed.")
            else:
                if count <= 0:
                    self._ready_empty(count)
            mask &= ~(EV_READ | EV_ERROR)
        if mask:
            self._ready_rarely(mask)

    def _fill_buffer(self) -> int:
        buffer = self._protocol.get_buffer(-1)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        with ffi.from_buffer(buffer, require_writable=True) as view:
            count: int = _sock_recv(self._handle, self._id, view, len(view))
        if count > 0:
            self._protocol.buffer_updated(count)
        return count

    def _ready_empty(self, count: int) -> None:
        """Readable, and no data: the end of the stream, or an error."""
        if count == _EAGAIN:
            return
        if count < 0 or self._error:
            error = lib.sock_error(self._handle, self._id) or self._error or -count
            self._fatal_error(os_error(error), "Fatal read error on stack transport")
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
        if mask & EV_GONE:
            self._gone()
        elif mask & EV_ERROR:
            error = lib.sock_error(self._handle, self._id)
            if self._paused and self._queue is None and not self._closing:
                self._error = error  # there may be data before it, for when reading is resumed
            elif error > 0:
                self._fatal_error(os_error(error), "Fatal error on stack transport")
        elif self._queue is not None:
            self._flush()

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        count = 0
        if self._direct and type(data) is bytes:
            count = _sock_send(self._handle, self._id, data, len(data))
            if count == len(data):
                return
        self._write_rest(data, count)

    def _write_rest(self, data: bytes | bytearray | memoryview, count: int) -> None:
        """What write() could not do at once, after `count` bytes went (or an error came)."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data:
            return
        if self._conn_lost:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
            return
        if type(data) is not bytes:
            data = bytes(data)  # the caller may change it afterwards
            if self._direct:
                count = _sock_send(self._handle, self._id, data, len(data))
        if count < 0 and count != _EAGAIN:
            error = lib.sock_error(self._handle, self._id) or -count
            self._fatal_error(os_error(error), "Fatal write error on stack transport")
            return
        rest = memoryview(data)[max(count, 0) :]
        if not rest:
            return
        if self._queue is None:
            self._queue = collections.deque()
            self._direct = False
            self._set_want(self._want | EV_WRITE)
        self._queue.append(rest)
        self._queued += len(rest)
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def _flush(self) -> None:
        assert self._queue is not None
        while self._queue:
            chunk = self._queue[0]
            count = _sock_send(self._handle, self._id, ffi.from_buffer(chunk), len(chunk))
            if count == len(chunk):
                self._queued -= count
                self._queue.popleft()
                continue
            if count < 0 and count != _EAGAIN:
                error = lib.sock_error(self._handle, self._id) or -count
                self._fatal_error(os_error(error), "Fatal write error on stack transport")
                return
            if count > 0:
                self._queued -= count
                self._queue[0] = chunk[count:]
            break
        if self._protocol_paused:
            self._run(self._maybe_resume_protocol)  # may write, close or abort
        if self._queue is not None and not self._queue:
            self._drop_queue()
            self._set_want(self._want & ~EV_WRITE)
            if self._closing:
                if not self._conn_lost:
                    self._lose(None)
            elif self._eof:
                lib.sock_shutdown(self._handle, self._id)
            else:
                self._direct = True

    def write_eof(self) -> None:
        if self._closing or self._eof:
            return
        self._eof = True
        self._direct = False
        if self._queue is None:
            lib.sock_shutdown(self._handle, self._id)

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return self._queued

    # --- its end -------------------------------------------------------------------------------------------------

    def _lose(self, exc: BaseException | None) -> None:
        self._direct = False
        super()._lose(exc)

    def _drop_queue(self) -> None:
        self._direct = False
        self._queue = None
        self._queued = 0

    def _release(self) -> None:
        super()._release()
        self._data_received = None
        server, self._server = self._server, None
        if server is not None:
            server.detach(self)

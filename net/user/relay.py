"""Carrying bytes between a connection of a stack and a connection of the host, both ways, until both have ended.

An *end* is one connection, of the stack (:class:`StackEnd`) or of the host's kernel (:class:`HostEnd`); a
:class:`Relay` joins two of them without knowing which is which. Each direction holds at most one chunk that its
receiver did not take; while it does, nothing more is read from its sender, so that backpressure goes through. End of
stream is passed on as a half-close, an error or a reset as a reset. Driven by reactor events only.

Ownership: a Relay owns its ends from construction until ``on_close``, which is called once.
"""

from __future__ import annotations

import errno
import fcntl
import struct
import termios
from collections.abc import Callable
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET

# The class itself, now: under `libos run` the application sees another one at socket.socket.
from socket import socket as HostSocket
from typing import TYPE_CHECKING, Any, Protocol

from libos._native import ffi, lib
from libos.errors import check, os_error
from libos.net.sockets import EV_ERROR, EV_READ, EV_WRITE

if TYPE_CHECKING:
    from libos.sched.reactor import Reactor

__all__ = ["Chunk", "End", "HostEnd", "HostSocket", "Relay", "StackEnd"]

Sink = Callable[[int], object]

_RESET = struct.pack("ii", 1, 0)
_INT = struct.Struct("i")
_EAGAIN = -errno.EAGAIN


class Chunk:
    """One buffer that all relays of a gateway read into; what is in it is passed on before the next read."""

    __slots__ = ("cdata", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.cdata = ffi.new("uint8_t[]", size)
        self.view = memoryview(ffi.buffer(self.cdata))


class End(Protocol):
    """One connection. Every call may raise OSError."""

    mask: int  # events wanted

    def listen_to(self, sink: Sink) -> None:
        """Its events go to ``sink``, none at first."""

    def want(self, mask: int) -> None: ...

    def receive(self, chunk: Chunk) -> int:
        """Bytes now in the chunk; 0: end of stream; -1: nothing there yet."""
        ...

    def send(self, data: memoryview) -> int:
        """Bytes taken, possibly 0."""
        ...

    def take_error(self) -> int: ...

    def unread(self) -> int:
        """Bytes that have arrived and were not received."""
        ...

    def shutdown(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class HostEnd:
    """A connected, non-blocking socket of the host."""

    __slots__ = ("_reactor", "_sink", "_sock", "mask")

    def __init__(self, reactor: Reactor, sock: HostSocket) -> None:
        self._reactor = reactor
        self._sock = sock
        self._sink: Sink | None = None
        self.mask = 0

    def listen_to(self, sink: Sink) -> None:
        self._sink = sink

    def want(self, mask: int) -> None:
        if mask == self.mask:
            return
        self.mask = mask
        if mask:
            assert self._sink is not None
            self._reactor.watch(self._sock.fileno(), mask, self._sink)
        else:
            self._reactor.unwatch(self._sock.fileno())

    def receive(self, chunk: Chunk) -> int:
        try:
            return self._sock.recv_into(chunk.view)
        except BlockingIOError:
            return -1

    def send(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def take_error(self) -> int:
        return 0  # the next call on it raises, after what had come before the error has been read

    def unread(self) -> int:
        answer = fcntl.ioctl(self._sock.fileno(), termios.FIONREAD, bytes(_INT.size))
        return int(_INT.unpack(answer)[0])

    def shutdown(self) -> None:
        self._sock.shutdown(SHUT_WR)

    def close(self) -> None:
        self.want(0)
        self._sock.close()

    def abort(self) -> None:
        self.want(0)
        if not self._reactor.inherited:  # else the connection is not ours alone to reset
            self._sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
        self._sock.close()


class StackEnd:
    """A TCP socket of a stack, by its id. ``sinks`` and ``base`` are where the reactor finds it."""

    __slots__ = ("_handle", "_id", "_sinks", "_token", "mask")

    def __init__(self, handle: Any, id: int, sinks: dict[int, Sink], base: int) -> None:
        self._handle = handle
        self._id = id
        self._sinks = sinks
        self._token = base | id
        self.mask = -1

    def listen_to(self, sink: Sink) -> None:
        self._sinks[self._token] = sink
        self.want(0)

    def want(self, mask: int) -> None:
        if mask != self.mask:
            self.mask = mask
            lib.sock_want(self._handle, self._id, mask)

    def receive(self, chunk: Chunk) -> int:
        rc: int = lib.sock_recv(self._handle, self._id, chunk.cdata, chunk.size)
        if rc >= 0:
            return rc
        if rc == _EAGAIN:
            return -1
        raise os_error(-rc)

    def send(self, data: memoryview) -> int:
        rc: int = lib.sock_send(self._handle, self._id, ffi.from_buffer(data), len(data))
        if rc >= 0:
            return rc
        if rc == _EAGAIN:
            return 0
        raise os_error(-rc)

    def take_error(self) -> int:
        return max(int(lib.sock_error(self._handle, self._id)), 0)

    def unread(self) -> int:
        queues = ffi.new("uint64_t[3]")
        lib.sock_queues(self._handle, self._id, queues, queues + 1, queues + 2)
        return int(queues[0])

    def shutdown(self) -> None:
        check(lib.sock_shutdown(self._handle, self._id))

    def close(self) -> None:
        self._sinks.pop(self._token, None)
        lib.sock_free(self._handle, self._id)

    def abort(self) -> None:
        self._sinks.pop(self._token, None)
        lib.sock_abort(self._handle, self._id)


class _Direction:
    """Bytes from one end to the other."""

    __slots__ = ("carried", "ended", "finished", "pending", "receiver", "sender")

    def __init__(self, sender: End, receiver: End) -> None:
        self.sender = sender
        self.receiver = receiver
        self.pending = memoryview(b"")  # read, not yet taken; while there is some, the sender is not read
        self.ended = False  # the sender has ended its stream
        self.finished = False  # and the receiver knows
        self.carried = 0

    def pump(self, chunk: Chunk) -> None:
        """The sender is readable."""
        count = self.sender.receive(chunk)
        if count > 0:
            self.carried += count
            sent = self.receiver.send(chunk.view[:count])
            if sent < count:
                self.pending = memoryview(bytes(chunk.view[sent:count]))
                self.sender.want(self.sender.mask & ~EV_READ)
                self.receiver.want(self.receiver.mask | EV_WRITE)
        elif count == 0:
            self.ended = True
            self.sender.want(self.sender.mask & ~EV_READ)
            self._finish()

    def drain(self) -> None:
        """The receiver has room."""
        if self.pending:
            self.pending = self.pending[self.receiver.send(self.pending) :]
        if not self.pending:
            self.receiver.want(self.receiver.mask & ~EV_WRITE)
            if self.ended:
                self._finish()
            else:
                self.sender.want(self.sender.mask | EV_READ)

    def _finish(self) -> None:
        self.receiver.shutdown()
        self.finished = True


class Relay:
    """Two ends joined. ``on_close(relay)``: both are closed; see :attr:`carried`."""

    __slots__ = ("_chunk", "_closed", "_far", "_from_far", "_from_near", "_near", "_on_close")

    def __init__(self, near: End, far: End, chunk: Chunk, on_close: Callable[[Relay], object]) -> None:
        self._near = near
        self._far = far
        self._chunk = chunk
        self._on_close = on_close
        self._closed = False
        self._from_near = _Direction(near, far)
        self._from_far = _Direction(far, near)
        for end, sink in ((near, self._near_event), (far, self._far_event)):
            end.listen_to(sink)
            end.want(EV_READ)

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes from near to far, and from far to near."""
        return self._from_near.carried, self._from_far.carried

    @property
    def lingering(self) -> bool:
        """Whether near has sent what far has not got yet."""
        return bool(self._from_near.pending) or (not self._from_near.ended and self._near.unread() > 0)

    def close(self) -> None:
        """Near's side goes down. If it had ended its stream, far still gets all of it; otherwise both are reset."""
        if self._from_near.finished and not self._closed:
            self._closed = True
            self._near.abort()
            self._far.close()
            self._on_close(self)
        self.abort()

    def abort(self) -> None:
        """Reset both ends."""
        if not self._closed:
            self._closed = True
            self._near.abort()
            self._far.abort()
            self._on_close(self)

    def _near_event(self, mask: int) -> None:
        self._event(mask, self._near, self._from_near, self._from_far)

    def _far_event(self, mask: int) -> None:
        self._event(mask, self._far, self._from_far, self._from_near)

    def _event(self, mask: int, end: End, outgoing: _Direction, incoming: _Direction) -> None:
        if self._closed:
            return
        try:
            if mask & (EV_READ | EV_ERROR) and end.mask & EV_READ:
                outgoing.pump(self._chunk)  # and comes to an error after what arrived before it
            elif mask & EV_ERROR:
                error = end.take_error()
                if error:
                    raise os_error(error)
            if mask & (EV_WRITE | EV_ERROR) and end.mask & EV_WRITE:
                incoming.drain()
        except OSError:
            self.abort()
            return
        if outgoing.finished and incoming.finished:
            self._closed = True
            self._near.close()
            self._far.close()
            self._on_close(self)

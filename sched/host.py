"""The kernel's stream sockets, TCP and UNIX, under a Loop: connections, listeners, and the set that drives them.

The data path is C (``host.c`` and its back ends for io_uring and epoll); what asyncio shows of a connection, its
``socket.socket`` and its names, is here. Descriptors belong to these ``socket.socket`` objects; C is told about them
and lets go first.

Ownership: a reactor has one set of them (:attr:`~libos.sched.reactor.Reactor.hosts`), shared by the loops that follow
each other on it. A HostSocket has one entry there, until it is aborted or closed.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import socket
from asyncio import constants, trsock
from collections.abc import Callable
from typing import Any

from libos._native import ffi, lib
from libos.errors import check, os_error
from libos.sched.endpoint import set_nodelay
from libos.sched.reactor import EV_GONE, EV_READ, HostSockets
from libos.sched.stream import StreamTransport

__all__ = ["HostListener", "HostSocket", "HostTransport"]

LEND_FROM: int = lib.HOST_LEND_FROM  # bytes


class _HostEnd:
    """A socket's entry in the set. Without one any more (``id`` < 0) it asks the set nothing: that may be gone, too."""

    __slots__ = ("_hosts", "id", "sock")

    def __init__(self, hosts: HostSockets, sock: socket.socket, id: int) -> None:
        self._hosts = hosts
        self.sock = sock
        self.id = id

    def adopt(self, sink: Callable[[int], object]) -> None:
        self._hosts.sinks[self._hosts.base | self.id] = sink

    def want(self, mask: int) -> None:
        if self.id >= 0:
            lib.host_want(self._hosts.handle, self.id, mask)

    def take_error(self) -> int:
        return 0 if self.id < 0 else max(lib.host_error(self._hosts.handle, self.id), 0)

    def abort(self) -> None:
        id, self.id = self.id, -1
        if id >= 0:
            self._hosts.sinks.pop(self._hosts.base | id, None)
            lib.host_close(self._hosts.handle, id)

    def close(self) -> None:
        self.abort()
        self.sock.close()


class HostSocket(_HostEnd):
    """A connected socket under a transport."""

    __slots__ = ("_loan",)

    def __init__(self, hosts: HostSockets, sock: socket.socket) -> None:
        super().__init__(hosts, sock, check(lib.host_open(hosts.handle, sock.fileno())))
        self._loan: Any = None  # what the kernel reads

    def stream(self) -> tuple[int, int, int]:
        return self._hosts.ops, self._hosts.owner, self.id

    def shutdown(self, how: int = socket.SHUT_WR, /) -> None:
        if self.id >= 0:
            lib.host_shutdown(self._hosts.handle, self.id)

    def offer(self, data: Any, /) -> int:
        if self.id < 0:
            return -errno.EAGAIN
        count: int = lib.host_send(self._hosts.handle, self.id, ffi.from_buffer(data), len(data))
        return count

    def lend(self, data: memoryview, /) -> bool:
        if len(data) < LEND_FROM or self.id < 0:
            return False
        view = ffi.from_buffer(data)
        if lib.host_lend(self._hosts.handle, self.id, view, len(data)) < 0:
            return False
        self._loan = view
        return True

    def lent(self) -> bool:
        if self.id >= 0 and lib.host_lent(self._hosts.handle, self.id) > 0:
            return True
        self._loan = None
        return False

    def abort(self) -> None:
        id, self.id = self.id, -1
        if id < 0:
            return
        token, sinks, loan = self._hosts.base | id, self._hosts.sinks, self._loan
        sinks.pop(token, None)
        self._loan = None
        if lib.host_close(self._hosts.handle, id) == 1:  # the kernel still reads it: its last event lets go of it

            def free(mask: int, loan: Any = loan) -> None:
                sinks.pop(token, None)

            sinks[token] = free

    def unsent(self) -> int:
        return 0 if self.id < 0 else max(lib.host_queued(self._hosts.handle, self.id), 0)


class HostTransport(StreamTransport):
    """A connection over a socket of the host."""

    __slots__ = ("_sock_fd",)

    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(
        self,
        loop: Any,
        hosts: HostSockets,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        self._end = None  # for __del__, should one of these fail
        if extra is None:
            extra = {}
        extra["socket"] = trsock.TransportSocket(sock)
        extra["sockname"] = _name(sock.getsockname)
        if "peername" not in extra:
            extra["peername"] = _name(sock.getpeername)
        self._sock_fd = sock.fileno()
        if server is None and sock.family != socket.AF_UNIX:  # else its listener has it
            set_nodelay(sock)
        super().__init__(loop, HostSocket(hosts, sock), protocol, waiter, extra, server)
        loop._transports[self._sock_fd] = self

    @property
    def _sock(self) -> socket.socket | None:
        """asyncio's sendfile asks for it."""
        return None if self._end is None else self._end.sock

    def _gone(self) -> None:
        # The loop closes. The socket is open until the transport is gone too, with a warning.
        self._drop_queue()
        self._unbind()
        self._end.abort()

    def __repr__(self) -> str:
        state = "closed" if self._end is None else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} fd={self._sock_fd} unsent={self.get_write_buffer_size()}>"


def _name(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except OSError:
        return None


class HostListener(_HostEnd):
    """A listening socket: calls ``accepted(sock, peername)`` for each connection, in the context of today.

    ``failed(exc)`` hears of what costs more than one connection. Out of descriptors or memory, accepting goes on
    after a second (``HOST_ACCEPT_REST_NS``).
    """

    __slots__ = ("_accepted", "_backlog", "_failed")

    def __init__(
        self,
        hosts: HostSockets,
        sock: socket.socket,
        backlog: int,
        accepted: Callable[[socket.socket, Any], object],
        failed: Callable[[OSError], object],
    ) -> None:
        set_nodelay(sock)
        super().__init__(hosts, sock, check(lib.host_listen(hosts.handle, sock.fileno())))
        self._accepted = accepted
        self._failed = failed
        self._backlog = backlog
        run = contextvars.copy_context().run
        self.adopt(lambda mask: self.close() if mask & EV_GONE else run(self._ready))
        self.want(EV_READ)

    def _ready(self) -> None:
        sock = self.sock
        for _ in range(self._backlog):
            if self.id < 0:  # closed by whoever was accepted
                return
            fd = lib.host_accept(self._hosts.handle, self.id)
            if fd >= 0:
                connection = socket.socket(sock.family, sock.type | socket.SOCK_NONBLOCK, sock.proto, fd)
                self._accepted(connection, _name(connection.getpeername))
            elif fd == -errno.EAGAIN:
                return
            elif fd != -errno.ECONNABORTED:
                self._failed(os_error(-fd))
                return

    def close(self) -> None:
        """Accept no more. The socket is its server's."""
        self.abort()

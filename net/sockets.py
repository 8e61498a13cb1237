"""A socket of a machine's stack, with the face of ``socket.socket``.

It is what ``transport.get_extra_info("socket")`` and ``Server.sockets`` show, what ``loop.sock_*`` take, and, under
``libos run``, what ``socket.socket(AF_INET, …)`` gives.

Ownership: a StackSocket owns its C socket until :meth:`~StackSocket.close`, :meth:`~StackSocket.abort`, or until the
network goes down; a transport that adopts it owns the StackSocket, as in asyncio. It has no descriptor:
``fileno()`` is -1. It belongs to the thread of its machine.

Nothing here waits. With ``settimeout(0)`` an operation that would raises BlockingIOError, as everywhere; with
``settimeout(None)``, the default of ``socket.socket``, it raises WorldError, because a machine that blocked in one of
its own sockets would wait for itself. Other timeouts are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.errors import WorldError, check, os_error
from libos.net.sockaddr import Address
from libos.sched.reactor import EV_ERROR, EV_GONE, EV_READ, EV_REQUEST, EV_WRITE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from libos.net.network import StackNetwork

__all__ = ["EV_ERROR", "EV_GONE", "EV_READ", "EV_REQUEST", "EV_WRITE", "StackSocket"]

_TCP_FASTOPEN_CONNECT = 30  # linux/tcp.h; socket has no name for it before 3.12
_TYPE_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_BINDTOIFINDEX = 62  # SO_BINDTOIFINDEX of asm-generic/socket.h
_PROTOCOLS = MappingProxyType({socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP})


class StackSocket:
    """A TCP or UDP socket. ``id`` adopts a C socket that exists already (an accepted connection)."""

    __slots__ = (
        "__weakref__", "_error", "_network", "_timeout", "_waiters",
        "family", "id", "proto", "token", "type",
    )  # fmt: skip

    def __init__(
        self,
        network: StackNetwork,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,
        proto: int = 0,
        *,
        id: int | None = None,
    ) -> None:
        self.id = -1  # until all is well, for __del__
        kind = type & ~_TYPE_FLAGS
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise os_error(errno.EAFNOSUPPORT)
        if kind not in _PROTOCOLS:
            raise os_error(errno.ESOCKTNOSUPPORT)
        if proto not in (0, _PROTOCOLS[socket.SocketKind(kind)]):
            raise os_error(errno.EPROTONOSUPPORT)
        self.family = socket.AddressFamily(family)
        self.type = socket.SocketKind(kind)
        self.proto = int(_PROTOCOLS[self.type])
        self._network = network
        self._timeout: float | None = 0.0 if type & socket.SOCK_NONBLOCK or id is not None else None
        self._error = 0
        self._waiters: list[tuple[int, asyncio.Future[None]]] | None = None
        if id is None:
            id = check(lib.sock_open(network.handle, self.type, self.family))
            lib.sock_want(network.handle, id, 0)
        self.id = id
        self.token = network.base | id
        network.sinks[self.token] = _weak_sink(weakref.ref(self))

    @classmethod
    def accepted(cls, listener: StackSocket, id: int) -> StackSocket:
        """A connection of this listener. Its events go nowhere until a transport adopts it."""
        self = cls.__new__(cls)
        self.id = id
        self.family, self.type, self.proto = listener.family, listener.type, listener.proto
        self._network = network = listener._network
        self._timeout, self._error, self._waiters = 0.0, 0, None
        self.token = network.base | id
        return self

    # --- its events ----------------------------------------------------------------------------------------------

    def adopt(self, sink: Callable[[int], object]) -> None:
        """Hand all its events to ``sink``, from now to the end: a transport has taken it over."""
        if self._waiters:
            raise RuntimeError(f"a task waits for {self!r}")
        self._network.sinks[self._open_token()] = sink

    def want(self, mask: int) -> None:
        """Which events are to come; EV_ERROR always does."""
        lib.sock_want(self._network.handle, self.id, mask)

    def stream(self) -> tuple[int, int, int]:
        """For a transport: see :class:`libos.sched.stream.StreamSocket`."""
        return self._network.ops, self._network.owner, self._open_id()

    def offer(self, data: ReadableBuffer, /) -> int:
        """Bytes of it taken, or ``-errno``."""
        view = ffi.from_buffer(data)
        count: int = lib.sock_send(self._network.handle, self._open_id(), view, len(view))
        return count

    def lend(self, data: memoryview, /) -> bool:
        """Never: the stack cuts segments from a copy of its own."""
        return False

    def lent(self) -> bool:
        return False

    def unsent(self) -> int:
        """Closing loses nothing: the stack sends what it has."""
        return 0

    async def wait(self, loop: asyncio.AbstractEventLoop, mask: int) -> None:
        """Wait until it is readable (EV_READ) or writable (EV_WRITE), or has failed."""
        if self._waiters is None:
            self._waiters = []
        waiter = (mask, loop.create_future())
        self._waiters.append(waiter)
        self._want_waited()
        try:
            await waiter[1]
        finally:
            self._waiters.remove(waiter)
            self._want_waited()

    def _want_waited(self) -> None:
        mask = 0
        for wanted, future in self._waiters or ():
            if not future.done():
                mask |= wanted
        if self.id >= 0:
            self.want(mask)

    def _event(self, mask: int) -> None:
        if mask & EV_GONE:
            self._release(lib.sock_abort)
            mask = EV_ERROR
        elif mask & EV_ERROR:  # taken away at once: it would come again with every turn
            self._error = lib.sock_error(self._network.handle, self.id) or self._error
        for wanted, future in self._waiters or ():
            if mask & (wanted | EV_ERROR) and not future.done():
                future.set_result(None)

    # --- names ---------------------------------------------------------------------------------------------------

    def bind(self, address: Address) -> None:
        name = self._scoped(self._network.names.name(self._checked(address), self.family))
        check(lib.sock_bind(self._network.handle, self._open_id(), name.addr, name.port), address)

    def connect(self, address: Address) -> None:
        """Begin to connect. TCP: BlockingIOError (EINPROGRESS); ``loop.sock_connect`` waits."""
        if self.type == socket.SOCK_STREAM and self._timeout != 0.0:
            raise self._blocking("connect")
        name = self._scoped(self._network.names.name(self._checked(address), self.family))
        rc = lib.sock_connect(self._network.handle, self._open_id(), name.addr, name.port)
        if rc < 0 and rc != -errno.EINPROGRESS:
            check(rc, address)
        if self.type == socket.SOCK_STREAM:
            raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))

    def _scoped(self, name: Any) -> Any:
        """A link-local address with a scope ties the socket to that interface, as with Linux (ipv6(7))."""
        if name.ifindex and name.addr[0] == 0xFE and name.addr[1] & 0xC0 == 0x80:
            self.setsockopt(socket.SOL_SOCKET, _BINDTOIFINDEX, name.ifindex)
        return name

    def connect_ex(self, address: Address) -> int:
        try:
            self.connect(address)
        except WorldError:
            raise
        except OSError as exc:
            return exc.errno or errno.EINVAL
        return 0

    def getsockname(self) -> Address:
        return self._name(lib.SOCK_LOCAL)

    def getpeername(self) -> Address:
        return self._name(lib.SOCK_REMOTE)

    def names(self) -> Any:
        """Both names, ``struct sock_name[2]``: local, remote (port 0: not connected)."""
        both = ffi.new("struct sock_name[2]")
        check(lib.sock_names(self._network.handle, self._open_id(), both))
        return both

    def _name(self, which: int) -> Address:
        name = ffi.new("struct sock_name *")
        check(lib.sock_getname(self._network.handle, self._open_id(), which, name))
        return self._network.names.address(name)

    def _checked(self, address: Any) -> Address:
        if not isinstance(address, tuple) or len(address) < 2:
            raise TypeError(f"AF_INET address must be tuple, not {type(address).__name__}")
        host, port, *more = address
        if isinstance(host, (bytes, bytearray)):
            host = host.decode("ascii")
        return self._network.numeric(host, self.family), int(port), *more

    # --- connections ---------------------------------------------------------------------------------------------

    def listen(self, backlog: int = 128) -> None:
        check(lib.sock_listen(self._network.handle, self._open_id(), max(backlog, 1), 0))

    def accept(self) -> tuple[StackSocket, Address]:
        rc = lib.sock_accept(self._network.handle, self._open_id())
        if rc < 0:
            raise self._failed("accept", rc)
        connection = StackSocket(self._network, self.family, self.type, self.proto, id=rc)
        lib.sock_want(self._network.handle, rc, 0)
        return connection, connection.getpeername()

    def shutdown(self, how: int) -> None:
        """SHUT_WR or SHUT_RDWR: FIN after what is queued. SHUT_RD does nothing: what comes is there to be read."""
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise os_error(errno.EINVAL)
        if how != socket.SHUT_RD:
            check(lib.sock_shutdown(self._network.handle, self._open_id()))

    # --- data ----------------------------------------------------------------------------------------------------

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """TCP: with MSG_OOB the urgent mark is set behind it (RFC 9293 3.8.5; new applications should not)."""
        if self.type == socket.SOCK_DGRAM:
            return self._send_to(data, ffi.NULL)
        view = ffi.from_buffer(data)
        send = lib.sock_send_urgent if flags & socket.MSG_OOB else lib.sock_send
        rc: int = send(self._network.handle, self._open_id(), view, len(view))
        if rc < 0:
            raise self._failed("send", rc)
        return rc

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        raise self._blocking("sendall")

    def sendto(self, data: ReadableBuffer, *args: Any) -> int:
        """``sendto(data[, flags], address)``. TCP: with MSG_FASTOPEN it connects, too (RFC 7413)."""
        if self.type == socket.SOCK_STREAM:
            if len(args) == 2 and args[0] & socket.MSG_FASTOPEN:
                self.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
                with contextlib.suppress(BlockingIOError):
                    self.connect(args[1])
            return self.send(data)
        return self._send_to(data, self._network.names.name(self._checked(args[-1]), self.family))

    def _send_to(self, data: ReadableBuffer, name: Any) -> int:
        view = ffi.from_buffer(data)
        rc: int = lib.sock_sendto(self._network.handle, self._open_id(), view, len(view), name, ffi.NULL)
        if rc < 0:
            raise self._failed("sendto", rc)
        return rc

    def recv(self, size: int, flags: int = 0) -> bytes:
        if size < 0:
            raise ValueError("negative buffersize in recv")
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.recv_into(buffer, 0, flags)])

    def recv_into(self, buffer: WriteableBuffer, size: int = 0, flags: int = 0) -> int:
        if flags & socket.MSG_OOB:  # urgent bytes stay in the stream: SO_OOBINLINE (tcp(7))
            raise os_error(errno.EINVAL)
        if flags & (socket.MSG_PEEK | socket.MSG_ERRQUEUE):
            raise os_error(errno.EOPNOTSUPP)
        if self.type == socket.SOCK_DGRAM:
            return self.recvfrom_into(buffer, size)[0]
        view = ffi.from_buffer(buffer, require_writable=True)
        if size < 0:
            raise ValueError("negative buffersize in recv_into")
        if size > len(view):
            raise ValueError("buffer too small for requested bytes")
        rc: int = lib.sock_recv(self._network.handle, self._open_id(), view, size or len(view))
        if rc < 0 or (self._error and rc == 0):
            raise self._failed("recv", rc)
        return rc

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Address]:
        if size < 0:
            raise ValueError("negative buffersize in recvfrom")
        buffer = bytearray(size)
        count, address = self.recvfrom_into(buffer, 0, flags)
        return bytes(memoryview(buffer)[:count]), address

    def recvfrom_into(self, buffer: WriteableBuffer, size: int = 0, flags: int = 0) -> tuple[int, Address]:
        if self.type == socket.SOCK_STREAM:
            return self.recv_into(buffer, size, flags), self.getpeername()
        view = ffi.from_buffer(buffer, require_writable=True)
        if size < 0:
            raise ValueError("negative buffersize in recvfrom_into")
        if size > len(view):
            raise ValueError("nbytes is greater than the length of the buffer")
        name = ffi.new("struct sock_name *")
        handle = self._network.handle
        rc = lib.sock_recvfrom(handle, self._open_id(), view, size or len(view), name, ffi.NULL)
        if rc < 0:
            raise self._failed("recvfrom", rc)
        return rc, self._network.names.address(name)

    # --- options -------------------------------------------------------------------------------------------------

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """``socket.getsockopt``: an int, or the first ``buflen`` bytes of what the option is."""
        if level == socket.SOL_SOCKET and option == socket.SO_ERROR:
            raw = self.take_error().to_bytes(4, sys.byteorder)
        else:
            buffer = ffi.new("uint8_t[]", buflen or 4)
            n = lib.sock_getsockopt(self._network.handle, self._open_id(), level, option, buffer, len(buffer))
            raw = bytes(ffi.buffer(buffer, check(n)))
        return raw[:buflen] if buflen else int.from_bytes(raw, sys.byteorder, signed=True)

    def setsockopt(self, level: int, option: int, value: int | ReadableBuffer, optlen: int | None = None) -> None:
        handle, id = self._network.handle, self._open_id()
        if isinstance(value, int):
            check(lib.sock_setopt(handle, id, level, option, value))
        else:
            raw = bytes(value)
            check(lib.sock_setsockopt(handle, id, level, option, raw, len(raw)))

    def take_error(self) -> int:
        """The errno of what went wrong, 0 for nothing, and clear it."""
        error, self._error = self._error, 0
        return error or int(lib.sock_error(self._network.handle, self._open_id()))

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        return self._timeout is None

    def settimeout(self, value: float | None) -> None:
        if value:
            raise WorldError("a socket of the machine takes no timeout: use asyncio.timeout() around loop.sock_*()")
        self._timeout = value

    def gettimeout(self) -> float | None:
        return self._timeout

    # --- its end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """TCP: FIN after what is queued; the stack sees to the rest. With SO_LINGER on and 0 s: as :meth:`abort`."""
        self._release(lib.sock_free)

    def abort(self) -> None:
        """TCP: RST, and what is queued is lost."""
        self._release(lib.sock_abort)

    def _release(self, how: Callable[[Any, int], int]) -> None:
        if self.id < 0:
            return
        self._network.sinks.pop(self.token, None)
        how(self._network.handle, self.id)
        self.id = -1
        for _, future in self._waiters or ():
            if not future.done():
                future.set_result(None)  # the operation is tried again, and fails with EBADF

    def detach(self) -> int:
        raise WorldError("a socket of the machine has no descriptor that could be detached")

    def fileno(self) -> int:
        return -1

    def get_inheritable(self) -> bool:
        return False

    def set_inheritable(self, inheritable: bool) -> None:
        """Without effect: there is no descriptor to inherit. Servers ask for it that may start processes, and mostly do
        not (hypercorn); one that does finds no descriptor to hand on."""

    def dup(self) -> StackSocket:
        raise WorldError("a socket of the machine has no descriptor that could be duplicated")

    def makefile(self, *args: object, **kwargs: object) -> Any:
        raise WorldError("a socket of the machine has no blocking file: use asyncio streams")

    def __enter__(self) -> StackSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self.id >= 0:
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)
            self.close()

    def __repr__(self) -> str:
        where = "closed" if self.id < 0 else f"id={self.id:#x}"
        return f"<StackSocket {where} {self.family.name} {self.type.name}>"

    # --- errors --------------------------------------------------------------------------------------------------

    def _open_id(self) -> int:
        if self.id < 0:
            raise os_error(errno.EBADF)
        return self.id

    def _open_token(self) -> int:
        self._open_id()
        return self.token

    def _failed(self, operation: str, rc: int) -> Exception:
        if self._error:
            return os_error(self.take_error())
        if rc != -errno.EAGAIN:
            return os_error(-rc)
        if self._timeout is None:
            return self._blocking(operation)
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _blocking(self, operation: str) -> WorldError:
        return WorldError(
            f"a blocking {operation}() on a socket of the machine would stop the machine it waits for: "
            f"use setblocking(False) and await loop.sock_{operation}(), or asyncio streams"
        )


def _weak_sink(reference: weakref.ref[StackSocket]) -> Callable[[int], None]:
    """The reactor must not keep alive a socket that nobody holds any more."""

    def sink(mask: int) -> None:
        sock = reference()
        if sock is not None:
            sock._event(mask)

    return sink

"""Connections of a gateway while one side is connected and the other not yet.

Each ends in one of two ways: ``gateway.join`` makes a relay of it, or both sides are told why there is none.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from libos._native import lib
from libos.net.sockaddr import pack_host
from libos.net.sockets import EV_ERROR, EV_WRITE
from libos.net.user.relay import HostEnd, HostSocket, Relay

if TYPE_CHECKING:
    from libos.net.user.gateway import Gateway

__all__ = ["Connection", "Door", "Inward", "Outward"]


class Outward:
    """A SYN of the guest, held while the host connects."""

    __slots__ = ("_gateway", "_id", "_sock")

    def __init__(self, gateway: Gateway, id: int, family: int, address: tuple[Any, ...]) -> None:
        self._gateway = gateway
        self._id = id
        self._sock: HostSocket | None = None
        gateway.connections.add(self)
        lib.sock_want(gateway.handle, id, 0)
        gateway.reactor.sinks[gateway.base | id] = self._guest_event
        try:
            self._sock = HostSocket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            error = self._sock.connect_ex(address)
        except OSError as exc:
            error = exc.errno or errno.ENETUNREACH
        if error in (0, errno.EINPROGRESS) and self._sock is not None:
            gateway.reactor.watch(self._sock.fileno(), EV_WRITE, self._host_event)
        else:
            self._refuse(error)

    def _host_event(self, mask: int) -> None:
        assert self._sock is not None
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._refuse(error)
            return
        gateway, sock = self._gateway, self._sock
        gateway.reactor.unwatch(sock.fileno())
        lib.sock_admit(gateway.handle, self._id)
        gateway.join(gateway.handle, gateway.base, self._id, sock)
        gateway.forget(self)

    def _guest_event(self, mask: int) -> None:
        if mask & EV_ERROR:  # it gave up
            self.abort()

    def _refuse(self, error: int) -> None:
        self._close_host()
        self._gateway.reject(self._id, error)

    def abort(self) -> None:
        self._close_host()
        lib.sock_abort(self._gateway.handle, self._id)

    def _close_host(self) -> None:
        gateway = self._gateway
        gateway.reactor.sinks.pop(gateway.base | self._id, None)
        if self._sock is not None:
            gateway.reactor.unwatch(self._sock.fileno())
            self._sock.close()
        gateway.forget(self)


class Door(NamedTuple):
    """Where a published connection may come in: an address, and the stack (with its token base) to knock from."""

    handle: Any
    base: int
    host: str
    port: int


class Inward:
    """A connection of the host, accepted, while the guest is being connected to: at each door in turn, for a program
    may listen on one family only, or on its loopback."""

    __slots__ = ("_at", "_doors", "_gateway", "_id", "_sock")

    def __init__(self, gateway: Gateway, sock: HostSocket, doors: list[Door]) -> None:
        self._gateway = gateway
        self._sock = sock
        self._doors = doors
        self._at = doors[0]
        self._id = -1
        gateway.connections.add(self)
        self._next()

    def _next(self) -> None:
        gateway = self._gateway
        while self._doors:
            self._at = at = self._doors.pop(0)
            family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
            self._id = lib.sock_open(at.handle, socket.SOCK_STREAM, family)
            if self._id < 0:
                break
            gateway.reactor.sinks[at.base | self._id] = self._event
            rc = lib.sock_connect(at.handle, self._id, pack_host(at.host, family), at.port)
            if rc >= 0 or rc == -errno.EINPROGRESS:
                lib.sock_want(at.handle, self._id, EV_WRITE)
                return
            self._close_stack()
        gateway.refused += 1
        self.abort()

    def _event(self, mask: int) -> None:
        if mask & EV_ERROR:
            self._close_stack()
            self._next()
        elif mask & EV_WRITE:
            self._gateway.join(self._at.handle, self._at.base, self._id, self._sock)
            self._gateway.forget(self)

    def _close_stack(self) -> None:
        if self._id >= 0:
            self._gateway.reactor.sinks.pop(self._at.base | self._id, None)
            lib.sock_abort(self._at.handle, self._id)
            self._id = -1

    def abort(self) -> None:
        self._close_stack()
        HostEnd(self._gateway.reactor, self._sock).abort()
        self._gateway.forget(self)


Connection = Relay | Outward | Inward

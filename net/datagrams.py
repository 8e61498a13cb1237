"""``create_datagram_endpoint`` over a machine's stack, and its transport.

As in asyncio: ``error_received`` for what the network says, an exception of ``datagram_received`` goes to the loop's
exception handler and the endpoint lives on. An event reads a batch of datagrams, bounded so that one busy endpoint
does not starve the others; the event comes again for the rest.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
from asyncio import transports
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.errors import os_error
from libos.net.connect import ProtocolFactory, check_socket
from libos.net.endpoint import NetworkEndpoint
from libos.net.sockaddr import Address
from libos.net.sockets import EV_ERROR, EV_GONE, EV_READ, EV_WRITE, StackSocket
from libos.sched.endpoint import Endpoint, start_endpoint

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["StackDatagramTransport", "create_datagram_endpoint"]

_BATCH = 32
_OVERHEAD = 64  # bytes a queued datagram is reckoned with beside its data, so that empty ones count too
_EAGAIN = -errno.EAGAIN
_NULL = ffi.NULL
_sock_recvfrom = lib.sock_recvfrom
_sock_sendto = lib.sock_sendto


class StackDatagramTransport(NetworkEndpoint, Endpoint, transports._FlowControlMixin, asyncio.DatagramTransport):
    """A UDP endpoint; ``address`` is the one it is connected to, if any."""

    __slots__ = (
        "__weakref__", "_address", "_closing", "_conn_lost", "_context", "_end", "_ends", "_eof_received", "_family",
        "_from", "_handle", "_id", "_names", "_network", "_paused", "_protocol", "_queue", "_queued", "_rx",
        "_rx_bytes", "_rx_size", "_want",
    )  # fmt: skip

    # asyncio's, which type checkers do not know of
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
        address: Address | None = None,
        waiter: asyncio.Future[None] | None = None,
    ) -> None:
        self._end = None  # for __del__
        transports._FlowControlMixin.__init__(self, {}, loop)
        self._know(network, sock)
        self._handle = network.handle
        self._id = sock.id
        self._address = address
        self._family = int(sock.family)
        self._names = network.names
        self._from = ffi.new("struct sock_name *")
        self._rx = network.rx
        self._rx_bytes = network.rx_bytes
        self._rx_size = len(network.rx_bytes)
        self._queue: collections.deque[tuple[bytes, Any]] = collections.deque()
        self._queued = 0
        self._begin(sock, protocol, self._ready)
        self._announce(waiter)

    def _ready(self, mask: int) -> None:
        mask &= self._want
        if mask & EV_READ:
            self._run(self._receive)
        if mask & EV_GONE:
            self._gone()
        elif mask & EV_ERROR:
            error = lib.sock_error(self._handle, self._id)
            if error:
                self._run(self._call, self._protocol.error_received, os_error(error))
        elif mask & EV_WRITE and self._queue:
            self._flush()

    def _receive(self) -> None:
        name = self._from
        for _ in range(_BATCH):
            count = _sock_recvfrom(self._handle, self._id, self._rx, self._rx_size, name, _NULL)
            if count < 0:
                if count != _EAGAIN:
                    self._call(self._protocol.error_received, os_error(-count))
                return
            self._call(self._protocol.datagram_received, self._rx_bytes[:count], self._names.address(name))
            if not self._want & EV_READ:  # closed or paused meanwhile
                return

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._report(exc, f"Exception in {callback!r}")

    # --- asyncio.DatagramTransport -------------------------------------------------------------------------------

    def sendto(self, data: bytes | bytearray | memoryview, addr: Any = None) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._address is not None:
            if addr is not None and tuple(addr)[:2] != self._address[:2]:
                raise ValueError(f"Invalid address: must be None or {self._address}")
            addr = self._address
        if self._conn_lost:
            self._conn_lost += 1
            return
        if addr is None or self._ends[1].port:
            name = _NULL
        else:
            name = self._names.name((self._network.numeric(addr[0], self._family), *addr[1:]), self._family)
        if type(data) is not bytes:
            data = bytes(data)
        if not self._queue:
            count = _sock_sendto(self._handle, self._id, data, len(data), name, _NULL)
            if count >= 0:
                return
            if count != _EAGAIN:
                self._call(self._protocol.error_received, os_error(-count))
                return
            self._set_want(self._want | EV_WRITE)
        self._queue.append((data, name))
        self._queued += len(data) + _OVERHEAD
        self._maybe_pause_protocol()

    def _flush(self) -> None:
        while self._queue:
            data, name = self._queue[0]
            count = _sock_sendto(self._handle, self._id, data, len(data), name, _NULL)
            if count == _EAGAIN:
                break
            self._queue.popleft()
            self._queued -= len(data) + _OVERHEAD
            if count < 0:
                self._call(self._protocol.error_received, os_error(-count))
        if self._protocol_paused:
            self._run(self._maybe_resume_protocol)
        if not self._queue:
            self._set_want(self._want & ~EV_WRITE)
            if self._closing and not self._conn_lost:
                self._lose(None)

    def get_write_buffer_size(self) -> int:
        return self._queued

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0

    def _before_the_end(self) -> None:
        self.get_extra_info("socket")  # it shows a closed one from now on, as asyncio's do


async def create_datagram_endpoint(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    local_addr: tuple[str, int] | None = None,
    remote_addr: tuple[str, int] | None = None,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    reuse_port: bool | None = None,
    allow_broadcast: bool | None = None,
    sock: Any = None,
) -> tuple[asyncio.DatagramTransport, asyncio.BaseProtocol]:
    """As ``loop.create_datagram_endpoint``."""
    remote: Address | None = None
    if sock is not None:
        check_socket(sock, socket.SOCK_DGRAM)
        if local_addr or remote_addr or family or proto or flags or reuse_port or allow_broadcast:
            raise ValueError("socket modifier keyword arguments can not be used when sock is specified.")
        sock.setblocking(False)
    else:
        pairs = await _datagram_pairs(network, loop, local_addr, remote_addr, family, proto, flags)
        sock, remote = await _open_datagram(network, loop, pairs, bool(reuse_port), bool(allow_broadcast))

    def make(protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None]) -> asyncio.DatagramTransport:
        return StackDatagramTransport(loop, network, sock, protocol, remote, waiter)

    return await start_endpoint(loop, protocol_factory, sock, make)


async def _datagram_pairs(
    network: StackNetwork, loop: asyncio.AbstractEventLoop, local: Any, remote: Any, family: int, proto: int, flags: int
) -> list[tuple[int, Any, Any]]:
    """(family, local address, remote address) worth trying, None where not asked for."""
    if local is None and remote is None:
        if family == 0:
            raise ValueError("unexpected address family")
        return [(family, None, None)]
    found: dict[int, list[Any]] = {}
    for index, address in enumerate((local, remote)):
        if address is None:
            continue
        if not (isinstance(address, tuple) and len(address) == 2):
            raise TypeError("2-tuple is expected")
        for fam, _, _, _, resolved in await network.resolve(loop, address, family, socket.SOCK_DGRAM, proto, flags):
            pair = found.setdefault(fam, [None, None])
            pair[index] = pair[index] or resolved
    pairs = [
        (fam, *pair)
        for fam, pair in found.items()
        if not (local and pair[0] is None) and not (remote and pair[1] is None)
    ]
    if not pairs:
        raise ValueError("can not get address information")
    return pairs


async def _open_datagram(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    pairs: list[tuple[int, Any, Any]],
    reuse_port: bool,
    broadcast: bool,
) -> tuple[StackSocket, Address | None]:
    errors: list[OSError] = []
    for family, local, remote in pairs:
        sock = network.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if broadcast:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if local:
                sock.bind(local)
            if remote and not broadcast:
                await network.sock_connect(loop, sock, remote)
            return sock, remote
        except BaseException as exc:
            sock.close()
            if not isinstance(exc, OSError):
                raise
            errors.append(exc)
    raise errors[0]

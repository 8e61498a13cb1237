"""A machine's network as a Loop sees it: connections, servers, datagrams, names, all from one Stack.

It implements :class:`libos.sched.network.Network`, that is, asyncio's methods with the loop as their first argument.
Of the loop it uses only what every ``asyncio.AbstractEventLoop`` has, so a program that runs on another loop can call
these methods itself.

Ownership: it attaches the stack's poller to the reactor and detaches it in :meth:`~StackNetwork.close`; the stack and
the reactor belong to the machine. After close every socket and transport of it is dead, and touches C no more.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl as ssl_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from libos._native import ffi, lib
from libos.errors import os_error
from libos.net.connect import connect_accepted_socket, create_connection
from libos.net.datagrams import create_datagram_endpoint
from libos.net.interface import addresses_of
from libos.net.names.addrinfo import AddrInfo, family_of
from libos.net.names.resolver import Resolver
from libos.net.server import StackServer, create_server
from libos.net.sockaddr import Address, Names, is_numeric
from libos.net.sockets import EV_GONE, EV_READ, EV_REQUEST, EV_WRITE, StackSocket
from libos.net.stack import pack_address, unpack_address
from libos.net.transport import StackTransport
from libos.sched.endpoint import over_tls
from libos.sched.reactor import address

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from libos.net.stack import Stack
    from libos.sched.reactor import Reactor

__all__ = ["StackNetwork"]

T = TypeVar("T")

RX_SIZE = 65536  # of datagrams
POLLER_SHIFT = 40  # of a token: its poller above, its socket's id below


class StackNetwork:
    """TCP, UDP and names of one Stack. ``resolver`` answers ``getaddrinfo``."""

    def __init__(self, stack: Stack, reactor: Reactor, *, resolver: Resolver) -> None:
        self.stack = stack
        self.reactor = reactor
        self.resolver = resolver
        self.handle = stack.handle
        self.owner = address(stack.handle)
        self.ops = address(lib.stack_stream_ops())
        self.sinks = reactor.sinks
        self.names = Names()
        self.rx = ffi.new("uint8_t[]", RX_SIZE)  # what came last; whoever reads copies before it returns
        self.rx_bytes = ffi.buffer(self.rx)
        self.base = reactor.attach(stack.poller)
        self.sinks[self.base] = self._consult  # id 0 is the stack's own
        self._closed = False

    def hang_up(self) -> None:
        """Reset what is still open, without callbacks on a closed loop. Sockets that were closed go on."""
        for token in [token for token in self.sinks if token >> POLLER_SHIFT == self.base >> POLLER_SHIFT]:
            sink = self.sinks.pop(token, None)
            if sink is not None:
                sink(EV_GONE)

    def close(self) -> None:
        """Hang up, and leave the reactor."""
        if self._closed:
            return
        self._closed = True
        self.hang_up()
        self.reactor.detach(self.stack.poller)

    def _consult(self, mask: int) -> None:
        if mask & EV_REQUEST:
            self.stack.controllers.consult()

    # --- sockets -------------------------------------------------------------------------------------------------

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> StackSocket:
        """A socket of this network, in the state of a fresh ``socket.socket``."""
        if self._closed:
            raise os_error(errno.ENETDOWN)
        return StackSocket(self, family, type, proto)

    def owns(self, sock: object) -> bool:
        return isinstance(sock, StackSocket)

    def numeric(self, host: str, family: int) -> str:
        """``host`` if it is an address, or the one of this family that the hosts table has for it at once."""
        if not host or host == "<broadcast>" or is_numeric(host):
            return host
        return self.resolver.lookup_hosts(host, family) or host

    def stream_transport(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: StackSocket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[None] | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        server: StackServer | None = None,
    ) -> asyncio.Transport:
        """The transport that the application gets: the connection's, or TLS over it."""
        if not ssl:
            return StackTransport(loop, self, sock, protocol, waiter, server=server)
        transport: asyncio.Transport = over_tls(
            lambda tls: StackTransport(loop, self, sock, tls, server=server),
            loop,
            protocol,
            None if isinstance(ssl, bool) else ssl,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )
        return transport

    # --- what the resolver asks ------------------------------------------------------------------------------------

    def configured_families(self) -> set[int]:
        """Of which it has an address, loopback aside."""
        return {family_of(a.address) for a in addresses_of(self.stack) if a.usable and a.origin != "link-local"}

    def source(self, address: str) -> tuple[str, int, bool] | None:
        """The address that a packet to ``address`` would carry, the length of its prefix, whether it is deprecated;
        None: no way there."""
        raw = ffi.new("uint8_t[16]")
        if lib.stack_source(self.handle, pack_address(address), raw) < 0:
            return None
        own = unpack_address(bytes(raw))
        for each in addresses_of(self.stack):
            if each.address == own:
                return own, each.prefix, each.state == "deprecated"
        return own, 128, False  # loopback

    # --- asyncio: connections, servers, datagrams: each in a file of its own ---------------------------------------

    create_connection = create_connection
    connect_accepted_socket = connect_accepted_socket
    create_server = create_server
    create_datagram_endpoint = create_datagram_endpoint

    # --- asyncio: names ------------------------------------------------------------------------------------------

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
    ) -> list[AddrInfo]:
        return await self.resolver.getaddrinfo(self, loop, host, port, family, type, proto, flags)

    async def getnameinfo(self, loop: asyncio.AbstractEventLoop, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return await self.resolver.getnameinfo(self, loop, sockaddr, flags)

    async def resolve(
        self, loop: asyncio.AbstractEventLoop, address: Any, family: int, type: int, proto: int, flags: int
    ) -> list[AddrInfo]:
        """getaddrinfo for an address tuple; at least one answer."""
        host, port, *more = address
        infos = await self.getaddrinfo(loop, host, port, family=family, type=type, proto=proto, flags=flags)
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        if more:  # flow and scope of an IPv6 address that came with them
            infos = [(f, t, p, c, (*a[:2], *more) if f == socket.AF_INET6 else a) for f, t, p, c, a in infos]
        return infos

    # --- asyncio: sock_* -----------------------------------------------------------------------------------------

    async def sock_recv(self, loop: asyncio.AbstractEventLoop, sock: StackSocket, n: int) -> bytes:
        return await self._retry(loop, sock, EV_READ, sock.recv, n)

    async def sock_recv_into(self, loop: asyncio.AbstractEventLoop, sock: StackSocket, buf: WriteableBuffer) -> int:
        return await self._retry(loop, sock, EV_READ, sock.recv_into, buf)

    async def sock_recvfrom(
        self, loop: asyncio.AbstractEventLoop, sock: StackSocket, bufsize: int
    ) -> tuple[bytes, Address]:
        return await self._retry(loop, sock, EV_READ, sock.recvfrom, bufsize)

    async def sock_recvfrom_into(
        self, loop: asyncio.AbstractEventLoop, sock: StackSocket, buf: WriteableBuffer, nbytes: int = 0
    ) -> tuple[int, Address]:
        return await self._retry(loop, sock, EV_READ, sock.recvfrom_into, buf, nbytes)

    async def sock_sendall(self, loop: asyncio.AbstractEventLoop, sock: StackSocket, data: ReadableBuffer) -> None:
        with memoryview(data).cast("B") as view:
            sent = 0
            while sent < len(view):
                sent += await self._retry(loop, sock, EV_WRITE, sock.send, view[sent:])

    async def sock_sendto(
        self, loop: asyncio.AbstractEventLoop, sock: StackSocket, data: ReadableBuffer, address: Any
    ) -> int:
        return await self._retry(loop, sock, EV_WRITE, sock.sendto, data, address)

    async def sock_connect(self, loop: asyncio.AbstractEventLoop, sock: StackSocket, address: Any) -> None:
        _check_nonblocking(sock)
        infos = await self.resolve(loop, address, sock.family, sock.type, sock.proto, 0)
        address = infos[0][4]
        try:
            sock.connect(address)
        except BlockingIOError:
            await sock.wait(loop, EV_WRITE)
            error = sock.take_error()
            if error:
                raise OSError(error, f"Connect call failed {address}") from None

    async def sock_accept(self, loop: asyncio.AbstractEventLoop, sock: StackSocket) -> tuple[StackSocket, Address]:
        return await self._retry(loop, sock, EV_READ, sock.accept)

    async def _retry(
        self, loop: asyncio.AbstractEventLoop, sock: StackSocket, event: int, call: Callable[..., T], *args: Any
    ) -> T:
        _check_nonblocking(sock)
        while True:
            try:
                return call(*args)
            except BlockingIOError:
                await sock.wait(loop, event)


def _check_nonblocking(sock: StackSocket) -> None:
    if sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")

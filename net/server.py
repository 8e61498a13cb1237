"""``create_server`` over a machine's stack, behind ``asyncio.Server``.

asyncio's own Server does the bookkeeping (``wait_closed``, ``serve_forever``, ``close_clients``, as the running Python
has them); this one accepts from StackSockets where that one asks the loop to. A connection gets its protocol and its
transport in the reactor's event, without a task of its own. What goes wrong with one connection is told to the loop's
exception handler and costs that connection only.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import itertools
import socket
import ssl as ssl_module
from asyncio import base_events, constants
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from libos._native import lib
from libos.errors import os_error
from libos.net.connect import ProtocolFactory, bind_error, check_socket, check_tls
from libos.net.names.addrinfo import AddrInfo
from libos.net.sockets import EV_ERROR, EV_GONE, EV_READ, StackSocket
from libos.sched.endpoint import OUT_OF_RESOURCES, set_nodelay

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["StackServer", "create_server"]


class StackServer(base_events.Server):
    """What ``create_server`` returns. It owns its listening sockets."""

    # asyncio's, which type checkers do not know of
    _backlog: int
    _loop: asyncio.AbstractEventLoop
    _serving: bool
    _sockets: list[StackSocket] | None

    def __init__(
        self,
        network: StackNetwork,
        loop: asyncio.AbstractEventLoop,
        sockets: list[StackSocket],
        protocol_factory: ProtocolFactory,
        ssl_context: ssl_module.SSLContext | None,
        backlog: int,
        ssl_handshake_timeout: float | None,
        ssl_shutdown_timeout: float | None,
    ) -> None:
        self._network = network
        self._factory = protocol_factory
        self._tls: dict[str, Any] = {
            "ssl": ssl_context,
            "server_side": True,
            "ssl_handshake_timeout": ssl_handshake_timeout,
            "ssl_shutdown_timeout": ssl_shutdown_timeout,
        }
        super().__init__(
            loop,
            sockets,  # type: ignore[arg-type]
            protocol_factory,
            ssl_context,
            backlog,
            ssl_handshake_timeout,
            ssl_shutdown_timeout,
        )

    def _start_serving(self) -> None:
        if self._serving:
            return
        self._serving = True
        run: Any = contextvars.copy_context().run  # where the protocol factory and the connections begin
        for sock in self._sockets or ():
            set_nodelay(sock)
            sock.listen(self._backlog)
            sock.adopt(functools.partial(run, self._ready, sock))
            sock.want(EV_READ)

    def close(self) -> None:
        if self._sockets is None:
            return
        for sock in self._sockets:
            sock.close()
        self._sockets = []  # they are closed: nothing for the loop to do
        super().close()

    # --- connections ---------------------------------------------------------------------------------------------

    def _ready(self, sock: StackSocket, mask: int) -> None:
        if mask & EV_GONE:
            sock.abort()
            return
        if mask & EV_ERROR:
            sock.take_error()
        for _ in range(self._backlog):
            if sock.id < 0:  # closed by the protocol factory
                return
            rc = lib.sock_accept(self._network.handle, sock.id)
            if rc >= 0:
                self._accept(sock, rc)
            elif rc == -errno.ECONNABORTED:
                continue
            elif rc == -errno.EAGAIN:
                return
            else:
                self._accept_failed(sock, os_error(-rc))
                return

    def _accept(self, listener: StackSocket, id: int) -> None:
        sock = StackSocket.accepted(listener, id)
        try:
            self._network.stream_transport(self._loop, sock, self._factory(), server=self, **self._tls)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            sock.abort()
            self._report("Error on transport creation for incoming connection", exc, listener)

    def _accept_failed(self, sock: StackSocket, exc: OSError) -> None:
        self._report("accept failed", exc, sock)
        if exc.errno in OUT_OF_RESOURCES:  # the event would come again at once: rest a while
            sock.want(0)
            self._loop.call_later(constants.ACCEPT_RETRY_DELAY, self._accept_again, sock)

    def _accept_again(self, sock: StackSocket) -> None:
        if sock.id >= 0:
            sock.want(EV_READ)

    def _report(self, message: str, exc: BaseException, sock: StackSocket) -> None:
        self._loop.call_exception_handler({"message": message, "exception": exc, "socket": sock})


async def create_server(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    host: str | Iterable[str] | None = None,
    port: int | str | None = None,
    *,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    sock: Any = None,
    backlog: int = 100,
    ssl: ssl_module.SSLContext | None = None,
    reuse_address: bool | None = None,
    reuse_port: bool | None = None,
    keep_alive: bool | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
) -> StackServer:
    """As ``loop.create_server`` of Python 3.13."""
    if isinstance(ssl, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    check_tls(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        hosts = [host or None] if host is None or isinstance(host, str) else host
        resolved = [await network.resolve(loop, (h, port), family, socket.SOCK_STREAM, 0, flags) for h in hosts]
        infos = list(dict.fromkeys(itertools.chain.from_iterable(resolved)))
        sockets = _bind_all(network, infos, reuse_address is not False, bool(reuse_port), bool(keep_alive))
    else:
        if sock is None:
            raise ValueError("Neither host/port nor sock were specified")
        check_socket(sock, socket.SOCK_STREAM)
        sock.setblocking(False)
        sockets = [sock]
    server = StackServer(
        network, loop, sockets, protocol_factory, ssl, backlog, ssl_handshake_timeout, ssl_shutdown_timeout
    )
    if start_serving:
        try:
            await server.start_serving()
        except BaseException:
            server.close()
            raise
    return server


def _bind_all(
    network: StackNetwork, infos: Sequence[AddrInfo], reuse_address: bool, reuse_port: bool, keep_alive: bool
) -> list[StackSocket]:
    sockets: list[StackSocket] = []
    try:
        for family, kind, proto, _, address in infos:
            sock = network.socket(family, kind, proto)
            sockets.append(sock)
            sock.setblocking(False)
            if reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if keep_alive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if family == socket.AF_INET6:  # the IPv4 any address gets a socket of its own
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind(address)
            except OSError as exc:
                raise bind_error(exc, address) from None
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets

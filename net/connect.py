"""``create_connection`` over a machine's stack: resolve, connect to the first address that answers, make a transport.

The same arguments, errors and order of things as asyncio's of Python 3.13, happy eyeballs (RFC 8305) included.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import socket
import ssl as ssl_module
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from libos.net.names.addrinfo import AddrInfo
from libos.net.race import race
from libos.net.sockets import StackSocket
from libos.sched.endpoint import start_endpoint

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["ProtocolFactory", "bind_error", "check_socket", "check_tls", "connect_accepted_socket", "create_connection"]

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


async def create_connection(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    host: str | None = None,
    port: int | str | None = None,
    *,
    ssl: ssl_module.SSLContext | bool | None = None,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    sock: Any = None,
    local_addr: tuple[str, int] | None = None,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    happy_eyeballs_delay: float | None = None,
    interleave: int | None = None,
    all_errors: bool = False,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    """As ``loop.create_connection`` of Python 3.13."""
    check_tls(ssl, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
    if server_hostname is None and ssl:
        if not host:
            raise ValueError("You must set server_hostname when using ssl without a host")
        server_hostname = host
    if host is not None or port is not None:
        if sock is not None:
            raise ValueError("host/port and sock can not be specified at the same time")
        infos = await network.resolve(loop, (host, port), family, socket.SOCK_STREAM, proto, flags)
        local = local_addr and await network.resolve(loop, local_addr, family, socket.SOCK_STREAM, proto, flags)
        if interleave or (interleave is None and happy_eyeballs_delay is not None):
            infos = _interleave(infos, interleave or 1)
        sock = await _connect_first(network, loop, infos, local, happy_eyeballs_delay, all_errors)
    elif sock is None:
        raise ValueError("host and port was not specified and no sock specified")
    check_socket(sock, socket.SOCK_STREAM)
    sock.setblocking(False)
    return await _start(
        network,
        loop,
        protocol_factory,
        sock,
        ssl=ssl,
        server_hostname=server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )


async def connect_accepted_socket(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    sock: StackSocket,
    *,
    ssl: ssl_module.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    check_socket(sock, socket.SOCK_STREAM)
    check_tls(ssl, None, ssl_handshake_timeout, ssl_shutdown_timeout)
    return await _start(
        network,
        loop,
        protocol_factory,
        sock,
        ssl=ssl,
        server_side=True,
        server_hostname="",
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )


async def _start(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    protocol_factory: ProtocolFactory,
    sock: StackSocket,
    **tls: Any,
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    def make(protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None]) -> asyncio.Transport:
        return network.stream_transport(loop, sock, protocol, waiter, **tls)

    return await start_endpoint(loop, protocol_factory, sock, make)


async def _connect_first(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    infos: Sequence[AddrInfo],
    local: Sequence[AddrInfo] | None,
    delay: float | None,
    all_errors: bool,
) -> StackSocket:
    """The first of the addresses that answers: one after the other, or staggered (RFC 8305)."""
    accounts: list[list[OSError]] = []  # of each attempt, in the order of their beginnings
    attempts = [functools.partial(_connect, network, loop, info, local, accounts) for info in infos]
    sock: StackSocket | None = None
    if delay is None:
        for attempt in attempts:
            try:
                sock = await attempt()
                break
            except OSError:
                continue
    else:
        sock = await race(loop, attempts, delay, StackSocket.close)
    if sock is not None:
        return sock
    errors = [error for account in accounts for error in account]
    try:
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        if len({str(exc) for exc in errors}) == 1:
            raise errors[0]
        raise OSError("Multiple exceptions: {}".format(", ".join(map(str, errors))))
    finally:
        errors, accounts = [], []  # break the cycle through the traceback


async def _connect(
    network: StackNetwork,
    loop: asyncio.AbstractEventLoop,
    info: AddrInfo,
    local: Sequence[AddrInfo] | None,
    accounts: list[list[OSError]],
) -> StackSocket:
    family, kind, proto, _, address = info
    errors: list[OSError] = []
    accounts.append(errors)
    sock: StackSocket | None = None
    try:
        sock = network.socket(family, kind | socket.SOCK_NONBLOCK, proto)
        if local is not None:
            _bind_first(sock, local, errors)
        await network.sock_connect(loop, sock, address)
    except BaseException as exc:
        if sock is not None:
            sock.close()
        if isinstance(exc, OSError):
            errors.append(exc)
        raise
    return sock


def _bind_first(sock: StackSocket, local: Sequence[AddrInfo], errors: list[OSError]) -> None:
    """To the first local address of the socket's family that can be had. Refusals before it go to ``errors``."""
    for family, _, _, _, address in local:
        if family != sock.family:
            continue
        try:
            sock.bind(address)
            return
        except OSError as exc:
            errors.append(bind_error(exc, address))
    raise errors.pop() if errors else OSError(f"no matching local address with family={sock.family!r} found")


def check_socket(sock: Any, kind: socket.SocketKind) -> None:
    if not isinstance(sock, StackSocket) or sock.type != kind:
        what = "Stream" if kind == socket.SOCK_STREAM else "UDP"
        raise ValueError(f"A {what} Socket was expected, got {sock!r}")


def check_tls(ssl: Any, hostname: str | None, handshake_timeout: float | None, shutdown_timeout: float | None) -> None:
    if ssl:
        return
    for name, value in (
        ("server_hostname", hostname),
        ("ssl_handshake_timeout", handshake_timeout),
        ("ssl_shutdown_timeout", shutdown_timeout),
    ):
        if value is not None:
            raise ValueError(f"{name} is only meaningful with ssl")


def bind_error(exc: OSError, address: Any) -> OSError:
    return OSError(
        exc.errno, f"error while attempting to bind on address {address!r}: {os.strerror(exc.errno or 0).lower()}"
    )


def _interleave(infos: Sequence[AddrInfo], first: int) -> list[AddrInfo]:
    """Alternate between the families, after `first` addresses of the one that comes first (RFC 8305, section 4)."""
    by_family: dict[int, list[AddrInfo]] = {}
    for info in infos:
        by_family.setdefault(info[0], []).append(info)
    lists = list(by_family.values())
    head, lists[0] = lists[0][: first - 1], lists[0][first - 1 :]
    return head + [info for row in itertools.zip_longest(*lists) for info in row if info is not None]

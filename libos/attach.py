"""A machine in an event loop that is not its own: asyncio's, uvloop's, or another machine's.

    async with machine.attach():
        server = await machine.start_server(handle, None, 80)

The loop never waits for the machine, nor the machine for anything: its reactor is embedded (``sched/embed.c``), one
descriptor of it says when there is something to do, TCP's timers included, and the loop watches that like any other. So
an idle machine wakes nobody. What callbacks of one iteration of the loop write leaves in the next, all of it together.

Of the loop nothing is used but what ``asyncio.AbstractEventLoop`` promises. Ownership: the attachment owns the
embedding and its place in the loop; the machine outlives it and may be attached again, and connections that were open
go on then, as far as their transports' loop is still there. A loop that is closed first leaves the machine as it is:
:meth:`Attachment.detach` or :meth:`~libos.machine.Machine.close` see to the rest.
"""

# mypy: disable-error-code="no-any-return"
from __future__ import annotations

import asyncio
import socket
from asyncio import sslproto
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from libos.errors import WorldError

if TYPE_CHECKING:
    from libos.machine import Machine
    from libos.net.network import StackNetwork

__all__ = ["Attachment", "NetworkCalls"]

STREAM_LIMIT = 64 * 1024  # asyncio's own default
SETTLE_S = 2.0
SETTLE_STEP_S = 0.002
SETTLE_QUIET = 10  # iterations of the loop


class Attachment:
    """What :meth:`Machine.attach <libos.machine.Machine.attach>` returns: the machine's place in ``loop``.

    Leaving ``async with`` first lets freed connections send what they still have, for two seconds at most; leaving
    ``with`` does not wait.
    """

    def __init__(self, machine: Machine, loop: asyncio.AbstractEventLoop) -> None:
        if loop.is_closed():
            raise WorldError("that loop is closed")
        if loop.is_running() and loop is not asyncio._get_running_loop():
            raise WorldError("that loop runs in another thread: attach there")
        self.machine = machine
        self.loop = loop
        self._reactor = machine.reactor
        self._next: asyncio.Handle | None = None  # a turn that is on its way
        self._descriptor = self._reactor.embed()
        try:
            loop.add_reader(self._descriptor, self._readable)
        except BaseException as error:
            self._reactor.unembed()
            if isinstance(error, NotImplementedError):
                raise WorldError(f"{type(loop).__name__} cannot watch descriptors, so it can hold no machine") from None
            raise

    @property
    def attached(self) -> bool:
        return self._descriptor >= 0

    def detach(self) -> None:
        """Out of the loop. The machine stands still until somebody turns it again. May be called twice."""
        if self._descriptor < 0:
            return
        if not self.loop.is_closed():
            self.loop.remove_reader(self._descriptor)
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._descriptor = -1
        self._reactor.unembed()
        self.machine.left(self)

    close = detach

    # --- turns -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._next is None:
            self._turn()

    def _turn(self) -> None:
        """One turn. After one that called protocols there is another, behind the tasks that these have woken: what
        they write and the acknowledgements of what they read leave together."""
        self._next = None
        more = True
        try:
            more = self._reactor.poll()
        except OSError:  # it would fail again at once, for ever
            more = False
            self.detach()
            raise
        finally:
            if more and self._descriptor >= 0:
                self._next = self.loop.call_soon(self._turn)

    # --- with ------------------------------------------------------------------------------------------------------

    async def settle(self, seconds: float = SETTLE_S) -> None:
        """Until closed connections have sent what they had and nothing more comes, for so many seconds at most.

        Of two machines of a pair that leave one after the other, the first so waits for the last words of the second.
        """
        loop, link, quiet, moved = self.loop, self.machine.link, 0, -1
        assert link is not None
        deadline = loop.time() + seconds
        while self.attached and quiet < SETTLE_QUIET and loop.time() < deadline:
            busy = self.machine.lingering()
            stats = link.stats()
            before, moved = moved, stats["rx_packets"] + stats["tx_packets"]
            quiet = 0 if busy or moved != before else quiet + 1
            await asyncio.sleep(SETTLE_STEP_S if busy else 0)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.detach()

    async def __aenter__(self) -> Attachment:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.settle()
        finally:
            self.detach()

    def __repr__(self) -> str:
        return f"<Attachment of {self.machine!r} to {self.loop!r}>" if self.attached else "<Attachment, detached>"


class NetworkCalls:
    """asyncio's network calls on one machine, by their names there, in whichever running loop the machine is in.

    Attached, they go to the machine's network; in a loop of its own they are that loop's methods. Arguments, results
    and exceptions are asyncio's. WorldError: the machine is not in the loop that runs.
    """

    attachment: Attachment | None
    network: StackNetwork | None

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        attachment = self.attachment
        if attachment is None:
            if getattr(loop, "machine", None) is self:
                return getattr(loop, name)(*args, **options)
            raise WorldError("this machine is not in the loop that runs: machine.attach() puts it there")
        if attachment.loop is not loop:
            raise WorldError("this machine is attached to another loop than the one that runs")
        if name == "start_tls":
            return _start_tls(loop, *args, **options)
        return getattr(attachment.machine.network, name)(loop, *args, **options)

    # --- streams ---------------------------------------------------------------------------------------------------

    async def open_connection(
        self, host: Any = None, port: Any = None, *, limit: int = STREAM_LIMIT, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As ``asyncio.open_connection``. On uvloop, TLS over a connection that is there already takes
        :meth:`start_tls`: ``writer.start_tls`` asks uvloop, which knows its own transports only."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await self.create_connection(lambda: protocol, host, port, **options)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def start_server(
        self,
        client_connected_cb: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
        host: Any = None,
        port: Any = None,
        *,
        limit: int = STREAM_LIMIT,
        **options: Any,
    ) -> Any:
        """As ``asyncio.start_server``."""
        loop = asyncio.get_running_loop()

        def factory() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(limit=limit, loop=loop)
            return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

        return await self.create_server(factory, host, port, **options)

    # --- transports ------------------------------------------------------------------------------------------------

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        return await self._call("create_connection", protocol_factory, host, port, **options)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await self._call("create_server", protocol_factory, host, port, **options)

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        return await self._call("create_datagram_endpoint", protocol_factory, local_addr, remote_addr, **options)

    async def connect_accepted_socket(self, protocol_factory: Any, sock: Any, **options: Any) -> tuple[Any, Any]:
        return await self._call("connect_accepted_socket", protocol_factory, sock, **options)

    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **options: Any) -> Any:
        """As ``loop.start_tls``, on every loop."""
        return await self._call("start_tls", transport, protocol, sslcontext, **options)

    # --- names -----------------------------------------------------------------------------------------------------

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> list[Any]:
        return await self._call("getaddrinfo", host, port, **options)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        return await self._call("getnameinfo", sockaddr, flags)

    # --- sockets ---------------------------------------------------------------------------------------------------

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Any:  # a StackSocket, or the kernel's
        """A non-blocking socket of the machine, for the ``sock_*`` calls."""
        network = self.network
        sock = socket.socket(family, type, proto) if network is None else network.socket(family, type, proto)
        sock.setblocking(False)
        return sock

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self._call("sock_connect", sock, address)

    async def sock_accept(self, sock: Any) -> tuple[Any, Any]:
        return await self._call("sock_accept", sock)

    async def sock_recv(self, sock: Any, n: int) -> bytes:
        return await self._call("sock_recv", sock, n)

    async def sock_recv_into(self, sock: Any, buf: Any) -> int:
        return await self._call("sock_recv_into", sock, buf)

    async def sock_recvfrom(self, sock: Any, bufsize: int) -> tuple[bytes, Any]:
        return await self._call("sock_recvfrom", sock, bufsize)

    async def sock_recvfrom_into(self, sock: Any, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        return await self._call("sock_recvfrom_into", sock, buf, nbytes)

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        await self._call("sock_sendall", sock, data)

    async def sock_sendto(self, sock: Any, data: Any, address: Any) -> int:
        return await self._call("sock_sendto", sock, data, address)


async def _start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: Any,
    protocol: Any,
    sslcontext: Any,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Any:
    """asyncio's TLS over a connection of ours, for a loop that would only do it over its own."""
    waiter = loop.create_future()
    protocol_class: Any = sslproto.SSLProtocol  # typeshed knows an older one
    tls = protocol_class(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side,
        server_hostname,
        call_connection_made=False,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    transport.pause_reading()  # what comes now is the handshake's
    transport.set_protocol(tls)
    handles = loop.call_soon(tls.connection_made, transport), loop.call_soon(transport.resume_reading)
    try:
        await waiter
    except BaseException:
        for handle in handles:
            handle.cancel()
        transport.close()
        raise
    return tls._app_transport

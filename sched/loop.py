"""The scheduler: asyncio's event loop over a Reactor, with the machine's network in place of the host's.

Callbacks, timers and the iteration are C (``objects/scheduler.c``). What is the host's and rare, CPython's own code
serves: threads, signals, subprocesses, pipes and ``add_reader``, over the selector face of the Reactor. What is the
network's, TCP, UDP and names, goes to the :class:`~libos.sched.network.Network` that the loop was given; without one
(world ``host``) that is CPython's too, on the kernel's sockets. A socket passed as ``sock=`` belongs to whoever
made it.

Events of the network's sockets call their transports from within the turn of the reactor. Callbacks that these schedule
run in the same iteration, as they do for host sockets. ``time()`` is the reactor's clock in seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from asyncio import base_events, format_helpers, trsock
from typing import Any

from libos._loop import Scheduler
from libos.sched.child import Children, chosen_watcher
from libos.sched.endpoint import OUT_OF_RESOURCES, over_tls
from libos.sched.host import HostListener, HostTransport
from libos.sched.network import Network
from libos.sched.reactor import EV_GONE, Reactor
from libos.sched.selector import ReactorSelector

__all__ = ["Loop"]

if sys.version_info < (3, 12):  # From then on asyncio does this.
    # A forked child would write the signals that it gets into the self-pipe of the parent's loop.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


class Loop(Scheduler, asyncio.SelectorEventLoop):
    """An ``asyncio`` event loop that waits in ``reactor``.

    Closing the loop leaves the reactor open, unless ``own_reactor``.
    """

    def __init__(self, reactor: Reactor, network: Network | None = None, *, own_reactor: bool = False) -> None:
        self.reactor = reactor
        self.network = network
        self._waiter = ReactorSelector(reactor, own_reactor=own_reactor)
        self._attach(reactor, self._waiter.ready)
        self._listeners: dict[int, HostListener] = {}  # by descriptor
        try:
            super().__init__(self._waiter)
        except BaseException:  # no descriptors for the self-pipe
            self._closed = True
            self._waiter.close()
            raise
        self._children = Children(self)

    def __repr__(self) -> str:
        state = "closed" if self.is_closed() else "running" if self.is_running() else "idle"
        return f"<{type(self).__name__} {self.reactor.kind} {state} debug={self.get_debug()}>"

    def close(self) -> None:
        was_open = not self.is_closed()
        if was_open and not self.is_running():  # else asyncio's close() says so
            # First, for the reactor may go with the loop.
            while self._listeners:
                self._listeners.popitem()[1].close()
            everybody: list[Any] = list(self._transports.values())  # type: ignore[attr-defined]
            for transport in everybody:
                if isinstance(transport, HostTransport):
                    transport(EV_GONE)
        super().close()
        if was_open and self.is_closed():
            self._forget()
            self._children.close()

    # --- what the C half asks ------------------------------------------------------------------------------------

    def _poll_selector(self) -> None:
        self._process_events(self._waiter.take())  # type: ignore[attr-defined]

    def _callback_failed(self, handle: Any, exc: BaseException) -> None:
        source = format_helpers._format_callback_source(handle._callback, handle._args)
        context = {"message": f"Exception in callback {source}", "exception": exc, "handle": handle}
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _run_slowly(self, handle: asyncio.Handle) -> None:
        """In debug mode: run a handle, and say so when it took long."""
        try:
            self._current_handle: asyncio.Handle | None = handle
            began = self.time()
            handle._run()
            took = self.time() - began
            if took >= self.slow_callback_duration:
                text = base_events._format_handle(handle)  # type: ignore[attr-defined]
                base_events.logger.warning("Executing %s took %.3f seconds", text, took)  # type: ignore[attr-defined]
        finally:
            self._current_handle = None
            del handle  # this frame lives on in the traceback of a task that failed, which the handle holds

    # --- running ---------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until stop() is called.

        In the main thread, each signal also writes to the loop's self-pipe meanwhile. A signal that arrives just before
        the wait begins does not interrupt it; the pipe does.
        """
        if threading.current_thread() is not threading.main_thread():
            super().run_forever()
            return
        pipe = self._csock.fileno() if not self.is_closed() else -1  # type: ignore[attr-defined]
        before = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        if before not in (-1, pipe):  # another's, who has reasons
            signal.set_wakeup_fd(before)
        try:
            super().run_forever()
        finally:
            if before == -1 and not self._signal_handlers:  # type: ignore[attr-defined]
                signal.set_wakeup_fd(-1)

    def _read_from_self(self) -> None:
        # Cleared only when the pipe has been emptied: a byte written before that may be gone with the others, and would
        # never be written again. What a thread schedules in between is seen before the loop waits.
        try:
            super()._read_from_self()  # type: ignore[misc]
        finally:
            self._woken = False

    def remove_signal_handler(self, sig: int) -> bool:
        removed: bool = super().remove_signal_handler(sig)
        if removed and not self._signal_handlers and self.is_running():  # type: ignore[attr-defined]
            signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)  # type: ignore[attr-defined]
        return removed

    def _network_of(self, sock: object) -> Network | None:
        """Who is to serve ``sock`` (None: whatever will be made): the network, or None: the host's code."""
        if self.network is None or sock is None or self.network.owns(sock):
            return self.network
        return None

    # --- transports ------------------------------------------------------------------------------------------------

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        if (network := self._network_of(sock)) is None:
            return await super().create_connection(protocol_factory, host, port, sock=sock, **options)
        return await network.create_connection(self, protocol_factory, host, port, sock=sock, **options)

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> Any:
        if (network := self._network_of(sock)) is None:
            return await super().create_server(protocol_factory, host, port, sock=sock, **options)
        return await network.create_server(self, protocol_factory, host, port, sock=sock, **options)

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        network = self._network_of(options.get("sock"))
        if network is None or options.get("family") == socket.AF_UNIX:
            return await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)
        return await network.create_datagram_endpoint(self, protocol_factory, local_addr, remote_addr, **options)

    async def connect_accepted_socket(self, protocol_factory: Any, sock: Any, **options: Any) -> tuple[Any, Any]:
        if (network := self._network_of(sock)) is None:
            return await super().connect_accepted_socket(protocol_factory, sock, **options)
        return await network.connect_accepted_socket(self, protocol_factory, sock, **options)

    async def _make_subprocess_transport(self, *args: Any, **options: Any) -> Any:
        if chosen_watcher():
            return await super()._make_subprocess_transport(*args, **options)  # type: ignore[misc]
        return await self._children.start(*args, **options)

    # --- the host's stream sockets: what CPython's create_connection() and the like end in -------------------------

    def _make_socket_transport(
        self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
    ) -> HostTransport:
        return HostTransport(self, self.reactor.hosts, sock, protocol, waiter, extra, server)

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> Any:
        return over_tls(
            lambda tls: HostTransport(self, self.reactor.hosts, rawsock, tls, extra=extra, server=server),
            self,
            protocol,
            sslcontext,
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=ssl_handshake_timeout,
            ssl_shutdown_timeout=ssl_shutdown_timeout,
        )

    def _start_serving(
        self,
        protocol_factory: Any,
        sock: Any,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        context: Any = None,
    ) -> None:
        def accepted(connection: Any, peername: Any) -> None:
            protocol = None
            try:
                protocol = protocol_factory()
                extra = {"peername": peername}
                if sslcontext:
                    self._make_ssl_transport(
                        connection,
                        protocol,
                        sslcontext,
                        server_side=True,
                        extra=extra,
                        server=server,
                        ssl_handshake_timeout=ssl_handshake_timeout,
                        ssl_shutdown_timeout=ssl_shutdown_timeout,
                    )
                else:
                    HostTransport(self, self.reactor.hosts, connection, protocol, extra=extra, server=server)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exc:
                connection.close()
                report = {"message": "Error on transport creation for incoming connection", "exception": exc}
                if protocol is not None:
                    report["protocol"] = protocol
                self.call_exception_handler(report)

        def failed(exc: OSError) -> None:
            message = "socket.accept() out of system resource" if exc.errno in OUT_OF_RESOURCES else "accept failed"
            self.call_exception_handler({"message": message, "exception": exc, "socket": trsock.TransportSocket(sock)})

        self._listeners[sock.fileno()] = HostListener(self.reactor.hosts, sock, backlog, accepted, failed)

    def _stop_serving(self, sock: Any) -> None:
        listener = self._listeners.pop(sock.fileno(), None)
        if listener is not None:
            listener.close()
        super()._stop_serving(sock)  # type: ignore[misc]

    # --- names -----------------------------------------------------------------------------------------------------

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if (network := self.network) is None:
            return await super().getaddrinfo(host, port, **options)
        return await network.getaddrinfo(self, host, port, **options)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        if (network := self.network) is None:
            return await super().getnameinfo(sockaddr, flags)
        return await network.getnameinfo(self, sockaddr, flags)

    # --- sockets ---------------------------------------------------------------------------------------------------

    async def sock_connect(self, sock: Any, address: Any) -> None:
        if (network := self._network_of(sock)) is None:
            return await super().sock_connect(sock, address)
        return await network.sock_connect(self, sock, address)

    async def sock_accept(self, sock: Any) -> tuple[Any, Any]:
        if (network := self._network_of(sock)) is None:
            return await super().sock_accept(sock)
        return await network.sock_accept(self, sock)

    async def sock_recv(self, sock: Any, n: int) -> bytes:
        if (network := self._network_of(sock)) is None:
            return await super().sock_recv(sock, n)
        return await network.sock_recv(self, sock, n)

    async def sock_recv_into(self, sock: Any, buf: Any) -> int:
        if (network := self._network_of(sock)) is None:
            return await super().sock_recv_into(sock, buf)
        return await network.sock_recv_into(self, sock, buf)

    async def sock_recvfrom(self, sock: Any, bufsize: int) -> tuple[bytes, Any]:
        if (network := self._network_of(sock)) is None:
            return await super().sock_recvfrom(sock, bufsize)
        return await network.sock_recvfrom(self, sock, bufsize)

    async def sock_recvfrom_into(self, sock: Any, buf: Any, nbytes: int = 0) -> tuple[int, Any]:
        if (network := self._network_of(sock)) is None:
            return await super().sock_recvfrom_into(sock, buf, nbytes)
        return await network.sock_recvfrom_into(self, sock, buf, nbytes)

    async def sock_sendall(self, sock: Any, data: Any) -> None:
        if (network := self._network_of(sock)) is None:
            return await super().sock_sendall(sock, data)
        return await network.sock_sendall(self, sock, data)

    async def sock_sendto(self, sock: Any, data: Any, address: Any) -> int:
        if (network := self._network_of(sock)) is None:
            return await super().sock_sendto(sock, data, address)
        return await network.sock_sendto(self, sock, data, address)

    async def _sock_sendfile_native(self, sock: Any, file: Any, offset: int, count: int | None) -> int:
        # sendfile(2) needs a descriptor; asyncio then reads and sends by sock_sendall.
        if self._network_of(sock) is not None:
            raise asyncio.SendfileNotAvailableError("a socket of this network has no descriptor for sendfile(2)")
        return await super()._sock_sendfile_native(sock, file, offset, count)  # type: ignore[misc,no-any-return]

"""The far end of a ``user`` link: a gateway that carries the guest's TCP and UDP through sockets of the host.

It needs no privileges, because it does not forward packets: it has a stack of its own that takes every address as
its own (STACK_ANY_DESTINATION), ends the guest's connections there, and relays their bytes. So the guest's handshake
succeeds when, and only when, the host's does (LISTEN_DEFER).

    outward   a SYN to any address -> connect() on the host -> SYN-ACK, or RST or ICMP for the host's errno -> relay
              any datagram -> a flow (flows.py)
    inward    a published port accepted on the host -> a connection from the gateway to the guest -> relay

The gateway's own address leads to the host's loopback, the DNS address to the host's name server.

Driven by reactor events only, so that it lives with its machine and not with a loop. Ownership: it owns its stack
(hence its end of the link), the published host sockets, and every relay; :meth:`~Gateway.close` frees all.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from libos._native import ffi, lib
from libos.errors import HostError, check
from libos.net.sockaddr import pack_host
from libos.net.sockets import EV_READ, EV_REQUEST
from libos.net.stack import Link, Stack
from libos.net.user.dialing import Connection, Door, Inward, Outward
from libos.net.user.flows import UdpFlows
from libos.net.user.relay import Chunk, HostEnd, HostSocket, Relay, StackEnd
from libos.rand import Rng

if TYPE_CHECKING:
    from libos.sched.reactor import Reactor

__all__ = ["Gateway", "Published"]

CHUNK_SIZE = 256 * 1024
BACKLOG = 128
DNS_PORT = 53
_LOOPBACK: Mapping[int, str] = MappingProxyType({socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"})


class Published(Protocol):
    """A host port that leads to a port of the guest. ``address`` None: 127.0.0.1 and, where there is one, ::1."""

    @property
    def address(self) -> str | None: ...
    @property
    def host(self) -> int: ...
    @property
    def guest(self) -> int: ...
    @property
    def protocol(self) -> Literal["tcp", "udp"]: ...


class Gateway:
    """The gateway of one guest.

    ``addresses``: its own, with prefix (``10.0.2.2/24``); ``guest``: the guest's; ``dns``: what the guest asks for
    names; ``nameserver``: who is asked on the host (``#port`` where it is not 53). ``limit``: connections at most.
    HostError: a port cannot be published.
    """

    def __init__(
        self,
        reactor: Reactor,
        link: Link,
        *,
        rng: Rng,
        addresses: Sequence[str] = ("10.0.2.2/24", "fd00:6c69:626f:73::2/64"),
        guest: Sequence[str] = ("10.0.2.15", "fd00:6c69:626f:73::15"),
        dns: Sequence[str] = ("10.0.2.3", "fd00:6c69:626f:73::3"),
        nameserver: str | None = None,
        publish: Iterable[Published] = (),
        limit: int = 4096,
    ) -> None:
        self.reactor = reactor
        self.stack = Stack(rng, reactor.now(), any_destination=True, reports=False)
        ifindex = self.stack.add_link(link)
        self._addresses: dict[int, str] = {}
        for own in map(ipaddress.ip_interface, addresses):
            self.stack.add_address(ifindex, str(own))
            self._addresses.setdefault(_family(own.ip), str(own.ip))
            for server in map(ipaddress.ip_address, dns):  # a neighbour too: the guest asks for it by ARP and NDP
                if server in own.network and server != own.ip:
                    self.stack.add_address(ifindex, f"{server}/{own.network.prefixlen}")
        self.handle = self.stack.handle
        self.base = reactor.attach(self.stack.poller)
        self._guest = list(guest)
        self._dns = frozenset(map(_packed, dns))
        self._own = frozenset(map(_packed, self._addresses.values()))
        asked, _, asked_port = (nameserver or "").partition("#")
        self._nameserver = (asked, int(asked_port or DNS_PORT)) if asked else None
        self._limit = limit
        self._chunk = Chunk(CHUNK_SIZE)
        self.connections: set[Connection] = set()
        self._listeners: list[tuple[HostSocket, int]] = []
        self._resting = False  # too many connections: nothing is accepted
        self._outward = self._inward = self.refused = self._carried_out = self._carried_in = 0
        self._udp: UdpFlows | None = None
        self._listener = -1
        try:
            self._listener = check(lib.sock_open(self.handle, socket.SOCK_STREAM, socket.AF_INET6))
            check(lib.sock_listen(self.handle, self._listener, BACKLOG, lib.LISTEN_DEFER | lib.LISTEN_ANY_PORT))
            reactor.sinks[self.base | self._listener] = self._requested
            self._udp = UdpFlows(self, self._chunk)
            self.published = [bound for wanted in publish for bound in self._publish(wanted)]
        except BaseException:
            self.close()
            raise

    published: list[tuple[str, int, int, str]]
    """What became of ``publish``: host address, host port, guest port, protocol."""

    inside: tuple[Any, int] | None = None
    """The guest's own stack and its token base, if they are at hand: then a published TCP port that nobody listens on
    at the guest's addresses is tried on its loopback, where servers listen unless told otherwise (uvicorn). The guest
    leaves the reactor before :meth:`close`, and its stack goes after it."""

    def lingering(self) -> int:
        """Connections with bytes of the guest's that the host has not taken yet."""
        return sum(isinstance(relay, Relay) and relay.lingering for relay in self.connections)

    def close(self) -> None:
        """End what the guest has ended, reset every other connection, free every port, leave the reactor."""
        for connection in list(self.connections):
            connection.close() if isinstance(connection, Relay) else connection.abort()
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        for sock, _ in self._listeners:
            self.reactor.unwatch(sock.fileno())
            sock.close()
        self._listeners.clear()
        if self._listener >= 0:
            self.reactor.sinks.pop(self.base | self._listener, None)
            lib.sock_free(self.handle, self._listener)
            self._listener = -1
            self.reactor.detach(self.stack.poller)
            self.stack.close()

    def statistics(self) -> dict[str, int]:
        """Connections begun outward and inward, refused; open now; bytes carried; datagrams."""
        udp = self._udp
        return {
            "connections_out": self._outward,
            "connections_in": self._inward,
            "refused": self.refused,
            "open": len(self.connections),
            "bytes_out": self._carried_out + sum(r.carried[0] for r in self.connections if isinstance(r, Relay)),
            "bytes_in": self._carried_in + sum(r.carried[1] for r in self.connections if isinstance(r, Relay)),
            "udp_flows": udp.count if udp else 0,
            "datagrams_out": udp.datagrams_out if udp else 0,
            "datagrams_in": udp.datagrams_in if udp else 0,
            "datagrams_lost": udp.lost if udp else 0,
        }

    def address(self, family: int) -> str:
        """The gateway's own address."""
        return self._addresses[family]

    def target(self, packed: bytes, port: int) -> tuple[int, tuple[Any, ...]] | None:
        """Where the host is to connect for what the guest calls ``packed``, ``port``; None: nowhere."""
        address = ipaddress.IPv6Address(packed)
        host: ipaddress.IPv4Address | ipaddress.IPv6Address = address.ipv4_mapped or address
        if packed in self._dns:
            if self._nameserver is None or port != DNS_PORT:
                return None
            host, port = ipaddress.ip_address(self._nameserver[0]), self._nameserver[1]
        elif packed in self._own:
            host = ipaddress.ip_address(_LOOPBACK[_family(host)])
        elif host.is_multicast or host.is_unspecified or host == ipaddress.IPv4Address("255.255.255.255"):
            return None
        return _family(host), (str(host), port) if host.version == 4 else (str(host), port, 0, 0)

    # --- connections of the guest --------------------------------------------------------------------------------

    def _requested(self, mask: int) -> None:
        if not mask & EV_REQUEST:
            return
        for _ in range(BACKLOG):
            id = lib.sock_accept(self.handle, self._listener)
            if id < 0:
                return
            if len(self.connections) >= self._limit:
                self.reject(id, errno.ECONNREFUSED)
                continue
            name: Any = ffi.new("struct sock_name *")
            check(lib.sock_getname(self.handle, id, lib.SOCK_LOCAL, name))
            target = self.target(bytes(name.addr), name.port)
            if target is None:
                self.reject(id, errno.ECONNREFUSED if bytes(name.addr) in self._dns else errno.ENETUNREACH)
                continue
            self._outward += 1
            Outward(self, id, *target)

    def reject(self, id: int, error: int) -> None:
        self.refused += 1
        lib.sock_reject(self.handle, id, error)

    def join(self, handle: Any, base: int, id: int, sock: HostSocket) -> None:
        """Both sides are connected: socket ``id`` of a stack, and the host's."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the sender has done what Nagle does
        lib.sock_setopt(handle, id, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near = StackEnd(handle, id, self.reactor.sinks, base)
        self.connections.add(Relay(near, HostEnd(self.reactor, sock), self._chunk, self._ended))

    def _ended(self, relay: Relay) -> None:
        out, back = relay.carried
        self._carried_out += out
        self._carried_in += back
        self.forget(relay)

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._resting:
            self._resting = False
            self._watch_listeners()

    # --- published ports -----------------------------------------------------------------------------------------

    def _publish(self, wanted: Published) -> list[tuple[str, int, int, str]]:
        port = wanted.host
        bound: list[tuple[str, int, int, str]] = []
        for address in [wanted.address] if wanted.address else _LOOPBACK.values():
            try:
                sock = _bind(address, port, wanted.protocol)
            except OSError as exc:
                if wanted.address is None and bound and exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # a host without IPv6
                raise _publish_error(exc, address, port, wanted.protocol) from None
            port = sock.getsockname()[1]  # 0: the host chose one, for both loopbacks
            guest = [(host, wanted.guest) for host in self._guest]
            if wanted.protocol == "udp":
                assert self._udp is not None
                self._udp.publish(sock, guest)
            else:
                self._listeners.append((sock, wanted.guest))
                self._watch_listeners()
            bound.append((address, port, wanted.guest, str(wanted.protocol)))
        return bound

    def _watch_listeners(self) -> None:
        for sock, guest_port in self._listeners:
            self.reactor.watch(sock.fileno(), EV_READ, partial(self._accept, sock, guest_port))

    def _rest(self) -> None:
        """No room: accept nothing until a connection has ended. The kernel's backlog holds what comes."""
        if self.connections:
            self._resting = True
            for sock, _ in self._listeners:
                self.reactor.unwatch(sock.fileno())

    def _accept(self, listener: HostSocket, guest_port: int, mask: int) -> None:
        for _ in range(BACKLOG):
            if len(self.connections) >= self._limit:
                self._rest()
                return
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest()
                return
            sock.setblocking(False)
            self._inward += 1
            same = [host for host in self._guest if (":" in host) == (sock.family == socket.AF_INET6)]
            other = [host for host in self._guest if host not in same]
            doors = [Door(self.handle, self.base, host, guest_port) for host in same + other]
            if self.inside is not None:
                doors += [Door(*self.inside, host, guest_port) for host in _LOOPBACK.values()]
            Inward(self, sock, doors)


def _family(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _packed(address: str) -> bytes:
    return pack_host(address, socket.AF_INET6 if ":" in address else socket.AF_INET)


def _bind(address: str, port: int, protocol: str) -> HostSocket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    sock = HostSocket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _publish_error(exc: OSError, address: str, port: int, protocol: str) -> HostError:
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    advice = {
        errno.EADDRINUSE: "something on this host listens there already; choose another host port",
        errno.EACCES: "ports below 1024 need root here; choose a higher host port",
        errno.EADDRNOTAVAIL: "this host has no such address",
    }.get(exc.errno or 0, "choose another address or port")
    return HostError(f"cannot publish {where}/{protocol}: {exc.strerror}: {advice}")

"""Names to addresses: numeric hosts, the hosts table, then DNS over the machine's own UDP and TCP.

A stub resolver (RFC 1034 5.3.1): each configured server in turn, `attempts` times around, A and AAAA side by side,
TCP where the answer was truncated (RFC 7766). Message format by dnspython, imported with the first query because
that takes longer than a machine's boot. No cache and no search list yet. The host's resolver, its files and its
sockets are never asked.

Errors are ``socket.gaierror`` with the EAI codes that getaddrinfo(3) gives.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.net.names import is_numeric
from libos.net.sockets import StackSocket
from libos.net.stack import pack_address
from libos.rand import Rng

if TYPE_CHECKING:
    import dns.message

    from libos.net.network import StackNetwork

__all__ = ["AddrInfo", "Resolver"]

AddrInfo = tuple[int, int, int, str, Any]

DNS_PORT = 53
_SERVICES = MappingProxyType({"domain": 53, "http": 80, "https": 443, "ntp": 123, "postgresql": 5432, "ssh": 22})
_ANY = ("0.0.0.0", "::")
_LOOPBACK = ("127.0.0.1", "::1")
_KINDS = ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))
_UNIQUE_LOCAL = ipaddress.IPv6Network("fc00::/7")


class Resolver:
    """Configuration of name resolution; it keeps no sockets between queries.

    ``servers``: addresses, with ``#port`` where it is not 53. ``timeout``: seconds to wait for one server.
    """

    def __init__(
        self,
        rng: Rng,
        *,
        servers: Iterable[str] = (),
        hosts: Mapping[str, Iterable[str]] = MappingProxyType({}),
        timeout: float = 2.0,
        attempts: int = 2,
    ) -> None:
        self._rng = rng
        self._timeout = timeout
        self._attempts = attempts
        self._servers = [_parse_server(server) for server in servers]
        self._hosts = {_canonical(name): tuple(found) for name, found in {"localhost": _LOOPBACK, **hosts}.items()}

    def lookup_hosts(self, host: str, family: int = socket.AF_UNSPEC) -> str | None:
        """The first address of the family in the hosts table: an answer that needs no waiting."""
        return next(iter(_of_family(self._hosts.get(_canonical(host), ()), family)), None)

    async def getaddrinfo(
        self,
        network: StackNetwork,
        loop: asyncio.AbstractEventLoop,
        host: str | bytes | None,
        port: int | str | bytes | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddrInfo]:
        """As getaddrinfo(3). Addresses in the order in which they are best tried (:func:`_rank`)."""
        infos = self.getaddrinfo_nowait(network, host, port, family, type, proto, flags)
        if infos is None:
            assert host is not None
            name = _text(host)
            infos = _infos(network, await self._ask(network, loop, name, family), name, port, type, proto, flags)
        return infos

    def getaddrinfo_nowait(
        self,
        network: StackNetwork,
        host: str | bytes | None,
        port: int | str | bytes | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddrInfo] | None:
        """The same, as far as it can be told without asking anybody; None otherwise."""
        if family not in (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6):
            raise socket.gaierror(socket.EAI_FAMILY, "ai_family not supported")
        name = _text(host)
        if name:
            addresses = self._known(name, family, flags)
            if addresses is None:
                return None
        elif port is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        else:
            addresses = _of_family(_ANY if flags & socket.AI_PASSIVE else _LOOPBACK, family)
        return _infos(network, addresses, name, port, type, proto, flags)

    async def getnameinfo(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, sockaddr: Any, flags: int = 0
    ) -> tuple[str, str]:
        """The host by the hosts table, or its address; the port by its number."""
        host, port = sockaddr[:2]
        if not is_numeric(host):
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        if not flags & socket.NI_NUMERICHOST:
            for name, addresses in self._hosts.items():
                if host in addresses:
                    return name, str(port)
        if flags & socket.NI_NAMEREQD:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        return host, str(port)

    def _known(self, host: str, family: int, flags: int) -> list[str] | None:
        """Numeric, or in the hosts table. None: DNS must tell."""
        if is_numeric(host):
            if not _of_family((host,), family):
                raise socket.gaierror(socket.EAI_ADDRFAMILY, f"Address family for hostname not supported: {host}")
            return [host]
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        entry = self._hosts.get(_canonical(host))
        if entry is None:
            return None
        addresses = _of_family(entry, family)
        if not addresses:
            raise socket.gaierror(socket.EAI_NODATA, f"No address associated with hostname: {host}")
        return addresses

    # --- DNS -----------------------------------------------------------------------------------------------------

    async def _ask(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, host: str, family: int) -> list[str]:
        kinds = [k for f, k in ((socket.AF_INET6, "AAAA"), (socket.AF_INET, "A")) if family in (0, f)]
        answers = await asyncio.gather(
            *(self._query(network, loop, host, kind) for kind in kinds), return_exceptions=True
        )
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        found = [address for answer in answers if not isinstance(answer, BaseException) for address in answer]
        if found:
            return found
        # Which error: that the name does not exist is final; next, that a server did not answer.
        ranks = {socket.EAI_NONAME: 0, socket.EAI_AGAIN: 1}
        raise min(errors, key=lambda exc: ranks.get(exc.errno or 0, 2) if isinstance(exc, socket.gaierror) else -1)

    async def _query(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, host: str, kind: str) -> list[str]:
        """Addresses of one record type. gaierror when there are none."""
        import dns.exception
        import dns.message
        import dns.rcode

        try:
            query = dns.message.make_query(host, kind, id=self._rng.bits(16))
        except (dns.exception.DNSException, UnicodeError):
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}") from None
        for _ in range(self._attempts):
            for server in self._servers:
                try:
                    async with asyncio.timeout(self._timeout):
                        response = await self._exchange(network, loop, server, query)
                    rcode = response.rcode()
                    if rcode == dns.rcode.NXDOMAIN:
                        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
                    if rcode != dns.rcode.NOERROR:
                        continue  # this server cannot tell
                    rrset = response.resolve_chaining().answer
                except socket.gaierror:
                    raise
                except (OSError, dns.exception.DNSException):  # TimeoutError is an OSError
                    continue
                if rrset is None:
                    raise socket.gaierror(socket.EAI_NODATA, f"No address associated with hostname: {host}")
                return [rdata.address for rdata in rrset]
        raise socket.gaierror(socket.EAI_AGAIN, f"Temporary failure in name resolution: {host}")

    async def _exchange(
        self,
        network: StackNetwork,
        loop: asyncio.AbstractEventLoop,
        server: tuple[str, int],
        query: dns.message.QueryMessage,
    ) -> dns.message.QueryMessage:
        import dns.flags

        wire = query.to_wire()
        with _socket_to(network, server, socket.SOCK_DGRAM) as sock:
            await network.sock_connect(loop, sock, server)  # so that only this server can answer
            await network.sock_sendall(loop, sock, wire)
            response = None
            while response is None:
                response = _response(query, await network.sock_recv(loop, sock, 65535))
        if not response.flags & dns.flags.TC:
            return response
        with _socket_to(network, server, socket.SOCK_STREAM) as sock:
            await network.sock_connect(loop, sock, server)
            await network.sock_sendall(loop, sock, len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(await _receive_exactly(network, loop, sock, 2), "big")
            response = _response(query, await _receive_exactly(network, loop, sock, size))
            if response is None:
                raise ConnectionError("not an answer to the question")
            return response


def _socket_to(network: StackNetwork, server: tuple[str, int], type: int) -> StackSocket:
    return network.socket(_family(server[0]), type | socket.SOCK_NONBLOCK)


async def _receive_exactly(
    network: StackNetwork, loop: asyncio.AbstractEventLoop, sock: StackSocket, size: int
) -> bytes:
    data = b""
    while len(data) < size:
        more = await network.sock_recv(loop, sock, size - len(data))
        if not more:
            raise ConnectionResetError("the name server ended the connection")
        data += more
    return data


def _response(query: dns.message.QueryMessage, wire: bytes) -> dns.message.QueryMessage | None:
    """The message, if it is the answer to this question; None for anything else that came (RFC 5452, section 9)."""
    import dns.exception
    import dns.message

    try:
        response = dns.message.from_wire(wire, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
    return response if isinstance(response, dns.message.QueryMessage) and query.is_response(response) else None


def _infos(
    network: StackNetwork,
    addresses: list[str],
    host: str,
    port: int | str | bytes | None,
    type: int,
    proto: int,
    flags: int,
) -> list[AddrInfo]:
    """Addresses by rank, each with every kind of socket that was asked for."""
    number = _port(port)
    kinds = [(t, p) for t, p in _KINDS if type in (0, t) and proto in (0, p)]
    if not kinds:
        raise socket.gaierror(socket.EAI_SOCKTYPE, "ai_socktype not supported")
    if len(addresses) > 1:
        addresses = sorted(addresses, key=lambda address: _rank(network, address))
    canonical = host if flags & socket.AI_CANONNAME else ""
    return [(_family(a), t, p, canonical, _sockaddr(a, number)) for a in addresses for t, p in kinds]


def _rank(network: StackNetwork, address: str) -> tuple[bool, bool, bool]:
    """The order to try addresses in, from RFC 6724 section 6: what we have a source for (rule 1); a unique-local
    source only for unique-local destinations (rule 5); IPv6 before IPv4 (rule 6). A stable sort keeps the rest."""
    source = ffi.new("uint8_t[16]")
    unreachable = lib.stack_source(network.handle, pack_address(address), source) < 0
    six = ":" in address
    mismatch = (
        six
        and not unreachable
        and ipaddress.IPv6Address(bytes(source)) in _UNIQUE_LOCAL
        and ipaddress.IPv6Address(address.partition("%")[0]) not in _UNIQUE_LOCAL
    )
    return unreachable, mismatch, not six


def _text(host: str | bytes | None) -> str:
    return bytes(host).decode("ascii") if isinstance(host, (bytes, bytearray)) else host or ""


def _canonical(name: str) -> str:
    return name.rstrip(".").lower()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _of_family(addresses: Iterable[str], family: int) -> list[str]:
    return [address for address in addresses if family in (socket.AF_UNSPEC, _family(address))]


def _sockaddr(address: str, port: int) -> tuple[Any, ...]:
    if ":" not in address:
        return (address, port)
    host, _, scope = address.partition("%")
    return (host, port, 0, int(scope) if scope.isdecimal() else 0)


def _parse_server(server: str) -> tuple[str, int]:
    host, _, port = server.partition("#")
    return host, int(port or DNS_PORT)


def _port(port: int | str | bytes | None) -> int:
    if isinstance(port, (bytes, bytearray)):
        port = _text(port)
    if not port:
        return 0
    if isinstance(port, str) and not port.isdecimal():
        number = _SERVICES.get(port)
        if number is None:
            raise socket.gaierror(socket.EAI_SERVICE, f"Servname not supported for ai_socktype: {port}")
        return number
    number = int(port)
    if not 0 <= number <= 65535:
        raise OverflowError("port must be 0-65535.")
    return number

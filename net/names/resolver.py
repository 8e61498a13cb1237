"""A machine's stub resolver (RFC 1034 5.3.1): addresses for getaddrinfo, names for getnameinfo, records by type.

    name -> hosts table -> search list -> cache -> a question under way already -> query.py over UDP and TCP

It keeps no socket between questions: each goes out from a new port that the stack draws at random, and only the server
that was asked can answer there (RFC 5452 9.2). Questions under way are bounded, and shared by all that ask the same.
Errors are ``socket.gaierror`` with the codes that getaddrinfo(3) gives.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from libos.net.names import addrinfo
from libos.net.names.addrinfo import AddrInfo, Found, Wanted, family_of, text_of
from libos.net.names.cache import Cache
from libos.net.names.errors import gai_error
from libos.net.names.hosts import Hosts, canonical
from libos.net.names.message import CHAIN_MAX, TTL_MAX, Answer, Question, Service, Status, is_hostname
from libos.net.names.query import Query, Step
from libos.net.names.servers import Servers
from libos.net.sockets import StackSocket
from libos.rand import Rng

if TYPE_CHECKING:
    from libos.net.network import StackNetwork

__all__ = ["Answer", "Resolver", "Service"]

FLIGHTS_MAX = 512
SEARCH_MAX = 32  # domains
_TYPES: Mapping[int, str] = MappingProxyType({socket.AF_INET: "A", socket.AF_INET6: "AAAA"})
_LOCAL_ERRORS = frozenset({errno.ENETUNREACH, errno.ENETDOWN, errno.EMFILE, errno.ENOBUFS, errno.ENOMEM})


class _Flight:
    """A question under way, and how many wait for it: with the last of them it is given up."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self.task = task
        self.waiting = 0

    def leave(self) -> None:
        self.waiting -= 1
        if self.waiting == 0:
            self.task.cancel()


class Resolver:
    """Configuration and memory of name resolution.

    ``servers``: addresses, with ``#port`` where it is not 53. ``search``: domains to look for names with fewer than
    ``ndots`` dots in first. ``timeout``: seconds to wait for one server, doubled with each of ``attempts`` rounds.
    """

    def __init__(
        self,
        rng: Rng,
        *,
        servers: Iterable[str] = (),
        search: Iterable[str] = (),
        ndots: int = 1,
        rotate: bool = False,
        hosts: Hosts | Mapping[str, Iterable[str]] = MappingProxyType({}),
        timeout: float = 2.0,
        attempts: int = 2,
    ) -> None:
        self.hosts = hosts if isinstance(hosts, Hosts) else Hosts(hosts)
        self._rng = rng
        self._ndots = ndots
        self._rotate = rotate
        self._timeout = timeout
        self._attempts = attempts
        self._cache = Cache()
        self._counts: Counter[str] = Counter()
        self._flights: dict[Question, _Flight] = {}
        self.set_servers(servers, search)

    def set_servers(self, servers: Iterable[str], search: Iterable[str] = ()) -> None:
        """Ask these from now on (DHCP and router advertisements tell). What the old ones said is forgotten."""
        self._servers = Servers(servers, rotate=self._rotate)
        self.search = tuple(dict.fromkeys(filter(None, map(canonical, search))))[:SEARCH_MAX]
        self._cache.clear()

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(server.text for server in self._servers.all)

    def statistics(self) -> dict[str, int]:
        """Since the start: questions sent by ``udp`` and ``tcp``, ``failures`` of servers, ``strays`` (messages that
        answered nothing that was asked), ``shared`` (joined one under way), ``hits`` of the cache, ``refused``: too
        many under way; ``cached``: answers held now, ``evicted`` ones."""
        names = ("udp", "tcp", "failures", "strays", "shared", "hits", "refused")
        counts = {name: self._counts[name] for name in names}
        return {**counts, "cached": len(self._cache), "evicted": self._cache.evicted}

    # --- getaddrinfo, getnameinfo ----------------------------------------------------------------------------------

    def lookup_hosts(self, host: str, family: int = socket.AF_UNSPEC) -> str | None:
        """The first address of the family in the hosts table: an answer that needs no waiting."""
        entry = self.hosts.find(host)
        fitting = (a for a in (entry.addresses if entry else ()) if family in (socket.AF_UNSPEC, family_of(a)))
        return next(fitting, None)

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
        """As getaddrinfo(3), addresses in the order in which they are best tried (RFC 6724)."""
        wanted = Wanted.of(host, port, family, type, proto, flags, network.configured_families)
        found = addrinfo.known(wanted, self.hosts)
        if found is None:
            assert wanted.host is not None
            found = await self._addresses(network, loop, wanted, wanted.host)
        return addrinfo.infos(wanted, found, network.source)

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
        wanted = Wanted.of(host, port, family, type, proto, flags, network.configured_families)
        found = addrinfo.known(wanted, self.hosts)
        return None if found is None else addrinfo.infos(wanted, found, network.source)

    async def getnameinfo(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, sockaddr: Any, flags: int = 0
    ) -> tuple[str, str]:
        """As getnameinfo(3): the hosts table, then PTR."""
        from libos.net.names.nameinfo import nameinfo  # few programs ask

        async def reverse(address: str) -> str | None:
            return await self.reverse(network, loop, address)

        return await nameinfo(sockaddr, flags, reverse, self.search)

    async def reverse(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, address: str) -> str | None:
        """The name of a numeric address, or None."""
        name = self.hosts.name_of(address)
        if name is None:
            pointer = ipaddress.ip_address(address).reverse_pointer
            try:
                (answer,) = await self._ask(network, loop, [Question(pointer, "PTR")])
            except socket.gaierror:
                return None
            name = next(filter(is_hostname, answer.records), None)
        return name

    # --- records ---------------------------------------------------------------------------------------------------

    async def query(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, name: str | bytes, type: str
    ) -> Answer:
        """Records of one type, asked of DNS alone; SRV in the order in which to try them (RFC 2782).

        gaierror: EAI_NONAME, EAI_NODATA, EAI_AGAIN. ValueError: no such type.
        """
        type = type.upper()
        (answer,) = await self._search(network, loop, text_of(name), (type,))
        return answer._replace(records=self._in_order(answer.records)) if type == "SRV" else answer

    def _in_order(self, services: Iterable[Service]) -> tuple[Service, ...]:
        """By priority; among equals the chance to be first goes by weight."""
        left = sorted(services, key=lambda s: (s.priority, s.weight != 0))
        ordered: list[Service] = []
        while left:
            equals = [s for s in left if s.priority == left[0].priority]
            at = self._rng.below(sum(s.weight for s in equals) + 1)
            for chosen in equals:
                at -= chosen.weight
                if at <= 0:
                    break
            left.remove(chosen)
            ordered.append(chosen)
        return tuple(ordered)

    async def _addresses(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, wanted: Wanted, host: str
    ) -> Found:
        answers = await self._search(network, loop, host, tuple(_TYPES[family] for family in wanted.families))
        addresses = wanted.fitting([address for answer in answers for address in answer.records])
        if not addresses:  # of the other family only
            raise gai_error(socket.EAI_NODATA, host)
        name = next(answer.name for answer in answers if answer.records)
        return Found(addresses, name if is_hostname(name) else host)

    async def _search(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, host: str, types: tuple[str, ...]
    ) -> list[Answer]:
        """The answers of each type for the first of the candidates that has any. gaierror: none has."""
        seen: set[Status] = set()
        for name in self.candidates(host):
            try:
                answers = await self._ask(network, loop, [Question(name, type) for type in types])
            except ValueError:  # too long, an empty label
                if len(types) == 1 and not _is_type(types[0]):
                    raise
                continue
            if any(answer.records for answer in answers):
                return answers
            seen.update(answer.status for answer in answers)
        for status, code in (
            (Status.FAILURE, socket.EAI_AGAIN),
            (Status.NODATA, socket.EAI_NODATA),
        ):
            if status in seen:
                raise gai_error(code, host)
        raise gai_error(socket.EAI_NONAME, host)

    def candidates(self, host: str) -> list[str]:
        """What to ask for, in order (resolv.conf(5), ``search`` and ``ndots``). A dot at the end: that name alone."""
        name = canonical(host)
        if not name or host.endswith("."):
            return [name] if name else []
        searched = [f"{name}.{domain}" for domain in self.search]
        return [name, *searched] if name.count(".") >= self._ndots else [*searched, name]

    # --- questions -------------------------------------------------------------------------------------------------

    async def _ask(
        self, network: StackNetwork, loop: asyncio.AbstractEventLoop, questions: list[Question]
    ) -> list[Answer]:
        """Side by side: from the cache, from a question under way, or by asking."""
        joined: list[Answer | _Flight] = []
        try:
            for question in questions:
                answer = self._cache.get(question, network.reactor.now())
                self._counts["hits"] += answer is not None
                joined.append(answer or self._join(network, loop, question))
            return [
                each if isinstance(each, Answer) else await asyncio.shield(each.task)  # others wait for it too
                for each in joined
            ]
        finally:
            for each in joined:
                if isinstance(each, _Flight):
                    each.leave()

    def _join(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, question: Question) -> _Flight:
        flight = self._flights.get(question)
        if flight is None or flight.task.get_loop() is not loop or flight.task.done() or not flight.waiting:
            if len(self._flights) >= FLIGHTS_MAX:
                self._counts["refused"] += 1
                raise gai_error(socket.EAI_AGAIN, question.name)
            query = self._query(question, network.reactor.now())  # its ValueError is the caller's, not a task's
            flight = _Flight(loop.create_task(self._fly(network, loop, query)))
            self._flights[question] = flight
            flight.task.add_done_callback(partial(self._landed, question, flight))
        else:
            self._counts["shared"] += 1
        flight.waiting += 1
        return flight

    def _landed(self, question: Question, flight: _Flight, task: asyncio.Task[Answer]) -> None:
        if self._flights.get(question) is flight:
            del self._flights[question]

    def _query(self, question: Question, now: int) -> Query:
        return Query(
            question,
            self._servers.order(now),
            self._rng,
            timeout=self._timeout,
            attempts=self._attempts,
            counts=self._counts,
        )

    async def _fly(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, query: Query) -> Answer:
        """Ask, follow aliases where the server did not, and remember what came of it."""
        now, servers, question = network.reactor.now, self._servers, query.question
        asked, ttl = False, TTL_MAX
        for _ in range(CHAIN_MAX):
            answer = await self._run(network, loop, query)
            asked |= query.asked_anyone
            ttl = min(ttl, answer.ttl)
            if not answer.unfinished:
                break
            try:
                query = self._query(Question(answer.name, question.type), now())
            except ValueError:  # an alias that is no name
                return Answer(Status.FAILURE, question.name)
        else:
            answer = Answer(Status.FAILURE, question.name)
        answer = answer._replace(ttl=ttl)
        if servers is self._servers and (asked or answer.status is not Status.FAILURE):
            self._cache.put(question, answer, now())
        return answer

    async def _run(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, query: Query) -> Answer:
        while (step := query.step()) is not None:
            await self._take(network, loop, step, query)
        assert query.answer is not None
        return query.answer

    async def _take(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, step: Step, query: Query) -> None:
        """One step of a query."""
        now = network.reactor.now
        try:
            async with asyncio.timeout(step.timeout):
                await (self._by_tcp if step.tcp else self._by_udp)(network, loop, step, query)
        except OSError as error:  # TimeoutError is one
            query.failed(now(), remote=error.errno not in _LOCAL_ERRORS)

    async def _by_udp(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, step: Step, query: Query) -> None:
        with _socket_to(network, step, socket.SOCK_DGRAM) as sock:
            await network.sock_connect(loop, sock, step.server.name)  # so that only this server can answer
            await network.sock_sendall(loop, sock, step.wire)
            while not query.received(await network.sock_recv(loop, sock, 65535), network.reactor.now()):
                pass

    async def _by_tcp(self, network: StackNetwork, loop: asyncio.AbstractEventLoop, step: Step, query: Query) -> None:
        with _socket_to(network, step, socket.SOCK_STREAM) as sock:
            await network.sock_connect(loop, sock, step.server.name)
            await network.sock_sendall(loop, sock, len(step.wire).to_bytes(2, "big") + step.wire)
            size = int.from_bytes(await _receive_exactly(network, loop, sock, 2), "big")
            query.received(await _receive_exactly(network, loop, sock, size), network.reactor.now())


def _is_type(type: str) -> bool:
    import dns.rdatatype

    try:
        return not dns.rdatatype.is_metatype(dns.rdatatype.from_text(type))
    except (ValueError, dns.rdatatype.UnknownRdatatype):
        return False


def _socket_to(network: StackNetwork, step: Step, type: int) -> StackSocket:
    return network.socket(family_of(step.server.name[0]), type | socket.SOCK_NONBLOCK)


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

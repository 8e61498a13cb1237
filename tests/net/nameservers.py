"""Scripted name servers on a virtual clock, and a machine that asks them.

A script is a function of the question (:class:`Asked`) that gives what is sent back: nothing, messages, or messages
with the seconds to wait before each. :attr:`Lab.asked` is the transcript: when, which server, by what, which question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.rand import Rng

from .virtual import VirtualLoop, VirtualReactor, pair_of_stacks

SERVERS = ("10.0.0.2", "10.0.0.3", "10.0.0.4")


class Asked(NamedTuple):
    query: dns.message.Message
    name: str  # in lower case
    type: str
    tcp: bool

    def answer(self, *records: str, rcode: str = "NOERROR", authority: str = "", ttl: int = 60) -> dns.message.Message:
        """``records``: ``"TYPE data"`` of the name asked for, or ``"owner TYPE data"``; ``authority``: a zone's SOA,
        as ``"zone. ttl minimum"``."""
        query = dns.message.from_wire(self.query.to_wire())  # a response shares its question with its query
        response = dns.message.make_response(query, recursion_available=True)
        response.set_rcode(dns.rcode.from_text(rcode))
        for record in records:
            first, _, rest = record.partition(" ")
            owner = self.query.question[0].name.to_text()
            if first.endswith("."):
                owner, (first, _, rest) = first, rest.partition(" ")
            kind = dns.rdatatype.from_text(first)
            rrset = response.find_rrset(
                response.answer, dns.name.from_text(owner), self.query.question[0].rdclass, kind, create=True
            )
            rrset.update(dns.rrset.from_text(owner, ttl, "IN", first, rest))
        if authority:
            zone, soa_ttl, minimum = authority.split()
            response.authority.append(
                dns.rrset.from_text(zone, int(soa_ttl), "IN", "SOA", f"ns.{zone} root.{zone} 1 2 3 4 {minimum}")
            )
        return response


Script = Callable[[Asked], Any]


class Lab:
    """``lab.resolver`` asks ``lab.servers``, each of which is a script."""

    def __init__(self) -> None:
        self.reactor = VirtualReactor()
        self.loop = VirtualLoop(self.reactor)
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.errors.append(context))
        own = ("10.0.0.1/24", "fd00::1/64")
        self.stacks = pair_of_stacks(self.reactor, (own, tuple(f"{server}/24" for server in SERVERS)))
        self.asked: list[tuple[float, int, str, str]] = []
        self.queries: list[dns.message.Message] = []
        self.ports: list[int] = []
        self.network = StackNetwork(self.stacks[0], self.reactor, resolver=Resolver(Rng(3)))  # type: ignore[arg-type]
        self.far = StackNetwork(self.stacks[1], self.reactor, resolver=Resolver(Rng(4)))  # type: ignore[arg-type]
        self._closing: list[Any] = []

    @property
    def resolver(self) -> Resolver:
        return self.network.resolver

    def setup(self, *scripts: Script, **options: Any) -> Resolver:
        """A server for each script, and a resolver that knows them in this order."""
        for number, script in enumerate(scripts):
            self.run(self._serve(number, script))
        options.setdefault("servers", SERVERS[: len(scripts)])
        self.network.resolver = Resolver(Rng(5), **options)
        return self.resolver

    async def _serve(self, number: int, script: Script) -> None:
        lab = self

        class Udp(asyncio.DatagramProtocol):
            transport: Any

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                lab.ports.append(addr[1])
                for delay, message in lab._answers(number, script, data, tcp=False):
                    lab.loop.call_later(delay, self.transport.sendto, message, addr)

        async def tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(2), "big")
            for delay, message in lab._answers(number, script, await reader.readexactly(size), tcp=True):
                await asyncio.sleep(delay)
                writer.write(len(message).to_bytes(2, "big") + message)
            writer.close()

        def stream_protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), tcp)

        transport, _ = await self.far.create_datagram_endpoint(self.loop, Udp, (SERVERS[number], 53))
        server = await self.far.create_server(self.loop, stream_protocol, SERVERS[number], 53)
        self._closing += [transport, server]

    def _answers(self, number: int, script: Script, wire: bytes, *, tcp: bool) -> Iterable[tuple[float, bytes]]:
        query = dns.message.from_wire(wire)
        self.queries.append(query)
        question = query.question[0]
        asked = Asked(query, question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype), tcp)
        self.asked.append((self.loop.elapsed(), number, "tcp" if tcp else "udp", f"{asked.name} {asked.type}"))
        given = script(asked)
        for each in given if isinstance(given, list) else [] if given is None else [given]:
            delay, message = each if isinstance(each, tuple) else (0.0, each)
            yield delay, message if isinstance(message, bytes) else message.to_wire(max_size=65535)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(main)

    def addresses(self, host: str, **options: Any) -> list[str]:
        """What getaddrinfo says."""
        options.setdefault("type", 1)
        return [info[4][0] for info in self.run(self.network.getaddrinfo(self.loop, host, 80, **options))]

    def query(self, name: str, type: str) -> Any:
        return self.run(self.resolver.query(self.network, self.loop, name, type))

    def close(self) -> None:
        for each in self._closing:
            each.close()

        async def settle() -> None:
            await asyncio.sleep(300)
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            assert not tasks, tasks

        self.run(settle())
        left = self.stacks[0].sockets()
        self.network.close()
        self.far.close()
        self.loop.close()
        for stack in self.stacks:
            stack.close()
        assert not left, "sockets left behind"
        assert not self.errors

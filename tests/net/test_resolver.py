"""Names: numeric, the hosts table, and DNS against a name server at the other end of the wire."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from libos.net.names.resolver import Resolver
from libos.rand import Rng

STREAM = {"type": socket.SOCK_STREAM}
RECORDS = {
    ("www.test.", "A"): ["192.0.2.1"],
    ("www.test.", "AAAA"): ["2001:db8::1"],
    ("four.test.", "A"): ["192.0.2.4"],
    ("alias.test.", "CNAME"): ["four.test."],
    ("many.test.", "A"): [f"192.0.{i // 250}.{i % 250 + 1}" for i in range(300)],
}


class NameServer(asyncio.DatagramProtocol):
    """Answers from RECORDS; `silent` and `failing` questions of the first that come get nothing, or SERVFAIL."""

    def __init__(self, silent: int = 0, failing: int = 0) -> None:
        self.silent = silent
        self.failing = failing
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def answer(self, wire: bytes, size: int) -> bytes:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append(f"{question.name} {kind}".lower())
        response = dns.message.make_response(query)
        name = question.name.to_text().lower()
        if alias := RECORDS.get((name, "CNAME")):
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *alias))
            name = alias[0]
        if found := RECORDS.get((name, kind)):
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *found))
        elif not any(known == name for known, _ in RECORDS):
            response.set_rcode(dns.rcode.NXDOMAIN)
        if self.failing:
            self.failing -= 1
            response.set_rcode(dns.rcode.SERVFAIL)
        try:
            return response.to_wire(max_size=size)
        except dns.exception.TooBig:
            response.answer.clear()
            response.flags |= dns.flags.TC
            return response.to_wire()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        answer = self.answer(data, 512)
        if self.silent:
            self.silent -= 1
            return
        spoofed = bytes([answer[0] ^ 1]) + answer[1:]
        self.transport.sendto(spoofed, addr)  # of another question: not to be believed
        self.transport.sendto(b"garbage", addr)
        self.transport.sendto(answer, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(size), 65535)
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()
        await writer.wait_closed()


def ask(wire, host, server=None, attempts=2, servers=("10.0.0.2#5300",), **kwargs):
    """getaddrinfo of a machine whose name server is `server`; the addresses."""
    server = server or NameServer()
    timeout = 0.1 if server.silent else 4.0  # a busy host is slow, and not silent
    wire.client.resolver = Resolver(
        Rng(3), servers=servers, timeout=timeout, attempts=attempts, hosts={"h.test": ["::7"]}
    )

    async def main():
        endpoint, _ = await wire.server.create_datagram_endpoint(wire.loop, lambda: server, ("10.0.0.2", 5300))
        tcp = await asyncio.start_server(server.serve_tcp, "10.0.0.2", 5300)
        try:
            return await wire.loop.getaddrinfo(host, 80, **{**STREAM, **kwargs})
        finally:
            endpoint.close()
            tcp.close()

    return [info[4][0] for info in wire.run(main())]


@pytest.mark.parametrize(
    ("host", "kwargs", "expected"),
    [
        ("10.1.2.3", {}, ["10.1.2.3"]),
        ("fe80::1%2", {}, ["fe80::1"]),
        (b"10.1.2.3", {}, ["10.1.2.3"]),
        ("localhost", {"family": socket.AF_INET}, ["127.0.0.1"]),
        ("LocalHost.", {"family": socket.AF_INET6}, ["::1"]),
        (None, {}, ["::1", "127.0.0.1"]),
        (None, {"flags": socket.AI_PASSIVE, "family": socket.AF_INET}, ["0.0.0.0"]),
        ("h.test", {}, ["::7"]),
    ],
)
def test_without_asking(wire, host, kwargs, expected):
    server = NameServer()
    assert ask(wire, host, server, **kwargs) == expected
    assert server.asked == []


def test_five_tuples(wire):
    async def main():
        assert await wire.loop.getaddrinfo("10.0.0.2", "https") == [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("10.0.0.2", 443)),
            (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", ("10.0.0.2", 443)),
        ]
        assert await wire.loop.getaddrinfo("fe80::1%2", 1, proto=socket.IPPROTO_UDP) == [
            (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "", ("fe80::1", 1, 0, 2)),
        ]
        (info,) = await wire.loop.getaddrinfo("four.test", b"80", flags=socket.AI_CANONNAME, **STREAM)
        assert info[3] == "four.test"
        assert await wire.loop.getnameinfo(("10.0.0.2", 80)) in [("server.test", "http"), ("four.test", "http")]
        assert await wire.loop.getnameinfo(("10.0.0.2", 80), socket.NI_NUMERICHOST) == ("10.0.0.2", "http")
        assert await wire.loop.getnameinfo(("10.0.0.99", 80)) == ("10.0.0.99", "http")

    wire.run(main())


def test_both_record_types(wire):
    # Neither can be reached, so the families are in their usual order.
    assert ask(wire, "www.test") == ["2001:db8::1", "192.0.2.1"]
    assert ask(wire, "www.test", family=socket.AF_INET) == ["192.0.2.1"]
    assert ask(wire, "four.test") == ["192.0.2.4"]
    assert ask(wire, "alias.test") == ["192.0.2.4"]


def test_what_can_be_reached_comes_first(wire):
    wire.stacks[0].add_route(wire.ifindex, "192.0.2.0/24", "10.0.0.2")
    assert ask(wire, "www.test") == ["192.0.2.1", "2001:db8::1"]
    # A unique-local source does not suit a global destination (RFC 6724, rule 5).
    wire.stacks[0].add_route(wire.ifindex, "2001:db8::/32", "fd00::2")
    assert ask(wire, "www.test") == ["192.0.2.1", "2001:db8::1"]


def test_truncated_answers_are_asked_for_again_over_tcp(wire):
    server = NameServer()
    assert len(ask(wire, "many.test", server, family=socket.AF_INET)) == 300
    assert server.asked == ["many.test. a"] * 2


@pytest.mark.parametrize(
    ("host", "kwargs", "code"),
    [
        ("nobody.test", {}, socket.EAI_NONAME),
        ("four.test", {"family": socket.AF_INET6}, socket.EAI_NODATA),
        ("h.test", {"family": socket.AF_INET}, socket.EAI_NODATA),
        ("not..a.name", {}, socket.EAI_NONAME),
        ("www.test", {"flags": socket.AI_NUMERICHOST}, socket.EAI_NONAME),
        ("10.0.0.1", {"family": socket.AF_INET6}, socket.EAI_ADDRFAMILY),
        ("10.0.0.1", {"family": socket.AF_UNIX}, socket.EAI_FAMILY),
        ("10.0.0.1", {"type": socket.SOCK_RAW}, socket.EAI_SOCKTYPE),
    ],
)
def test_errors(wire, host, kwargs, code):
    with pytest.raises(socket.gaierror) as info:
        ask(wire, host, **kwargs)
    assert info.value.errno == code


def test_unknown_service(wire):
    async def main():
        with pytest.raises(socket.gaierror) as info:
            await wire.loop.getaddrinfo("10.0.0.1", "no-such-service")
        assert info.value.errno == socket.EAI_SERVICE

    wire.run(main())


def test_lost_and_failing_answers_are_asked_for_again(wire):
    assert ask(wire, "four.test", NameServer(silent=1), family=socket.AF_INET) == ["192.0.2.4"]
    assert ask(wire, "four.test", NameServer(failing=1), family=socket.AF_INET) == ["192.0.2.4"]


def test_next_server_when_one_is_not_there(wire):
    assert ask(wire, "four.test", servers=["10.0.0.2#9", "10.0.0.2#5300"]) == ["192.0.2.4"]


def test_no_answer_at_all(wire):
    for kwargs in ({"server": NameServer(silent=9), "attempts": 1}, {"servers": ()}):
        with pytest.raises(socket.gaierror) as info:
            ask(wire, "four.test", **kwargs)
        assert info.value.errno == socket.EAI_AGAIN

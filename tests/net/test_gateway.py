"""The gateway, against servers and clients on the host's loopback.

A guest machine stands at the other end of the gateway's link; its programs run on the same loop as the host's, which
use kernel sockets: ``guest`` is the network of the one, a plain ``Loop`` without a network serves the other.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from libos.errors import HostError
from libos.net.names.resolver import Resolver
from libos.net.network import StackNetwork
from libos.net.stack import Link, Stack
from libos.net.user.gateway import Gateway
from libos.net.user.resolvconf import HostNames, host_names
from libos.rand import Rng
from libos.sched.loop import Loop

from .conftest import finish_tasks, until

GATEWAY = "10.0.2.2"
GATEWAY6 = "fd00:6c69:626f:73::2"


@dataclass(frozen=True)
class Publish:
    address: str | None
    host: int
    guest: int
    protocol: Literal["tcp", "udp"] = "tcp"


class House:
    """A host's loop, a gateway, and a guest behind it."""

    def __init__(self, reactor: Any, **options: Any) -> None:
        rng = Rng(1)
        inner, outer = Link.pair(rng)
        try:
            self.gateway = Gateway(reactor, outer, rng=rng.fork(), **options)
        except BaseException:
            inner.close()
            raise
        self.loop = Loop(reactor)
        self.stack = Stack(rng.fork(), reactor.now())
        ifindex = self.stack.add_link(inner)
        self.stack.add_address(ifindex, "10.0.2.15/24")
        self.stack.add_address(ifindex, "fd00:6c69:626f:73::15/64")
        self.stack.add_route(ifindex, "0.0.0.0/0", GATEWAY)
        self.stack.add_route(ifindex, "::/0", GATEWAY6)
        resolver = Resolver(rng.fork(), servers=["10.0.2.3"], timeout=0.5, attempts=1)
        self.guest = StackNetwork(self.stack, reactor, resolver=resolver)

    def run(self, main: Any, timeout: float = 20) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(timeout):
                return await main

        return self.loop.run_until_complete(bounded())

    async def open_connection(self, host: str, port: int) -> Any:
        """asyncio.open_connection of the guest."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, protocol = await self.guest.create_connection(
            loop, lambda: asyncio.StreamReaderProtocol(reader), host, port
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def start_server(self, handle: Any, host: str | None, port: int) -> Any:
        """asyncio.start_server of the guest."""
        loop = asyncio.get_running_loop()
        return await self.guest.create_server(
            loop, lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), handle), host, port
        )

    def close(self) -> None:
        finish_tasks(self.loop)
        self.guest.close()
        self.gateway.close()
        self.stack.close()
        self.loop.close()


@pytest.fixture
def new_house(reactor: Any) -> Iterator[Callable[..., House]]:
    houses: list[House] = []

    def new(**options: Any) -> House:
        houses.append(House(reactor, **options))
        return houses[-1]

    yield new
    for house in houses:
        house.close()
    gc.collect()  # ResourceWarnings of this test belong to this test
    assert not [token for token in reactor.sinks if token >> 40]


@pytest.fixture
def house(new_house: Callable[..., House]) -> House:
    return new_house()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def ended(house: House) -> None:
    """Until no relay is left."""
    await until(lambda: house.gateway.statistics()["open"] == 0)


@pytest.mark.parametrize(("own", "loopback"), [(GATEWAY, "127.0.0.1"), (GATEWAY6, "::1")])
def test_outward(house, own, loopback):
    async def main():
        server = await asyncio.start_server(echo, loopback, 0)
        reader, writer = await house.open_connection(own, server.sockets[0].getsockname()[1])
        writer.write(b"out and back")
        writer.write_eof()  # the half-close goes through, and the answer still comes
        assert await reader.read() == b"out and back"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await ended(house)
        statistics = house.gateway.statistics()
        assert statistics["connections_out"] == 1
        assert statistics["bytes_out"] == statistics["bytes_in"] == 12

    house.run(main())


def test_server_speaks_first(house):
    async def greet(reader, writer):
        writer.write(b"220 ready\r\n")
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        reader, writer = await house.open_connection(GATEWAY, server.sockets[0].getsockname()[1])
        assert await reader.read() == b"220 ready\r\n"
        writer.close()
        await writer.wait_closed()
        server.close()

    house.run(main())


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_refused_outward(house):
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await house.open_connection(GATEWAY, free_port())
        with pytest.raises(OSError, match="unreachable"):
            await house.open_connection("224.0.0.1", 80)
        assert house.gateway.statistics()["refused"] == 1
        assert house.gateway.statistics()["open"] == 0

    house.run(main())


def test_resets_go_through_both_ways(house):
    async def reset(reader, writer):
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def main():
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        reader, writer = await house.open_connection(GATEWAY, server.sockets[0].getsockname()[1])
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        server.close()

        outcome = asyncio.get_running_loop().create_future()

        async def wait(reader, writer):
            writer.write(b"ready")
            try:
                outcome.set_result(await reader.read())
            except OSError as exc:
                outcome.set_result(exc)
            writer.close()

        server = await asyncio.start_server(wait, "127.0.0.1", 0)
        reader, writer = await house.open_connection(GATEWAY, server.sockets[0].getsockname()[1])
        assert await reader.readexactly(5) == b"ready"
        writer.transport.abort()
        assert isinstance(await outcome, ConnectionResetError)
        server.close()
        await ended(house)

    house.run(main())


@pytest.mark.slow
def test_big_transfer_with_a_slow_reader(house):
    blob = hashlib.shake_128(b"seed").digest(20_000_000)

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await house.open_connection(GATEWAY, server.sockets[0].getsockname()[1])

        async def send():
            writer.write(blob)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        carried = -1
        while carried != house.gateway.statistics()["bytes_out"]:  # nobody reads: the way back fills, then the way out
            carried = house.gateway.statistics()["bytes_out"]
            await asyncio.sleep(0.1)
        assert carried < len(blob)
        received = bytearray()
        while data := await reader.read(1 << 20):
            received += data
        await sending
        assert hashlib.sha256(received).digest() == hashlib.sha256(blob).digest()
        writer.close()
        await writer.wait_closed()
        server.close()
        await ended(house)

    house.run(main(), timeout=60)


def test_inward(new_house):
    house = new_house(publish=[Publish(None, 0, 80)])

    async def main():
        server = await house.start_server(echo, "0.0.0.0", 80)  # the guest listens on IPv4 only
        assert [address for address, *_ in house.gateway.published] == ["127.0.0.1", "::1"]
        for address, port, guest, protocol in house.gateway.published:
            assert (guest, protocol) == (80, "tcp")
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"in and back")
            writer.write_eof()
            assert await reader.read() == b"in and back"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await ended(house)
        assert house.gateway.statistics()["connections_in"] == 2

    house.run(main())


def test_inward_to_a_port_where_nobody_listens(new_house):
    house = new_house(publish=[Publish("127.0.0.1", 0, 81)])

    async def main():
        _, port, _, _ = house.gateway.published[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        await ended(house)

    house.run(main())


def test_port_that_is_taken(new_house, reactor):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(HostError, match=f"cannot publish 127.0.0.1:{port}/tcp: .*choose another"):
            new_house(publish=[Publish("127.0.0.1", 0, 80), Publish("127.0.0.1", port, 80)])


def test_more_connections_than_allowed(new_house):
    house = new_house(limit=2)

    async def main():
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        held = [await house.open_connection(GATEWAY, port) for _ in range(2)]
        with pytest.raises(ConnectionRefusedError):
            await house.open_connection(GATEWAY, port)
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await ended(house)
        _reader, writer = await house.open_connection(GATEWAY, port)
        writer.close()
        await writer.wait_closed()
        server.close()

    house.run(main())


def test_published_port_rests_at_the_limit(new_house):
    house = new_house(limit=1, publish=[Publish("127.0.0.1", 0, 80)])

    async def main():
        server = await house.start_server(echo, None, 80)
        _, port, _, _ = house.gateway.published[0]
        first = await asyncio.open_connection("127.0.0.1", port)
        first[1].write(b"1")
        assert await first[0].readexactly(1) == b"1"
        second = await asyncio.open_connection("127.0.0.1", port)
        second[1].write(b"2")
        await asyncio.sleep(0.02)
        assert house.gateway.statistics()["connections_in"] == 1
        first[1].close()
        assert await second[0].readexactly(1) == b"2"
        second[1].close()
        server.close()
        await ended(house)

    house.run(main())


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: bool = False) -> None:
        self.answer = answer
        self.received: asyncio.Queue[Any] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait((data, addr))
        if self.answer:
            self.transport.sendto(data.upper(), addr)


@pytest.mark.parametrize(("own", "loopback"), [(GATEWAY, "127.0.0.1"), (GATEWAY6, "::1")])
def test_udp_outward(house, own, loopback):
    async def main():
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(lambda: Datagrams(True), (loopback, 0))
        port = server.get_extra_info("sockname")[1]
        client, protocol = await house.guest.create_datagram_endpoint(loop, Datagrams, remote_addr=(own, port))
        for text in (b"one", b"two", b"three"):
            client.sendto(text)
            data, addr = await protocol.received.get()
            assert data == text.upper()
            assert addr[:2] == (own, port)
        assert house.gateway.statistics()["udp_flows"] == 1
        client.close()
        server.close()

    house.run(main())


def test_udp_inward(new_house):
    house = new_house(publish=[Publish("127.0.0.1", 0, 53, "udp")])

    async def main():
        loop = asyncio.get_running_loop()
        server, service = await house.guest.create_datagram_endpoint(loop, lambda: Datagrams(True), ("0.0.0.0", 53))
        _, port, _, _ = house.gateway.published[0]
        clients = [await loop.create_datagram_endpoint(Datagrams, remote_addr=("127.0.0.1", port)) for _ in range(3)]
        for number, (transport, _) in enumerate(clients):
            transport.sendto(b"client %d" % number)
        for number, (transport, protocol) in enumerate(clients):
            assert (await protocol.received.get())[0] == b"CLIENT %d" % number
            transport.close()
        sources = {service.received.get_nowait()[1] for _ in clients}
        assert len(sources) == 3
        assert {address for address, _ in sources} == {GATEWAY}
        server.close()

    house.run(main())


def test_names_through_the_gateway(new_house):
    dns_message = pytest.importorskip("dns.message")
    import dns.rrset

    class NameServer(Datagrams):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            query = dns_message.from_wire(data)
            response = dns_message.make_response(query)
            name = query.question[0].name
            if query.question[0].rdtype == dns.rdatatype.A:
                response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
            self.transport.sendto(response.to_wire(), addr)

    port = free_port(socket.SOCK_DGRAM)
    house = new_house(nameserver=f"127.0.0.1#{port}")

    async def main():
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", port))
        infos = await house.guest.getaddrinfo(loop, "www.test", 80, type=socket.SOCK_STREAM)
        assert [info[4] for info in infos] == [("192.0.2.7", 80)]
        server.close()

    house.run(main())


def test_flows_are_bounded(house):
    async def main():
        loop = asyncio.get_running_loop()
        port = free_port(socket.SOCK_DGRAM)
        server, _ = await loop.create_datagram_endpoint(lambda: Datagrams(True), ("127.0.0.1", port))
        house.gateway._udp._limit = 4
        for _ in range(10):
            client, protocol = await house.guest.create_datagram_endpoint(loop, Datagrams, remote_addr=(GATEWAY, port))
            client.sendto(b"x")
            assert (await protocol.received.get())[0] == b"X"
            client.close()
        assert house.gateway.statistics()["udp_flows"] == 4
        server.close()

    house.run(main())


def test_close_resets_what_is_open(new_house):
    house = new_house(publish=[Publish("127.0.0.1", 0, 80)])

    async def main():
        server = await house.start_server(echo, None, 80)
        _, port, _, _ = house.gateway.published[0]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        await reader.readexactly(1)
        house.gateway.close()
        house.gateway.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    house.run(main())


def test_host_names(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# none\nsearch x\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        "domain y\nsearch a.test. b.test .\noptions rotate ndots:5\noptions ndots\nsortlist\n"
    )
    assert host_names(str(path)) == HostNames("192.0.2.1", ("a.test", "b.test"), 5)
    path.write_text("options ndots:99\nnameserver\n")
    assert host_names(str(path)) == HostNames(None, (), 15)
    assert host_names(str(tmp_path / "missing")) == HostNames(None, (), 1)

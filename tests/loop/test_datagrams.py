"""``create_datagram_endpoint`` and its transport."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from .peers import closed
from .worlds import World, until


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: bool = False) -> None:
        self.answer = answer
        self.calls: list[str] = []
        self.got: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self.answer:
            self.transport.sendto(data[::-1], address)
        self.got.append((data, address))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)


async def endpoints(world: World, host: str) -> tuple[Any, Datagrams, Any, Datagrams]:
    """One that answers, and one that is connected to it."""
    server, answering = await world.loop.create_datagram_endpoint(lambda: Datagrams(True), local_addr=(host, 0))
    address = server.get_extra_info("sockname")[:2]
    client, asking = await world.loop.create_datagram_endpoint(Datagrams, remote_addr=address)
    return server, answering, client, asking


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_questions_and_answers(world: World, family: int) -> None:
    async def main() -> None:
        server, _, client, asking = await endpoints(world, world.host if family == socket.AF_INET else world.host6)
        for i in range(50):
            client.sendto(b"%d." % i)
            await until(lambda: len(asking.got) > i)  # noqa: B023
            assert asking.got[-1][0] == (b"%d." % i)[::-1]
        await closed(client, server)
        assert await asking.lost is None
        assert asking.calls == ["made", "lost"]

    world.run(main())


def test_extra_info_and_state(world: World) -> None:
    async def main() -> None:
        server, answering, client, _ = await endpoints(world, world.host)
        assert client.get_extra_info("peername") == server.get_extra_info("sockname")
        assert server.get_extra_info("peername") is None
        assert client.get_extra_info("socket").type == socket.SOCK_DGRAM
        assert server.get_extra_info("socket").getsockname() == server.get_extra_info("sockname")
        assert server.get_protocol() is answering
        assert client.get_write_buffer_size() == 0
        assert not client.is_closing()
        client.close()
        assert client.is_closing()
        client.close()
        await closed(server)

    world.run(main())


def test_abort(world: World) -> None:
    async def main() -> None:
        server, answering, client, asking = await endpoints(world, world.host)
        client.abort()
        server.abort()
        assert await asking.lost is None
        assert await answering.lost is None

    world.run(main())


def test_addresses_of_each_datagram(world: World) -> None:
    async def main() -> None:
        server, answering = await world.loop.create_datagram_endpoint(Datagrams, local_addr=(world.host, 0))
        clients = [
            await world.loop.create_datagram_endpoint(Datagrams, remote_addr=server.get_extra_info("sockname"))
            for _ in range(3)
        ]
        for transport, _ in clients:
            transport.sendto(b"hello")
        await until(lambda: len(answering.got) == 3)
        for data, address in answering.got:
            server.sendto(b"you are %d" % address[1], address)
            assert data == b"hello"
        for transport, client in clients:
            await until(lambda: client.got)  # noqa: B023
            assert client.got == [
                (b"you are %d" % transport.get_extra_info("sockname")[1], server.get_extra_info("sockname"))
            ]
        await closed(server, *(transport for transport, _ in clients))

    world.run(main())


def test_a_connected_endpoint_sends_to_its_peer_only(world: World) -> None:
    async def main() -> None:
        server, answering, client, _ = await endpoints(world, world.host)
        client.sendto(b"named", server.get_extra_info("sockname"))
        await until(lambda: answering.got)
        with pytest.raises(ValueError, match="Invalid address: must be None or"):
            client.sendto(b"elsewhere", (world.host, 9))
        await closed(client, server)

    world.run(main())


def test_nobody_there_is_an_error_received(world: World) -> None:
    async def main() -> None:
        server, _ = await world.loop.create_datagram_endpoint(Datagrams, local_addr=(world.host, 0))
        address = server.get_extra_info("sockname")
        await closed(server)
        client, asking = await world.loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        client.sendto(b"anybody?")
        await until(lambda: asking.errors)
        assert isinstance(asking.errors[0], ConnectionRefusedError)
        assert not asking.lost.done()
        await closed(client)

    world.run(main())


def test_a_datagram_that_is_too_long(world: World) -> None:
    async def main() -> None:
        server, answering, client, asking = await endpoints(world, world.host)
        client.sendto(bytes(70_000))
        await until(lambda: asking.errors)
        assert isinstance(asking.errors[0], OSError)
        client.sendto(b"short")
        await until(lambda: answering.got)
        await closed(client, server)

    world.run(main())


def test_a_protocol_that_raises_lives_on(world: World) -> None:
    class Broken(Datagrams):
        def datagram_received(self, data: bytes, address: Any) -> None:
            super().datagram_received(data, address)
            if len(self.got) == 1:
                raise ZeroDivisionError

    async def main() -> None:
        server, broken = await world.loop.create_datagram_endpoint(Broken, local_addr=(world.host, 0))
        address = server.get_extra_info("sockname")
        client, _ = await world.loop.create_datagram_endpoint(Datagrams, remote_addr=address)
        client.sendto(b"one")
        await until(lambda: broken.got)
        client.sendto(b"two")
        await until(lambda: len(broken.got) == 2 or broken.lost.done())
        await closed(client, server)

    world.run(main())
    assert [type(context["exception"]) for context in world.errors] == [ZeroDivisionError]
    world.errors.clear()


def test_a_socket_of_ones_own(world: World) -> None:
    async def main() -> None:
        sock = world.new_socket(type=socket.SOCK_DGRAM, serving=True)
        sock.bind((world.host, 0))
        server, answering = await world.loop.create_datagram_endpoint(Datagrams, sock=sock)
        assert server.get_extra_info("sockname") == sock.getsockname()
        client, _ = await world.loop.create_datagram_endpoint(Datagrams, remote_addr=server.get_extra_info("sockname"))
        client.sendto(b"hello")
        await until(lambda: answering.got)
        await closed(client, server)

    world.run(main())


def test_a_port_is_shared_and_a_family_is_enough(world: World) -> None:
    async def main() -> None:
        first, _ = await world.loop.create_datagram_endpoint(Datagrams, local_addr=(world.host, 0), reuse_port=True)
        address = first.get_extra_info("sockname")
        second, _ = await world.loop.create_datagram_endpoint(Datagrams, local_addr=address, reuse_port=True)
        third, _ = await world.loop.create_datagram_endpoint(Datagrams, family=socket.AF_INET, allow_broadcast=True)
        assert third.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        with pytest.raises(OSError):  # noqa: PT011 - uvloop has words of its own
            await world.loop.create_datagram_endpoint(Datagrams, local_addr=address)
        await closed(first, second, third)

    world.run(main())


def test_a_burst_is_not_lost_here(world: World) -> None:
    """Both ends in one process: what the receiver's buffer takes arrives, in order."""

    async def main() -> None:
        server, answering = await world.loop.create_datagram_endpoint(Datagrams, local_addr=(world.host, 0))
        client, _ = await world.loop.create_datagram_endpoint(Datagrams, remote_addr=server.get_extra_info("sockname"))
        for i in range(100):
            client.sendto(b"%d" % i)
        await until(lambda: len(answering.got) == 100)
        assert [data for data, _ in answering.got] == [b"%d" % i for i in range(100)]
        await closed(client, server)

    world.run(main())

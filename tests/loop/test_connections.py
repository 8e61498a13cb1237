"""``create_connection`` with all its arguments, streams over it, and ``connect_accepted_socket``."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from typing import Any

import pytest

from .peers import Recorder, closed, connected, echo, exchange, port_of
from .worlds import World, until


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_streams(world: World, family: int) -> None:
    async def main() -> None:
        host = world.host if family == socket.AF_INET else world.host6
        server = await asyncio.start_server(echo, host, 0)
        async with server:
            port = port_of(server)
            streams = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(20)))
            await asyncio.gather(*(exchange(*stream, 1000 * i + 1) for i, stream in enumerate(streams)))
            await exchange(*await asyncio.open_connection(host, port), 3_000_000)

    world.run(main())


def test_by_name_port_and_family(world: World, names: None) -> None:
    async def main() -> None:
        for family, host in ((socket.AF_INET, world.host), (socket.AF_INET6, world.host6)):
            server = await world.loop.create_server(Recorder, host, 0)
            transport, client = await world.loop.create_connection(
                Recorder, world.name, str(port_of(server)), family=family, proto=socket.IPPROTO_TCP
            )
            assert transport.get_extra_info("socket").family == family
            assert transport.get_extra_info("peername")[:2] == (host, port_of(server))
            await closed(transport)
            await client.lost
            server.close()

    world.run(main())


def test_the_next_address_is_tried(world: World, names: None) -> None:
    """The server listens on one of the two addresses of its name."""

    async def main() -> None:
        for host in (world.host, world.host6):
            server = await world.loop.create_server(Recorder, host, 0)
            for options in ({}, {"happy_eyeballs_delay": 0.2}, {"happy_eyeballs_delay": 0.2, "interleave": 2}):
                transport, client = await world.loop.create_connection(Recorder, world.name, port_of(server), **options)
                assert transport.get_extra_info("peername")[0] == host
                await closed(transport)
                await client.lost
            server.close()

    world.run(main())


def test_a_connected_socket(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0)
        sock = world.new_socket()
        await world.loop.sock_connect(sock, (world.host, port_of(server)))
        transport, client = await world.loop.create_connection(Recorder, sock=sock)
        assert transport.get_extra_info("sockname") == sock.getsockname()
        await closed(transport)
        await client.lost
        server.close()

    world.run(main())


def test_from_a_local_address(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0)
        free = world.new_socket()
        free.bind((world.client, 0))
        port = free.getsockname()[1]
        free.close()
        transport, client = await world.loop.create_connection(
            Recorder, world.host, port_of(server), local_addr=(world.client, port)
        )
        assert transport.get_extra_info("sockname") == (world.client, port)
        await closed(transport)
        await client.lost
        server.close()

    world.run(main())


def test_from_an_address_that_is_not_ours(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0)
        with pytest.raises(OSError, match="error while attempting to bind on address"):
            await world.loop.create_connection(Recorder, world.host, port_of(server), local_addr=("192.0.2.1", 0))
        server.close()

    world.run(main())


def test_refused(world: World, names: None) -> None:
    async def main() -> None:
        port = await world.unused_port()
        with pytest.raises(ConnectionRefusedError):
            await world.loop.create_connection(Recorder, world.host, port)
        for options in ({}, {"happy_eyeballs_delay": 0.25}):
            with pytest.raises(OSError, match="Multiple exceptions: ") as info:
                await world.loop.create_connection(Recorder, world.name, port, **options)
            assert world.host in str(info.value)
            assert world.host6 in str(info.value)

    world.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="all_errors is from Python 3.12 on")
def test_all_errors(world: World) -> None:
    async def main() -> None:
        port = await world.unused_port()
        with pytest.raises(ExceptionGroup, match="create_connection failed") as info:
            await world.loop.create_connection(Recorder, world.name, port, all_errors=True)
        assert len(info.value.exceptions) == 2

    world.run(main())


def test_a_name_that_is_not_there(world: World) -> None:
    async def main() -> None:
        with pytest.raises(socket.gaierror):
            await world.loop.create_connection(Recorder, "x.invalid", 1, flags=socket.AI_NUMERICHOST)
        with pytest.raises(socket.gaierror):
            await world.loop.create_server(Recorder, "127.0.0.1", 0, family=socket.AF_INET6)

    world.run(main())


def test_connecting_is_cancelled_at_every_step(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0)
        turns = 0
        while True:
            task = asyncio.ensure_future(world.loop.create_connection(Recorder, world.host, port_of(server)))
            for _ in range(turns):
                await asyncio.sleep(0)
            turns += 1
            task.cancel()
            try:
                transport, client = await task
            except asyncio.CancelledError:
                continue
            await closed(transport)
            await client.lost
            break
        assert turns > 1
        server.close()

    world.run(main())


def test_a_factory_that_raises(world: World) -> None:
    async def main() -> None:
        def factory() -> Any:
            raise ZeroDivisionError

        server = await world.loop.create_server(Recorder, world.host, 0)
        with pytest.raises(ZeroDivisionError):
            await world.loop.create_connection(factory, world.host, port_of(server))
        server.close()

    world.run(main())


def test_extra_info_is_complete(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        transport, peer = connection.transport, connection.peer.transport
        address = transport.get_extra_info("peername")
        assert address == (world.host, port_of(connection.server))
        assert transport.get_extra_info("sockname") == peer.get_extra_info("peername")
        sock = transport.get_extra_info("socket")
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert sock.proto in (0, socket.IPPROTO_TCP)
        assert sock.getpeername() == address
        assert sock.getsockname() == transport.get_extra_info("sockname")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert peer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert transport.get_extra_info("nothing") is None
        assert transport.get_extra_info("nothing", 7) == 7
        assert transport.get_protocol() is connection.client
        await connection.end()
        assert transport.get_extra_info("peername") == address  # also afterwards

    world.run(main())


def test_callbacks_run_in_the_context_of_the_connection(world: World) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    class Looking(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())
            super().data_received(data)

    async def main() -> None:
        variable.set("serving")
        peers: list[Looking] = []
        server = await world.loop.create_server(lambda: peers.append(Looking()) or peers[-1], world.host, 0)
        variable.set("connecting")
        transport, client = await world.loop.create_connection(Looking, world.host, port_of(server))
        variable.set("later")
        transport.write(b"x")
        await until(lambda: peers and peers[0].data)
        peers[0].transport.write(b"y")
        await until(lambda: client.data)
        assert seen == ["serving", "connecting"]
        await closed(transport)
        await client.lost
        await peers[0].lost
        server.close()

    world.run(main())


def test_an_accepted_socket(world: World) -> None:
    async def main() -> None:
        listener = world.new_listener()
        client = world.new_socket()
        await world.loop.sock_connect(client, listener.getsockname())
        accepted, address = await world.loop.sock_accept(listener)
        transport, protocol = await world.loop.connect_accepted_socket(Recorder, accepted)
        assert transport.get_extra_info("peername") == address
        await world.loop.sock_sendall(client, b"question")
        await until(lambda: protocol.data == b"question")
        transport.write(b"answer")
        assert await world.loop.sock_recv(client, 100) == b"answer"
        client.close()
        await protocol.lost
        assert protocol.calls == ["made", "data", "eof", "lost"]
        listener.close()

    world.run(main())


def test_an_accepted_socket_with_tls(world: World, tls: Any) -> None:
    async def main() -> None:
        listener = world.new_listener()
        asking = asyncio.ensure_future(
            world.loop.create_connection(Recorder, *listener.getsockname(), ssl=tls[1], server_hostname="localhost")
        )
        accepted, _ = await world.loop.sock_accept(listener)
        _, protocol = await world.loop.connect_accepted_socket(
            Recorder, accepted, ssl=tls[0], ssl_handshake_timeout=10, ssl_shutdown_timeout=5
        )
        client, asker = await asking
        client.write(b"secret")
        await until(lambda: protocol.data == b"secret")
        await closed(client)
        await asker.lost
        await protocol.lost
        listener.close()

    world.run(main())


def test_five_hundred_connections_one_after_the_other(world: World) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0)
        async with server:
            for i in range(500):
                reader, writer = await asyncio.open_connection(world.host, port_of(server))
                writer.write(b"%d" % i)
                assert await reader.read(100) == b"%d" % i
                writer.close()
                await writer.wait_closed()

    world.run(main())

"""``create_server`` with all its arguments, and ``asyncio.Server``."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from .peers import Recorder, closed, connected, echo, exchange, port_of
from .worlds import World, until


async def answers(world: World, host: str, port: int) -> bool:
    try:
        transport, client = await world.loop.create_connection(Recorder, host, port)
    except ConnectionRefusedError:
        return False
    await closed(transport)
    await client.lost
    return True


def test_several_hosts(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, [world.host, world.host6, world.host], 0)
        assert sorted(sock.family for sock in server.sockets) == [socket.AF_INET, socket.AF_INET6]
        for sock in server.sockets:
            assert await answers(world, *sock.getsockname()[:2])
        server.close()
        await server.wait_closed()

    world.run(main())


def test_all_addresses(world: World) -> None:
    async def main() -> None:
        port = await world.unused_port()
        for host in (None, ""):
            server = await world.loop.create_server(Recorder, host, port)
            assert sorted(sock.family for sock in server.sockets) == [socket.AF_INET, socket.AF_INET6]
            assert await answers(world, world.host, port)
            assert await answers(world, world.host6, port)
            server.close()
            await server.wait_closed()

    world.run(main())


def test_a_socket_that_is_bound_already(world: World) -> None:
    async def main() -> None:
        sock = world.new_socket(serving=True)
        sock.bind((world.host, 0))
        server = await world.loop.create_server(Recorder, sock=sock, backlog=5)
        assert [each.getsockname() for each in server.sockets] == [sock.getsockname()]
        assert await answers(world, *sock.getsockname())
        server.close()
        await server.wait_closed()

    world.run(main())


def test_a_port_that_is_taken(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0)
        with pytest.raises(OSError, match=r"error while attempting to bind on address .*address already in use"):
            await world.loop.create_server(Recorder, world.host, port_of(server))
        server.close()
        with pytest.raises(OSError, match="error while attempting to bind on address"):
            await world.loop.create_server(Recorder, "192.0.2.1", 0)

    world.run(main())


def test_a_port_is_shared(world: World) -> None:
    async def main() -> None:
        first = await world.loop.create_server(Recorder, world.host, 0, reuse_port=True)
        second = await world.loop.create_server(Recorder, world.host, port_of(first), reuse_port=True)
        first.close()
        await first.wait_closed()
        assert await answers(world, world.host, port_of(second))
        second.close()

    world.run(main())


def test_a_server_takes_the_port_of_its_predecessor(world: World) -> None:
    """Whose connections are in TIME-WAIT."""

    async def main() -> None:
        port = 0
        for _ in range(3):
            server = await asyncio.start_server(lambda reader, writer: writer.close(), world.host, port)
            port = port_of(server)
            reader, writer = await asyncio.open_connection(world.host, port)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

    world.run(main())


def test_it_serves_from_when_it_is_told(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0, start_serving=False)
        assert not server.is_serving()
        assert server.get_loop() is world.loop
        port = port_of(server)
        assert not await answers(world, world.host, port)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        assert await answers(world, world.host, port)
        server.close()
        server.close()
        assert not server.is_serving()
        assert not server.sockets
        await server.wait_closed()
        assert not await answers(world, world.host, port)

    world.run(main())


def test_serve_forever_ends_with_the_server(world: World) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, start_serving=False)
        port = port_of(server)
        serving = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="is already being awaited on serve_forever"):
            await server.serve_forever()
        await exchange(*await asyncio.open_connection(world.host, port), 1000)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="is closed"):
            await server.serve_forever()

    world.run(main())


def test_closing_it_leaves_its_connections(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.server.close()
        connection.transport.write(b"still here")
        await until(lambda: connection.peer.data == b"still here")
        await connection.end()

    world.run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 wait_closed() does not wait for connections")
def test_wait_closed_waits_for_the_connections(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.server.close()
        waiting = asyncio.ensure_future(connection.server.wait_closed())
        await asyncio.sleep(0.001)
        assert not waiting.done()
        await connection.end()
        await waiting

    world.run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="close_clients and abort_clients are from Python 3.13 on")
@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
def test_its_connections_are_ended_with_it(world: World, how: str) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.server.close()
        getattr(connection.server, how)()
        await connection.peer.lost
        await connection.client.lost
        await connection.server.wait_closed()

    world.run(main())


def test_a_factory_that_raises_costs_only_its_connection(world: World) -> None:
    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            if not made:
                made.append(Recorder())
                raise ZeroDivisionError
            made.append(Recorder())
            return made[-1]

        server = await world.loop.create_server(factory, world.host, 0)
        transport, client = await world.loop.create_connection(Recorder, world.host, port_of(server))
        await client.lost
        assert await answers(world, world.host, port_of(server))
        await until(lambda: len(made) == 2)
        await made[1].lost
        server.close()
        transport.close()

    world.run(main())
    assert [type(context["exception"]) for context in world.errors] == [ZeroDivisionError]
    world.errors.clear()


@pytest.mark.skipif(sys.version_info < (3, 13), reason="keep_alive is from Python 3.13 on")
def test_keep_alive(world: World) -> None:
    async def main() -> None:
        server = await world.loop.create_server(Recorder, world.host, 0, keep_alive=True)
        assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        server.close()

    world.run(main())

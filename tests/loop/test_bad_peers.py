"""Peers that reset, stall, send after the end, or trickle: each costs its own connection, and no other."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from .peers import Recorder, closed, connected, echo, exchange, port_of
from .worlds import World, until

RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s


async def raw_client(world: World, port: int) -> Any:
    """A socket in the peer's own hands."""
    sock = world.new_socket()
    await world.loop.sock_connect(sock, (world.host, port))
    return sock


def reset(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@pytest.mark.parametrize("paused", [False, True])
def test_a_reset(world: World, paused: bool) -> None:
    async def main() -> None:
        ends: list[Recorder] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0)
        peer = await raw_client(world, port_of(server))
        await until(lambda: ends and ends[0].made.done())
        await world.loop.sock_sendall(peer, b"before")
        await until(lambda: ends[0].data == b"before")
        if paused:
            ends[0].transport.pause_reading()
        reset(peer)
        if paused:
            await asyncio.sleep(0.005)
            if ends[0].transport is not None:
                ends[0].transport.resume_reading()
        await ends[0].lost
        assert isinstance(ends[0].error, ConnectionResetError)
        assert "eof" not in ends[0].calls
        server.close()

    world.run(main())


def test_a_reset_while_much_is_queued(world: World) -> None:
    async def main() -> None:
        ends: list[Recorder] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0)
        peer = await raw_client(world, port_of(server))
        await until(lambda: ends and ends[0].made.done())
        transport = ends[0].transport
        transport.write(bytes(32 << 20))
        assert "pause" in ends[0].calls
        reset(peer)
        await ends[0].lost
        assert isinstance(ends[0].error, ConnectionError)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"too late")
        server.close()

    world.run(main())


def test_a_reset_in_the_queue_of_the_listener(world: World) -> None:
    """Before the loop has turned: accepted or not, the server goes on."""

    async def main() -> None:
        listener = world.new_listener()
        port = listener.getsockname()[1]
        for _ in range(10):
            reset(await raw_client(world, port))
        server = await asyncio.start_server(echo, sock=listener)
        async with server:
            await exchange(*await asyncio.open_connection(world.host, port), 1000)

    world.run(main())
    world.errors.clear()


def test_one_that_stalls_holds_up_nobody(world: World) -> None:
    """It connects and says nothing, or asks and does not read."""

    async def main() -> None:
        async def flood(reader: Any, writer: Any) -> None:
            if await reader.read(1) == b"!":
                writer.write(bytes(32 << 20))
                try:
                    await writer.drain()
                except ConnectionError:
                    return
            writer.close()

        server = await asyncio.start_server(flood, world.host, 0)
        silent = [await raw_client(world, port_of(server)) for _ in range(5)]
        greedy = [await raw_client(world, port_of(server)) for _ in range(2)]
        for sock in greedy:
            await world.loop.sock_sendall(sock, b"!")
        for _ in range(20):
            reader, writer = await asyncio.open_connection(world.host, port_of(server))
            writer.write(b"?")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        for sock in silent:
            sock.close()
        for sock in greedy:
            reset(sock)
        server.close()
        await asyncio.sleep(0.005)

    world.run(main())


def test_data_after_the_server_has_closed(world: World) -> None:
    async def main() -> None:
        ends: list[Recorder] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0)
        peer = await raw_client(world, port_of(server))
        await until(lambda: ends and ends[0].made.done())
        ends[0].transport.close()
        await world.loop.sock_sendall(peer, b"after the end")
        await ends[0].lost
        assert ends[0].data == b""
        assert ends[0].error is None

        async def insist() -> None:
            while True:
                await world.loop.sock_sendall(peer, b"and again")
                await asyncio.sleep(0.001)

        with pytest.raises(ConnectionError):
            await insist()
        peer.close()
        server.close()

    world.run(main())


def test_one_that_trickles(world: World) -> None:
    """A byte at a time, each in a segment of its own."""

    async def main() -> None:
        connection = await connected(world)
        peer = await raw_client(world, port_of(connection.server))
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(200):
            await world.loop.sock_sendall(peer, bytes([i]))
            connection.transport.write(b"x" * 100)
            await asyncio.sleep(0)
        await until(lambda: len(connection.peer.data) == 20_000)
        peer.close()
        await connection.end()
        await asyncio.sleep(0.002)

    world.run(main())


def test_an_end_at_once(world: World) -> None:
    async def main() -> None:
        ends: list[Recorder] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0)
        for _ in range(20):
            (await raw_client(world, port_of(server))).close()
        await until(lambda: len(ends) == 20 and all(end.lost.done() for end in ends))
        assert all(end.calls == ["made", "eof", "lost"] for end in ends)
        server.close()

    world.run(main())


def test_a_connection_to_a_listener_that_never_accepts(world: World) -> None:
    async def main() -> None:
        listener = world.new_listener()
        transport, client = await world.loop.create_connection(Recorder, *listener.getsockname())
        transport.write(b"anybody?")
        await asyncio.sleep(0.002)
        assert client.calls == ["made"]
        await closed(transport)
        await client.lost
        listener.close()
        await asyncio.sleep(0.002)

    world.run(main())

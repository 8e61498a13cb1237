"""TLS: of connections and servers, by start_tls, its ends and its time limits."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

import pytest

from .peers import Recorder, echo, exchange, port_of
from .worlds import World, until

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def test_streams(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0])
        async with server:
            streams = await asyncio.gather(
                *(
                    asyncio.open_connection(world.host, port_of(server), ssl=tls[1], server_hostname="localhost")
                    for _ in range(4)
                )
            )
            await asyncio.gather(*(exchange(*stream, 400_000) for stream in streams))

    world.run(main())


def test_start_tls(world: World, tls: Contexts) -> None:
    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(tls[0])
        await echo(reader, writer)

    async def main() -> None:
        server = await asyncio.start_server(upgrade, world.host, 0)
        async with server:
            reader, writer = await asyncio.open_connection(world.host, port_of(server))
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await writer.start_tls(tls[1], server_hostname="localhost")
            assert writer.get_extra_info("ssl_object") is not None
            await exchange(reader, writer, 100_000)

    world.run(main())


def test_extra_info(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0])
        async with server:
            _, writer = await asyncio.open_connection(
                world.host, port_of(server), ssl=tls[1], server_hostname="localhost"
            )
            assert writer.get_extra_info("sslcontext") is tls[1]
            assert writer.get_extra_info("cipher")[1].startswith("TLS")
            assert writer.get_extra_info("peercert")["subject"]
            assert writer.get_extra_info("ssl_object").version().startswith("TLS")
            assert writer.get_extra_info("peername") == (world.host, port_of(server))
            assert writer.get_extra_info("socket").getpeername() == (world.host, port_of(server))
            assert not writer.transport.can_write_eof()
            writer.close()
            await writer.wait_closed()

    world.run(main())


def test_a_certificate_that_is_not_trusted(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0])
        async with server:
            for context, name in ((ssl.create_default_context(), "localhost"), (tls[1], "elsewhere.test")):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await asyncio.open_connection(world.host, port_of(server), ssl=context, server_hostname=name)
            _, writer = await asyncio.open_connection(
                world.host, port_of(server), ssl=tls[1], server_hostname="localhost"
            )
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.002)

    world.run(main())
    world.errors.clear()  # what the server says of a failed handshake is not the same everywhere


def test_a_peer_that_speaks_no_tls(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0])
        async with server:
            reader, writer = await asyncio.open_connection(world.host, port_of(server))
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await exchange(
                *await asyncio.open_connection(world.host, port_of(server), ssl=tls[1], server_hostname="localhost"),
                1000,
            )

    world.run(main())
    world.errors.clear()


def test_a_handshake_that_stalls_ends_in_time(world: World, tls: Contexts) -> None:
    async def main() -> None:
        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(stall, world.host, 0)
        async with server:
            with pytest.raises(ConnectionAbortedError, match="SSL handshake is taking longer than"):
                await asyncio.open_connection(
                    world.host, port_of(server), ssl=tls[1], server_hostname="localhost", ssl_handshake_timeout=0.02
                )
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0], ssl_handshake_timeout=0.02)
        async with server:
            reader, writer = await asyncio.open_connection(world.host, port_of(server))
            with contextlib.suppress(ConnectionError):  # an orderly end will do, too
                assert await reader.read() == b""
            writer.close()

    world.run(main())
    world.errors.clear()


def test_a_handshake_is_cancelled(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0)  # echoes the client's hello: no TLS at all
        async with server:
            for turns in range(6):
                task = asyncio.ensure_future(
                    asyncio.open_connection(world.host, port_of(server), ssl=tls[1], server_hostname="localhost")
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises((asyncio.CancelledError, ssl.SSLError)):
                    await task
            await asyncio.sleep(0.002)

    world.run(main())
    world.errors.clear()


def test_the_end_of_a_stream_and_its_protocol(world: World, tls: Contexts) -> None:
    async def main() -> None:
        ends: list[Any] = []
        server = await world.loop.create_server(
            lambda: ends.append(Recorder()) or ends[-1], world.host, 0, ssl=tls[0], ssl_shutdown_timeout=5
        )
        transport, client = await world.loop.create_connection(
            Recorder, world.host, port_of(server), ssl=tls[1], server_hostname="localhost", ssl_shutdown_timeout=5
        )
        assert transport.get_protocol() is client
        await until(lambda: ends and ends[0].made.done())
        transport.write(b"data")
        transport.writelines([b" in ", b"lines"])
        transport.close()
        await client.lost
        await ends[0].lost
        assert [call for call in client.calls if call != "eof"] == ["made", "lost"]  # it may hear the peer's end first
        assert ends[0].calls == ["made", "data", "eof", "lost"]
        assert ends[0].data == b"data in lines"
        assert client.error is ends[0].error is None
        server.close()

    world.run(main())


def test_flow_control(world: World, tls: Contexts) -> None:
    async def main() -> None:
        ends: list[Any] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0, ssl=tls[0])
        transport, client = await world.loop.create_connection(
            Recorder, world.host, port_of(server), ssl=tls[1], server_hostname="localhost"
        )
        await until(lambda: ends and ends[0].made.done())
        ends[0].transport.pause_reading()
        sent = 0
        while not transport.get_write_buffer_size():
            transport.write(bytes(1 << 20))
            sent += 1 << 20
            for _ in range(5):  # what the kernel takes, it has by then
                await asyncio.sleep(0)
        assert "pause" in client.calls
        ends[0].transport.resume_reading()
        await until(lambda: len(ends[0].data) == sent)
        await until(lambda: "resume" in client.calls)
        transport.close()
        await client.lost
        await ends[0].lost
        server.close()

    world.run(main())


def test_abort(world: World, tls: Contexts) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, world.host, 0, ssl=tls[0])
        async with server:
            transport, client = await world.loop.create_connection(
                Recorder, world.host, port_of(server), ssl=tls[1], server_hostname="localhost"
            )
            transport.abort()
            await client.lost
            await asyncio.sleep(0.002)

    world.run(main())
    world.errors.clear()  # the server's handler may have been reset

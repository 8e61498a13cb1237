"""TLS over the machine's TCP: asyncio's own, on our transports."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

SERVER = "10.0.0.2"


def test_tls(wire, tls):
    async def echo(reader, writer):
        writer.write(await reader.readexactly(200_000))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(echo, SERVER, 443, ssl=tls[0])
        reader, writer = await asyncio.open_connection("server.test", 443, ssl=tls[1], family=socket.AF_INET)
        assert writer.get_extra_info("peername")[0] == SERVER
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.write(b"s" * 200_000)
        assert await reader.read() == b"s" * 200_000
        writer.close()
        await writer.wait_closed()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(SERVER, 443, ssl=tls[1], server_hostname="other.test")
        await asyncio.sleep(0.01)
        server.close()
        await server.wait_closed()

    wire.run(main())
    assert wire.errors == []


def test_start_tls(wire, tls):
    async def main():
        secured = wire.loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            writer.write(b"go\n")
            await writer.start_tls(tls[0])
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            secured.set_result(None)

        server = await asyncio.start_server(serve, SERVER, 8000)
        reader, writer = await asyncio.open_connection(SERVER, 8000)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(tls[1], server_hostname="server.test")
        writer.write(b"secret\n")
        assert await reader.read() == b"SECRET\n"
        writer.close()
        await writer.wait_closed()
        await secured
        server.close()

    wire.run(main())
    assert wire.errors == []

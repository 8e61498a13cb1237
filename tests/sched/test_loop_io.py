"""An asyncio loop's I/O on the host's kernel, on libos's loop and on the two that it stands in for."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

AnyLoop = asyncio.AbstractEventLoop
CERTIFICATE = Path(__file__).with_name("localhost.pem")


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    return server, ssl.create_default_context(cafile=str(CERTIFICATE))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Send `size` random bytes and see them come back."""
    data = random.Random(size).randbytes(size)

    async def read() -> str:
        digest, left = hashlib.sha256(), size
        while left:
            piece = await reader.read(65536)
            assert piece
            digest.update(piece)
            left -= len(piece)
        return digest.hexdigest()

    task = asyncio.ensure_future(read())
    writer.write(data)
    await writer.drain()
    assert await task == hashlib.sha256(data).hexdigest()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(loop: AnyLoop, host: str) -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, host, 0)
        async with server:
            address = server.sockets[0].getsockname()[:2]
            streams = await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(20)))
            await asyncio.gather(*(exchange(*stream, 1000 * i + 1) for i, stream in enumerate(streams)))
            await exchange(*await asyncio.open_connection(*address), 3_000_000)

    loop.run_until_complete(main())


@pytest.mark.parametrize("size", [1, 8 << 20])
def test_a_reader_that_says_nothing(loop: AnyLoop, size: int) -> None:
    """Nothing happens in this loop but that there is room again, and at the end the end is to be told."""

    def read_all(peer: socket.socket) -> int:
        with peer:
            return sum(iter(lambda: len(peer.recv(65536)), 0))

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            peer, _ = listener.accept()
        reading = asyncio.ensure_future(asyncio.to_thread(read_all, peer))
        async with asyncio.timeout(5):
            writer.write(bytes(size))
            await writer.drain()
            writer.write_eof()
            assert await reading == size
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())


def test_tls(loop: AnyLoop) -> None:
    serving, asking = contexts()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving)
        async with server:
            port = server.sockets[0].getsockname()[1]
            streams = await asyncio.gather(
                *(asyncio.open_connection("127.0.0.1", port, ssl=asking, server_hostname="localhost") for _ in range(4))
            )
            await asyncio.gather(*(exchange(*stream, 200_000) for stream in streams))

    loop.run_until_complete(main())


def test_start_tls(loop: AnyLoop) -> None:
    serving, asking = contexts()

    async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(serving)
        await echo(reader, writer)

    async def main() -> None:
        server = await asyncio.start_server(upgrade, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"STARTTLS\n")
            assert await reader.readline() == b"go\n"
            await writer.start_tls(asking, server_hostname="localhost")
            await exchange(reader, writer, 100_000)

    loop.run_until_complete(main())


def test_a_refused_connection(loop: AnyLoop) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*unused.getsockname())

    loop.run_until_complete(main())


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: bool) -> None:
        self.answer = answer
        self.got: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self.answer:
            self.transport.sendto(data[::-1], address)
        self.got.put_nowait(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp(loop: AnyLoop, host: str) -> None:
    async def main() -> None:
        server, _ = await loop.create_datagram_endpoint(lambda: Datagrams(True), local_addr=(host, 0))
        address = server.get_extra_info("sockname")[:2]
        client, protocol = await loop.create_datagram_endpoint(lambda: Datagrams(False), remote_addr=address)
        for i in range(50):
            client.sendto(b"%d." % i)
            assert await protocol.got.get() == (b"%d." % i)[::-1]
        client.close()
        server.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_unix_sockets(loop: AnyLoop, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        server = await asyncio.start_unix_server(echo, path)
        async with server:
            await exchange(*await asyncio.open_unix_connection(path), 300_000)

    loop.run_until_complete(main())


def test_readers_and_writers(loop: AnyLoop) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        seen: asyncio.Queue[bytes] = asyncio.Queue()
        loop.add_reader(a, lambda: seen.put_nowait(a.recv(1)))
        b.send(b"xyz")  # one byte a call: it is called as long as there is something
        assert [await seen.get() for _ in range(3)] == [b"x", b"y", b"z"]
        writable: asyncio.Future[str] = loop.create_future()
        loop.add_writer(a, lambda: None if writable.done() else writable.set_result("writable"))
        assert await writable == "writable"
        b.send(b"!")
        assert await seen.get() == b"!"
        assert loop.remove_writer(a) is not False  # uvloop: None
        assert not loop.remove_writer(a)
        loop.add_reader(a, lambda: seen.put_nowait(b"another " + a.recv(1)))
        b.send(b"?")
        assert await seen.get() == b"another ?"
        assert loop.remove_reader(a) is not False
        assert not loop.remove_reader(a)
        b.send(b"unseen")
        await asyncio.sleep(0.001)
        assert seen.empty()
        a.close()
        b.close()

    loop.run_until_complete(main())


def test_pipes(loop: AnyLoop) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading))
        writer, _ = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(writing, "w"))
        data = bytes(200_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        assert await reader.read() == b""
        transport.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_sock_methods(loop: AnyLoop) -> None:
    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        client = socket.socket()
        client.setblocking(False)
        accepting = asyncio.ensure_future(loop.sock_accept(listener))
        await loop.sock_connect(client, listener.getsockname())
        server, address = await accepting
        assert address == client.getsockname()
        data = bytes(range(256)) * 8000
        sending = asyncio.ensure_future(loop.sock_sendall(client, data))
        got = bytearray()
        while len(got) < len(data):
            got += await loop.sock_recv(server, 65536)
        await sending
        assert got == data
        buffer = bytearray(10)
        waiting = asyncio.ensure_future(loop.sock_recv_into(client, buffer))
        await asyncio.sleep(0)
        await loop.sock_sendall(server, b"abc")
        assert await waiting == 3
        for sock in (listener, client, server):
            sock.close()

    loop.run_until_complete(main())


def test_a_protocol_gets_its_events_in_order(loop: AnyLoop) -> None:
    events: list[str] = []

    class Client(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            events.append("made")
            transport.write(b"question")
            transport.write_eof()

        def data_received(self, data: bytes) -> None:
            events.append(data.decode())

        def eof_received(self) -> None:
            events.append("eof")

        def connection_lost(self, exc: Exception | None) -> None:
            events.append(f"lost {exc}")
            lost.set_result(None)

    lost: asyncio.Future[None] = loop.create_future()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            await loop.create_connection(Client, *server.sockets[0].getsockname())
            await lost

    loop.run_until_complete(main())
    assert events == ["made", "question", "eof", "lost None"]


def test_sendfile(loop: AnyLoop, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4000)

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with path.open("rb") as file:
            await loop.sendfile(writer.transport, file)
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(send, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == path.read_bytes()
            writer.close()
            await writer.wait_closed()

    if type(loop).__module__ == "uvloop":
        pytest.skip("uvloop has no sendfile")
    loop.run_until_complete(main())


def test_names(loop: AnyLoop) -> None:
    async def main() -> None:
        infos = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert (socket.AF_INET, ("127.0.0.1", 80)) in [(info[0], info[4]) for info in infos]
        flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        assert await loop.getnameinfo(("127.0.0.1", 80), flags) == ("127.0.0.1", "80")

    loop.run_until_complete(main())

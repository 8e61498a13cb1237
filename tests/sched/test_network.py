"""What a Loop hands over to its network, and what it leaves to the host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor


class Owned:
    """A socket of the network."""

    type = socket.SOCK_STREAM

    def gettimeout(self) -> float:
        return 0.0


class Recorder:
    """A network that notes what it is asked, and answers with it."""

    def owns(self, sock: object) -> bool:
        return isinstance(sock, Owned)

    def __getattr__(self, name: str) -> Any:
        async def answer(loop: Loop, *args: Any, **options: Any) -> Any:
            assert isinstance(loop, Loop)
            return name, args, options

        return answer


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Reactor("epoll", clock=MonotonicClock()), Recorder(), own_reactor=True)
    yield loop
    loop.close()


OURS = Owned()


@pytest.mark.parametrize(
    ("method", "args", "options"),
    [
        ("create_connection", (asyncio.Protocol, "example.org", 80), {"ssl": True}),
        ("create_connection", (asyncio.Protocol, None, None), {"sock": OURS}),
        ("create_server", (asyncio.Protocol, None, 80), {"backlog": 5}),
        ("create_server", (asyncio.Protocol, None, None), {"sock": OURS}),
        ("create_datagram_endpoint", (asyncio.DatagramProtocol, ("127.0.0.1", 0), None), {"family": socket.AF_INET}),
        ("create_datagram_endpoint", (asyncio.DatagramProtocol, None, None), {"sock": OURS}),
        ("connect_accepted_socket", (asyncio.Protocol, OURS), {"ssl": None}),
        ("getaddrinfo", ("example.org", 80), {"family": socket.AF_INET6, "flags": 1}),
        ("getnameinfo", (("127.0.0.1", 80), 3), {}),
        ("sock_connect", (OURS, ("127.0.0.1", 80)), {}),
        ("sock_accept", (OURS,), {}),
        ("sock_recv", (OURS, 10), {}),
        ("sock_recv_into", (OURS, bytearray(3)), {}),
        ("sock_recvfrom", (OURS, 10), {}),
        ("sock_recvfrom_into", (OURS, bytearray(3), 2), {}),
        ("sock_sendall", (OURS, b"x"), {}),
        ("sock_sendto", (OURS, b"x", ("127.0.0.1", 80)), {}),
    ],
)
def test_what_is_the_networks(loop: Loop, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    name, passed, got = loop.run_until_complete(getattr(loop, method)(*args, **options))
    assert name == method
    assert passed == args
    assert {key: value for key, value in got.items() if value is not None} == {
        key: value for key, value in options.items() if value is not None
    }


def test_positional_arguments_pass_as_asyncio_names_them(loop: Loop) -> None:
    answer: Any = loop.run_until_complete(loop.create_connection(asyncio.Protocol, host="h", port=1, local_addr="l"))
    _, _, options = answer
    assert options["local_addr"] == "l"
    _, args, _ = loop.run_until_complete(loop.create_server(asyncio.Protocol, port=80, host="h"))
    assert args[1:] == ("h", 80)


def test_sockets_of_the_host_stay_with_the_host(loop: Loop) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        with contextlib.closing(a), contextlib.closing(b):
            a.setblocking(False)
            b.setblocking(False)
            await loop.sock_sendall(a, b"question")
            assert await loop.sock_recv(b, 100) == b"question"
            reader = asyncio.StreamReader()
            transport, _ = await loop.create_connection(lambda: asyncio.StreamReaderProtocol(reader), sock=a)
            b.send(b"answer")
            b.shutdown(socket.SHUT_WR)
            assert await reader.read() == b"answer"
            transport.close()
            await asyncio.sleep(0)
        c, d = socket.socketpair(type=socket.SOCK_DGRAM)
        with contextlib.closing(d):
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=c)
            assert hasattr(transport, "sendto")
            transport.close()
            await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_unix_sockets_are_the_hosts(loop: Loop, tmp_path: Any) -> None:
    lost = asyncio.Event()

    class Peer(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    async def main() -> None:
        path = str(tmp_path / "stream")
        server = await loop.create_unix_server(Peer, path)
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
        transport.close()
        await lost.wait()
        server.close()
        endpoint, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=str(tmp_path / "datagram"), family=socket.AF_UNIX
        )
        endpoint.close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())


def test_sendfile_needs_no_descriptor(loop: Loop, tmp_path: Any) -> None:
    sent = bytearray()

    async def sendall(loop: Loop, sock: object, data: bytes) -> None:
        sent.extend(data)

    assert loop.network is not None
    loop.network.sock_sendall = sendall  # type: ignore[method-assign,assignment]
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))
    with path.open("rb") as file:
        assert loop.run_until_complete(loop.sock_sendfile(OURS, file)) == 300_000  # type: ignore[arg-type]
    assert sent == bytes(300_000)

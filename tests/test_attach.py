"""Machines in a loop that is not their own: asyncio's, uvloop's, libos's on the host, on both reactors.

Each test has two machines of one wire in one loop, unless it says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import libos
from libos.config import configure
from libos.errors import ConfigError, HostError, WorldError
from libos.machine import Machine

LEFT, RIGHT = "10.0.4.1", "10.0.4.2"
NAMES = {"left.test": LEFT, "right.test": [RIGHT, "fd00:6c69:626f:75::2"], "four.test": RIGHT}
BOUND = 20  # seconds until a test counts as hanging


@pytest.fixture(scope="session", autouse=True)
def uvloops_own_descriptors() -> None:
    """uvloop opens a pipe for the whole process when its first loop runs."""
    with contextlib.suppress(ImportError):
        import uvloop

        with contextlib.closing(uvloop.new_event_loop()) as loop:
            loop.run_until_complete(asyncio.sleep(0))


class Outer:
    """A loop of somebody's, and machines on ``reactor`` for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reactor: str) -> None:
        self.loop = loop
        self.reactor = reactor
        self.machines: list[Machine] = []
        self.errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: self.errors.append(context))

    def pair(self, **settings: Any) -> tuple[Machine, Machine]:
        config = configure(reactor=self.reactor, hosts=NAMES, seed=7, **settings)
        pair = Machine.pair(config, config)
        self.machines += pair
        return pair

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(BOUND):
                return await main

        return self.loop.run_until_complete(bounded())

    def close(self) -> None:
        for machine in self.machines:
            machine.close()
        if not self.loop.is_closed():
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


def new_loop(kind: str, reactor: str) -> asyncio.AbstractEventLoop:
    if kind == "asyncio":
        return asyncio.SelectorEventLoop()
    if kind == "uvloop":
        loop: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
        return loop
    return libos.new_event_loop("host", reactor=reactor)


@pytest.fixture(
    params=[f"{kind}-{reactor}" for kind in ("asyncio", "uvloop", "libos") for reactor in ("io_uring", "epoll")]
)
def outer(request: pytest.FixtureRequest) -> Iterator[Outer]:
    kind, _, reactor = request.param.partition("-")
    try:
        loop = new_loop(kind, reactor)
    except HostError as error:
        pytest.skip(str(error))
    outer = Outer(loop, reactor)
    yield outer
    outer.close()
    gc.collect()


@pytest.fixture
def new_pair() -> Iterator[Callable[..., tuple[Machine, Machine]]]:
    machines: list[Machine] = []

    def new(**settings: Any) -> tuple[Machine, Machine]:
        config = configure(hosts=NAMES, **settings)
        machines.extend(pair := Machine.pair(config, config))
        return pair

    yield new
    for machine in machines:
        machine.close()


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    pem = Path(__file__).with_name("net") / "server.pem"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=pem)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"hello") -> bytes:
    """``data`` there and back; then the connection is closed."""
    writer.write(data)
    if writer.can_write_eof():
        writer.write_eof()
        answer = await reader.read()
    else:
        answer = await reader.readexactly(len(data))
    writer.close()
    await writer.wait_closed()
    return answer


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def turns(*machines: Machine) -> int:
    return sum(machine.reactor.statistics()["turns"] for machine in machines)


# --- talking -----------------------------------------------------------------------------------------------------


def test_streams(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            server = await right.start_server(echo, None, 7)
            async with server:
                assert await said(*await left.open_connection(RIGHT, 7)) == b"hello"
                assert await said(*await left.open_connection("right.test", 7, happy_eyeballs_delay=0.05)) == b"hello"

                async def ask(i: int) -> bytes:
                    return await said(*await left.open_connection(RIGHT, 7), b"%d" % i * 1000)

                answers = await asyncio.gather(*map(ask, range(50)))
                assert answers == [b"%d" % i * 1000 for i in range(50)]

    outer.run(main())
    assert outer.errors == []


def test_protocols(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        with left.attach(), right.attach():
            server = await right.create_server(Echo, None, 7)
            got = outer.loop.create_future()

            class Client(asyncio.Protocol):
                def data_received(self, data: bytes) -> None:
                    got.set_result(data)

            transport, _ = await left.create_connection(Client, RIGHT, 7)
            assert transport.get_extra_info("peername") == (RIGHT, 7)
            transport.write(b"hello")
            assert await got == b"hello"
            transport.close()
            server.close()
            await server.wait_closed()

    outer.run(main())


def test_datagrams(outer: Outer) -> None:
    class EchoDatagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    class Client(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.got = outer.loop.create_future()

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.got.set_result((data, addr))

    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            there, _ = await right.create_datagram_endpoint(EchoDatagrams, ("0.0.0.0", 7))
            here, client = await left.create_datagram_endpoint(Client, remote_addr=("four.test", 7))
            here.sendto(b"hello")
            assert await client.got == (b"hello", (RIGHT, 7))
            here.close()
            there.close()

    outer.run(main())


def test_sockets(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            with right.socket() as listener, left.socket() as client:
                listener.bind(("0.0.0.0", 7))
                listener.listen()
                accepting = asyncio.ensure_future(right.sock_accept(listener))
                await left.sock_connect(client, (RIGHT, 7))
                server, _ = await accepting
                with server:
                    await left.sock_sendall(client, b"hello")
                    assert await right.sock_recv(server, 100) == b"hello"
                    await right.sock_sendall(server, b"you")
                    buffer = bytearray(3)
                    assert await left.sock_recv_into(client, buffer) == 3
            with right.socket(type=socket.SOCK_DGRAM) as there, left.socket(type=socket.SOCK_DGRAM) as here:
                there.bind((RIGHT, 8))
                here.bind((LEFT, 8))
                assert await left.sock_sendto(here, b"hello", (RIGHT, 8)) == 5
                assert await right.sock_recvfrom(there, 100) == (b"hello", (LEFT, 8))
                assert await right.sock_sendto(there, b"you", (LEFT, 8)) == 3
                assert await left.sock_recvfrom_into(here, buffer) == (3, (RIGHT, 8))

    outer.run(main())


def test_accepted_by_hand(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            with right.socket() as listener:
                listener.bind(("0.0.0.0", 7))
                listener.listen()
                opening = asyncio.ensure_future(left.open_connection(RIGHT, 7))
                sock, _ = await right.sock_accept(listener)
                await right.connect_accepted_socket(Echo, sock)
                assert await said(*await opening) == b"hello"

    outer.run(main())


def test_names(outer: Outer) -> None:
    async def main() -> None:
        left, _ = outer.pair()
        async with left.attach():
            infos = await left.getaddrinfo("four.test", 80, type=socket.SOCK_STREAM)
            assert [info[4] for info in infos] == [(RIGHT, 80)]
            assert await left.getnameinfo((RIGHT, 80), socket.NI_NUMERICSERV) == ("right.test", "80")
            with pytest.raises(socket.gaierror):
                await left.getaddrinfo("nowhere.test", 80)

    outer.run(main())


def test_tls(outer: Outer, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """From the beginning, and over a connection that is there already."""
    serving, trusting = tls

    async def main() -> None:
        left, right = outer.pair()

        class Client(asyncio.Protocol):
            def __init__(self) -> None:
                self.got = outer.loop.create_future()

            def data_received(self, data: bytes) -> None:
                if not self.got.done():
                    self.got.set_result(data)

        async with left.attach(), right.attach():
            async with await right.start_server(echo, None, 443, ssl=serving):
                reader, writer = await left.open_connection(RIGHT, 443, ssl=trusting, server_hostname="server.test")
                assert await said(reader, writer, b"x" * 100_000) == b"x" * 100_000

            upgraded = outer.loop.create_future()

            class Upgrading(Echo):
                def data_received(self, data: bytes) -> None:
                    if data == b"starttls":
                        self.transport.write(b"go on")
                        self.task = asyncio.ensure_future(self.upgrade())
                    else:
                        super().data_received(data)

                async def upgrade(self) -> None:
                    self.transport = await right.start_tls(self.transport, self, serving, server_side=True)
                    upgraded.set_result(None)

            server = await right.create_server(Upgrading, None, 25)
            transport, client = await left.create_connection(Client, RIGHT, 25)
            transport.write(b"starttls")
            assert await client.got == b"go on"
            secured = await left.start_tls(transport, client, trusting, server_hostname="server.test")
            await upgraded
            client.got = outer.loop.create_future()
            secured.write(b"secret")
            assert await client.got == b"secret"
            secured.close()
            server.close()
            await server.wait_closed()

    outer.run(main())
    assert outer.errors == []


def test_start_tls_cancelled(outer: Outer, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            server = await right.create_server(asyncio.Protocol, None, 25)  # it says nothing
            transport, protocol = await left.create_connection(asyncio.Protocol, RIGHT, 25)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await left.start_tls(transport, protocol, tls[1], server_hostname="server.test")
            assert transport.is_closing()
            server.close()
            await server.wait_closed()

    outer.run(main())


def test_bulk(outer: Outer) -> None:
    """16 MiB each way at once, every byte right."""
    block = hashlib.shake_256(b"bulk").digest(1 << 20)
    wanted = hashlib.sha256(block * 16).hexdigest()

    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(16):
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def receive(reader: asyncio.StreamReader) -> str:
        digest = hashlib.sha256()
        while data := await reader.read(1 << 20):
            digest.update(data)
        return digest.hexdigest()

    async def main() -> None:
        left, right = outer.pair()
        there = outer.loop.create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            _, digest = await asyncio.gather(send(writer), receive(reader))
            writer.close()
            there.set_result(digest)

        async with left.attach(), right.attach(), await right.start_server(serve, None, 7):
            reader, writer = await left.open_connection(RIGHT, 7)
            _, here = await asyncio.gather(send(writer), receive(reader))
            writer.close()
            assert (here, await there) == (wanted, wanted)

    outer.run(main())


@pytest.mark.slow
def test_retransmission(outer: Outer) -> None:
    """The stack's timers run: a twentieth of all frames is lost, and everything comes through."""
    data = hashlib.shake_256(b"loss").digest(1 << 17)

    async def main() -> None:
        left, right = outer.pair(impair="loss=5%,delay=1ms,seed=3")
        async with left.attach(), right.attach(), await right.start_server(echo, None, 7):
            assert await said(*await left.open_connection(RIGHT, 7), data) == data
        assert sum(machine.net.counters()["TcpRetransSegs"] for machine in (left, right)) > 0

    outer.run(main())


def test_delayed_acknowledgement(outer: Outer) -> None:
    """Nothing happens in the loop but the stack's own timer."""

    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            server = await right.create_server(asyncio.Protocol, None, 7)
            transport, _ = await left.create_connection(asyncio.Protocol, RIGHT, 7)
            for _ in range(40):  # the first segments are acknowledged at once
                transport.write(b"x")
                await asyncio.sleep(0)
            while any(info.tx_queue for info in left.net.sockets() if info.state == "ESTABLISHED"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            transport.close()
            server.close()
            await server.wait_closed()

    outer.run(main())


# --- when it wakes ------------------------------------------------------------------------------------------------


def test_idle_wakes_nobody(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair(ip="10.0.4.1/24")
        async with left.attach(), right.attach():
            await asyncio.sleep(0.05)
            before = turns(left, right)
            await asyncio.sleep(0.2)
            assert turns(left, right) - before <= 6, "the reports of IPv6 groups, at most"

    outer.run(main())


def test_writes_of_an_iteration_leave_together(outer: Outer) -> None:
    """Twenty writes become one segment, whether one callback does them or twenty."""

    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            server = await right.create_server(Echo, None, 7)
            transport, _ = await left.create_connection(asyncio.Protocol, RIGHT, 7)
            await asyncio.sleep(0.01)
            before = left.net.counters()["TcpOutSegs"]
            for _ in range(10):
                transport.write(b"x" * 100)
                outer.loop.call_soon(transport.write, b"y" * 100)
            while left.net.counters()["TcpOutSegs"] == before:  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert left.net.counters()["TcpOutSegs"] == before + 1
            transport.close()
            server.close()
            await server.wait_closed()

    outer.run(main())


def test_it_never_waits(outer: Outer) -> None:
    """Not even where it would spin."""

    async def main() -> None:
        left, right = outer.pair(spin_us=1_000_000)
        async with left.attach(), right.attach(), await right.start_server(echo, None, 7):
            start = outer.loop.time()
            for _ in range(5):
                assert await said(*await left.open_connection(RIGHT, 7)) == b"hello"
            assert outer.loop.time() - start < 1
        assert left.statistics()["reactor_blocked"] == 0

    outer.run(main())


# --- coming and going ---------------------------------------------------------------------------------------------


def test_detached_and_attached_again(outer: Outer) -> None:
    """A machine stands still in between, and its connections go on."""

    async def main() -> None:
        left, right = outer.pair()
        place, other = left.attach(), right.attach()
        assert (place.attached, left.attachment) == (True, place)
        server = await right.create_server(Echo, None, 7)
        reader, writer = await left.open_connection(RIGHT, 7)
        other.detach()
        other.close()
        assert (other.attached, right.attachment) == (False, None)
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await reader.readexactly(5)
        with right.attach():
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
        place.close()

    outer.run(main())


def test_leaving_lets_the_last_bytes_out(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        size = 0
        ended = outer.loop.create_future()

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal size
            while data := await reader.read(1 << 16):
                size += len(data)
            writer.close()
            ended.set_result(None)

        async with right.attach(), await right.start_server(count, None, 7):
            async with left.attach():
                _, writer = await left.open_connection(RIGHT, 7)
                writer.write(bytes(200_000))
                writer.close()
            assert left.lingering() == 0
            await ended
        assert size == 200_000

    outer.run(main())


def test_the_machine_closed_first(outer: Outer) -> None:
    """Its connections end with ENETDOWN, as when its own loop goes on."""

    async def main() -> None:
        left, right = outer.pair()
        lost = outer.loop.create_future()

        class Client(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        async with right.attach():
            await right.create_server(Echo, None, 7)
            left.attach()
            await left.create_connection(Client, RIGHT, 7)
            left.close()
            assert left.attachment is None
            assert isinstance(await lost, OSError)
            with pytest.raises(WorldError, match="closed"):
                left.attach()
            right.close()

    outer.run(main())


def test_the_loop_closed_first(outer: Outer) -> None:
    left, right = outer.pair()

    async def main() -> Any:
        left.attach()
        right.attach()
        server = await right.create_server(Echo, None, 7)
        transport, _ = await left.create_connection(asyncio.Protocol, RIGHT, 7)
        transport.close()
        server.close()
        await server.wait_closed()

    outer.run(main())
    outer.loop.close()
    left.close()
    assert right.attachment is not None
    right.attachment.detach()
    right.close()


def test_many_times(outer: Outer) -> None:
    left, right = outer.pair()

    async def once() -> None:
        async with left.attach(), right.attach(), await right.start_server(echo, None, 7):
            assert await said(*await left.open_connection(RIGHT, 7)) == b"hello"

    outer.run(once())
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        outer.run(once())
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert [info for info in right.net.sockets() if info.state in ("ESTABLISHED", "LISTEN")] == []


def test_cancelled(outer: Outer) -> None:
    """Who waits is let go, and its connection ends."""

    async def main() -> None:
        left, right = outer.pair()
        async with left.attach(), right.attach():
            for waiting in (
                left.open_connection("10.0.4.99", 7),  # there is nobody
                left.getaddrinfo("nowhere.test.example", 80),
            ):
                task = asyncio.ensure_future(waiting)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises((asyncio.CancelledError, socket.gaierror)):
                    await task
            server = await right.create_server(asyncio.Protocol, None, 7)
            reader, writer = await left.open_connection(RIGHT, 7)
            task = asyncio.ensure_future(reader.read(1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()
        assert [info for info in left.net.sockets() if info.state == "ESTABLISHED"] == []

    outer.run(main())


def test_what_protocols_raise(outer: Outer) -> None:
    """An exception costs one connection; KeyboardInterrupt comes out of the loop, and loses no event."""
    left, right = outer.pair()

    class Bad(Echo):
        def data_received(self, data: bytes) -> None:
            if data == b"stop":
                raise KeyboardInterrupt
            if data == b"bad":
                raise ValueError("bad")
            super().data_received(data)

    async def begin() -> list[Any]:
        left.attach()
        right.attach()
        await right.create_server(Bad, None, 7)
        return [await left.open_connection(RIGHT, 7) for _ in range(3)]

    async def end(connections: list[Any]) -> None:
        (bad, bad_writer), (good, writer), (_, stopped) = connections
        bad_writer.write(b"bad")
        writer.write(b"good")
        with contextlib.suppress(ConnectionError):
            assert await bad.read() == b""
        assert await good.readexactly(4) == b"good"
        for each in (bad_writer, writer, stopped):
            each.transport.abort()

    connections = outer.run(begin())
    connections[2][1].write(b"stop")
    with pytest.raises(KeyboardInterrupt):
        outer.run(asyncio.sleep(BOUND))
    outer.run(end(connections))
    assert [str(context["exception"]) for context in outer.errors] == ["bad"]
    left.close()
    right.close()
    gc.collect()


# --- other worlds, other loops --------------------------------------------------------------------------------------


def test_in_the_loop_of_another_machine(new_pair: Callable[..., tuple[Machine, Machine]]) -> None:
    left, right = new_pair()

    async def main() -> None:
        async with right.attach(), await right.start_server(echo, None, 7):
            assert await said(*await left.open_connection(RIGHT, 7)) == b"hello"
            assert await said(*await asyncio.open_connection(RIGHT, 7)) == b"hello"

    left.run(asyncio.wait_for(main(), BOUND))


@pytest.mark.root
def test_after_a_loop_of_its_own(outer: Outer) -> None:
    """Which has left a poll of the watch set under way in the ring."""
    machine = Machine(configure(net="tap", reactor=outer.reactor, ip="10.42.206.15/24"))
    outer.machines.append(machine)
    machine.run(asyncio.sleep(0.01))

    async def main() -> None:
        got = outer.loop.create_future()
        r, w = os.pipe()
        machine.reactor.watch(r, 1, lambda mask: None if got.done() else got.set_result(mask))
        async with machine.attach():
            for _ in range(2):
                os.write(w, b"x")
                assert await got == 1
                os.read(r, 1)
                got = outer.loop.create_future()
            machine.reactor.unwatch(r)
        os.close(r)
        os.close(w)

    outer.run(main())


def test_calls_in_a_loop_of_its_own() -> None:
    async def main(machine: Machine) -> None:
        async with await machine.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert await said(*await machine.open_connection("127.0.0.1", port)) == b"hello"
            with machine.socket() as sock:
                await machine.sock_connect(sock, ("127.0.0.1", port))
        assert await machine.getaddrinfo("127.0.0.1", 80)

    for world in ("host", "user"):
        with Machine(configure(net=world)) as machine:
            machine.run(main(machine))


def test_world_user(outer: Outer, free_port: Callable[[], int]) -> None:
    """The gateway's host sockets, in the same loop: outward to a server of the loop's own, inward from a client."""

    async def main() -> None:
        port = free_port()
        machine = Machine(configure(net="user", reactor=outer.reactor, publish=f"{port}:80"))
        outer.machines.append(machine)
        async with machine.attach():
            async with await asyncio.start_server(echo, "127.0.0.1", 0) as outside:
                host_port = outside.sockets[0].getsockname()[1]
                assert await said(*await machine.open_connection("10.0.2.2", host_port)) == b"hello"
            async with await machine.start_server(echo, None, 80):
                assert await said(*await asyncio.open_connection("127.0.0.1", port)) == b"hello"

    outer.run(main())


@pytest.mark.slow
@pytest.mark.root
def test_world_tap(outer: Outer) -> None:
    """Frames come by the kernel: the ring's completions have to wake the loop. The client is the kernel's, in a thread,
    so nothing else does."""
    machine = Machine(configure(net="tap", reactor=outer.reactor, ip="10.42.204.15/24"))
    outer.machines.append(machine)

    def ask() -> float:
        with socket.create_connection(("10.42.204.15", 7), timeout=BOUND) as sock:
            start = outer.loop.time()
            for _ in range(200):
                sock.sendall(b"hello")
                assert sock.recv(5) == b"hello"
            return outer.loop.time() - start

    async def main() -> float:
        async with machine.attach(), await machine.start_server(echo, None, 7):
            took = await outer.loop.run_in_executor(None, ask)
        await outer.loop.shutdown_default_executor()
        return took

    assert outer.run(main()) < 4, "not by chance and time-outs"


@pytest.mark.slow
@pytest.mark.root
def test_attached_in_another_thread_than_before(outer: Outer) -> None:
    """A ring belongs to the thread that entered it first; the machine starts another."""
    machine = Machine(configure(net="tap", reactor=outer.reactor, ip="10.42.205.15/24"))
    outer.machines.append(machine)
    machine.reactor.turn(0)
    answers = []

    def ask() -> bytes:
        with socket.create_connection(("10.42.205.15", 7), timeout=BOUND) as sock:
            sock.sendall(b"hello")
            return sock.recv(5)

    async def main() -> None:
        async with machine.attach(), await machine.start_server(echo, None, 7):
            answers.append(await asyncio.get_running_loop().run_in_executor(None, ask))

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()
    assert answers == [b"hello"]


@pytest.mark.slow
def test_the_example() -> None:
    pytest.importorskip("aiohttp")
    program = Path(__file__).parent.parent / "examples" / "attach.py"
    with subprocess.Popen([sys.executable, program, "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            with urllib.request.urlopen(url, timeout=BOUND) as answer:
                page = answer.read().decode()
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=BOUND)
        finally:
            process.kill()
    assert "ESTABLISHED  10.0.2.15:80 <- 10.0.2.2:" in page
    assert rest.startswith("1 connections, ")
    assert process.returncode == 0


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_where_it_cannot_be_attached(new_pair: Callable[..., tuple[Machine, Machine]]) -> None:
    left, _ = new_pair()
    with pytest.raises(RuntimeError, match="no running event loop"):
        left.attach()
    loop = asyncio.SelectorEventLoop()
    place = left.attach(loop)
    with pytest.raises(WorldError, match="attached already"):
        left.attach(loop)
    with pytest.raises(WorldError, match="attached to a loop"):
        left.new_event_loop()
    place.detach()
    loop.close()
    with pytest.raises(WorldError, match="that loop is closed"):
        left.attach(loop)
    own = left.new_event_loop()
    with pytest.raises(WorldError, match="open loop of its own"):
        left.attach(own)
    own.close()
    assert left.attachment is None
    with Machine(configure(net="host")) as host, pytest.raises(WorldError, match="world host"):
        host.attach()
    with contextlib.closing(asyncio.SelectorEventLoop()) as deaf:
        deaf.add_reader = lambda *args: asyncio.AbstractEventLoop.add_reader(deaf, *args)  # type: ignore[method-assign]
        with pytest.raises(WorldError, match="cannot watch descriptors"):
            left.attach(deaf)
    left.attach(loop := asyncio.SelectorEventLoop()).detach()  # nothing of that stuck
    loop.close()


def test_a_loop_that_runs_in_another_thread(new_pair: Callable[..., tuple[Machine, Machine]]) -> None:
    left, _ = new_pair()

    async def main() -> None:
        def attach() -> None:
            with pytest.raises(WorldError, match="another thread"):
                left.attach(loop)

        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=attach)
        thread.start()
        while thread.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(0)
        thread.join()

    asyncio.run(main())


def test_calls_outside(new_pair: Callable[..., tuple[Machine, Machine]]) -> None:
    left, _ = new_pair()

    async def main() -> None:
        await left.open_connection(RIGHT, 7)

    with pytest.raises(WorldError, match="not in the loop"):
        asyncio.run(main())
    loop = asyncio.SelectorEventLoop()
    with left.attach(loop), pytest.raises(WorldError, match="another loop"):
        asyncio.run(main())
    loop.close()


def test_closed_in_an_event_of_its_own(outer: Outer) -> None:
    """Refused, and nothing is half closed; the other machine may be."""

    async def main() -> None:
        left, right = outer.pair()

        class Closer(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                left.close()
                with pytest.raises(WorldError, match="in an event of its own"):
                    right.close()
                outer.loop.call_soon(right.close)

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        lost = outer.loop.create_future()
        left.attach()
        right.attach()
        await right.create_server(Closer, None, 7)
        transport, _ = await left.create_connection(asyncio.Protocol, RIGHT, 7)
        transport.write(b"close")
        assert isinstance(await lost, OSError)
        assert (left.attachment, right.attachment) == (None, None)

    outer.run(main())
    assert outer.errors == []


def test_detached_in_an_event_of_its_own(outer: Outer) -> None:
    async def main() -> None:
        left, right = outer.pair()
        got = outer.loop.create_future()

        class Leaver(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                assert right.attachment is not None
                right.attachment.detach()
                right.attach()
                got.set_result(data)

        left.attach()
        right.attach()
        server = await right.create_server(Leaver, None, 7)
        transport, _ = await left.create_connection(asyncio.Protocol, RIGHT, 7)
        transport.write(b"hello")
        assert await got == b"hello"
        transport.close()
        server.close()
        await server.wait_closed()

    outer.run(main())


def test_a_reactor_that_fails_is_let_go(outer: Outer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its descriptor stays readable: the loop would spin."""
    left, _ = outer.pair()
    left.attach(outer.loop)

    def poll() -> bool:
        raise OSError(5, "fails")

    monkeypatch.setattr(left.reactor, "poll", poll)
    outer.run(asyncio.sleep(0.01))
    assert left.attachment is None
    assert [str(context["exception"]) for context in outer.errors] == ["[Errno 5] fails"]


# --- pairs --------------------------------------------------------------------------------------------------------


def test_pair_plans() -> None:
    left, right = Machine.pair(configure(ip="192.0.2.1/24", gateway="192.0.2.2", mtu=1400))
    with left, right:
        assert left.addresses == ("192.0.2.1/24",)
        assert right.addresses == ("10.0.4.2/24", "fd00:6c69:626f:75::2/64")
        assert (left.config.net, left.plan.gateway) == ("pair", ("192.0.2.2",))


def test_what_makes_no_pair() -> None:
    with pytest.raises(ConfigError, match=r"net=pair: allowed: host, user or tap \(those of world pair: see Machine"):
        Machine(configure(net="pair"))
    with pytest.raises(ConfigError, match="in world pair there is nobody to ask"):
        Machine.pair(configure(ip="dhcp"))
    with pytest.raises(HostError, match="pcap"):
        Machine.pair(None, configure(pcap="/nowhere/at.pcap"))


def test_one_end_closed(outer: Outer) -> None:
    """As a cable that is pulled: the other machine goes on, and what it sends is lost."""

    async def main() -> None:
        left, right = outer.pair()
        right.close()
        async with left.attach():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await left.open_connection(RIGHT, 7)

    outer.run(main())

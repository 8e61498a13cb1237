"""A task may be cancelled at any await, once or twice, and nothing is left behind: tried at every one of them.

``stepped`` drives a program's coroutine and counts its suspensions; at the numbers that it is given it throws
CancelledError in, as a cancelled task would. A program is cancelled at its first suspension, at its second … until it
comes to its end uncancelled; hypothesis adds pairs, where the second strikes the cleaning up after the first. The
world's leak check runs after each.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Collection, Coroutine, Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import finish
from .peers import echo, port_of
from .worlds import World, new_world


class Stepped:
    """Awaits ``coroutine``, cancelled at those of its suspensions whose numbers are in ``at``."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: Collection[int]) -> None:
        self.coroutine = coroutine
        self.at = at
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        send: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731
        while True:
            try:
                future = send()
            except StopIteration as stop:
                return stop.value
            self.count += 1
            if self.count in self.at:
                task = asyncio.current_task()
                assert task is not None
                task.get_loop().call_soon(task.cancel)
            try:
                value = yield future
            except BaseException as error:
                send = lambda error=error: self.coroutine.throw(error)  # noqa: E731
            else:
                send = lambda value=value: self.coroutine.send(value)  # noqa: E731


def patient(handler: Any) -> Any:
    """A server's handler, for clients that go in the middle of things."""

    async def handle(reader: Any, writer: Any) -> None:
        with contextlib.suppress(OSError):
            await handler(reader, writer)

    return handle


async def talk(world: World, port: int, **options: Any) -> None:
    reader, writer = await asyncio.open_connection(world.host, port, **options)
    try:
        writer.write(b"hello\n")
        await writer.drain()
        assert await reader.readline() == b"hello\n"
        writer.write(bytes(300_000))
        await writer.drain()
        await reader.readexactly(300_000)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def streams(world: World, tls: Any, port: int) -> None:
    await talk(world, port)


async def secret(world: World, tls: Any, port: int) -> None:
    await talk(world, port, ssl=tls[1], server_hostname="localhost")


async def sockets(world: World, tls: Any, port: int) -> None:
    loop = world.loop
    with world.new_listener() as listener, world.new_socket() as client:
        await loop.sock_connect(client, listener.getsockname())
        accepted, _ = await loop.sock_accept(listener)
        with accepted:
            await loop.sock_sendall(client, b"question")
            assert await loop.sock_recv(accepted, 100) == b"question"
            reading = asyncio.ensure_future(loop.sock_recv_into(client, bytearray(10)))
            try:
                await asyncio.sleep(0)
                await loop.sock_sendall(accepted, b"answer")
                assert await reading == 6
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)


async def datagrams(world: World, tls: Any, port: int) -> None:
    loop = world.loop
    with (
        world.new_socket(type=socket.SOCK_DGRAM, serving=True) as bound,
        world.new_socket(type=socket.SOCK_DGRAM) as sock,
    ):
        bound.bind((world.host, 0))
        await loop.sock_connect(sock, bound.getsockname())
        await loop.sock_sendall(sock, b"datagram")
        assert await loop.sock_recv(bound, 100) == b"datagram"
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(world.host, 0))
    transport.close()
    await asyncio.sleep(0)


async def queues_and_limits(world: World, tls: Any, port: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for i in range(3):
            await queue.put(i)

    async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
        group.create_task(produce())
        for i in range(3):
            assert await asyncio.wait_for(queue.get(), 1000) == i
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(1000)


async def subprocesses(world: World, tls: Any, port: int) -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    try:
        out, _ = await process.communicate(b"through the cat")
        assert out == b"through the cat"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


PROGRAMS = (streams, secret, sockets, datagrams, queues_and_limits, subprocesses)


def cancelled_at(world: World, program: Any, at: Collection[int], tls: Any) -> int:
    """Run it. The number of its suspensions, if it came to its end; 0 if it was cancelled."""

    async def main() -> int:
        server = await asyncio.start_server(patient(echo), world.host, 0, ssl=tls[0] if program is secret else None)
        stepped = Stepped(program(world, tls, port_of(server)), at)

        async def run() -> None:
            await stepped

        task = asyncio.ensure_future(run())
        await asyncio.wait([task])
        server.close()
        await asyncio.sleep(0.002)  # what is on its way to the server's end
        if task.cancelled():
            return 0
        await task
        return stepped.count

    return int(world.run(main()))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_at_every_await(world: World, tls: Any, program: Any, caplog: pytest.LogCaptureFixture) -> None:
    number = 1
    while not (count := cancelled_at(world, program, {number}, tls)) or count >= number:
        number += 1
        assert number < 200
    assert number > 1
    world.errors.clear()  # a server's end of a TLS handshake that was cut off
    caplog.clear()  # asyncio's child watcher, of a process that was waited for otherwise


@pytest.mark.slow
def test_starting_a_server_at_every_await(world: World, tls: Any) -> None:
    async def serve(world: World, tls: Any, port: int) -> None:
        server = await asyncio.start_server(patient(echo), world.host, 0)
        server.close()

    number = 1
    while not cancelled_at(world, serve, {number}, tls):
        number += 1
    assert number > 1


KINDS = ("asyncio", "io_uring", "epoll", "pair")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.sampled_from(PROGRAMS[:5]), at=st.sets(st.integers(1, 25), min_size=2, max_size=2))
def test_twice(kind: str, tls: Any, program: Any, at: set[int]) -> None:
    """In worlds of their own, so that what is left is this example's."""
    with opened(kind) as world:
        with contextlib.suppress(asyncio.CancelledError):
            cancelled_at(world, program, at, tls)
        assert finish(world) == []


@contextlib.contextmanager
def opened(kind: str) -> Iterator[World]:
    world = new_world(kind)
    gc.freeze()  # as the fixture does
    try:
        yield world
    finally:
        if not world.loop.is_closed():
            world.close()
        gc.unfreeze()

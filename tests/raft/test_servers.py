"""server.py and client.py: three real nodes over loopback, on asyncio and on libos, and the program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from raft.check import History, check
from raft.client import Client, SessionExpired
from raft.messages import NOT_LEADER, Frames, Get, Hello, Open, Put, Reply, Request, Vote, frame
from raft.node import Role
from raft.server import Server
from raft.storage import MemoryStorage, StorageError

import libos

ROOT = Path(__file__).parent.parent.parent


class RealCluster:
    """Three servers in this process, each with a disk in memory."""

    def __init__(self) -> None:
        self.disks = {id: bytearray() for id in (1, 2, 3)}
        self.nodes: dict[int, tuple[str, int]] = {}
        self.servers: dict[int, Server] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> RealCluster:
        for id in self.disks:
            await self.listen(id)
        for id in self.disks:
            self.run(id)
        return self

    async def __aexit__(self, *error: object) -> None:
        for id in tuple(self.tasks):
            await self.stop(id)

    async def listen(self, id: int) -> None:
        self.servers[id] = Server(id, MemoryStorage(self.disks[id]))
        self.nodes[id] = await self.servers[id].listen(*self.nodes.get(id, ("127.0.0.1", 0)))

    def run(self, id: int) -> None:
        self.tasks[id] = asyncio.create_task(self.servers[id].run(self.nodes))

    async def stop(self, id: int) -> None:
        task = self.tasks.pop(id)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def leader(self) -> int:
        return next(id for id in self.tasks if self.servers[id].node.role is Role.LEADER)


@pytest.fixture(params=["asyncio", "libos"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[RealCluster], Awaitable[None]]], None]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else libos.new_event_loop

    def run(scene: Callable[[RealCluster], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(20), RealCluster() as cluster:
                await scene(cluster)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


@pytest.mark.slow
def test_the_cluster_survives_its_leader(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        seen = History()

        async def work(client: Client, name: int) -> None:
            for value in range(30):
                operation = seen.call(name, Put("x", 100 * name + value) if value % 2 else Get("x"))
                seen.answer(operation, await client.request(operation.op))

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(cluster.nodes)) for _ in range(3)]
            await clients[0].put("before", 1)
            first = cluster.leader()
            async with asyncio.TaskGroup() as tasks:
                for name, client in enumerate(clients):
                    tasks.create_task(work(client, name))
                await clients[0].close()  # in the middle: it comes back by itself
                await cluster.stop(first)
            assert cluster.leader() != first
            await cluster.listen(first)
            cluster.run(first)
            assert await clients[0].cas("before", 1, 2)
            assert await clients[1].get("before") == 2
        assert check(seen.operations) is None

    play(scene)


@pytest.mark.slow
def test_what_is_no_message_ends_its_connection_only(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        async with Client(cluster.nodes) as client:
            await client.put("x", 1)
            for nonsense in (
                b"GET / HTTP/1.1\r\n\r\n",
                frame(Hello(9)),
                frame(Hello(3)),
                frame(Vote(1 << 40, True, False)),
                frame(Request(0, 1, Get("x"))),
                frame(Request(1, 1, Get("x")))[:-1] + b"\xc1",
            ):
                reader, writer = await asyncio.open_connection(*cluster.nodes[2])
                writer.write(nonsense)
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            assert cluster.servers[2].refused == 6
            assert await client.get("x") == 1

    play(scene)


@pytest.mark.slow
def test_a_leader_that_resigns_tells_who_waits(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        async with Client(cluster.nodes) as client:
            await client.put("x", 1)
        leader = cluster.leader()
        for other in {1, 2, 3} - {leader}:
            await cluster.stop(other)
        reader, writer = await asyncio.open_connection(*cluster.nodes[leader])
        writer.write(frame(Request(0, 0, Open())))
        assert list(Frames().feed(await reader.read(1 << 16))) == [Reply(0, error=NOT_LEADER)]
        writer.close()
        await writer.wait_closed()

    play(scene)


@pytest.mark.slow
def test_a_client_that_was_forgotten_is_told(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        async with Client(cluster.nodes) as client:
            await client.put("x", 1)
            for server in cluster.servers.values():
                server.store.sessions.clear()
            with pytest.raises(SessionExpired):
                await client.put("x", 2)
            assert await client.get("x") == 1

    play(scene)


@pytest.mark.slow
def test_what_is_large(play: Callable[[Any], None]) -> None:
    """Many entries of the largest size at once go in as many messages as they need."""

    async def scene(cluster: RealCluster) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(cluster.nodes)) for _ in range(20)]
            async with asyncio.TaskGroup() as tasks:
                for name, client in enumerate(clients):
                    tasks.create_task(client.put(f"{name}", "x" * 65_000))
            assert len(str(await clients[0].get("19"))) == 65_000
            with pytest.raises(ValueError, match="a request may have"):
                await clients[0].put("x", "y" * 66_000)

    play(scene)


@pytest.mark.slow
def test_a_peer_that_is_silent_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP would wait for minutes."""
    monkeypatch.setattr("raft.server.SILENCE", 0.1)

    async def main() -> None:
        again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                again.set_result(None)
            with suppress(ConnectionError):
                await reader.read(-1)
            writer.close()

        peer = await asyncio.start_server(silent, "127.0.0.1", 0)
        server = Server(1, MemoryStorage(bytearray()))
        address = await server.listen("127.0.0.1", 0)
        task = asyncio.create_task(server.run({1: address, 2: peer.sockets[0].getsockname()[:2]}))
        async with asyncio.timeout(20):
            await again
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.slow
def test_a_node_whose_disk_fails_stops() -> None:
    class Full(MemoryStorage):
        def _write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async def main() -> None:
        server = Server(1, Full(bytearray()))
        address = await server.listen("127.0.0.1", 0)
        with pytest.raises(OSError, match="No space"):
            await server.run({1: address})

    asyncio.run(main())


def test_a_node_whose_disk_has_forgotten_does_not_take_part() -> None:
    disk = bytearray()
    storage = MemoryStorage(disk)
    for vote in (1, 2):
        storage.save_vote(vote, vote)
        storage.sync()
    disk[4] ^= 1

    async def main() -> None:
        server = Server(1, MemoryStorage(disk))
        address = await server.listen("127.0.0.1", 0)
        with pytest.raises(StorageError, match="is damaged"):
            await server.run({1: address})

    asyncio.run(main())


@pytest.mark.slow
def test_the_demonstration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.raft", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "count 90" in done.stdout
    assert done.stdout.endswith("operations, linearizable\n")

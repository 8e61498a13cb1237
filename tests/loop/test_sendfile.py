"""``loop.sendfile``: by the kernel where it can, by reading and writing elsewhere."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from .peers import Recorder, connected, port_of
from .worlds import World, until

DATA = bytes(range(256)) * 4000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def test_a_whole_file(world: World, path: Path) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.transport.write(b"before ")
        with path.open("rb") as file:
            assert await world.loop.sendfile(connection.transport, file) == len(DATA)
            assert file.tell() == len(DATA)
        connection.transport.write(b" after")
        connection.transport.close()
        await connection.peer.lost
        assert connection.peer.data == b"before " + DATA + b" after"
        await connection.end()

    world.run(main())


def test_a_part_of_a_file(world: World, path: Path) -> None:
    async def main() -> None:
        connection = await connected(world)
        with path.open("rb") as file:
            assert await world.loop.sendfile(connection.transport, file, 100, 1000) == 1000
            assert file.tell() == 1100
            assert await world.loop.sendfile(connection.transport, file, len(DATA) - 10, 1000) == 10
            assert await world.loop.sendfile(connection.transport, file, len(DATA) + 5, 1000) == 0
        connection.transport.close()
        await connection.peer.lost
        assert connection.peer.data == DATA[100:1100] + DATA[-10:]
        await connection.end()

    world.run(main())


def test_without_a_file_of_the_kernel(world: World) -> None:
    async def main() -> None:
        connection = await connected(world)
        assert await world.loop.sendfile(connection.transport, io.BytesIO(DATA), 7) == len(DATA) - 7
        connection.transport.close()
        await connection.peer.lost
        assert connection.peer.data == DATA[7:]
        await connection.end()
        connection = await connected(world)
        with pytest.raises(RuntimeError):
            await world.loop.sendfile(connection.transport, io.BytesIO(DATA), fallback=False)
        await connection.end()

    world.run(main())


def test_over_tls(world: World, path: Path, tls: Any) -> None:
    async def main() -> None:
        ends: list[Any] = []
        server = await world.loop.create_server(lambda: ends.append(Recorder()) or ends[-1], world.host, 0, ssl=tls[0])
        transport, client = await world.loop.create_connection(
            Recorder, world.host, port_of(server), ssl=tls[1], server_hostname="localhost"
        )
        with path.open("rb") as file:
            assert await world.loop.sendfile(transport, file) == len(DATA)
        await until(lambda: ends[0].data == DATA)
        transport.close()
        await client.lost
        await ends[0].lost
        server.close()

    world.run(main())


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    return path


def test_a_peer_that_goes_meanwhile(world: World, large: Path) -> None:
    class Leaving(Recorder):
        def data_received(self, data: bytes) -> None:
            self.transport.abort()

    async def main() -> None:
        connection = await connected(world, serving=Leaving)
        with large.open("rb") as file, pytest.raises(ConnectionError):
            await world.loop.sendfile(connection.transport, file)
        await connection.end()

    world.run(main())


def test_it_waits_for_a_peer_that_does_not_read(world: World, large: Path) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.peer.transport.pause_reading()
        with large.open("rb") as file:
            sending = asyncio.ensure_future(world.loop.sendfile(connection.transport, file))
            await asyncio.sleep(0.01)
            assert not sending.done()
            connection.peer.transport.resume_reading()
            assert await sending == 32 << 20
        connection.transport.close()
        await connection.peer.lost
        assert len(connection.peer.data) == 32 << 20
        await connection.end()

    world.run(main())


def test_it_is_cancelled(world: World, large: Path) -> None:
    async def main() -> None:
        connection = await connected(world)
        connection.peer.transport.pause_reading()
        with large.open("rb") as file:
            sending = asyncio.ensure_future(world.loop.sendfile(connection.transport, file))
            await asyncio.sleep(0.01)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        connection.transport.abort()
        connection.peer.transport.abort()
        await connection.end()

    world.run(main())


def test_only_while_it_is_open(world: World, path: Path) -> None:
    async def main() -> None:
        connection = await connected(world)
        await connection.end()
        with path.open("rb") as file, pytest.raises(RuntimeError, match="Transport is closing"):
            await world.loop.sendfile(connection.transport, file)

    world.run(main())

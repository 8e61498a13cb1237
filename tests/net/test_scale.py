"""Many connections in one process: client and server of each over a pair, on one loop."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from .conftest import Wire

CONNECTIONS = 10_000
AT_ONCE = 500
BYTES_EACH = 8192  # both ends together, as the process grows; measured: 4.3 kB with CPython 3.11


class Quiet(asyncio.Protocol):
    __slots__ = ("heard", "transport")

    def __init__(self) -> None:
        self.heard = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data


class Echo(Quiet):
    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
def test_ten_thousand_idle_connections(wire: Wire, record_property: Any) -> None:
    async def main() -> None:
        server = await wire.loop.create_server(Echo, "10.0.0.2", 7, backlog=AT_ONCE)
        quiet: list[Quiet] = []
        before = resident()
        while len(quiet) < CONNECTIONS:
            dialled = (wire.loop.create_connection(Quiet, "10.0.0.2", 7) for _ in range(AT_ONCE))
            quiet += [protocol for _, protocol in await asyncio.gather(*dialled)]
        each = (resident() - before) / CONNECTIONS
        record_property("bytes_per_connection", round(each))
        assert each < BYTES_EACH
        assert [stack.memory()["in_use"] for stack in wire.stacks] == [0, 0], "an idle connection holds a buffer"

        # They cost no time either: nothing is due, and all of them still work.
        turns = wire.reactor.statistics()["turns"]
        await asyncio.sleep(0.1)
        assert wire.reactor.statistics()["turns"] - turns < 10
        for protocol in quiet[::100]:
            protocol.transport.write(b"still here")
        while not all(protocol.heard == b"still here" for protocol in quiet[::100]):  # noqa: ASYNC110
            await asyncio.sleep(0)
        for protocol in quiet:
            protocol.transport.abort()
        server.close()

    wire.run(main(), timeout=60)

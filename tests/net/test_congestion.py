"""Congestion control in Python in a running loop: see tests/stack/test_tcp_congestion_python.py for what it does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from libos.net.congestion import Answer, Round

from .conftest import SERVER, Wire

SIZE = 4 << 20


async def send(wire: Wire, size: int) -> int:
    """``size`` bytes from the client to the server; how many came."""
    loop = asyncio.get_running_loop()
    received = loop.create_future()

    class Count(asyncio.Protocol):
        total = 0

        def data_received(self, data: bytes) -> None:
            self.total += len(data)

        def eof_received(self) -> None:
            received.set_result(self.total)

    server = await loop.create_server(Count, SERVER[0], 80)
    transport, _ = await loop.create_connection(asyncio.Protocol, SERVER[0], 80)
    transport.write(bytes(size))
    transport.write_eof()
    total: int = await received
    server.close()
    return total


def test_a_controller_is_asked_in_the_turns_of_the_loop(wire: Wire) -> None:
    rounds: list[Round] = []

    class Fixed:
        def on_round(self, r: Round) -> Answer:
            rounds.append(r)
            return Answer(cwnd=200_000)

    stack = wire.stacks[0]
    stack.register_congestion_control("fixed", Fixed)
    stack.set_congestion_control("fixed")
    assert wire.run(send(wire, SIZE)) == SIZE
    assert SIZE // 300_000 < len(rounds) < SIZE // 20_000
    assert rounds[-1].cwnd == 200_000


def test_one_that_raises_is_said_and_replaced(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def on_round(self, r: Round) -> Any:
            raise LookupError

    stack = wire.stacks[0]
    stack.register_congestion_control("broken", Broken)
    stack.set_congestion_control("broken")
    with caplog.at_level(logging.ERROR):
        assert wire.run(send(wire, SIZE)) == SIZE
    assert len(caplog.records) == 1
    assert len(stack.controllers) == 0
    assert wire.errors == []

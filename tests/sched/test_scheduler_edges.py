"""The corners of the C half of the loop (``sched/objects/``): races, wrong types, objects at the end of their lives."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from libos.sched.loop import Loop
from libos.sched.reactor import Reactor


@pytest.fixture
def ours(reactor: Reactor) -> Iterator[Loop]:
    loop = Loop(reactor)
    yield loop
    loop.close()


def in_a_thread(call: Any, *args: Any) -> None:
    thread = threading.Thread(target=call, args=args)
    thread.start()
    thread.join()


class Interposed:
    """A socket whose recv() is preceded, once, by ``first()``."""

    def __init__(self, sock: Any, first: Any) -> None:
        self.sock, self.first = sock, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def recv(self, size: int) -> bytes:
        first, self.first = self.first, lambda: None
        first()
        data: bytes = self.sock.recv(size)
        return data


def test_a_call_while_the_self_pipe_is_emptied_costs_no_later_one_its_wake_up(ours: Loop) -> None:
    seen: list[str] = []
    calls = ours._ssock  # type: ignore[attr-defined]
    ours._ssock = Interposed(  # type: ignore[attr-defined]
        calls, lambda: in_a_thread(ours.call_soon_threadsafe, seen.append, "while it was emptied")
    )
    ours.call_soon_threadsafe(ours.call_later, 0.001, ours.stop)
    ours.run_forever()
    assert seen == ["while it was emptied"]
    thread = threading.Timer(0.01, ours.call_soon_threadsafe, (ours.stop,))
    late = ours.call_later(5, ours.stop)
    thread.start()
    ours.run_forever()
    thread.join()
    assert ours.time() < late.when()
    late.cancel()


@pytest.mark.parametrize("first", ["loop", "reactor"])
def test_what_is_open_at_the_end_outlives_the_loop_and_its_reactor(reactor: Reactor, first: str) -> None:
    loop = Loop(reactor)

    async def main() -> list[Any]:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        return [server, reader, writer]

    server, _, writer = loop.run_until_complete(main())
    for owner in (loop, reactor) if first == "loop" else (reactor, loop):
        owner.close()
    writer.write(b"more")
    assert writer.transport.get_extra_info("socket").fileno() >= 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ResourceWarning)
        for sock in server.sockets:
            sock._sock.close()
        server.close()
        del server, writer, _
        gc.collect()
    assert any("unclosed transport" in str(warning.message) for warning in told)


def test_a_reactor_cannot_be_closed_in_a_turn(reactor: Reactor, new_probe: Any) -> None:
    probe = new_probe()
    told: list[BaseException] = []

    def sink(mask: int) -> None:
        try:
            reactor.close()
        except RuntimeError as exc:
            told.append(exc)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    while not told:
        reactor.turn(0)
    assert "in a turn" in str(told[0])
    reactor.turn(0)

"""The corners of the C half of the loop (``sched/objects/``): races, wrong types, objects at the end of their lives."""

from __future__ import annotations

import threading
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

"""The one body of loop tests: every test here runs in each world, and leaves nothing.

What a world does otherwise than asyncio stands in ``deviations.py``. After each test the leak check below looks for
tasks, handles, timers, transports, sockets and the stacks' buffers; descriptors and threads are checked for all tests
(``tests/conftest.py``), and a ResourceWarning is an error wherever the collector finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from libos.errors import HostError
from libos.net.sockets import StackSocket

from .deviations import TABLE
from .worlds import KINDS, World, new_world

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if HERE not in item.path.parents or callspec is None or "world" not in callspec.params:
            continue
        for row in TABLE:
            if (
                row.test in (item.path.name, f"{item.path.name}::{item.originalname}")
                and callspec.params["world"] in row.kinds.split()
            ):  # type: ignore[attr-defined]
                item.add_marker(
                    pytest.mark.skip(reason=row.reason)
                    if row.skip
                    else pytest.mark.xfail(reason=row.reason, strict=True)
                )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let the leak check know of a failure: what its traceback holds is no leak."""
    report = yield
    if report.when == "call":
        item.stash[OUTCOME] = report.outcome
    return report


OUTCOME = pytest.StashKey[str]()  # "skipped" is also what was expected to fail
ABANDONED: list[World] = []


@pytest.fixture(scope="session", autouse=True)
def uvloops_own_descriptors() -> None:
    """uvloop opens a pipe for the whole process when its first loop runs."""
    with (
        contextlib.suppress(ImportError),
        contextlib.closing(importlib.import_module("uvloop").new_event_loop()) as loop,
    ):
        loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[World]:
    try:
        world = new_world(request.param)
    except (ImportError, HostError) as error:
        pytest.skip(str(error))
    asyncio.set_event_loop(world.loop)  # Python 3.11 looks there for the child watcher's loop
    gc.freeze()  # the collector, and the check, look only at what the test makes
    try:
        yield world
        outcome = request.node.stash.get(OUTCOME, "failed")
        if outcome == "failed" and world.kind == "uvloop":  # with a server or a transport open, its close() hangs
            gc.unfreeze()
            ABANDONED.append(world)
            return
        left = finish(world)
    finally:
        asyncio.set_event_loop(None)
        if world not in ABANDONED and not world.loop.is_closed():
            world.close()
        for thread in threading.enumerate():
            if "waitpid-" in thread.name:  # asyncio's child watcher: it has told the loop, and is ending
                thread.join(2)
        gc.collect()
        living = survivors()
        gc.unfreeze()
    if outcome == "passed":
        assert not world.errors, "what the exception handler was told"
        assert not left
        assert not living
        logged = [
            r.getMessage() for r in caplog.get_records("call") if r.name == "asyncio" and r.levelno > logging.INFO
        ]
        assert not logged


@pytest.fixture
def loop(world: World) -> asyncio.AbstractEventLoop:
    return world.loop


@pytest.fixture
def names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """``world.name`` has two addresses, whatever the host's own table of hosts has."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, family: int = 0, *rest: Any, **options: Any) -> list[Any]:
        if host != world.name:
            return resolve(host, port, family, *rest, **options)
        found = resolve(world.host, port, 0, *rest, **options) + resolve(world.host6, port, 0, *rest, **options)
        return [info for info in found if family in (0, info[0])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def finish(world: World) -> list[str]:
    """Let the handlers of a test's servers end, close the loop, and say what was left."""
    loop = world.loop
    if loop.is_closed():
        return []
    forgotten: set[asyncio.Task[Any]] = set()

    async def settle() -> None:
        nonlocal forgotten
        for _ in range(5):
            await asyncio.sleep(0)
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            _, forgotten = await asyncio.wait(tasks, timeout=2)
        for _ in range(5):
            await asyncio.sleep(0)
        if world.leftovers():  # the last segments of closed connections
            deadline = loop.time() + 2
            while world.leftovers() and loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    loop.run_until_complete(settle())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    left = [*world.leftovers(), *map(repr, forgotten)]
    for task in forgotten:
        task.cancel()
    left += [f"timer {h!r}" for h in getattr(loop, "_scheduled", ()) if not h.cancelled()]
    left += [f"callback {h!r}" for h in getattr(loop, "_ready", ()) if not h.cancelled()]
    if not world.errors:
        gc.collect()  # while the handler can still be told of an exception that nobody retrieved
    world.close()
    return left


def survivors() -> list[str]:
    """What a test made that is still alive and should be neither."""
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        if (
            kind.__name__.endswith("Transport")
            or issubclass(kind, (asyncio.BaseTransport, asyncio.StreamWriter))
            or (issubclass(kind, asyncio.Future) and not thing.done())
            or (issubclass(kind, socket.socket) and thing.fileno() >= 0)
            or (issubclass(kind, StackSocket) and thing.id >= 0)
        ):
            found.append(f"{thing!r} is alive")
    return found


@pytest.fixture(scope="session")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for a server called localhost, and for a client that trusts it."""
    pem = HERE / "localhost.pem"  # self-signed, of no use anywhere else
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))

"""Scripts, modules, libraries that nobody changed for this, and several programs on a machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from libos.errors import WorldError
from libos.sim import Module, World
from tests.sim.echo import ask, serve

SCRIPT = """
import asyncio, os, sys

async def main():
    reader, writer = await asyncio.open_connection(sys.argv[1], 7)
    writer.write(b"hello\\n")
    print(sys.argv[0].endswith("client.py"), __name__, os.path.basename(sys.path[0]))
    sys.stdout.write("got ")
    print((await reader.readline()).decode(), end="")
    writer.close()

if __name__ == "__main__":
    asyncio.run(main())
    asyncio.run(asyncio.sleep(1))
    print("no newline", end="")
"""


def test_a_script_with_asyncio_run(tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(SCRIPT)
    argv, main = sys.argv, sys.modules["__main__"]
    with World() as world:
        world.machine("server", serve, daemon=True)
        for name in ("a", "b"):
            world.machine(name, tmp_path / "client.py", args=("server",))
        world.run()
        for name in ("a", "b"):
            lines = [line.text for line in world.log if line.machine == name]
            assert lines[1:] == ["got hello", "no newline"]
            if not sys.flags.safe_path:
                assert lines[0] == f"True __main__ {tmp_path.name}"
        assert world.log.text("a").splitlines()[-1].endswith(" a: no newline")
    assert sys.argv is argv
    assert sys.modules["__main__"] is main


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run_as_a_module.py").write_text("import sys; print('module', sys.argv[1:])")
    monkeypatch.syspath_prepend(str(tmp_path))
    with World() as world:
        world.machine("a", Module("run_as_a_module"), args=(1, "two"))
        world.run()
        assert [line.text for line in world.log] == ["module ['1', 'two']"]


def test_an_unmodified_aiohttp() -> None:
    web = pytest.importorskip("aiohttp.web")
    aiohttp: ModuleType = sys.modules["aiohttp"]

    async def hello(request: object) -> object:
        await asyncio.sleep(0.1)
        return web.json_response({"hello": "world"})

    async def run_server() -> None:
        app = web.Application()
        app.router.add_get("/", hello)
        await web._run_app(app, port=80, print=None)

    async def fetch() -> list[object]:
        async with aiohttp.ClientSession() as session:

            async def get() -> object:
                async with session.get("http://web/") as response:
                    assert response.status == 200
                    return await response.json()

            return list(await asyncio.gather(*(get() for _ in range(10))))

    with World(seed=5) as world:
        world.network(wire="delay=10ms,loss=1%")
        world.machine("web", run_server, daemon=True)
        client = world.machine("client", fetch)
        world.run()
        assert client.result == [{"hello": "world"}] * 10
        assert world.time > 0.1


def test_several_programs_on_a_machine() -> None:
    """They share the stack, loopback included; each has a loop of its own."""
    with World() as world:
        machine = world.machine("a", serve, daemon=True)
        clients = [machine.start(ask, "localhost", 100, 3) for _ in range(3)]
        world.run()
        assert [client.result for client in clients] == [300] * 3
        assert len({client.process.pid for client in clients}) == 3


def test_programs_without_a_loop() -> None:
    def compute(a: int, b: int) -> int:
        return a * b

    def nap() -> float:
        time.sleep(1)
        return world.time

    async def beat() -> None:
        for _ in range(4):
            await asyncio.sleep(0.5)

    with World() as world:
        first = world.machine("a", compute, args=(6, 7))
        second = world.machine("b", nap)
        third = second.start(beat)
        world.run()
        assert first.result == 42
        assert second.result == 1
        assert third.ended


def test_async_generators_end_with_their_loop() -> None:
    closed = []

    async def numbers(name: str) -> object:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.1)
        finally:
            closed.append(name)

    async def main(name: str) -> None:
        async for _ in numbers(name):  # type: ignore[attr-defined]
            if world.time > 1:
                break

    with World() as world:
        for name in "ab":
            world.machine(name, main, args=(name,))
        hooks = sys.get_asyncgen_hooks()
        world.run()
        assert sys.get_asyncgen_hooks() == hooks
    assert sorted(closed) == ["a", "b"]


def test_context_is_each_programs_own() -> None:
    import contextvars

    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def main(mine: str) -> str:
        name.set(mine)
        for _ in range(3):
            await asyncio.sleep(1)
        return name.get()

    with World() as world:
        machines = [world.machine(each, main, args=(each,)) for each in "abc"]
        world.run()
        assert [machine.result for machine in machines] == ["a", "b", "c"]


def test_signals_are_the_machines() -> None:
    async def wait() -> float:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        return world.time

    before = signal.getsignal(signal.SIGTERM)
    with World() as world:
        machine = world.machine("a", wait)
        other = world.machine("b", asyncio.sleep, args=(3,))
        told: list[bool] = []
        world.at("2s", lambda: told.extend([machine.signal(signal.SIGTERM), other.signal(signal.SIGTERM)]))
        world.run()
        assert machine.result == 2
        assert told == [True, False]
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_ends_the_run() -> None:
    async def beat() -> None:
        for _ in range(1000):
            await asyncio.sleep(1)

    with World() as world:
        world.machine("a", beat)
        world.at("1s", lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            world.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_of_machines_there_is_no_loop() -> None:
    def make_loop() -> None:
        with pytest.raises(WorldError, match="outside"):
            asyncio.new_event_loop()

    with World() as world:
        world.at("1s", make_loop)
        world.run(until="2s")


def test_the_host_has_its_asyncio_back() -> None:
    with World() as world:
        world.machine("a", asyncio.sleep, args=(1,))
        world.run()
        assert asyncio.run(asyncio.sleep(0, "still here")) == "still here"


def test_modules_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """cffi's libraries stand in sys.modules and have no namespace (``cryptography`` brings one)."""

    class Odd(ModuleType):
        def __getattribute__(self, name: str) -> object:
            raise AttributeError(name)

    from libos._native import lib

    monkeypatch.setitem(sys.modules, "_odd_module", Odd("_odd_module"))
    monkeypatch.setitem(sys.modules, "_odd_library", lib)
    with World() as world:
        world.machine("a", asyncio.sleep, args=(1,))
        world.run()
        assert world.time == pytest.approx(1)


def test_how_logging_is_set_up_stays_in_the_world() -> None:
    import logging

    async def main() -> None:
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
        logging.getLogger("made.in.a.world").setLevel(logging.DEBUG)
        await asyncio.sleep(1)
        logging.getLogger("made.in.a.world").debug("seen")

    def run() -> str:
        with World() as world:
            world.machine("a", main)
            world.run(until="0.5s")
            assert logging.getLogger("made.in.a.world").level == logging.NOTSET
            world.run()
            assert [line.text for line in world.log] == ["made.in.a.world seen"]
            return world.digest

    before = list(logging.root.handlers), logging.root.level  # pytest's
    assert run() == run()
    assert (logging.root.handlers, logging.root.level) == before

"""Programs of a World see their machine: what tests/sim/test_owned.py shows of fakes, with real ones."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import pytest

from libos.errors import EscapeError
from libos.sim import World, check_determinism


def look() -> dict[str, Any]:
    return {
        "time": time.time(),
        "monotonic": time.monotonic(),
        "now": datetime.datetime.now().isoformat(),
        "random": random.random(),
        "seeded by itself": random.Random().random(),
        "token": secrets.token_hex(8),
        "uuid1": uuid.uuid1(),
        "uuid4": uuid.uuid4(),
    }


def results(seed: int, *programs: Any, skew: int = 0) -> list[Any]:
    with World(seed) as world:
        machines = [world.machine(f"m{i}", program, skew=skew) for i, program in enumerate(programs)]
        world.run()
        return [machine.result for machine in machines]


def test_each_machine_sees_its_own_and_again_by_seed() -> None:
    first, other = results(1, look, look)
    for name in first:
        assert name in ("time", "now") or first[name] != other[name], name
    assert results(1, look, look) == [first, other]
    assert results(2, look, look) != [first, other]


def test_programs_of_one_machine_are_two_processes() -> None:
    def who() -> tuple[int, str, str | None, float]:
        os.environ["ONLY"] = "mine"
        return os.getpid(), socket.gethostname(), os.getenv("WHAT"), random.random()

    with World(1) as world:
        machine = world.machine("host")
        one, two = machine.start(who), machine.start(who, env={"WHAT": "two"})
        world.run()
    assert one.result[:3] == (100, "host", None)
    assert two.result[:3] == (101, "host", "two")
    assert one.result[3] != two.result[3]
    assert "ONLY" not in os.environ


def test_the_clocks_agree_with_the_loops() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        began, day = time.monotonic(), time.time()
        await asyncio.sleep(3600)
        assert time.monotonic() - began == pytest.approx(3600, abs=0.01)
        assert time.time() - day == pytest.approx(3600, abs=0.01)
        assert loop.time() == pytest.approx(time.monotonic())

    results(1, program)


def test_state_lasts_from_run_to_run() -> None:
    async def program() -> list[float]:
        drawn = [random.random()]
        await asyncio.sleep(10)
        return [*drawn, random.random()]

    def run(*stops: str) -> Any:
        with World(3) as world:
            machine = world.machine("a", program)
            for stop in stops:
                world.run(until=stop)
            world.run()
            return machine.result

    assert run("1s", "5s") == run()
    assert len(set(run())) == 2


def test_a_blocking_sleep_takes_virtual_time() -> None:
    def program() -> float:
        began = time.monotonic()
        time.sleep(60)
        return time.monotonic() - began

    assert results(1, program)[0] == pytest.approx(60)


def test_threads_run_inline() -> None:
    async def program() -> list[int]:
        order: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(order.append, n) for n in range(20)))
        thread = threading.Thread(target=order.append, args=(20,))
        thread.start()
        thread.join()
        event = threading.Event()
        threading.Timer(5, event.set).start()
        while not event.is_set():  # noqa: ASYNC110
            await asyncio.sleep(1)
        threading.Thread(target=order.append, args=(21,)).start()  # nobody waits, but the end of the program
        return order

    threads = threading.active_count()
    first, other = results(1, program, program)
    assert threading.active_count() == threads
    assert sorted(first) == sorted(other) == list(range(22))
    assert first != other
    assert results(1, program, program) == [first, other]


def test_a_thread_outlives_its_loop() -> None:
    def program() -> list[str]:
        seen: list[str] = []

        async def start() -> None:
            threading.Timer(5, seen.append, ("late",)).start()

        async def wait() -> None:
            await asyncio.sleep(10)

        asyncio.run(start())
        assert seen == []
        asyncio.run(wait())
        return seen

    assert results(1, program) == [["late"]]


@pytest.mark.parametrize(
    ("call", "program"),
    [
        ("os.fork()", lambda: os.fork()),
        ("subprocess.Popen()", lambda: subprocess.run(["true"])),
        ("socket.socket(AF_UNIX)", lambda: socket.socket(socket.AF_UNIX)),
        ("socket.create_connection()", lambda: socket.create_connection(("m0", 80))),
        ("signal.alarm()", lambda: signal.alarm(1)),
        ("a blocking threading.Event.wait()", lambda: threading.Event().wait()),
    ],
)
def test_an_escape_ends_the_run_and_is_named(call: str, program: Any) -> None:
    with pytest.raises(EscapeError) as caught:
        results(1, program)
    assert caught.value.call == call
    assert "in m0/" in caught.value.__notes__[0]


def test_asyncios_own_escapes_are_named_too() -> None:
    async def spawn() -> None:
        await asyncio.create_subprocess_exec("true")

    async def unix() -> None:
        await asyncio.open_unix_connection("/nowhere")

    for program, call in ((spawn, "subprocess.Popen()"), (unix, "socket.socket(AF_UNIX)")):
        with pytest.raises(EscapeError) as caught:
            results(1, program)
        assert caught.value.call == call


def test_signal_handlers_are_the_programs() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    async def program() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()

    with World(1) as world:
        machine = world.machine("a", program)
        world.after("1s", lambda: machine.signal(signal.SIGTERM))
        world.run()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def draw_and_talk(name: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    if name == "server":
        async with await asyncio.start_server(serve, "0.0.0.0", 7):
            await asyncio.sleep(30)
        return
    await asyncio.sleep(random.random())
    for _ in range(5):
        reader, writer = await asyncio.open_connection("server", 7)
        said = secrets.token_hex(random.randrange(1, 40)).encode()
        writer.write(await asyncio.to_thread(bytes, said))
        assert await reader.read(100) == said
        writer.close()
        await asyncio.sleep(random.expovariate(1))
        print(uuid.uuid4(), time.time())


def new_world() -> World:
    world = World(11)
    for name in ("server", "client"):
        world.machine(name, draw_and_talk, args=(name,))
    return world


def test_a_run_of_all_that_repeats() -> None:
    digest = check_determinism(new_world)
    assert digest == check_determinism(new_world)


def test_a_draw_is_in_the_digest() -> None:
    def digest(draws: int) -> str:
        with World(1) as world:
            world.machine("a", lambda: [random.random() for _ in range(draws)] and None)
            world.run()
            return world.digest

    assert digest(0) != digest(1) != digest(2)
    assert digest(2) == digest(2)


def test_threads_are_joined_when_a_program_exits() -> None:
    seen: list[int] = []

    def program() -> None:
        threading.Thread(target=seen.append, args=(1,)).start()
        threading.Thread(target=seen.append, args=(2,), daemon=True).start()
        sys.exit(0)

    results(1, program)
    assert seen == [1]


@pytest.mark.slow
def test_another_interpreter_with_another_hash_seed_does_the_same() -> None:
    source = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\nimport test_process as t\n"
    source += "with t.new_world() as world:\n    world.run()\n    print(world.digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", source],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1

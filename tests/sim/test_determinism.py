"""One seed does the same again: in this process, in another, with another hash seed. Another seed does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libos.sim import NotDeterministic, World, check_determinism
from tests.sim.echo import ask, serve

ROOT = Path(__file__).resolve().parent.parent.parent


def chatter(seed: int) -> World:
    """Several that run at the same instants, wires that lose, cancelled tasks, a set of tasks."""

    async def client(host: str) -> int:
        done, pending = await asyncio.wait(
            {asyncio.create_task(ask(host, 3000, times)) for times in (1, 2, 3, 100)}, timeout=0.3
        )
        for task in pending:
            task.cancel()
        return len(done)

    world = World(seed=seed)
    world.network(wire="delay=1ms,jitter=1ms,loss=1%,reorder=2%,duplicate=1%")
    world.machine("server", serve, daemon=True)
    for i in range(4):
        world.machine(f"client{i}", client, args=("server",))
    return world


def digest_of(seed: int) -> str:
    with chatter(seed) as world:
        world.run()
        return world.digest


def test_the_same_seed_does_the_same() -> None:
    assert check_determinism(lambda: chatter(11)) == digest_of(11)


def test_another_seed_does_something_else() -> None:
    assert len({digest_of(seed) for seed in range(4)}) == 4


@pytest.mark.slow
def test_other_processes_and_hash_seeds_do_the_same() -> None:
    code = "from tests.sim.test_determinism import digest_of; print(digest_of(11))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {digest_of(11)}


def test_the_first_event_that_differs_is_shown() -> None:
    runs = []

    async def unsteady() -> None:
        await asyncio.sleep(1)
        print("one", len(runs))

    def make() -> World:
        runs.append(1)
        world = World()
        world.machine("a", unsteady)
        return world

    with pytest.raises(
        NotDeterministic, match=r"(?s)first: +1\.000000 a: a line was written.*second: +1\.0"
    ) as failure:
        check_determinism(make)
    assert "in event" in str(failure.value)


def test_one_run_may_stop_before_the_other() -> None:
    runs = []

    async def work() -> None:
        await asyncio.sleep(len(runs))

    def make() -> World:
        runs.append(1)
        world = World()
        world.machine("a", work)
        return world

    with pytest.raises(NotDeterministic, match="two runs"):
        check_determinism(make)


def test_sets_of_futures_have_an_order() -> None:
    """By address it would depend on what the allocator gave before."""

    def order(ballast: int) -> list[int]:
        found: list[int] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            waste: list[object] = []
            futures = []
            for _ in range(30):
                waste += [asyncio.Future(loop=loop) for _ in range(ballast)]  # has no number
                futures.append(loop.create_future())
            numbers = {future: number for number, future in enumerate(futures)}
            found.extend(numbers[future] for future in set(futures))

        with World() as world:
            world.machine("a", main)
            world.run()
        return found

    assert order(0) == order(1) == order(50)
    assert sorted(order(7)) == list(range(30))


def test_the_order_of_machines_at_one_instant_is_drawn() -> None:
    def order(seed: int) -> str:
        async def tick(name: str) -> None:
            for _ in range(3):
                await asyncio.sleep(1)
                said.append(name)

        said: list[str] = []
        with World(seed=seed) as world:
            for name in "abcd":
                world.machine(name, tick, args=(name,))
            world.run()
        return "".join(said)

    orders = [order(seed) for seed in range(8)]
    assert len(set(orders)) > 4
    assert all(sorted(said[:4]) == list("abcd") for said in orders)

"""Machines that talk in virtual time, how long that takes, and how a run ends."""

from __future__ import annotations

import asyncio
import gc
import os
import time
import weakref

import pytest

from libos.errors import WorldError
from libos.sim import Deadlock, LimitReached, ProgramFailed, World
from tests.sim.echo import ask, serve


def echo(seed: int = 1, wire: str = "delay=5ms,loss=2%", clients: int = 1) -> World:
    world = World(seed=seed)
    world.network(wire=wire)
    world.machine("server", serve, daemon=True)
    for i in range(clients):
        world.machine(f"client{i}", ask, args=("server",))
    return world


def test_two_machines_talk_over_a_bad_wire() -> None:
    with echo() as world:
        world.run()
        assert world.machines["client0"].result == 100_000
        assert world.time > 10 * 0.02  # ten round trips through four wires
        lost = [way["lost"] for wire in world.networks["net"].wires.values() for way in wire.stats()]
        assert sum(lost) > 0
        sent_again = [machine.machine.statistics()["retransmissions"] for machine in world.machines.values()]
        assert sum(sent_again) > 0


def test_an_hour_of_nothing_costs_milliseconds() -> None:
    async def idle() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    with World() as world:
        machine = world.machine("a", idle)
        began = time.monotonic()
        world.run()
        assert time.monotonic() - began < 1  # as a rule a few milliseconds
        assert 3600 <= machine.result < 3600.001
        assert 3600 <= world.time < 3600.001


def test_timers_are_exact() -> None:
    async def tick(times: list[float]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for delay in (0.001, 0.25, 1e-6):
            await asyncio.sleep(delay)
            times.append(loop.time() - began)

    found: list[float] = []
    with World() as world:
        world.machine("a", tick, args=(found,))
        world.run()
    assert found == pytest.approx([0.001, 0.251, 0.251001], abs=1e-8)


def test_a_hundred_machines() -> None:
    with echo(clients=99, wire="delay=1ms") as world:
        world.run()
        assert [world.machines[f"client{i}"].result for i in range(99)] == [100_000] * 99


def test_time_passes_up_to_a_time() -> None:
    beats: list[float] = []

    async def beat() -> None:
        while True:
            beats.append(world.time)
            await asyncio.sleep(1)

    with World() as world:
        world.machine("a", beat)
        world.run(until="2.5s")
        assert world.now == 2_500_000_000
        assert beats == pytest.approx([0, 1, 2])
        world.run(until="3.5s")
        assert len(beats) == 4


def test_actions_of_the_world_happen_at_their_time() -> None:
    async def wait(event: asyncio.Event) -> float:
        await event.wait()
        return world.time

    async def make() -> None:
        events.append(asyncio.Event())
        assert await wait(events[0]) == 5

    events: list[asyncio.Event] = []
    seen: list[float] = []
    with World() as world:
        world.machine("a", make)
        world.at("5s", lambda: events[0].set())  # by plain call_soon, from outside of the loop
        world.at("1s", lambda: seen.append(world.time))
        world.after("2s", lambda: seen.append(world.time))
        world.run()
        assert seen == [1, 2]
        assert world.time == 5


def test_a_deadlock_is_named() -> None:
    async def never() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.create_task(never(), name="the waiter")

    with World(seed=3) as world:
        world.machine("a", main)
        with pytest.raises(Deadlock) as failure:
            world.run()
    text = str(failure.value)
    assert "a/main:" in text
    assert "task the waiter:" in text
    assert "never (test_world.py:" in text
    assert "seed 3" in text


def test_two_that_wait_for_each_other() -> None:
    """Connections are open, and nobody says anything: TCP has no timer then."""

    async def listen() -> None:
        heard = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            heard.set()

        async with await asyncio.start_server(handle, port=7):
            await heard.wait()

    async def connect() -> None:
        reader, _ = await asyncio.open_connection("a", 7)
        await reader.read()

    with World() as world:
        world.machine("a", listen)
        world.machine("b", connect)
        with pytest.raises(Deadlock, match=r"(?s)a/listen.*handle.*b/connect.*read"):
            world.run()


def test_limits() -> None:
    async def forever(pause: float) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(pause)

    with World() as world:
        world.machine("a", forever, args=(1,))
        with pytest.raises(LimitReached, match=r"virtual time.*\n.*a/forever"):
            world.run(virtual_limit="10s")
    with World() as world:
        world.machine("a", forever, args=(0,))  # no time passes at all
        with pytest.raises(LimitReached, match="real time"):
            world.run(real_limit="10ms")
        assert world.now == 0


def test_an_exception_comes_out_with_its_machine() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("by choice")

    with World(seed=7) as world:
        world.machine("a", fail)
        with pytest.raises(ValueError, match="by choice") as failure:
            world.run()
    assert failure.value.__notes__ == ["in a/fail of a simulated world, at 1.000000 s, seed 7"]


def test_a_status_is_a_failure() -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    with World() as world:
        world.machine("a", leave, args=(0,))
        world.run()
        world.machine("b", leave, args=(3,))
        with pytest.raises(ProgramFailed, match="b/leave exited: 3"):
            world.run()


def test_clocks_drift_and_are_wrong_about_the_day() -> None:
    async def measure() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(100)
        return loop.time() - began

    with World() as world:
        fast = world.machine("fast", measure, drift_ppb=10_000_000, skew="5s")
        slow = world.machine("slow", measure, drift_ppb=-10_000_000)
        ended: dict[str, float] = {}
        world.run(until="99.5s")
        assert fast.result == pytest.approx(100)
        assert slow.result is None
        world.run()
        ended["slow"] = world.time
        assert slow.result == pytest.approx(100)
        assert ended["slow"] == pytest.approx(100 / 0.99)
        right = world.epoch + world.now
        assert fast.epoch_ns() == pytest.approx(right + 5e9 + 0.01 * world.now, abs=10)


def test_a_wire_between_two_machines() -> None:
    with World() as world:
        a = world.machine("a", serve, daemon=True)
        b = world.machine("b")
        wire = world.wire(a, b, "delay=100ms")
        program = b.start(ask, a.addresses[-1], 10, 1)
        world.run()
        assert program.result == 10
        assert world.time == pytest.approx(0.6, abs=0.01)  # ARP, SYN, data, each there and back
        assert wire.stats()[0]["out_packets"] > 3


def test_a_cable_is_pulled() -> None:
    with echo(wire="delay=1ms") as world:
        wire = world.networks["net"].wires["server"]
        world.at("10ms", wire.set_down)
        world.at("10s", lambda: wire.set_down(False))
        world.run()
        assert world.time > 10
        assert world.machines["client0"].result == 100_000


def test_nothing_is_left() -> None:
    """What was made is freed, programs in the middle of things included; descriptors there are none."""
    descriptors = len(os.listdir("/proc/self/fd"))
    cleaned = []

    async def work() -> None:
        try:
            await ask("server", times=10**6)
        finally:
            cleaned.append(True)

    world = World()
    world.machine("server", serve, daemon=True)
    machine = world.machine("a", work)
    world.run(until="1s")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    alive = weakref.ref(machine.programs[0].loop)
    world.close()
    world.close()
    assert cleaned
    assert machine.programs[0].ended
    assert machine.reactor.handle is None
    assert world.sim.handle is None
    with pytest.raises(WorldError, match="closed"):
        world.run()
    del machine, world
    gc.collect()
    assert alive() is None
    assert gc.isenabled()

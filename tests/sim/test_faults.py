"""Faults as programs see them, how long they last, and that they can be had again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable

import pytest

from libos.errors import WorldError
from libos.sim import CheckFailed, Fault, World, check_determinism
from tests.sim.echo import PORT, ask, serve

S = 10**9


async def beat(world: World, seen: list[float], host: str = "server", every: float = 0.1) -> None:
    """One line there and back after the other; notes when each came."""
    reader, writer = await asyncio.open_connection(host, PORT)
    with contextlib.closing(writer):
        while True:
            writer.write(b"beat\n")
            await reader.readline()
            seen.append(world.time)
            await asyncio.sleep(every)


def beating(inject: Callable[[World], None], *, until: str = "20s", seed: int = 1) -> tuple[World, list[float]]:
    """A world that has run and is closed, and when answers came."""
    seen: list[float] = []
    world = World(seed)
    with world:
        world.machine("server", serve, daemon=True)
        world.machine("client", beat, args=(world, seen), daemon=True)
        inject(world)
        world.run(until=until)
        world.retransmissions = sum(  # type: ignore[attr-defined]
            machine.machine.statistics()["retransmissions"] for machine in world.machines.values()
        )
    return world, seen


def gaps(seen: list[float], least: float = 0.3) -> list[tuple[float, float]]:
    return [(a, b) for a, b in itertools.pairwise(seen) if b - a > least]


@pytest.mark.parametrize(
    "inject",
    [
        lambda world: world.at("3s").partition("client", "server", lasts="1s"),
        lambda world: world.at("3s").partition({"client"}, lasts="1s"),
        lambda world: world.at("3s").partition("client", "server", lasts="1s", both=False),
        lambda world: world.at("3s").partition("server", "client", lasts="1s", both=False),
        lambda world: world.at("3s").flap("server", lasts="1s"),
        lambda world: world.at("3s").impair("client", "loss=100%", lasts="1s"),
    ],
    ids=["partition", "from all", "one way", "the other way", "down", "loss"],
)
def test_frames_are_lost_for_a_while(inject: Callable[[World], None]) -> None:
    """And TCP sends again, the later the longer it lasts."""
    world, seen = beating(inject)
    ((last, next),) = gaps(seen)
    assert 2.85 < last < 3.01
    assert 4 < next < 5
    assert world.retransmissions >= 2  # type: ignore[attr-defined]
    assert len(world.applied) == 1
    assert world.applied[0][0] == 3 * S


def test_others_do_not_notice_a_partition() -> None:
    def inject(world: World) -> None:
        world.machine("other", beat, args=(world, other), daemon=True)
        world.machine("third")
        world.at("2s").partition({"client", "third"}, "server", lasts="5s")

    other: list[float] = []
    _, seen = beating(inject, until="10s")
    assert len(gaps(seen)) == 1
    assert not gaps(other)


def test_a_wire_between_two_is_cut_as_well() -> None:
    seen: list[float] = []
    with World() as world:
        a = world.machine("a", serve, daemon=True)
        b = world.machine("b")
        world.wire(a, b, "delay=1ms")
        b.start(beat, world, seen, a.addresses[-1], daemon=True)
        world.at("1s").partition("a", "b", lasts="1s")
        world.at("4s").clog("a-b", lasts="1s")
        world.run(until="8s")
    assert len(gaps(seen)) == 2


def test_faults_may_overlap() -> None:
    def inject(world: World) -> None:
        world.at("3s").partition("client", "server", lasts="2s")
        world.at("4s").partition("client", lasts="3s")  # the first one's end changes nothing

    _, seen = beating(inject)
    ((_, next),) = gaps(seen)
    assert next > 7


def test_until_they_are_healed() -> None:
    def inject(world: World) -> None:
        world.at("3s").clog("client")
        world.at("3s").pause("server")
        world.at("5s").heal("client")
        world.at("6s").heal()

    world, seen = beating(inject)
    ((_, next),) = gaps(seen)
    assert next > 6
    assert world.faults.active == []


@pytest.mark.parametrize("kind", ["clog", "pause"])
def test_what_waits_comes_in_the_end(kind: str) -> None:
    """And at once: nothing waits for a retransmission."""
    _, seen = beating(lambda world: getattr(world.at("3s"), kind)("server", lasts="2s"))
    ((_, next),) = gaps(seen)
    assert next == pytest.approx(5, abs=0.01)


def test_a_paused_machine_has_missed_its_timers() -> None:
    async def tick() -> list[float]:
        began = time.monotonic()
        found = []
        for _ in range(5):
            await asyncio.sleep(1)
            found.append(time.monotonic() - began)
        return found

    with World() as world:
        machine = world.machine("a", tick)
        world.at("1.5s").pause("a", lasts="2s")
        world.run()
        assert machine.result == pytest.approx([1, 3.5, 4.5, 5.5, 6.5], abs=0.001)


def test_a_swizzle_clogs_in_one_order_and_lets_go_in_another() -> None:
    orders = set()
    for seed in range(20):
        with World(seed) as world:
            for name in "abcdef":
                world.machine(name)
            world.swizzle(lasts="6s")
            world.run(until="7s")
            begins = [fault.a[0] for _, fault in world.applied]
            ends = [name for _, name in sorted((when + fault.duration, fault.a[0]) for when, fault in world.applied)]
            assert sorted(begins) == sorted(ends)
            assert {fault.kind for _, fault in world.applied} == {"clog"}
            assert all(when + fault.duration < 6 * S for when, fault in world.applied)
            orders.add(begins == ends)
    assert False in orders


def test_a_slow_machine_takes_its_time() -> None:
    def duration(cost: str | None) -> float:
        with World() as world:
            world.machine("server", serve, daemon=True)
            client = world.machine("client", ask, args=("server", 100, 10))
            if cost:
                world.slow("server", cost)
            world.run()
            assert client.result == 1000
            return world.time

    assert duration("50ms") > 10 * 0.05 + duration(None)


def test_a_slow_machine_works_while_it_is_not_idle() -> None:
    """Ten iterations of 100 ms each."""

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    with World() as world:
        world.machine("a", work)
        world.slow("a", "100ms")
        world.run()
        assert 1 <= world.time < 1.5


def test_clocks_go_wrong_and_right_again() -> None:
    seen: list[tuple[float, float]] = []

    async def look() -> None:
        began = time.monotonic()
        for _ in range(8):
            await asyncio.sleep(1)
            seen.append((time.monotonic() - began, time.time() - (world.epoch + world.now) / 1e9))

    with World() as world:
        world.machine("a", look)
        world.at("1.5s").skew("a", -100, lasts="2s")
        world.at("4.5s").drift("a", 100_000_000, lasts="1s")
        world.run()
        assert [round(off, 3) for _, off in seen] == [0, -100, -100, 0, 0.045, 0.1, 0.1, 0.1]
        assert world.time == pytest.approx(7.9, abs=0.01)


# --- crash and restart -----------------------------------------------------------------------------------------------


async def count(world: World, name: str) -> None:
    """Answers each line with a number that it keeps on its disk, and one that it does not."""
    disk = world.machines[name].disk
    since = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal since
        try:
            while await reader.readline():
                disk["count"] = disk.get("count", 0) + 1
                since += 1
                writer.write(f"{disk['count']} {since}\n".encode())
        except BaseException:
            disk["count"] = -1000
            writer.write(b"last words\n")
            print("last words")
            raise

    server = await asyncio.start_server(handle, port=PORT)
    await server.serve_forever()


async def exchange(host: str, times: int) -> list[str]:
    reader, writer = await asyncio.open_connection(host, PORT)
    found = []
    with contextlib.closing(writer):
        for _ in range(times):
            writer.write(b"?\n")
            found.append((await reader.readline()).decode().strip())
            await asyncio.sleep(1)
    return found


def test_after_a_restart_the_disk_is_there_and_the_rest_is_not() -> None:
    async def client() -> tuple[list[str], str, list[str]]:
        first = await exchange("server", 3)
        reader, writer = await asyncio.open_connection("server", PORT)
        writer.write(b"?\n")
        await reader.readline()
        world.crash("server", lasts="2s")
        await asyncio.sleep(1)
        silent = asyncio.create_task(reader.readline())
        await asyncio.sleep(0.9)
        assert not silent.done()  # nobody has told us
        await asyncio.sleep(1)
        writer.write(b"?\n")
        try:
            told = (await silent).decode()
        except ConnectionResetError:
            told = "reset"
        return first, told, await exchange("server", 2)

    with World() as world:
        server = world.machine("server", daemon=True)
        server.start(count, world, "server", daemon=True)
        machine = world.machine("client", client)
        world.run()
        assert machine.result == (["1 1", "2 2", "3 3"], "reset", ["5 1", "6 2"])
        assert "last words" not in world.log.text()
        assert [str(fault) for _, fault in world.applied] == ["crash server for 2 s"]


def test_a_crash_that_nobody_ends() -> None:
    async def client() -> str:
        try:
            await exchange("server", 100)
        except OSError as error:
            return error.strerror
        return "?"

    with World() as world:
        world.machine("server", count, args=(world, "server"), daemon=True)
        machine = world.machine("client", client)
        world.at("5s").crash("server")
        world.run()
        assert machine.result == "No route to host"  # after a quarter of an hour, as nobody answers ARP
        with pytest.raises(WorldError, match="has crashed"):
            world.machines["server"].start(serve)


def test_the_world_waits_for_those_that_come_back() -> None:
    async def work() -> float:
        await asyncio.sleep(10)
        return world.time

    with World() as world:
        machine = world.machine("a", work)
        world.at("5s").crash("a", lasts="1s")
        world.run()
        assert machine.result == pytest.approx(16, abs=0.01)
        other = world.machine("b", work)
        world.after("5s").crash("b")
        world.run()
        assert other.result is None


def test_a_crash_before_a_program_has_begun() -> None:
    async def work() -> int:
        return 7

    with World() as world:
        machine = world.machine("a", work)
        world.crash("a", lasts="1s")
        world.at("1s").crash("a", lasts="1s")
        world.at("1s").crash("a", lasts="2s")
        world.run()
        assert machine.result == 7
        assert world.time == pytest.approx(3, abs=0.01)


def test_faults_that_last_hold_for_who_comes_back() -> None:
    def inject(world: World) -> None:
        world.at("2s").crash("client", lasts="1s")
        world.at("1s").partition("client", "server", lasts="4s")

    _, seen = beating(inject)
    assert not [when for when in seen if 1.01 < when < 5]
    assert max(seen) > 6


def test_wires_of_its_own_come_back_too() -> None:
    with World() as world:
        a, b = world.machine("a"), world.machine("b")
        world.wire(a, b, "delay=1ms")
        a.start(serve, daemon=True)
        world.at("1s").crash("a", lasts="1s")
        world.run(until="3s")
        program = b.start(ask, a.addresses[-1], 10, 1)
        world.run()
        assert program.result == 10


# --- checks ----------------------------------------------------------------------------------------------------------


def test_what_must_always_hold() -> None:
    state = {"x": 0}

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(1)
            state["x"] += 1

    def small() -> None:
        if state["x"] >= 6:
            raise AssertionError(f"x is {state['x']}")

    with World(seed=9) as world:
        world.machine("a", work)
        world.at("2s").pause("a", lasts="10ms")
        world.always(small, name="x is small")
        with pytest.raises(CheckFailed) as failure:
            world.run()
    text = str(failure.value)
    assert text.startswith("always 'x is small' does not hold: x is 6, at 6.0")
    assert "seed 9" in text
    assert "2.000000 pause a for 0.01 s" in text


def test_what_must_come_about() -> None:
    state = []

    async def work() -> None:
        await asyncio.sleep(5)
        state.append(1)

    with World() as world:
        world.machine("a", work, daemon=True)
        world.eventually(lambda: state, within="10s")
        world.run()
        assert world.time == pytest.approx(5)
        world.eventually(lambda: len(state) > 1, within="10s", name="two of them")
        with pytest.raises(CheckFailed, match=r"eventually 'two of them' has not come about, at 15.000"):
            world.run()


def test_as_soon_as_something_holds() -> None:
    state: list[int] = []
    called: list[float] = []

    async def work() -> None:
        while True:
            await asyncio.sleep(1)
            state.append(1)

    with World() as world:
        world.machine("a", work, daemon=True)
        world.when(lambda: len(state) == 3, lambda: called.append(world.time)).pause("a", lasts="2s")
        world.run(until="10s")
        assert called == pytest.approx([3])  # once
        assert world.applied[0][0] == pytest.approx(3 * S, abs=3)
        assert len(state) == 8


# --- schedules, profiles, repetition ---------------------------------------------------------------------------------


def scenario(world: World) -> None:
    for name in "abc":
        world.machine(name, serve, daemon=True)
    for i, host in enumerate("abc"):
        world.machine(f"client{i}", persist, args=(host,))
    world.profile("chaos", until="20s")
    world.when(lambda: world.time > 5).crash("a", lasts="300ms")


async def persist(host: str) -> int:
    """Ask for 15 s and until there have been five answers."""
    answers, loop = 0, asyncio.get_running_loop()
    end = loop.time() + 15
    while answers < 5 or loop.time() < end:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.timeout(1):
                answers += await ask(host, 10, 1) == 10
        await asyncio.sleep(0.1)
    return answers


def chaos(seed: int, faults: object = None) -> World:
    world = World(seed, faults=faults)  # type: ignore[arg-type]
    scenario(world)
    return world


def test_chaos_is_the_same_twice() -> None:
    assert check_determinism(lambda: chaos(5))


def test_what_was_applied_can_be_applied_again() -> None:
    with chaos(6) as world:
        world.run()
        digest, applied = world.digest, world.applied
        assert len({fault.kind for _, fault in applied}) > 3
    with chaos(6, applied) as world:
        assert world.schedule == applied
        world.run()
        assert world.applied == applied
        assert world.digest == digest


def test_a_part_of_it_can_be_applied() -> None:
    with chaos(6) as world:
        world.run()
        applied = world.applied
    part = [applied[i] for i in range(0, len(applied), 2)]
    with chaos(6, part) as world:
        world.run()
        assert world.applied == part
    with chaos(6, []) as world:
        world.run()
        assert world.applied == []


@pytest.mark.parametrize("name", ["calm", "lan", "wan", "chaos"])
def test_all_is_well_after_a_profile(name: str) -> None:
    with World(2) as world:
        world.machine("server", serve, daemon=True)
        world.machine("client")
        world.profile(name, until="60s")
        assert bool(world.schedule) is (name != "calm")
        world.run(until="61s")
        assert world.faults.active == []
        program = world.machines["client"].start(ask, "server", 1000, 3)
        world.run()
        assert program.result == 3000


def test_a_profile_keeps_to_what_it_may_do() -> None:
    with World() as world:
        for name in "abc":
            world.machine(name)
        world.profile("chaos", machines="ab", kinds={"pause", "drift"}, begin="10s", until="2min")
        assert {fault.kind for _, fault in world.schedule} == {"pause", "drift"}
        assert {name for _, fault in world.schedule for name in fault.a} == {"a", "b"}
        assert min(when for when, _ in world.schedule) > 10 * S
        assert max(when + fault.duration for when, fault in world.schedule) <= 120 * S


def test_nonsense_is_refused() -> None:
    with World() as world:
        world.machine("a")
        with pytest.raises(WorldError, match="there is no 'b'"):
            world.pause("b")
        with pytest.raises(ValueError, match="no fault 'fire'"):
            world.inject(Fault("fire", ("a",)))
        with pytest.raises(ValueError, match="is no impairment"):
            world.impair("a", "weather=bad")
        with pytest.raises(ValueError, match="no profile"):
            world.profile("storm")

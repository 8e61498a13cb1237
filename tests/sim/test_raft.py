"""The Raft of examples/raft/, unchanged, as ``python -m raft`` on three machines."""

from __future__ import annotations

from pathlib import Path

from raft.client import Client
from raft.messages import Get, Put

from libos.sim import Module, World

NODES = (1, 2, 3)
PORT = 7000


def cluster(seed: int, directory: Path) -> World:
    world = World(seed=seed)
    world.network(wire="delay=1ms,jitter=1ms,loss=0.5%")
    for id in NODES:
        peers = ",".join(f"{peer}={'0.0.0.0' if peer == id else f'n{peer}'}:{PORT}" for peer in NODES)
        args = ("--id", id, "--peers", peers, "--data", directory / f"{id}.raft")
        world.machine(f"n{id}", Module("raft"), args=args, daemon=True)
    return world


async def write_and_read() -> object:
    async with Client({id: (f"n{id}", PORT) for id in NODES}) as client:
        for value in range(20):
            await client.request(Put("key", str(value)))
        return await client.request(Get("key"))


def run(seed: int, directory: Path) -> tuple[object, str, list[str]]:
    directory.mkdir()
    with cluster(seed, directory) as world:
        client = world.machine("client", write_and_read)
        world.run(virtual_limit="60s")
        world.run(until=world.time + 10)
        return client.result, world.digest, [line.text for line in world.log]


def test_three_machines_elect_a_leader_and_serve(tmp_path: Path) -> None:
    value, _, lines = run(1, tmp_path / "a")
    assert value == "19"
    assert sum("leader of term" in line for line in lines) == 1


def test_its_seed_says_all(tmp_path: Path) -> None:
    assert run(2, tmp_path / "a")[1:] == run(2, tmp_path / "b")[1:]

"""The cluster in a simulated world: nodes that crash, wires that fail, clients that keep a history. One seed, one run.

    python -m examples.raft.world 17 [--bug ForgottenVote] [--seconds 20]

What must hold: in each term there is one leader at most; what is committed anywhere stays, and the leaders of later
terms have it (the paper's figure 3); when the faults are over the clients are served; what they saw is linearizable.

The nodes are those of ``server.py``, unchanged. Each keeps its storage on its machine's disk, which survives crashes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

from libos.sim import World

from . import bugs
from .check import History, check
from .client import Address, Client, Session, SessionExpired
from .messages import Cas, Entry, Get, Put
from .node import Node, Role
from .server import Server
from .storage import MemoryStorage

PORT = 7000
KEYS = ("x", "y")
PATIENCE = 2.0  # seconds for a request, before its client goes on without an answer
THINK = 0.4  # seconds between two requests at most
CALM = 20.0  # seconds in which each client must be served when the faults are over
BUGS = ("ForgottenVote", "CommitsEarlierTerms", "ForgetfulSession")


class Invariants:
    """Called at every step: looks only at what has changed."""

    def __init__(self, elected: Callable[[int], object]) -> None:
        self._elected = elected
        self.servers: dict[int, Server] = {}
        self._leaders: dict[int, int] = {}  # by term
        self._committed: list[tuple[Entry, int]] = [(Entry(0, b""), 0)]  # each with the term in which it was seen
        self._looked: dict[int, tuple[Node, int]] = {}  # how far its commitments are known

    def __call__(self) -> None:
        for id, server in self.servers.items():
            node: Node | None = getattr(server, "node", None)
            if node is None:
                continue
            known = self._looked.get(id)
            low = known[1] if known and known[0] is node else 0
            if node.commit > low:
                self._commit(node, low)
                self._looked[id] = node, node.commit
            if node.role is Role.LEADER and self._leaders.get(node.term) != id:
                self._elect(node)

    def _commit(self, node: Node, low: int) -> None:
        for index in range(low + 1, node.commit + 1):
            if index == len(self._committed):
                self._committed.append((node.log[index], node.term))
            elif self._committed[index][0] != node.log[index]:
                raise AssertionError(f"node {node.id} commits another entry {index}")

    def _elect(self, node: Node) -> None:
        if node.term in self._leaders:
            raise AssertionError(f"two leaders of term {node.term}: {self._leaders[node.term]} and {node.id}")
        self._leaders[node.term] = node.id
        self._elected(node.id)
        # A late leader of an early term need not have what a later one has committed.
        needed = [entry for entry, term in self._committed if term < node.term]
        if node.log[: len(needed)] != needed:
            raise AssertionError(f"node {node.id} leads in term {node.term} without all that is committed")


def scenario(
    world: World,
    *,
    nodes: int = 3,
    clients: int = 3,
    seconds: float = 20,
    profile: str = "chaos",
    new_node: Callable[..., Node] = Node,
    new_session: Callable[[], Session] = Session,
) -> None:
    """Faults for ``seconds``, then calm."""
    addresses: dict[int, Address] = {id: (f"n{id}", PORT) for id in range(1, nodes + 1)}
    history, invariants = History(), Invariants(pursuer(world, nodes, seconds))
    working = clients

    async def serve(id: int) -> None:
        disk = world.machines[f"n{id}"].disk.setdefault("raft", bytearray())
        server = Server(id, MemoryStorage(disk), new_node=new_node)
        await server.listen(None, PORT)
        invariants.servers[id] = server
        await server.run(addresses)

    async def work(name: str) -> None:
        nonlocal working
        count = 0
        while world.time < seconds:
            async with Client(addresses, new_session()) as client:
                with suppress(TimeoutError, SessionExpired):  # nobody knows what became of the request
                    while world.time < seconds:
                        count += 1
                        await request(client, name, f"{name}.{count}")
                        await asyncio.sleep(random.uniform(0, THINK))
        async with asyncio.timeout(CALM), Client(addresses, new_session()) as client:
            for key in KEYS:
                operation = history.call(name, Get(key))
                history.answer(operation, await client.request(operation.op))
        working -= 1
        if not working:
            violation = check(history.operations)
            assert violation is None, str(violation)

    async def request(client: Client, name: str, new: str) -> None:
        key = random.choice(KEYS)
        match random.randrange(3):
            case 0:
                op: Get | Put | Cas = Get(key)
            case 1:
                op = Put(key, new)
            case _:
                async with asyncio.timeout(PATIENCE):
                    look = history.call(name, Get(key))
                    value = await client.request(look.op)
                    history.answer(look, value)
                op = Cas(key, value, new)
        operation = history.call(name, op)
        async with asyncio.timeout(PATIENCE):
            history.answer(operation, await client.request(op))

    for id, (name, _) in addresses.items():
        world.machine(name, serve, args=(id,), daemon=True)
    for i in range(clients):
        world.machine(f"c{i}", work, args=(f"c{i}",))
    world.always(invariants, name="Raft's properties")
    world.profile(profile, machines=[name for name, _ in addresses.values()], until=seconds)


def pursuer(world: World, nodes: int, seconds: float) -> Callable[[int], None]:
    """Hears of elections, and makes them a short pleasure: the leader crashes, or hears of its clients only."""
    rng = world.fault_rng.fork()

    def strike(id: int) -> None:
        moment = world.after(rng.below(80) / 1000)
        crash, lasts = rng.below(2), 0.1 + rng.below(900) / 1000
        if world.time > seconds - 2:
            return
        if crash:
            moment.crash(f"n{id}", lasts=lasts)
        else:
            moment.partition(f"n{id}", {f"n{other}" for other in range(1, nodes + 1) if other != id}, lasts=lasts)

    return strike


def planted(bug: str | None) -> dict[str, type[Node] | type[Session]]:
    """Arguments of ``scenario``."""
    if bug is None:
        return {}
    kind = getattr(bugs, bug)
    return {"new_node" if issubclass(kind, Node) else "new_session": kind}


def run(seed: int, bug: str | None = None, *, seconds: float = 20) -> World:
    """Raises AssertionError. The world is closed, and can be asked for its digest before."""
    world = World(seed)
    with world:
        scenario(world, seconds=seconds, **planted(bug))  # type: ignore[arg-type]
        world.run()
        print(f"seed {seed}: {world.time:.1f} s, {len(world.applied)} faults, digest {world.digest}")
    return world


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.raft.world")
    parser.add_argument("seed", type=int)
    parser.add_argument("--bug", choices=BUGS)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    run(args.seed, args.bug, seconds=args.seconds)


if __name__ == "__main__":
    main()

"""python -m examples.raft --id 1 --peers 1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003 --data 1.raft
python -m examples.raft --peers 1=127.0.0.1:7001,... put colour green      (also: get KEY, cas KEY OLD NEW)
python -m examples.raft demo
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
from contextlib import suppress
from pathlib import Path

from .check import History, check
from .client import Address, Client
from .messages import Cas, Get, Op, Put
from .server import Server
from .storage import FileStorage


def addresses(text: str) -> dict[int, Address]:
    nodes = {}
    for item in text.split(","):
        id, _, address = item.partition("=")
        host, _, port = address.rpartition(":")
        nodes[int(id)] = (host.strip("[]"), int(port))
    return nodes


async def serve(id: int, nodes: dict[int, Address], data: Path, pre_vote: bool) -> None:
    server = Server(id, FileStorage(data), pre_vote=pre_vote)
    await server.listen(*nodes[id])
    await server.run(nodes)


async def ask(nodes: dict[int, Address], op: Op) -> None:
    async with Client(nodes) as client, asyncio.timeout(10):
        print(await client.request(op))


async def demo(directory: Path) -> None:
    """Three nodes and three clients; the leader goes away, and comes back with what is in its file."""
    servers: dict[int, Server] = {}
    running: dict[int, asyncio.Task[None]] = {}
    nodes: dict[int, Address] = {}
    history = History()

    async def start(id: int) -> None:
        servers[id] = Server(id, FileStorage(directory / f"{id}.raft"))
        nodes[id] = await servers[id].listen(*nodes.get(id, ("127.0.0.1", 0)))

    def run(id: int) -> None:
        running[id] = asyncio.create_task(servers[id].run(nodes))

    async def stop(id: int) -> None:
        running[id].cancel()
        with suppress(asyncio.CancelledError):
            await running.pop(id)

    async def work(name: str, rounds: int) -> None:
        """Count ``count`` up by compare-and-set, beside the others."""
        async with Client(nodes) as client:

            async def do(op: Get | Cas) -> object:
                operation = history.call(name, op)
                value = await client.request(op)
                history.answer(operation, value)
                return value

            while rounds:
                count = await do(Get("count"))
                assert isinstance(count, int)
                rounds -= await do(Cas("count", count, count + 1)) is True

    async def work_together() -> None:
        async with asyncio.TaskGroup() as clients:
            for name in ("ann", "ben", "cleo"):
                clients.create_task(work(name, 10))

    for id in (1, 2, 3):
        await start(id)
    for id in (1, 2, 3):
        run(id)
    async with Client(nodes) as client:
        await client.put("count", 0)
        await work_together()
        leader = next(id for id in running if servers[id].node.leader == id)
        await stop(leader)
        print(f"count {await client.get('count')}; node {leader}, the leader, is stopped")
        await work_together()
        await start(leader)
        run(leader)
        print(f"count {await client.get('count')}; node {leader} is back")
        await work_together()
        print(f"count {await client.get('count')}")
    violation = check(history.operations, initial=0)
    print(violation or f"{len(history.operations)} operations, linearizable")
    for id in tuple(running):
        await stop(id)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.raft", usage=__doc__)
    parser.add_argument("words", nargs="*", metavar="demo | get KEY | put KEY VALUE | cas KEY OLD NEW")
    parser.add_argument("--id", type=int, help="which of the peers this node is")
    parser.add_argument("--peers", type=addresses, help="all nodes: 1=host:port,2=host:port,...")
    parser.add_argument("--data", type=Path, help="the file for term, vote and log (ID.raft)")
    parser.add_argument("--no-pre-vote", action="store_true", help="ask for votes without asking first")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with suppress(KeyboardInterrupt):
        match args.words:
            case ["demo"]:
                with tempfile.TemporaryDirectory() as directory:
                    asyncio.run(demo(Path(directory)))
            case [] if args.peers and args.id in args.peers:
                data = args.data or Path(f"{args.id}.raft")
                asyncio.run(serve(args.id, args.peers, data, not args.no_pre_vote))
            case ["get", key] if args.peers:
                asyncio.run(ask(args.peers, Get(key)))
            case ["put", key, value] if args.peers:
                asyncio.run(ask(args.peers, Put(key, value)))
            case ["cas", key, old, new] if args.peers:
                asyncio.run(ask(args.peers, Cas(key, old, new)))
            case _:
                parser.error("what shall it be?")


if __name__ == "__main__":
    main()

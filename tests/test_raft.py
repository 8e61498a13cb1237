"""examples/raft: the consensus on a virtual clock in bad weather, the planted mistakes found there, its parts alone,
and three real nodes over loopback."""

from __future__ import annotations

import asyncio
import itertools
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raft import messages
from raft.bugs import CommitsEarlierTerms, ForgetfulSession, ForgottenVote
from raft.check import History, Operation, TooHard, check
from raft.client import Client, SessionExpired
from raft.messages import (
    EXPIRED,
    Append,
    Appended,
    Cas,
    Entry,
    Frames,
    Get,
    Hello,
    Open,
    Put,
    Reply,
    Request,
    RequestVote,
    Vote,
    encode,
    frame,
)
from raft.node import ELECTION, HEARTBEAT, Node, Role
from raft.server import Server
from raft.storage import FileStorage, MemoryStorage, Storage, StorageError
from raft.store import Store

import libos

from .raft_cluster import Cluster, Unsafe

ROOT = Path(__file__).parent.parent
SEEDS = 200
T0 = 100.0


# --- the cluster in bad weather -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_safety_always_and_progress_when_the_faults_end(first: int) -> None:
    for seed in range(first, first + 50):
        try:
            Cluster(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def test_the_same_seed_is_the_same_run() -> None:
    def run(seed: int) -> tuple[object, ...]:
        cluster = Cluster(seed)
        cluster.run()
        return cluster.now, cluster.leaders, cluster.history.operations, [host.disk for host in cluster.hosts.values()]

    assert run(3) == run(3) != run(4)


def find(**mistake: Any) -> str:
    """What the first seed that finds it says."""
    for seed in range(SEEDS):
        try:
            Cluster(seed, **mistake).run()
        except Unsafe as error:
            return str(error)
    pytest.fail(f"not found with {SEEDS} seeds")


@pytest.mark.slow
def test_a_vote_that_is_forgotten_is_found() -> None:
    assert find(new_node=ForgottenVote).startswith("election: ")


@pytest.mark.slow
def test_a_commitment_of_an_earlier_term_is_found() -> None:
    assert find(new_node=CommitsEarlierTerms).startswith("completeness: ")


@pytest.mark.slow
def test_a_request_without_identity_is_found() -> None:
    assert find(new_session=ForgetfulSession).startswith("linearizability: ")


# --- one node -------------------------------------------------------------------------------------------------------


def new_node(disk: bytearray | None = None, *, id: int = 1, pre_vote: bool = True) -> Node:
    """Of three."""
    storage = MemoryStorage(bytearray() if disk is None else disk)
    return Node(id, (1, 2, 3), storage, T0, rng=Random(1), pre_vote=pre_vote)


def sent(node: Node) -> list[tuple[int, messages.Message]]:
    node._storage.sync()
    return node.take_messages()


def elect(node: Node) -> float:
    """By node 2; the time then."""
    now = node.deadline
    node.tick(now)
    if node.role is Role.PRE_CANDIDATE:
        node.receive(2, Vote(node.term + 1, True, True), now)
    node.receive(2, Vote(node.term, True, False), now)
    assert node.role is Role.LEADER
    return now


def test_pre_vote_moves_no_term() -> None:
    node = new_node()
    node.tick(node.deadline)
    assert sent(node) == [(2, RequestVote(1, 0, 0, True)), (3, RequestVote(1, 0, 0, True))]
    assert node.term == 0
    node.receive(3, Vote(1, True, True), T0 + 0.3)
    assert sent(node) == [(2, RequestVote(1, 0, 0, False)), (3, RequestVote(1, 0, 0, False))]
    assert (node.term, node.vote) == (1, 1)


def test_who_has_a_leader_grants_no_pre_vote() -> None:
    node = new_node()
    node.receive(2, Append(1, 0, 0, 0, []), T0)
    sent(node)
    node.receive(3, RequestVote(2, 5, 1, True), T0 + ELECTION[0] - 0.001)
    assert sent(node) == [(3, Vote(1, False, True))]
    node.receive(3, RequestVote(2, 5, 1, True), T0 + ELECTION[0])
    assert sent(node) == [(3, Vote(2, True, True))]
    assert node.term == 1


def test_a_vote_outlives_a_crash() -> None:
    disk = bytearray()
    node = new_node(disk)
    node.receive(2, RequestVote(4, 0, 0, False), T0)
    assert sent(node) == [(2, Vote(4, True, False))]
    node = new_node(disk)
    node.receive(3, RequestVote(4, 0, 0, False), T0)
    node.receive(2, RequestVote(4, 0, 0, False), T0)
    assert sent(node) == [(3, Vote(4, False, False)), (2, Vote(4, True, False))]


def test_no_vote_for_a_log_that_lacks_something() -> None:
    """5.4.1"""
    node = new_node()
    node.receive(2, Append(2, 0, 0, 0, [Entry(1, b"a"), Entry(2, b"b")]), T0)
    sent(node)
    for last_index, last_term, granted in ((9, 1, False), (1, 2, False), (2, 2, True), (1, 3, True)):
        term = node.term + 1
        node.receive(3, RequestVote(term, last_index, last_term, False), T0)
        assert sent(node) == [(3, Vote(term, granted, False))]


def test_a_leader_commits_with_an_entry_of_its_own_term() -> None:
    """Figure 8: the entry 1 of term 1 is on two of three nodes, and not committed until the one of term 3 is."""
    node = new_node()
    node.receive(2, Append(2, 0, 0, 0, [Entry(1, b"old")]), T0)
    now = elect(node)
    assert node.log[1:] == [Entry(1, b"old"), Entry(3, b"")]
    node.receive(3, Appended(3, True, 1), now)
    assert node.take_committed() == []
    node.receive(3, Appended(3, True, 2), now)
    assert node.take_committed() == [(1, Entry(1, b"old")), (2, Entry(3, b""))]


def test_a_late_message_does_not_undo_a_later_one() -> None:
    """5.3: only a conflict cuts the log"""
    node = new_node()
    first = Append(1, 0, 0, 0, [Entry(1, b"a")])
    node.receive(2, first, T0)
    node.receive(2, Append(1, 1, 1, 0, [Entry(1, b"b")]), T0)
    node.receive(2, first, T0)
    assert node.last == 2
    assert [answer for _, answer in sent(node)] == [Appended(1, True, 1), Appended(1, True, 2), Appended(1, True, 1)]
    node.receive(3, Append(2, 1, 1, 0, [Entry(2, b"c")]), T0)
    assert node.log[1:] == [Entry(1, b"a"), Entry(2, b"c")]


def test_a_leader_finds_where_a_log_departs() -> None:
    """By terms, not by entries: one question for ten entries of a term that the leader does not know."""
    leader, follower = new_node(), new_node(id=2)
    leader.receive(3, Append(1, 0, 0, 0, [Entry(1, b"a")]), T0)
    follower.receive(3, Append(2, 0, 0, 0, [Entry(1, b"a"), *[Entry(2, b"x")] * 10]), T0)
    leader.receive(3, RequestVote(2, 0, 0, False), T0)
    now = elect(leader)
    sent(leader), sent(follower)
    turns = 0
    leader.tick(now := now + HEARTBEAT)
    while asked := [message for peer, message in sent(leader) if peer == 2]:
        for question in asked:
            follower.receive(1, question, now)
        for _, answer in sent(follower):
            leader.receive(2, answer, now)
        turns += 1
    assert follower.log == leader.log
    assert turns <= 3


def test_a_leader_that_nobody_answers_resigns() -> None:
    node = new_node()
    now = elect(node)
    while now < T0 + 2 and node.role is Role.LEADER:
        now = node.deadline
        node.tick(now)
    assert node.role is Role.FOLLOWER
    assert node.propose(b"x") is None


def test_a_leader_takes_no_more_than_it_can_hold() -> None:
    node = new_node()
    elect(node)
    taken = sum(node.propose(b"x") is not None for _ in range(5000))
    assert taken == 1023
    sizes = [len(message.entries) for _, message in sent(node) if isinstance(message, Append)]
    assert max(sizes) <= 64


def test_a_cluster_of_one() -> None:
    node = Node(1, (1,), MemoryStorage(bytearray()), T0, rng=Random(1))
    node.tick(node.deadline)
    assert node.propose(b"x") == 2
    assert node.take_committed() == [(1, Entry(1, b"")), (2, Entry(1, b"x"))]


# --- storage --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterable[Callable[[], Storage]]:
    """The storage, as if after a crash."""
    disk, opened = bytearray(), []

    def new() -> Storage:
        if opened:
            opened[-1].close()
        opened.append(FileStorage(tmp_path / "log") if request.param == "file" else MemoryStorage(disk))
        return opened[-1]

    yield new
    opened[-1].close()


def test_what_was_synced_is_there(reopen: Callable[[], Storage]) -> None:
    storage = reopen()
    assert storage.load() == (0, None, [])
    storage.save_vote(3, 2)
    storage.append(1, [Entry(1, b"a"), Entry(1, b"b"), Entry(2, b"c")])
    storage.append(2, [Entry(3, b"d")])
    storage.sync()
    storage.save_vote(4, None)
    storage = reopen()
    assert storage.load() == (3, 2, [Entry(1, b"a"), Entry(3, b"d")])


@pytest.mark.parametrize("cut", [1, 11, 13, 20])
def test_half_a_record_is_cut_off(reopen: Callable[[], Storage], cut: int) -> None:
    storage = reopen()
    storage.save_vote(3, 2)
    storage.sync()
    whole = len(storage._read())
    storage.append(1, [Entry(3, bytes(100))])
    storage.sync()
    storage._cut(whole + cut)
    storage = reopen()
    assert storage.load() == (3, 2, [])
    storage.append(1, [Entry(3, b"again")])
    storage.sync()
    assert reopen().load() == (3, 2, [Entry(3, b"again")])


def test_a_disk_that_lost_what_it_kept_is_refused() -> None:
    disk = bytearray()
    storage = MemoryStorage(disk)
    for vote in (1, 2, 3):
        storage.save_vote(vote, vote)
        storage.sync()
    disk[14] ^= 1
    with pytest.raises(StorageError, match="the record at 0 is damaged"):
        MemoryStorage(disk).load()


# --- the store ------------------------------------------------------------------------------------------------------


def test_a_request_is_applied_once() -> None:
    store = Store()
    assert store.apply(7, encode(Request(0, 0, Open()))) == Reply(0, 7)
    swap = encode(Request(7, 1, Cas("x", None, 1)))
    assert store.apply(8, swap) == store.apply(9, swap) == Reply(1, True)
    assert store.apply(10, encode(Request(7, 2, Cas("x", None, 2)))) == Reply(2, False)
    assert store.apply(11, swap) is None, "nobody waits for it"
    assert store.apply(12, encode(Request(5, 1, Get("x")))) == Reply(1, error=EXPIRED)
    assert store.apply(13, encode(Request(7, 3, Put("x", None)))) == Reply(3)
    assert store.data == {}


def test_the_quietest_session_goes_first() -> None:
    store = Store()
    count = 4096
    for index in range(1, count + 1):
        store.apply(index, encode(Request(0, 0, Open())))
    store.apply(count + 1, encode(Request(1, 1, Get("x"))))
    store.apply(count + 2, encode(Request(0, 0, Open())))
    assert (1 in store.sessions, 2 in store.sessions, len(store.sessions), store.expired) == (True, False, count, 1)


# --- frames ---------------------------------------------------------------------------------------------------------

SAMPLES = (
    Hello(1),
    Append(3, 2, 1, 2, [Entry(1, b"a"), Entry(3, bytes(300))]),
    Appended(3, True, 4),
    RequestVote(4, 4, 3, True),
    Vote(4, False, True),
    Request(7, 1, Cas("x", None, True)),
    Reply(1, "value", "", 2),
)


@given(st.lists(st.sampled_from(SAMPLES), max_size=5), st.integers(1, 400))
def test_frames_in_any_pieces(sequence: list[messages.Message], size: int) -> None:
    data, frames = b"".join(map(frame, sequence)), Frames()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [message for piece in pieces for message in frames.feed(piece)] == sequence


@given(st.binary(max_size=64))
def test_frames_of_anything(data: bytes) -> None:
    with suppress(ValueError):
        list(Frames().feed(len(data).to_bytes(4, "big") + data))


def test_a_frame_has_a_bound() -> None:
    with pytest.raises(ValueError, match="frame"):
        list(Frames().feed(b"\xff\xff\xff\xff"))
    with pytest.raises(ValueError, match="bytes"):
        frame(Request(1, 1, Put("x", "y" * (1 << 20))))


# --- linearizability ------------------------------------------------------------------------------------------------


def history(*operations: tuple[float, float, Get | Put | Cas, messages.Value]) -> list[Operation]:
    return [Operation(i, op, called, returned, value) for i, (called, returned, op, value) in enumerate(operations)]


READ, NEVER = Get("x"), math.inf

GOOD = {
    "nothing": (),
    "one after the other": ((0, 1, Put("x", 1), None), (2, 3, READ, 1)),
    "a read beside a write sees either": ((0, 9, Put("x", 1), None), (1, 2, READ, None), (3, 4, READ, 1)),
    "what got no answer may have happened": ((0, NEVER, Put("x", 1), None), (5, 6, READ, 1)),
    "or not": ((0, NEVER, Put("x", 1), None), (5, 6, READ, None)),
    "or later": ((0, NEVER, Put("x", 1), None), (5, 6, READ, None), (7, 8, READ, 1)),
    "two at once, one wins": ((0, 9, Cas("x", None, 1), True), (0, 9, Cas("x", None, 2), False), (10, 11, READ, 1)),
    "keys do not mix": ((0, 1, Put("x", 1), None), (2, 3, Get("y"), None)),
}
BAD = {
    "a stale read": ((0, 1, Put("x", 1), None), (2, 3, READ, None)),
    "a value from nowhere": ((0, 1, READ, 1),),
    "back in time": ((0, 9, Put("x", 1), None), (1, 2, READ, 1), (3, 4, READ, None)),
    "both win": ((0, 9, Cas("x", None, 1), True), (0, 9, Cas("x", None, 2), True)),
    "applied twice": ((0, 1, Put("x", 1), None), (2, 9, Cas("x", 1, 2), False), (10, 11, READ, 2)),
    "again after another": (
        (0, 9, Put("x", 1), None),
        (1, 2, READ, 1),
        (3, 4, Put("x", 2), None),
        (5, 6, READ, 2),
        (7, 8, READ, 1),
    ),
    "true is not one": ((0, 1, Put("x", True), None), (2, 3, READ, 1)),
}


@pytest.mark.parametrize("name", GOOD)
def test_linearizable(name: str) -> None:
    assert check(history(*GOOD[name])) is None


@pytest.mark.parametrize("name", BAD)
def test_not_linearizable(name: str) -> None:
    violation = check(history(*BAD[name]))
    assert violation is not None
    assert violation.stuck
    assert "none of these fits" in str(violation)


def by_trying_all(operations: list[Operation]) -> bool:
    """The definition: an order of the answered and of some others that respects time and the sequential store."""
    answered = [o for o in operations if o.returned < NEVER]
    others = [o for o in operations if o.returned == NEVER]
    for count in range(len(others) + 1):
        for chosen in itertools.combinations(others, count):
            for order in itertools.permutations([*answered, *chosen]):
                if any(b.returned < a.called for a, b in itertools.combinations(order, 2)):
                    continue
                value: messages.Value = None
                for o in order:
                    match o.op:
                        case Get():
                            answer: messages.Value = value
                        case Put():
                            answer, value = None, o.op.value
                        case Cas():
                            answer = value == o.op.expected
                            value = o.op.value if answer else value
                    if o.returned < NEVER and answer != o.value:
                        break
                else:
                    return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    few = st.sampled_from((None, 2, 3))
    operations = []
    for client in range(draw(st.integers(1, 5))):
        op = draw(st.one_of(st.just(READ), st.builds(Put, st.just("x"), few), st.builds(Cas, st.just("x"), few, few)))
        called = draw(st.integers(0, 8))
        returned = draw(st.one_of(st.just(NEVER), st.integers(called, 9)))
        value = draw({Get: few, Put: st.none(), Cas: st.booleans()}[type(op)])
        operations.append(Operation(client, op, called, returned, value))
    return operations


@settings(max_examples=200, deadline=None)
@given(histories())
def test_the_checker_agrees_with_the_definition(operations: list[Operation]) -> None:
    assert (check(operations) is None) == by_trying_all(operations)


def test_the_checker_remembers_and_gives_up() -> None:
    """Fourteen writes at once and then a value that nobody wrote: some 2**15 steps, not 14! orders."""
    writes = [(0, 9, Put("x", i % 2), None) for i in range(14)]
    assert check(history(*writes, (10, 11, READ, 5))) is not None
    with pytest.raises(TooHard):
        check(history(*writes, (10, 11, READ, 5)), limit=1000)


# --- real nodes over loopback ---------------------------------------------------------------------------------------


class RealCluster:
    """Three servers in this process, each with a disk in memory."""

    def __init__(self) -> None:
        self.disks = {id: bytearray() for id in (1, 2, 3)}
        self.nodes: dict[int, tuple[str, int]] = {}
        self.servers: dict[int, Server] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def __aenter__(self) -> RealCluster:
        for id in self.disks:
            await self.listen(id)
        for id in self.disks:
            self.run(id)
        return self

    async def __aexit__(self, *error: object) -> None:
        for id in tuple(self.tasks):
            await self.stop(id)

    async def listen(self, id: int) -> None:
        self.servers[id] = Server(id, MemoryStorage(self.disks[id]))
        self.nodes[id] = await self.servers[id].listen(*self.nodes.get(id, ("127.0.0.1", 0)))

    def run(self, id: int) -> None:
        self.tasks[id] = asyncio.create_task(self.servers[id].run(self.nodes))

    async def stop(self, id: int) -> None:
        task = self.tasks.pop(id)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def leader(self) -> int:
        return next(id for id in self.tasks if self.servers[id].node.role is Role.LEADER)


@pytest.fixture(params=["asyncio", "libos"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[RealCluster], Awaitable[None]]], None]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else libos.new_event_loop

    def run(scene: Callable[[RealCluster], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(20), RealCluster() as cluster:
                await scene(cluster)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    return run


@pytest.mark.slow
def test_the_cluster_survives_its_leader(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        seen = History()

        async def work(client: Client, name: int) -> None:
            for value in range(30):
                operation = seen.call(name, Put("x", 100 * name + value) if value % 2 else Get("x"))
                seen.answer(operation, await client.request(operation.op))

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(cluster.nodes)) for _ in range(3)]
            await clients[0].put("before", 1)
            first = cluster.leader()
            async with asyncio.TaskGroup() as tasks:
                for name, client in enumerate(clients):
                    tasks.create_task(work(client, name))
                await clients[0].close()  # in the middle: it comes back by itself
                await cluster.stop(first)
            assert cluster.leader() != first
            await cluster.listen(first)
            cluster.run(first)
            assert await clients[0].cas("before", 1, 2)
            assert await clients[1].get("before") == 2
        assert check(seen.operations) is None

    play(scene)


@pytest.mark.slow
def test_what_is_no_message_ends_its_connection_only(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        async with Client(cluster.nodes) as client:
            await client.put("x", 1)
            for nonsense in (
                b"GET / HTTP/1.1\r\n\r\n",
                frame(Hello(9)),
                frame(Hello(3)),
                frame(Vote(1 << 40, True, False)),
                frame(Request(0, 1, Get("x"))),
                frame(Request(1, 1, Get("x")))[:-1] + b"\xc1",
            ):
                reader, writer = await asyncio.open_connection(*cluster.nodes[2])
                writer.write(nonsense)
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
            assert cluster.servers[2].refused == 6
            assert await client.get("x") == 1

    play(scene)


@pytest.mark.slow
def test_a_client_that_was_forgotten_is_told(play: Callable[[Any], None]) -> None:
    async def scene(cluster: RealCluster) -> None:
        async with Client(cluster.nodes) as client:
            await client.put("x", 1)
            for server in cluster.servers.values():
                server.store.sessions.clear()
            with pytest.raises(SessionExpired):
                await client.put("x", 2)
            assert await client.get("x") == 1

    play(scene)


@pytest.mark.slow
def test_what_is_large(play: Callable[[Any], None]) -> None:
    """Many entries of the largest size at once go in as many messages as they need."""

    async def scene(cluster: RealCluster) -> None:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(cluster.nodes)) for _ in range(20)]
            async with asyncio.TaskGroup() as tasks:
                for name, client in enumerate(clients):
                    tasks.create_task(client.put(f"{name}", "x" * 65_000))
            assert len(str(await clients[0].get("19"))) == 65_000
            with pytest.raises(ValueError, match="a request may have"):
                await clients[0].put("x", "y" * 66_000)

    play(scene)


@pytest.mark.slow
def test_a_peer_that_is_silent_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP would wait for minutes."""
    monkeypatch.setattr("raft.server.SILENCE", 0.1)

    async def main() -> None:
        again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen = 0

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen += 1
            if seen == 2:
                again.set_result(None)
            with suppress(ConnectionError):
                await reader.read(-1)
            writer.close()

        peer = await asyncio.start_server(silent, "127.0.0.1", 0)
        server = Server(1, MemoryStorage(bytearray()))
        address = await server.listen("127.0.0.1", 0)
        task = asyncio.create_task(server.run({1: address, 2: peer.sockets[0].getsockname()[:2]}))
        async with asyncio.timeout(20):
            await again
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        peer.close()
        await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.slow
def test_a_node_whose_disk_fails_stops() -> None:
    class Full(MemoryStorage):
        def _write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async def main() -> None:
        server = Server(1, Full(bytearray()))
        address = await server.listen("127.0.0.1", 0)
        with pytest.raises(OSError, match="No space"):
            await server.run({1: address})

    asyncio.run(main())


@pytest.mark.slow
def test_the_demonstration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.raft", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "count 90" in done.stdout
    assert done.stdout.endswith("operations, linearizable\n")

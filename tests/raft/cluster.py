"""A cluster of sans-I/O Raft nodes and clients on a virtual clock, with a bad network, from one seed.

Everything that happens is an event in one queue: a message arrives, a deadline passes, a client loses patience, a fault
begins or ends. Messages are delayed, lost, doubled and overtake each other; links are cut one way or both ways; a node
loses its memory at any moment between two events, keeps what it has synced, and now and then finds half a record after
it. After every event the properties of figure 3 of the paper must hold (``Unsafe`` is raised otherwise); ``run`` ends
with a time without faults, in which the cluster must get on, and with the check of what the clients have seen.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from raft.check import History, Operation, check
from raft.client import Session
from raft.messages import NOT_LEADER, Cas, Entry, Get, Message, Open, Put, Reply, Request, encode
from raft.node import Node, Role
from raft.storage import MemoryStorage
from raft.store import Store

KEYS = ("x", "y")


class Unsafe(AssertionError):
    """A property of the paper's figure 3, or linearizability, does not hold; the first word says which."""


class Host:
    """A machine: a disk that stays, and while it is up a node with its state machine."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.disk = bytearray()
        self.node: Node | None = None
        self.store = Store()
        self.storage = MemoryStorage(self.disk)
        self.waiting: dict[int, tuple[int, TestClient, int]] = {}  # by index: term, who, serial
        self.alarm = 0.0  # when its tick is due; other ticks are of the past


class TestClient:
    __test__ = False

    def __init__(self, session: Session) -> None:
        self.session = session
        self.request = session.next(Open())
        self.operation: Operation | None = None
        self.target = 1
        self.attempt = 0
        self.answered = 0


class Cluster:
    def __init__(
        self, seed: int, *, new_node: Callable[..., Node] = Node, new_session: Callable[[], Session] = Session
    ) -> None:
        self.rng = rng = Random(seed)
        nodes = rng.choice((3, 3, 5))
        self.loss = rng.choice((0.0, 0.02, 0.1))
        self.doubled = rng.choice((0.0, 0.02))
        self.late = rng.choice((0.0, 0.05))
        self.crash_at_sync = rng.choice((0.0, 0.02, 0.5, 0.5))  # of a leader: with entries that nobody else has
        self.pause = rng.choice((0.02, 0.3))  # of a client, between two requests
        self.fault_every = rng.choice((0.1, 0.3, 1.0))
        self.now = 0.0
        self.history = History()
        self.faults = True
        self.cut: dict[tuple[int, int], float] = {}  # links that are cut, from one to another, until when
        self.leaders: dict[int, int] = {}  # of each term
        self.committed = [Entry(0, b"")]
        self.values = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._new_node, self._pre_vote = new_node, rng.random() < 0.5
        self.hosts = {id: Host(id) for id in range(1, nodes + 1)}
        self.clients = [TestClient(new_session()) for _ in range(rng.choice((2, 4, 8)))]
        for host in self.hosts.values():
            self.start(host)
        for client in self.clients:
            self.at(self.rng.uniform(0, 0.5), self.send, client)

    def at(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, call, args))

    def play(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while self._events[0][0] <= end and not until():
            self.now, _, call, args = heapq.heappop(self._events)
            call(*args)

    def run(self, seconds: float = 8.0) -> None:
        self.fault()
        self.play(seconds)
        self.faults = False
        self.cut.clear()
        for host in self.hosts.values():
            if host.node is None:
                self.start(host)
        goals = [client.answered + 3 for client in self.clients]
        self.play(4.0, lambda: all(c.answered >= goal for c, goal in zip(self.clients, goals, strict=True)))
        assert all(c.answered >= goal for c, goal in zip(self.clients, goals, strict=True)), "no progress"
        self.clients.clear()
        self.play(0.5)
        logs = [host.node.log for host in self.hosts.values() if host.node]
        assert all(log == logs[0] for log in logs), "logs differ at rest"
        assert all(host.store.data == self.hosts[1].store.data for host in self.hosts.values()), "stores differ at rest"
        self.check_history()

    # --- machines ---------------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        if host.node is not None:
            return
        host.storage, host.store = MemoryStorage(host.disk), Store()
        host.node = self._new_node(host.id, self.hosts, host.storage, self.now, rng=self.rng, pre_vote=self._pre_vote)
        host.alarm = host.node.deadline
        self.at(host.alarm - self.now, self.tick, host, host.node)

    def crash(self, host: Host) -> None:
        host.node = None
        host.waiting.clear()
        if self.rng.random() < 0.3:
            host.disk += b"raft\0\0\0\x40half a record"
        self.at(self.rng.choice((0.001, self.rng.uniform(0.01, 0.6))), self.start, host)

    def tick(self, host: Host, node: Node) -> None:
        if node is host.node and self.now >= host.alarm:
            node.tick(self.now)
            host.alarm = float("inf")
            self.after(host)

    def deliver(self, host: Host, sender: int, message: Message) -> None:
        if host.node is not None:
            host.node.receive(sender, message, self.now)
            self.after(host)

    def after(self, host: Host) -> None:
        """What a server does after each step, and the checks."""
        node = host.node
        assert node is not None
        size = len(host.disk)
        host.storage.sync()
        wrote = len(host.disk) > size and node.role is Role.LEADER and node.term in self.leaders
        if wrote and self.faults and self.rng.random() < self.crash_at_sync:
            if self.rng.random() < 0.5:
                del host.disk[size + 1 :]
            self.crash(host)  # nobody will hear of what is durable now, or nearly was
            return
        if node.role is Role.LEADER and self.leaders.get(node.term) != host.id:
            self.check_leader(node)
        for peer, message in node.take_messages():
            self.transmit(host.id, peer, self.deliver, self.hosts[peer], host.id, message)
        for index, entry in node.take_committed():
            self.check_committed(host.id, index, entry)
            reply = host.store.apply(index, entry.command)
            term, client, _ = host.waiting.pop(index, (0, None, 0))
            if reply and client and term == entry.term:
                self.transmit(host.id, 0, self.on_reply, client, reply)
        for index, (term, client, serial) in tuple(host.waiting.items()):
            if term != node.term or node.role is not Role.LEADER:
                del host.waiting[index]
                self.transmit(host.id, 0, self.on_reply, client, Reply(serial, error=NOT_LEADER))
        if node.deadline < host.alarm:
            host.alarm = node.deadline
            self.at(max(0.0, host.alarm - self.now), self.tick, host, node)

    # --- the network ------------------------------------------------------------------------------------------------

    def transmit(self, sender: int, receiver: int, call: Callable[..., None], *args: Any) -> None:
        """Node 0 is the clients'."""
        random = self.rng.random
        if not self.faults:
            self.at(0.001 + 0.004 * random(), call, *args)
            return
        if self.cut.get((sender, receiver), 0.0) > self.now or random() < self.loss:
            return
        self.at(0.001 + (0.1 if random() < self.late else 0.009) * random(), call, *args)
        if random() < self.doubled:
            self.at(0.1 * random(), call, *args)

    def fault(self) -> None:
        if not self.faults:
            return
        rng = self.rng
        leader = self.hosts[self.leaders[max(self.leaders)]] if self.leaders else None
        host = leader if leader and rng.random() < 0.5 else self.hosts[rng.randrange(len(self.hosts)) + 1]
        others = [id for id in self.hosts if id != host.id]
        if rng.random() < 0.3:
            others.append(0)  # often the clients still reach it: then it has entries that nobody else has
        until = self.now + rng.expovariate(1 / 0.4)
        match rng.randrange(5):
            case 0 | 1 if host.node:
                self.crash(host)
            case 2:
                self.cut |= {(host.id, other): until for other in others}
            case 3:
                self.cut |= {(other, host.id): until for other in others}
            case _:
                self.cut |= {pair: until for other in others for pair in ((host.id, other), (other, host.id))}
        self.at(rng.expovariate(1 / self.fault_every), self.fault)

    # --- clients ----------------------------------------------------------------------------------------------------

    def send(self, client: TestClient) -> None:
        client.attempt += 1
        self.transmit(0, client.target, self.on_request, self.hosts[client.target], client, client.request)
        self.at(0.25, self.lose_patience, client, client.attempt)

    def lose_patience(self, client: TestClient, attempt: int) -> None:
        if client.attempt == attempt and client in self.clients:
            client.target = self.rng.randrange(len(self.hosts)) + 1
            client.request = client.session.again(client.request)
            self.send(client)

    def on_request(self, host: Host, client: TestClient, request: Request) -> None:
        if (node := host.node) is None:
            return
        index = node.propose(encode(request))
        if index is None:
            self.transmit(
                host.id, 0, self.on_reply, client, Reply(request.serial, error=NOT_LEADER, leader=node.leader)
            )
        else:
            host.waiting[index] = node.term, client, request.serial
            self.after(host)

    def on_reply(self, client: TestClient, reply: Reply) -> None:
        if reply.serial != client.request.serial or client not in self.clients:
            return
        client.attempt += 1
        if reply.error:
            client.target = reply.leader or self.rng.randrange(len(self.hosts)) + 1
            client.request = client.session.again(client.request)
            self.at(self.rng.uniform(0.005, 0.05), self.resume, client, client.attempt)
            return
        if not client.session.client:
            assert isinstance(reply.value, int)
            client.session.client = reply.value
        elif client.operation:
            self.history.answer(client.operation, reply.value)
            client.answered += 1
        self.at(self.rng.uniform(0.0, 2 * self.pause), self.think, client, client.attempt)

    def resume(self, client: TestClient, attempt: int) -> None:
        if client.attempt == attempt:
            self.send(client)

    def think(self, client: TestClient, attempt: int) -> None:
        if client.attempt != attempt or client not in self.clients:
            return
        key = self.rng.choice(KEYS)
        self.values += 1
        match self.rng.randrange(3):
            case 0:
                op: Get | Put | Cas = Get(key)
            case 1:
                op = Put(key, self.values)
            case _:
                op = Cas(key, self.rng.choice([host.store.data.get(key) for host in self.hosts.values()]), self.values)
        client.operation = self.history.call(self.clients.index(client), op)
        client.request = client.session.next(op)
        self.send(client)

    # --- what must hold (figure 3) ----------------------------------------------------------------------------------

    def check_leader(self, node: Node) -> None:
        if node.term in self.leaders:
            raise Unsafe(f"election: {node.id} and {self.leaders[node.term]} lead in term {node.term}")
        self.leaders[node.term] = node.id
        if node.log[: len(self.committed)] != self.committed:
            raise Unsafe(f"completeness: leader {node.id} of term {node.term} lacks what was committed")
        self.check_logs()

    def check_logs(self) -> None:
        nodes = [host.node for host in self.hosts.values() if host.node]
        for a, b in zip(nodes, nodes[1:] + nodes[:1], strict=True):
            last = next((i for i in range(min(a.last, b.last), -1, -1) if a.log[i].term == b.log[i].term), 0)
            if a.log[: last + 1] != b.log[: last + 1]:
                raise Unsafe(f"matching: the logs of {a.id} and {b.id} have one term at {last}, and differ")

    def check_committed(self, id: int, index: int, entry: Entry) -> None:
        if index == len(self.committed):
            self.committed.append(entry)
        elif self.committed[index] != entry:
            raise Unsafe(f"machine: {id} applies another entry {index}")

    def check_history(self) -> None:
        if violation := check(self.history.operations):
            raise Unsafe(f"linearizability: {violation}")

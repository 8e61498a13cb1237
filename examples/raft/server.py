"""A node on asyncio streams: one process's part in the cluster.

Between two nodes there is one connection, dialled by the one with the lower id, and both write to it. Whoever asks and
hears nothing for ``SILENCE`` gives the connection up: TCP alone would wait for minutes on a machine that is gone, and
for its own next retransmission after a partition that has healed. Clients connect to any node and send requests; one
that is not the leader says who is.

All work is done where a read or the timer ends, without a task for each message: hand in what has come, then
``_flush``. One call of the loop waits for ``node.deadline``; since each heartbeat moves that, the call is not cancelled
but finds that it came too early. A message to a peer that does not read is dropped and counted; the Node is made for
that.

``storage.sync`` runs in the loop, and holds up this node for as long as its disk takes: what could it do meanwhile?
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from .client import Address
from .messages import (
    BUSY,
    MAX_COMMAND,
    NOT_LEADER,
    Append,
    Entry,
    Frames,
    Hello,
    Message,
    Open,
    Reply,
    Request,
    RequestVote,
    encode,
    frame,
)
from .node import Node, Role
from .storage import Storage
from .store import Store

READ = 1 << 16  # bytes
SILENCE = 1.0  # seconds without an answer, after which a connection to a peer is no good
BACKOFF = (0.05, 1.0)  # seconds between attempts to connect, doubled from the first to the second
UNREAD = 4 << 20  # bytes that a peer or a client may leave unread
MAX_CONNECTIONS = 1024  # that were accepted

log = logging.getLogger("raft")


class Peer:
    """The connection to another node; whichever end opened it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.asked: float | None = None  # when the first question was sent that nothing has come after


class Server:
    node: Node  # from run() on

    def __init__(
        self, id: int, storage: Storage, *, new_node: Callable[..., Node] = Node, pre_vote: bool = True
    ) -> None:
        self.id = id
        self.store = Store()
        self.dropped = 0  # messages to peers that are not there, or do not read
        self.refused = 0  # connections: too many, or they sent what is no message
        self._storage, self._new_node, self._pre_vote = storage, new_node, pre_vote
        self._peers: dict[int, Peer] = {}
        self._readers: set[asyncio.Task[None]] = set()
        # Requests in the log of which the client has not heard: by index. All of them are of the term ``_term``.
        self._waiting: dict[int, tuple[asyncio.StreamWriter, int]] = {}
        self._term = 0
        self._told: tuple[Role, int] | None = None

    async def listen(self, host: str | None, port: int) -> Address:
        """Where the others find this node; ``run`` must follow."""
        self._listener = await asyncio.start_server(self._accept, host, port, limit=READ, start_serving=False)
        address: Address = self._listener.sockets[0].getsockname()[:2]
        return address

    async def run(self, nodes: Mapping[int, Address]) -> None:
        """Take part with all of ``nodes``, until cancelled. Raises OSError and StorageError of the storage."""
        self._loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        with closing(self._storage), closing(self._listener):
            now = self._loop.time()
            self.node = self._new_node(self.id, nodes, self._storage, now, pre_vote=self._pre_vote)
            self._timer = self._loop.call_at(self.node.deadline, self._on_timer)
            try:
                await self._listener.start_serving()
                async with asyncio.TaskGroup() as tasks:
                    for peer in self.node.peers:
                        if peer > self.id:
                            tasks.create_task(self._dial(peer, nodes[peer]))
                    await self._failure
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                self._timer.cancel()
                for task in self._readers:
                    task.cancel()
                await asyncio.gather(*self._readers, return_exceptions=True)

    # --- connections ------------------------------------------------------------------------------------------------

    async def _dial(self, peer: int, address: Address) -> None:
        backoff = BACKOFF[0]
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    reader, writer = await asyncio.open_connection(*address, limit=READ)
            except OSError:  # a time-out is one
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, BACKOFF[1])
                continue
            backoff = BACKOFF[0]
            writer.write(frame(Hello(self.id)))
            try:
                await self._serve_peer(peer, reader, writer, Frames(), ())
            except (OSError, ValueError) as error:
                log.info("node %d: connection to node %d: %s", self.id, peer, error)
            await asyncio.sleep(backoff)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The first message says who is there."""
        task = asyncio.current_task()
        assert task is not None
        self._readers.add(task)
        try:
            if len(self._readers) > MAX_CONNECTIONS:
                raise ValueError("too many connections")
            frames = Frames()
            messages: list[Message] = []
            while not messages:
                if not (data := await reader.read(READ)):
                    return
                messages = list(frames.feed(data))
            match messages:
                case [Hello(peer), *rest] if peer in self.node.peers and peer < self.id:
                    await self._serve_peer(peer, reader, writer, frames, rest)
                case _:
                    await self._serve_client(reader, writer, frames, messages)
        except OSError:
            pass  # it is gone
        except ValueError as error:
            self.refused += 1
            log.info("node %d: closed a connection: %s", self.id, error)
        except asyncio.CancelledError:
            pass  # by _close; asyncio would report a task that ends so
        finally:
            self._readers.discard(task)
            writer.transport.abort()

    async def _serve_peer(
        self,
        id: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        frames: Frames,
        messages: Iterable[Message],
    ) -> None:
        if old := self._peers.get(id):
            old.writer.transport.abort()  # the other end has given it up
        peer = self._peers[id] = Peer(writer)
        receive, time = self.node.receive, self._loop.time
        try:
            while True:
                now = time()
                for message in messages:
                    receive(id, message, now)
                self._flush(now)
                if not (data := await reader.read(READ)):
                    return
                peer.asked = None
                messages = frames.feed(data)
        finally:
            writer.transport.abort()
            if self._peers.get(id) is peer:
                del self._peers[id]

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frames: Frames, messages: Iterable[Message]
    ) -> None:
        while True:
            for message in messages:
                self._on_request(writer, message)
            self._flush(self._loop.time())
            if not (data := await reader.read(READ)):
                return
            messages = frames.feed(data)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _on_request(self, writer: asyncio.StreamWriter, request: Message) -> None:
        node = self.node
        if not isinstance(request, Request):
            raise ValueError("a client sends requests")
        if (request.client == 0) != isinstance(request.op, Open):
            raise ValueError("a session begins with open")
        if len(command := encode(request)) > MAX_COMMAND:
            raise ValueError(f"a request of {len(command)} bytes; {MAX_COMMAND} are allowed")
        index = node.propose(command)
        if index is not None:
            self._waiting[index] = writer, request.serial
            self._term = node.term
        elif node.role is Role.LEADER:
            self._answer(writer, Reply(request.serial, error=BUSY, leader=self.id))
        else:
            self._answer(writer, Reply(request.serial, error=NOT_LEADER, leader=node.leader))

    def _answer(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        transport = writer.transport
        if transport.get_write_buffer_size() > UNREAD:
            transport.abort()
        elif not transport.is_closing():
            writer.write(frame(reply))

    def _apply(self, committed: Iterable[tuple[int, Entry]]) -> None:
        for index, entry in committed:
            reply = self.store.apply(index, entry.command)
            waiting = self._waiting.pop(index, None)
            if waiting and reply and entry.term == self._term:
                self._answer(waiting[0], reply)

    def _disappoint(self) -> None:
        """No longer the leader that put them into the log. They may be committed or not; a client that asks again, with
        the same numbers, will learn it."""
        for writer, serial in self._waiting.values():
            self._answer(writer, Reply(serial, error=NOT_LEADER, leader=self.node.leader))
        self._waiting.clear()

    # --- what a node does after each step ---------------------------------------------------------------------------

    def _on_timer(self) -> None:
        now = self._loop.time()
        self.node.tick(now)
        self._timer = self._loop.call_at(max(self.node.deadline, now), self._on_timer)
        self._flush(now)

    def _flush(self, now: float) -> None:
        """In the order that the Node demands."""
        if self._failure.done():
            return  # what could not be made durable must not be told
        node = self.node
        try:
            self._storage.sync()
        except OSError as error:
            self._failure.set_exception(error)
            return
        for id, message in node.take_messages():
            self._send(id, message, now)
        if committed := node.take_committed():
            self._apply(committed)
        if self._waiting and (node.role is not Role.LEADER or node.term != self._term):
            self._disappoint()
        if node.deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(node.deadline, self._on_timer)
        if self._told != (node.role, node.term):
            self._told = node.role, node.term
            log.info("node %d: %s of term %d", self.id, node.role.value, node.term)

    def _send(self, id: int, message: Message, now: float) -> None:
        peer = self._peers.get(id)
        if peer is None:
            self.dropped += 1
            return
        transport = peer.writer.transport
        if isinstance(message, Append | RequestVote):
            if peer.asked is None:
                peer.asked = now
            elif now - peer.asked > SILENCE:
                transport.abort()
        if transport.is_closing() or transport.get_write_buffer_size() > UNREAD:
            self.dropped += 1
        else:
            transport.write(frame(message))

"""A client: finds the leader, and sends a request until it is answered, as the same request every time.

``Session`` is the identity of a client without I/O: its id, and a serial number for each request. ``Client`` is a
session over asyncio streams, with one request under way at a time (more at once: more clients).

    async with Client({1: ("a", 7000), 2: ("b", 7000), 3: ("c", 7000)}) as client:
        await client.put("x", 1)
        assert await client.cas("x", 1, 2)

A request has no time limit of its own: use ``asyncio.timeout``. After that, nobody knows whether it was applied.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Self

from .messages import EXPIRED, MAX_COMMAND, Cas, Frames, Get, Op, Open, Put, Reply, Request, Value, encode, frame

Address = tuple[str, int]

PATIENCE = 0.5  # seconds for a connection, and for an answer, before another node is asked
PAUSE = (0.01, 0.1)  # seconds before the next attempt


class SessionExpired(Exception):
    """The nodes have forgotten this client: whether its last request was applied, nobody knows."""


class Session:
    def __init__(self) -> None:
        self.client = 0  # 0: none yet
        self._serial = 0

    def next(self, op: Op) -> Request:
        if isinstance(op, Open):
            return Request(0, 0, op)
        self._serial += 1
        return Request(self.client, self._serial, op)

    def again(self, request: Request) -> Request:
        """What to send when ``request`` got no answer: it may have been applied."""
        return request


class Client:
    def __init__(self, nodes: Mapping[int, Address], session: Session | None = None) -> None:
        self._nodes = dict(nodes)
        self._session = session or Session()
        self._target: int | None = None  # the node that we talk to, or shall
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._frames = Frames()

    async def get(self, key: str) -> Value:
        return await self.request(Get(key))

    async def put(self, key: str, value: Value) -> None:
        await self.request(Put(key, value))

    async def cas(self, key: str, expected: Value, value: Value) -> bool:
        """Whether the value was ``expected``, and is ``value`` now."""
        return bool(await self.request(Cas(key, expected, value)))

    async def request(self, op: Op) -> Value:
        """Its answer, however long it takes. Raises SessionExpired; ValueError for one that is too large."""
        if len(encode(op)) > MAX_COMMAND - 32:
            raise ValueError(f"a request may have {MAX_COMMAND - 32} bytes")
        if not self._session.client:
            opened = await self._ask(self._session.next(Open()))
            assert isinstance(opened, int)
            self._session.client = opened
        return await self._ask(self._session.next(op))

    async def close(self) -> None:
        if self._writer is not None:
            writer, self._reader, self._writer = self._writer, None, None
            writer.transport.abort()  # nothing is on its way that we would wait for
            await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # --- one request ------------------------------------------------------------------------------------------------

    async def _ask(self, request: Request) -> Value:
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    reply = await self._exchange(request)
            except (OSError, EOFError, ValueError):  # TimeoutError is an OSError
                await self._turn_to(None)
            else:
                if not reply.error:
                    return reply.value
                if reply.error == EXPIRED:
                    self._session.client = 0
                    raise SessionExpired
                if reply.leader != self._target:
                    await self._turn_to(reply.leader)
            request = self._session.again(request)
            await asyncio.sleep(random.uniform(*PAUSE))

    async def _exchange(self, request: Request) -> Reply:
        if self._target is None:
            self._target = random.choice(list(self._nodes))
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._nodes[self._target])
            self._frames = Frames()
        assert self._reader is not None
        self._writer.write(frame(request))
        while True:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError
            for reply in self._frames.feed(data):
                if isinstance(reply, Reply) and reply.serial == request.serial:
                    return reply  # any other one belongs to a request that was given up

    async def _turn_to(self, node: int | None) -> None:
        """Ask ``node`` from now on; without one, any other."""
        await self.close()
        others = [each for each in self._nodes if each != self._target]
        self._target = node if node in self._nodes else random.choice(others or list(self._nodes))

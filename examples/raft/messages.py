"""What goes over the wire: one frame is a length of four bytes (big-endian) and a message in MessagePack.

A message is an array whose first item says which one it is. ``Frames`` cuts a stream of bytes into messages; whatever
a peer sends, it yields checked values or raises ValueError, and holds at most one frame of ``MAX_FRAME`` bytes and one
read. Who sent a message is known from the connection and is not in it.

Indices count entries of the log from 1; index 0 and term 0 are what was before the first one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec

MAX_FRAME = 1 << 20  # bytes of a message
MAX_COMMAND = 1 << 16  # bytes of a request
HEADER = 4

Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Value = str | int | bool | None  # None: there is none


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One place of the log: the term of the leader that put it there, and a Request, encoded (empty: no request)."""

    term: Number
    command: bytes


# --- between nodes: figure 2 of the paper, with pre-vote (section 9.6 of the dissertation) ---------------------------


class Hello(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The first message on a connection between nodes, from the one that dialled."""

    id: Number


class Append(msgspec.Struct, array_like=True, tag=1, gc=False):
    """AppendEntries: what follows the entry ``prev_index`` of ``prev_term``; nothing, as a heartbeat."""

    term: Number
    prev_index: Number
    prev_term: Number
    commit: Number
    entries: list[Entry]


class Appended(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Its answer. ``ok``: the log is the leader's up to ``index``; otherwise the leader is to try again from there."""

    term: Number
    ok: bool
    index: Number


class RequestVote(msgspec.Struct, array_like=True, tag=3, gc=False):
    """``pre``: would you vote for me in ``term``? Nobody's state changes by asking."""

    term: Number
    last_index: Number
    last_term: Number
    pre: bool


class Vote(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Its answer, with the term of the request if granted, else the voter's own."""

    term: Number
    granted: bool
    pre: bool


# --- between a client and the leader --------------------------------------------------------------------------------


class Open(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    """Begins a session; the answer is the client's id."""


class Get(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    key: str


class Put(msgspec.Struct, array_like=True, tag=2, frozen=True, gc=False):
    """Its answer is None."""

    key: str
    value: Value


class Cas(msgspec.Struct, array_like=True, tag=3, frozen=True, gc=False):
    """Compare and set: the answer says whether the value was ``expected``, and so is ``value`` now."""

    key: str
    expected: Value
    value: Value


Op = Open | Get | Put | Cas


class Request(msgspec.Struct, array_like=True, tag=5, frozen=True, gc=False):
    """``serial`` counts the requests of a client. The same pair of numbers is the same request, however often it is
    sent, and is applied once."""

    client: Number
    serial: Number
    op: Op


class Reply(msgspec.Struct, array_like=True, tag=6, gc=False):
    """``error`` is empty, and the request was applied; or it says why there is no answer here and now."""

    serial: Number
    value: Value = None
    error: str = ""
    leader: Number | None = None  # who to ask instead, as far as known


NOT_LEADER, BUSY, EXPIRED = "not leader", "busy", "session expired"

Message = Append | Appended | RequestVote | Vote | Hello | Request | Reply

encode = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode
decode_request = msgspec.msgpack.Decoder(Request).decode


def frame(message: Message) -> bytes:
    payload = encode(message)
    if len(payload) > MAX_FRAME:
        raise ValueError(f"a message of {len(payload)} bytes; {MAX_FRAME} are allowed")
    return len(payload).to_bytes(HEADER, "big") + payload


class Frames:
    """The messages of a stream. A read is most often one whole frame, and is then decoded where it lies."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that ``data`` completes. Raises ValueError (msgspec's errors are) for what is not one."""
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while size - at >= HEADER:
            end = at + HEADER + int.from_bytes(data[at : at + HEADER], "big")
            if end - at > HEADER + MAX_FRAME:
                raise ValueError(f"a frame of {end - at} bytes")
            if end > size:
                break
            yield decode_message(data[at + HEADER : end])
            at = end
        self._rest = data[at:] if at else data

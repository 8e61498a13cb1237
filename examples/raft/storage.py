"""What a node must not forget: its term, its vote and its log.

Storage is an append-only sequence of records. A change is first kept in memory (``save_vote``, ``append``); ``sync``
writes all of them as one record and returns when it is durable. A node's messages may leave only after that: a vote or
an acknowledgement that a crash can undo is none.

A record is a mark, a length and a CRC-32 of the payload (MessagePack). A crash during ``sync`` leaves at most the last
record broken, which nobody was told of: it is cut off at the next start. A broken record with a whole one after it
means that the disk has lost what it had promised to keep; then the node must not take part, and ``load`` raises.

``FileStorage`` is one file. ``MemoryStorage`` has the same records in a bytearray that outlives it: a simulation hands
that to the node that it starts in place of one that crashed. Snapshots are not there: the log only grows.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .messages import Entry

MARK = b"raft"
HEADER = struct.Struct(">4sII")  # mark, length of the payload, its CRC-32


class Voted(msgspec.Struct, array_like=True, tag=1):
    term: int
    vote: int | None


class Appended(msgspec.Struct, array_like=True, tag=2):
    """``entries`` stand from ``index`` on; what the log had there and after is gone."""

    index: int
    entries: list[Entry]


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Voted | Appended]).decode


class StorageError(Exception):
    """The disk does not hold what it was given."""


def record(data: bytes | bytearray, at: int) -> tuple[list[Voted | Appended], int] | None:
    """The record that begins at ``at`` and where the next one does; None if there is no whole one."""
    if len(data) - at < HEADER.size:
        return None
    mark, length, crc = HEADER.unpack_from(data, at)
    payload = data[at + HEADER.size : at + HEADER.size + length]
    if mark != MARK or len(payload) != length or zlib.crc32(payload) != crc:
        return None
    return decode(payload), at + HEADER.size + length


class Storage:
    """What both have in common; ``_read``, ``_cut`` and ``_write`` are the medium's."""

    def __init__(self) -> None:
        self._changes: list[Voted | Appended] = []

    def load(self) -> tuple[int, int | None, list[Entry]]:
        """Term, vote and log as they were last synced. Raises StorageError, OSError."""
        term, vote, at = 0, None, 0
        log: list[Entry] = []
        data = self._read()
        while found := record(data, at):
            changes, at = found
            for change in changes:
                if isinstance(change, Voted):
                    term, vote = change.term, change.vote
                elif 1 <= change.index <= len(log) + 1:
                    log[change.index - 1 :] = change.entries
                else:
                    raise StorageError(f"an entry {change.index} after one {len(log)}")
        if at < len(data):
            later = at
            while (later := data.find(MARK, later + 1)) >= 0:
                if record(data, later):
                    raise StorageError(f"the record at {at} is damaged, and the one at {later} is whole")
            self._cut(at)
        return term, vote, log

    def save_vote(self, term: int, vote: int | None) -> None:
        self._changes.append(Voted(term, vote))

    def append(self, index: int, entries: Sequence[Entry]) -> None:
        self._changes.append(Appended(index, list(entries)))

    def sync(self) -> None:
        """Returns when all that was given is durable. After an OSError nothing is known: the node must stop."""
        if self._changes:
            payload = encode(self._changes)
            self._changes.clear()
            self._write(HEADER.pack(MARK, len(payload), zlib.crc32(payload)) + payload)

    def close(self) -> None:
        """What was not synced is lost, as in a crash."""

    def _read(self) -> bytes | bytearray:
        raise NotImplementedError

    def _cut(self, length: int) -> None:
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        raise NotImplementedError


class MemoryStorage(Storage):
    """``disk`` is the caller's, and has what was synced."""

    def __init__(self, disk: bytearray) -> None:
        super().__init__()
        self._disk = disk

    def _read(self) -> bytearray:
        return self._disk

    def _cut(self, length: int) -> None:
        del self._disk[length:]

    def _write(self, data: bytes) -> None:
        self._disk += data


class FileStorage(Storage):
    """One file, made if it is not there. ``sync`` blocks for as long as the disk takes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 - closed by close()
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # the name is as durable as what it names
        finally:
            os.close(directory)

    def close(self) -> None:
        self._file.close()

    def _read(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def _cut(self, length: int) -> None:
        self._file.truncate(length)
        os.fsync(self._file.fileno())

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        os.fsync(self._file.fileno())

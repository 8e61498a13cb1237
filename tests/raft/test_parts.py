"""What a node is made of besides: storage.py, store.py, messages.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raft import messages
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
from raft.storage import FileStorage, MemoryStorage, Storage, StorageError
from raft.store import Store

# --- storage ----------------------------------------------------------------------------------------------------------


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


# --- the store --------------------------------------------------------------------------------------------------------


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


# --- frames -----------------------------------------------------------------------------------------------------------

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

"""Bytes through host sockets: the same on a ring of this kernel, on those of older ones, and on epoll."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libos.sched.reactor import EV_ERROR, EV_READ, EV_WRITE, NEVER

from .conftest import KINDS
from .host_sockets import (
    AGAIN,
    MS,
    HostSockets,
    Pair,
    all_of,
    reset,
    sockets_of,
    tcp_pair,
    unread,
)

# --- reading ---------------------------------------------------------------------------------------------------------


def test_what_arrives_is_reported_until_it_is_read(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    assert sockets.turn() == {}
    assert sockets.recv(id) == AGAIN
    assert sockets.readable(id) == AGAIN
    far.send(b"hello")
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.readable(id) == 5
    assert sockets.recv(id, 2) == b"he"
    assert sockets.readable(id) == 3
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.recv(id) == b"llo"
    sockets.turn()
    assert sockets.turn() == {}
    far.send(b"again")
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.recv(id) == b"again"


def test_readable_is_a_promise(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    sent = bytes(range(256)) * 600
    got = b""
    at = 0
    while len(got) < len(sent):
        with contextlib.suppress(BlockingIOError):
            at += far.send(sent[at : at + 10000])
        sockets.turn()
        if (size := sockets.readable(id)) > 0:
            piece = sockets.recv(id, size)
            assert isinstance(piece, bytes)
            assert len(piece) == size
            got += piece
    assert got == sent


def test_the_end_of_the_stream_comes_after_its_data(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)
    assert all_of(sockets, id, 4) == b"last"
    assert sockets.wait_for(id, EV_READ) == EV_READ
    assert sockets.readable(id) == 0
    assert sockets.recv(id) == 0
    assert sockets.turn(NEVER) == {id: EV_READ}  # a level, too
    sockets.want(id, 0)
    assert sockets.turn() == {}
    assert sockets.send(id, b"answer") == 6  # the other way is open
    sockets.until(lambda: sockets.queued(id) == 0)
    assert unread(far) == b"answer"


def test_a_reset_is_an_error_once_and_an_end_for_ever(sockets: HostSockets) -> None:
    ours, far = tcp_pair()
    ours.setblocking(False)
    id = sockets.open(ours)
    sockets.turn()
    reset(far)
    assert sockets.wait_for(id, EV_READ) & EV_READ
    assert sockets.recv(id) == -errno.ECONNRESET
    assert sockets.turn(NEVER)[id] & EV_ERROR
    assert sockets.send(id, b"x") == -errno.ECONNRESET
    assert sockets.error(id) == errno.ECONNRESET
    assert sockets.error(id) == 0
    assert sockets.recv(id) == 0
    assert sockets.send(id, b"x") == -errno.EPIPE
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.close(id) == 0
    ours.close()


def test_events_of_what_is_not_wanted_stay_away(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours, want=0)
    far.send(b"x")
    assert sockets.turn() == {}
    assert sockets.turn(MS) == {}
    sockets.want(id, EV_WRITE)
    assert sockets.wait_for(id, EV_WRITE) == EV_WRITE
    sockets.want(id, EV_READ | EV_WRITE)
    sockets.until(lambda: sockets.turn(NEVER) == {id: EV_READ | EV_WRITE})
    sockets.want(id, EV_READ)
    assert sockets.turn(NEVER) == {id: EV_READ}
    assert sockets.recv(id) == b"x"


def test_a_reader_that_pauses_stops_the_flood_and_loses_nothing(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    data = random.Random(1).randbytes(3 << 20)
    at = 0
    got = bytearray()
    for pause in range(40):
        for _ in range(20):
            with contextlib.suppress(BlockingIOError):
                at += far.send(data[at : at + 50_000])
        sockets.want(id, 0 if pause % 2 else EV_READ)
        events = sockets.turn()
        if pause % 2:
            assert events == {}
            assert sockets.counters()["memory"] < 3 << 20
        elif id in events and isinstance(piece := sockets.recv(id, 60_000), bytes):
            got += piece
    sockets.want(id, EV_READ)
    while len(got) < len(data):
        if at < len(data):
            with contextlib.suppress(BlockingIOError):
                at += far.send(data[at : at + 100_000])
        sockets.turn(MS)
        if isinstance(piece := sockets.recv(id), bytes):
            got += piece
    assert got == data


def test_who_does_not_read_keeps_nothing_from_the_others(sockets: HostSockets) -> None:
    """More idle readers than there are buffers, each with data: the last one is read all the same."""
    pairs = [socket.socketpair() for _ in range(300)]
    for ours, _ in pairs:
        ours.setblocking(False)
    ids = [sockets.open(ours) for ours, _ in pairs]
    sockets.turn()
    for _, far in pairs:
        far.send(bytes(20_000))
    sockets.turn(NEVER)
    for _ in range(20):
        sockets.turn()
    pairs[7][1].send(b"and more")
    sockets.turn()
    assert len(all_of(sockets, ids[7], 20_008)) == 20_008
    assert sockets.counters()["memory"] < 300 * 300_000
    for id in ids:
        sockets.close(id)
    for ours, far in pairs:
        ours.close()
        far.close()


# --- writing ---------------------------------------------------------------------------------------------------------


def test_what_is_sent_has_left_when_the_turn_is_over(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    for i in range(5):
        assert sockets.send(id, b"one ") == 4
        assert sockets.send(id, b"two") == 3
        sockets.turn()
        assert unread(far) == b"one two", i
        assert sockets.queued(id) == 0
    assert sockets.send(id, b"") == 0


def test_all_that_is_sent_in_a_turn_is_one_request(ring: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = ring.open(ours)
    ring.turn()
    before = ring.counters()["sends"]
    data = b"".join(b"%d " % i for i in range(3000))
    for i in range(3000):
        ring.send(id, b"%d " % i)
    ring.turn()
    assert ring.counters()["sends"] == before + 1
    assert unread(far) == data


def test_a_full_peer_gets_the_rest_when_it_reads(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours, EV_READ | EV_WRITE)
    data = random.Random(2).randbytes(12 << 20)
    sent = 0
    full = 0
    while full < 5:  # until nothing more is taken
        n = sockets.send(id, data[sent : sent + 300_000])
        full = full + 1 if n == AGAIN else 0
        sent += max(n, 0)
        sockets.turn()
    assert sockets.turn() == {}
    assert sent < len(data)
    got = bytearray()
    while len(got) < len(data):
        got += unread(far)
        if sockets.turn(MS).get(id, 0) & EV_WRITE and sent < len(data):
            n = sockets.send(id, data[sent : sent + 300_000])
            assert n != AGAIN  # there was room, it said
            sent += n
    assert got == data
    sockets.until(lambda: sockets.queued(id) == 0)


def test_shutdown_comes_behind_what_is_queued(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours)
    size = 0
    while (n := sockets.send(id, bytes(100_000))) > 0:
        size += n
        sockets.turn()
    sockets.turn()
    assert sockets.shutdown(id) == 0
    assert sockets.shutdown(id) == 0
    assert sockets.send(id, b"more") == -errno.EPIPE
    got = 0
    far.setblocking(False)
    end = False
    while not end:
        sockets.turn(MS)
        with contextlib.suppress(BlockingIOError):
            piece = far.recv(1 << 20)
            got += len(piece)
            end = not piece
    assert got == size
    far.send(b"still open")
    assert all_of(sockets, id, 10) == b"still open"


def test_writing_to_who_is_gone_fails_and_raises_no_signal(sockets: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = sockets.open(ours, 0)
    far.close()
    codes = set()
    for _ in range(10):
        codes.add(sockets.send(id, b"x"))
        sockets.turn()
    assert codes & {-errno.EPIPE, -errno.ECONNRESET}
    assert sockets.turn(NEVER)[id] == EV_ERROR
    assert sockets.error(id) in (errno.EPIPE, errno.ECONNRESET)
    assert sockets.turn() == {}
    assert sockets.send(id, b"x") == -errno.EPIPE
    assert sockets.queued(id) == 0


# --- a property ------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 400_000)),
        st.tuples(st.just("arrive"), st.integers(1, 400_000)),
        st.tuples(st.just("recv"), st.integers(1, 400_000)),
        st.tuples(st.just("drain"), st.integers(1, 400_000)),
        st.tuples(st.just("want"), st.integers(0, 3)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_every_byte_arrives_in_order(kind: str, probe_module: Any, steps: list[tuple[str, int]], seed: int) -> None:
    data = random.Random(seed).randbytes(1 << 20)
    ours, far = tcp_pair() if seed % 2 else socket.socketpair()
    ours.setblocking(False)
    far.setblocking(False)
    with contextlib.closing(ours), contextlib.closing(far), sockets_of(kind, probe_module) as sockets:
        id = sockets.open(ours, 0)
        sent = arrived = 0
        got, drained = bytearray(), bytearray()

        def receive(size: int) -> None:
            piece = sockets.recv(id, size)
            if isinstance(piece, bytes):
                got.extend(piece)
            else:
                assert piece == AGAIN

        for what, n in steps:
            if what == "send":
                count = sockets.send(id, data[sent : min(sent + n, len(data))])
                assert count == AGAIN or count >= 0
                sent += max(count, 0)
            elif what == "arrive":
                with contextlib.suppress(BlockingIOError):
                    arrived += far.send(data[arrived : arrived + n])
            elif what == "recv":
                receive(n)
            elif what == "drain":
                with contextlib.suppress(BlockingIOError):
                    drained += far.recv(n)
            elif what == "want":
                sockets.want(id, n)
            else:
                for _ in range(n):
                    events = sockets.turn()
                    assert not events.get(id, 0) & EV_ERROR
        sockets.want(id, EV_READ)
        sockets.shutdown(id)
        far.shutdown(socket.SHUT_WR)
        for _ in range(2000):
            drained += unread(far)
            receive_all = len(got) < arrived
            sockets.turn(MS if receive_all or len(drained) < sent else 0)
            if receive_all:
                receive(1 << 20)
            elif len(drained) == sent:
                break
        assert got == data[:arrived]
        assert drained == data[:sent]
        sockets.wait_for(id, EV_READ)
        assert sockets.recv(id) == 0
        assert sockets.close(id) == 0

"""Large pieces are sent from the caller's own memory, which is the kernel's until it says otherwise."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import threading
from typing import Any

import pytest

from libos._native import lib
from libos.sched.reactor import EV_ERROR, EV_READ, EV_SENT, EV_WRITE

from .host_sockets import AGAIN, MS, HostSockets, Pair, reset, sockets_of, tcp_pair, unread

DATA = random.Random(5).randbytes(6 << 20)


@pytest.mark.parametrize("size", [1, 1000, 40_000, 300_000, 6 << 20])
def test_a_loan_goes_behind_what_was_sent_and_before_what_is(ring: HostSockets, pair: Pair, size: int) -> None:
    ours, far = pair
    id = ring.open(ours, EV_READ | EV_WRITE)
    assert ring.send(id, b"before") == 6
    assert ring.lend(id, DATA[:size]) == 0
    assert ring.still_lent(id) == size
    assert ring.queued(id) == size + 6
    assert ring.lend(id, b"one at a time") == AGAIN
    assert ring.send(id, b"behind") == 6
    got = bytearray()
    while ring.still_lent(id):
        assert not ring.turn(MS).get(id, 0) & EV_WRITE or not ring.still_lent(id)
        got += unread(far)
    while ring.queued(id):
        ring.turn(MS)
        got += unread(far)
    got += unread(far)
    assert got == b"before" + DATA[:size] + b"behind"
    assert ring.wait_for(id, EV_WRITE) == EV_WRITE
    assert ring.lend(id, b"the next") == 0
    ring.until(lambda: ring.still_lent(id) == 0)
    assert unread(far) == b"the next"


def test_a_turn_that_waits_sends_all_of_it(ring: HostSockets, pair: Pair) -> None:
    """No other event is needed between what goes before the loan, the loan, and what goes behind it."""
    ours, far = pair
    id = ring.open(ours, EV_READ)
    ring.turn()
    before = lib.reactor_now(ring.reactor)
    ring.send(id, b"before ")
    ring.lend(id, b"lent ")
    ring.send(id, b"behind")
    ring.want(id, EV_READ | EV_SENT)
    while ring.queued(id):
        ring.turn(10_000 * MS)
    assert unread(far) == b"before lent behind"
    assert lib.reactor_now(ring.reactor) - before < 5000 * MS


def test_shutdown_comes_behind_a_loan(ring: HostSockets, pair: Pair) -> None:
    ours, far = pair
    id = ring.open(ours)
    assert ring.lend(id, DATA) == 0
    assert ring.shutdown(id) == 0
    assert ring.lend(id, b"more") == -errno.EPIPE
    got = bytearray()
    end = False
    while not end:
        ring.turn(MS)
        with contextlib.suppress(BlockingIOError):
            piece = far.recv(1 << 20)
            got += piece
            end = not piece
    assert got == DATA


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_who_closes_it_hears_when_the_memory_is_free(ring: HostSockets, pair: Pair, turns: int) -> None:
    ours, far = pair
    id = ring.open(ours, EV_READ | EV_WRITE)
    ring.send(id, b"x")
    assert ring.lend(id, DATA) == 0
    for _ in range(turns):
        ring.turn()
    lent = ring.close(id)
    ours.close()
    assert lent == (turns == 5)  # what was not handed over yet is free at once
    assert ring.close(id) == -errno.EBADF
    assert ring.still_lent(id) == -errno.EBADF
    words = []
    for _ in range(1000):
        if id in (events := ring.turn(MS)):
            words.append(events[id])
        if ring.counters()["live"] == 0:
            break
        unread_until_reset(far)
    assert words == [EV_WRITE] * lent
    assert ring.turn() == {}


def unread_until_reset(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        unread(sock)


def test_one_that_has_failed_is_closed_with_its_loan_still_out(ring: HostSockets) -> None:
    """It is on the list of what is ready, for the error: that is not yet the word that its memory is free."""
    ours, far = tcp_pair()
    ours.setblocking(False)
    id = ring.open(ours, EV_READ | EV_WRITE)
    assert ring.lend(id, DATA) == 0
    for _ in range(3):
        ring.turn()
    reset(far)
    ring.wait_for(id, EV_ERROR)
    lent = ring.close(id)
    ours.close()
    words = []
    for _ in range(1000):
        words += [mask for who, mask in ring.turn(MS).items() if who == id]
        if ring.counters()["live"] == 0:
            break
    assert ring.counters()["live"] == 0
    assert words == [EV_WRITE] * lent


def test_a_peer_that_resets_ends_the_loan(ring: HostSockets) -> None:
    ours, far = tcp_pair()
    ours.setblocking(False)
    id = ring.open(ours, EV_WRITE)
    assert ring.lend(id, DATA) == 0
    for _ in range(3):
        ring.turn()
    assert ring.still_lent(id)
    reset(far)
    assert ring.wait_for(id, EV_ERROR) & EV_ERROR
    ring.until(lambda: ring.still_lent(id) == 0)
    assert ring.error(id) in (errno.ECONNRESET, errno.EPIPE)
    assert ring.lend(id, b"x") == -errno.EPIPE
    assert ring.close(id) == 0
    ours.close()


def test_another_thread_takes_the_loan_over(ring: HostSockets) -> None:
    """Over a UNIX socket, where nothing is sent without a copy, no byte is lost and none is sent twice."""
    ours, far = socket.socketpair()
    ours.setblocking(False)
    far.setblocking(False)
    id = ring.open(ours)
    assert ring.lend(id, DATA) == 0
    got = bytearray()
    numbers = random.Random(6)
    while len(got) < len(DATA):
        thread = threading.Thread(target=ring.turn)
        thread.start() if numbers.randrange(2) else ring.turn()
        if thread.ident:
            thread.join()
        with contextlib.suppress(BlockingIOError):
            got += far.recv(numbers.randrange(1, 500_000))
    assert got == DATA
    ring.until(lambda: ring.still_lent(id) == 0)
    ring.close(id)
    ours.close()
    far.close()


def test_a_set_is_freed_with_a_loan(ring: HostSockets, pair: Pair) -> None:
    ours, _ = pair
    id = ring.open(ours)
    assert ring.lend(id, DATA) == 0
    for _ in range(3):
        ring.turn()
    ring.free()


def test_by_readiness_there_is_nothing_to_gain(probe_module: Any, pair: Pair) -> None:
    for kind in ("epoll", "io_uring-before_6.1"):
        with sockets_of(kind, probe_module) as sockets:
            id = sockets.open(pair[0])
            assert sockets.lend(id, b"x") == -errno.EOPNOTSUPP
            assert sockets.still_lent(id) == 0
            assert sockets.lend(99, b"x") == -errno.EBADF

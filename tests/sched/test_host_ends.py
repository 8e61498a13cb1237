"""The ends of host sockets: closed with all under way, many at once, handed to another thread, inherited by a child."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
import resource
import signal
import socket
import threading
from typing import Any

import pytest

from libos._native import lib
from libos.errors import HostError
from libos.sched.reactor import EV_READ, EV_WRITE, NEVER

from .conftest import KINDS
from .host_sockets import (
    MS,
    HostSockets,
    Pair,
    all_of,
    close_all,
    echo,
    many,
    small_ring,
    sockets_of,
    unread,
)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_closed_socket_is_let_go_with_all_that_is_under_way(sockets: HostSockets, pair: Pair, turns: int) -> None:
    ours, far = pair
    id = sockets.open(ours, EV_READ | EV_WRITE)
    far.send(b"unread")
    while sockets.send(id, bytes(100_000)) > 0:  # until the peer is full, and more
        for _ in range(turns):
            sockets.turn()
        if not turns:
            break
    assert sockets.close(id) == 0
    ours.close()
    for call in (sockets.recv, sockets.readable, sockets.queued, sockets.shutdown, sockets.error, sockets.close):
        assert call(id) == -errno.EBADF
    assert sockets.send(id, b"x") == -errno.EBADF
    assert lib.host_want(sockets.handle, id, EV_READ) == -errno.EBADF
    sockets.turn()
    sockets.until(lambda: sockets.counters()["live"] == 0)
    assert sockets.turn() == {}
    far.setblocking(True)
    with contextlib.suppress(ConnectionResetError):
        while far.recv(1 << 20):  # and there is an end, for nobody keeps the file open
            pass


def test_a_number_used_again_is_a_new_socket(sockets: HostSockets) -> None:
    seen = set()
    for i in range(50):
        ours, far = socket.socketpair()
        ours.setblocking(False)
        id = sockets.open(ours, EV_READ | EV_WRITE)
        assert id not in seen
        seen.add(id)
        far.send(b"%d" % i)
        sockets.send(id, b"from %d" % i)
        if i % 3:
            assert all_of(sockets, id, len(b"%d" % i)) == b"%d" % i
            sockets.until(lambda id=id: sockets.queued(id) == 0)  # type: ignore[misc]
            assert unread_now(far) == b"from %d" % i
        assert sockets.close(id) == 0
        ours.close()
        far.close()
    sockets.until(lambda: sockets.counters()["live"] == 0)


def unread_now(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    return unread(sock)


def test_there_is_one_set_for_a_reactor(sockets: HostSockets) -> None:
    with pytest.raises(OSError, match="busy"):
        HostSockets(sockets.reactor)


def test_what_is_no_socket_is_an_error_of_its_own(sockets: HostSockets) -> None:
    reading, writing = os.pipe()
    id = int(lib.host_open(sockets.handle, reading))
    sockets.want(id, EV_READ)
    os.write(writing, b"x")
    sockets.wait_for(id, EV_READ)
    assert sockets.recv(id) == -errno.ENOTSOCK
    assert sockets.close(id) == 0
    os.close(reading)
    os.close(writing)


def test_freeing_the_set_leaves_nothing(probe_module: Any) -> None:
    for kind in KINDS:
        with sockets_of(kind, probe_module) as sockets:
            pairs = [socket.socketpair() for _ in range(100)]
            for i, (ours, far) in enumerate(pairs):
                ours.setblocking(False)
                id = sockets.open(ours, i % 4)
                far.send(bytes(1000))
                if i % 2:
                    sockets.send(id, bytes(300_000))
            for _ in range(3):
                sockets.turn()
            sockets.free()
            for ours, far in pairs:
                ours.close()
                with contextlib.suppress(ConnectionResetError):
                    while far.recv(1 << 20):
                        pass
                far.close()
    gc.collect()


# --- many, small rings, threads, forks -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_thousand_sockets(sockets: HostSockets) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2200, hard), hard))
    try:
        pairs, ids = many(sockets, 1000)
        before = sockets.counters()["memory"]
        assert before < 1000 * 1024
        echo(sockets, ids, [far for _, far in pairs], 3)
        close_all(sockets, pairs, ids)
        sockets.until(lambda: sockets.counters()["live"] == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("entries", [1, 8])
def test_a_ring_smaller_than_what_there_is_to_do(entries: int) -> None:
    """Its submission queue is full many times a turn, and its completion queue overflows."""
    try:
        reactor = small_ring(entries)
    except HostError as error:
        pytest.skip(str(error))
    sockets = HostSockets(reactor)
    pairs, ids = many(sockets, 200)
    echo(sockets, ids, [far for _, far in pairs], 5)
    for ours, _ in pairs:
        ours.shutdown(socket.SHUT_RDWR)
    ended = set()
    while len(ended) < len(ids):
        ended |= {id for id in sockets.turn(100 * MS) if sockets.recv(id) == 0}
    close_all(sockets, pairs, ids)
    sockets.until(lambda: sockets.counters()["live"] == 0)
    sockets.free()
    lib.reactor_free(reactor)


def test_another_thread_takes_over(sockets: HostSockets) -> None:
    pairs, ids = many(sockets, 20)
    fars = [far for _, far in pairs]
    failures: list[BaseException] = []

    def elsewhere() -> None:
        try:
            echo(sockets, ids, fars, 2)
        except BaseException as error:
            failures.append(error)

    for _ in range(3):
        echo(sockets, ids, fars, 1)
        for id in ids:  # what one thread has been given, another sends
            sockets.send(id, b"before ")
        thread = threading.Thread(target=sockets.turn)
        thread.start()
        thread.join()
        assert {far.recv(100) for far in fars} == {b"before "}
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not failures
    thread = threading.Thread(target=close_all, args=(sockets, pairs, ids))
    thread.start()
    thread.join()
    sockets.until(lambda: sockets.counters()["live"] == 0)


def test_a_thread_takes_over_in_the_middle_of_it(sockets: HostSockets, pair: Pair) -> None:
    """What waits for room is neither lost nor sent twice, and what has come but was not seen is not lost either."""
    ours, far = pair
    id = sockets.open(ours)
    data = random.Random(3).randbytes(4 << 20)
    sent = received = 0
    got, drained = bytearray(), bytearray()
    numbers = random.Random(4)

    def step() -> None:
        sockets.turn()

    while len(got) < len(data) or len(drained) < len(data):
        n = sockets.send(id, data[sent : sent + numbers.randrange(1, 400_000)]) if sent < len(data) else 0
        sent += max(n, 0)
        with contextlib.suppress(BlockingIOError):
            received += far.send(data[received : received + numbers.randrange(1, 400_000)])
        if numbers.randrange(2):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
        else:
            step()
        if numbers.randrange(3):
            with contextlib.suppress(BlockingIOError):
                drained += far.recv(numbers.randrange(1, 400_000))
        if isinstance(piece := sockets.recv(id, numbers.randrange(1, 400_000)), bytes):
            got += piece
    assert got == data
    assert drained == data


def test_a_child_leaves_its_parent_alone(sockets: HostSockets) -> None:
    """Even one that turns, writes and closes everything, as an interpreter that ends might."""
    pairs, ids = many(sockets, 5)
    fars = [far for _, far in pairs]
    echo(sockets, ids, fars, 1)
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            sockets.want(ids[0], 0)
            sockets.turn()
            for id in ids:
                sockets.close(id)
            sockets.turn()
            sockets.free()
            lib.reactor_free(sockets.reactor)
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    echo(sockets, ids, fars, 2)
    close_all(sockets, pairs, ids)


def test_a_signal_ends_the_wait(sockets: HostSockets, pair: Pair) -> None:
    sockets.open(pair[0])
    sockets.turn()
    caught: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: caught.append(1))
    try:
        while not caught:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            sockets.turn(NEVER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_waiting_for_nothing_costs_nothing(sockets: HostSockets) -> None:
    pairs, ids = many(sockets, 10)
    echo(sockets, ids, [far for _, far in pairs], 1)
    sockets.turn()
    out = sockets.counters()
    for _ in range(50):  # tries: earlier rings interrupt it when they end
        before = lib.reactor_now(sockets.reactor)
        assert sockets.turn(20 * MS) == {}
        if lib.reactor_now(sockets.reactor) - before >= 20 * MS:
            break
    else:
        raise AssertionError("it never waited as long as it was told")
    assert sockets.counters() == out
    close_all(sockets, pairs, ids)

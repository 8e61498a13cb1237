"""The reactor's contract, the same for io_uring and epoll: descriptors, time, signals, threads, events."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.sched.reactor import EV_READ, EV_WRITE, NEVER, Reactor

MS = 1_000_000


class Sink(list[int]):
    """Keeps the masks it was called with; ``take`` empties it."""

    def take(self) -> list[int]:
        masks = list(self)
        self.clear()
        return masks


def lasts(reactor: Reactor, timeout: int) -> bool:
    """Whether a turn takes that long: in some of many tries, for earlier rings interrupt it when they end."""
    for _ in range(50):
        before = reactor.now()
        reactor.turn(timeout)
        if reactor.now() - before >= timeout:
            return True
    return False


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with contextlib.closing(a), contextlib.closing(b):
        yield a, b


Pair = tuple[socket.socket, socket.socket]


def test_readiness_is_reported_as_long_as_it_lasts(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    reactor.watch(a.fileno(), EV_READ, sink.append)
    reactor.turn(0)
    assert sink.take() == []
    b.send(b"xy")
    reactor.turn(NEVER)
    assert sink.take() == [EV_READ]
    reactor.turn(NEVER)
    assert sink.take() == [EV_READ]
    assert a.recv(1) == b"x"
    reactor.turn(0)
    assert sink.take() == [EV_READ]
    assert a.recv(1) == b"y"
    reactor.turn(0)
    reactor.turn(MS)
    assert sink.take() == []
    b.send(b"z")
    reactor.turn(NEVER)
    assert sink.take() == [EV_READ]


def test_the_mask_says_what_is_wanted(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    b.send(b"x")
    for mask in (EV_WRITE, EV_READ | EV_WRITE, EV_READ):
        reactor.watch(a.fileno(), mask, sink.append)
        reactor.turn(NEVER)
        assert sink.take() == [mask]
    reactor.unwatch(a.fileno())
    reactor.turn(0)
    assert sink.take() == []
    reactor.unwatch(a.fileno())


def test_a_hang_up_is_both_readable_and_writable(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    reactor.watch(a.fileno(), EV_READ | EV_WRITE, sink.append)
    b.close()
    reactor.turn(NEVER)
    assert sink.take() == [EV_READ | EV_WRITE]


def test_a_descriptor_may_be_closed_before_it_is_unwatched(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    fd = a.fileno()
    b.send(b"x")
    reactor.watch(fd, EV_READ, sink.append)
    reactor.turn(0)
    assert sink.take() == [EV_READ]
    a.close()
    reactor.turn(0)
    reactor.turn(MS)
    assert sink.take() == []
    with pytest.raises(BrokenPipeError):  # nothing here keeps the file open
        b.send(b"y")
    reactor.unwatch(fd)


def test_a_number_used_again_is_a_new_descriptor(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    old, new = Sink(), Sink()
    fd = a.fileno()
    b.send(b"x")
    reactor.watch(fd, EV_READ, old.append)
    a.close()
    c, d = socket.socketpair()
    with contextlib.closing(c), contextlib.closing(d):
        assert c.fileno() == fd
        reactor.watch(fd, EV_READ, new.append)  # without unwatch
        reactor.turn(0)
        assert new.take() == []
        d.send(b"y")
        reactor.turn(NEVER)
        assert new.take() == [EV_READ]
        reactor.unwatch(fd)
    assert old.take() == []


def test_a_file_that_lives_on_elsewhere_is_not_reported(reactor: Reactor, pair: Pair) -> None:
    """As after a fork: epoll goes on to report a file whose number here is closed."""
    a, b = pair
    gone, other = Sink(), Sink()
    reader, writer = os.pipe()
    reactor.watch(reader, EV_READ, other.append)
    fd = a.fileno()
    elsewhere = os.dup(fd)
    reactor.watch(fd, EV_READ, gone.append)
    b.send(b"x")
    a.close()
    reactor.unwatch(fd)
    assert lasts(reactor, 5 * MS)
    blocked = reactor.statistics()["blocked"]
    reactor.turn(5 * MS)
    assert reactor.statistics()["blocked"] == blocked + 1  # it does not go round and round
    os.write(writer, b"x")
    reactor.turn(NEVER)
    assert other.take() == [EV_READ]
    assert gone.take() == []
    for number in (elsewhere, reader, writer):
        os.close(number)


def test_a_regular_file_cannot_be_watched(reactor: Reactor, tmp_path: Any) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(PermissionError):
        reactor.watch(file.fileno(), EV_WRITE, lambda mask: None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        reactor.watch(1_000_000, EV_READ, lambda mask: None)
    assert reactor.sinks == {}


def test_a_turn_lasts_as_long_as_it_was_given(reactor: Reactor) -> None:
    for timeout in (0, 100_000, 3 * MS):
        assert lasts(reactor, timeout)


def test_a_pollers_deadline_is_met_within_the_turn(reactor: Reactor, new_probe: Callable[..., Any]) -> None:
    probe = new_probe()
    at = reactor.now() + 2 * MS
    probe.deadline(at)
    reactor.turn(0)
    assert probe.counts.runs == 1
    reactor.turn(max(at - reactor.now(), 0) + 1)
    assert probe.counts.last_run >= at or probe.counts.runs == 2
    assert reactor.statistics()["turns"] == 2


def test_a_signal_ends_the_wait(reactor: Reactor, pair: Pair) -> None:
    reactor.watch(pair[0].fileno(), EV_READ, lambda mask: None)
    caught: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        while not caught:
            reactor.turn(NEVER)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_another_thread_wakes_it_through_a_descriptor(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    reactor.watch(a.fileno(), EV_READ, sink.append)
    for _ in range(20):
        thread = threading.Thread(target=b.send, args=(b"x",))
        thread.start()
        reactor.turn(NEVER)
        assert sink.take() == [EV_READ]
        a.recv(1)
        thread.join()


def test_another_thread_may_take_over(reactor: Reactor, pair: Pair) -> None:
    a, b = pair
    sink = Sink()
    reactor.watch(a.fileno(), EV_READ, sink.append)
    b.send(b"x")
    for _ in range(3):
        reactor.turn(MS)
        thread = threading.Thread(target=reactor.turn, args=(NEVER,))
        thread.start()
        thread.join()
        assert sink.take() == [EV_READ] * 2


def test_more_events_than_fit_stay_pending(reactor: Reactor, new_probe: Callable[..., Any], pair: Pair) -> None:
    a, b = pair
    probe, sink, seen = new_probe(), Sink(), list[int]()
    for i in range(3000):
        reactor.sinks[probe.base | i] = lambda mask, i=i: seen.append(i)  # type: ignore[misc]
    reactor.watch(a.fileno(), EV_READ, sink.append)
    b.send(b"x")
    probe.raise_events(3000)
    turns = 0
    while len(seen) < 3000:
        reactor.turn(0)
        turns += 1
        assert sink.take() == [EV_READ]  # a flood of the one kind does not keep out the other
    assert seen == list(range(3000))
    assert turns <= 4


def test_every_descriptor_gets_its_turn(reactor: Reactor) -> None:
    descriptors = [os.eventfd(1) for _ in range(700)]
    seen: set[int] = set()
    for fd in descriptors:
        reactor.watch(fd, EV_READ, lambda mask, fd=fd: seen.add(fd))  # type: ignore[misc]
    for _ in range(3):
        reactor.turn(0)
    assert seen == set(descriptors)
    for fd in descriptors:
        os.close(fd)


def test_what_a_sink_raises_comes_out_and_the_rest_comes_again(reactor: Reactor) -> None:
    first, second = os.eventfd(1), os.eventfd(1)
    seen: list[int] = []

    def interrupt(mask: int) -> None:
        raise KeyboardInterrupt

    reactor.watch(first, EV_READ, interrupt)
    reactor.watch(second, EV_READ, seen.append)
    with pytest.raises(KeyboardInterrupt):
        reactor.turn(0)
    seen.clear()
    reactor.unwatch(first)
    reactor.turn(0)
    assert seen == [EV_READ]
    os.close(first)
    os.close(second)


def test_pollers_have_numbers(reactor: Reactor, new_probe: Callable[..., Any]) -> None:
    first, second, third = new_probe(), new_probe(), new_probe()
    assert [p.base >> 40 for p in (first, second, third)] == [1, 2, 3]
    second.close()
    assert new_probe().base >> 40 == 2
    assert new_probe().base >> 40 == 4


def test_it_is_closed_once(reactor: Reactor) -> None:
    reactor.close()
    reactor.close()
    reactor.unwatch(5)


def test_kinds() -> None:
    with pytest.raises(ValueError, match="no reactor 'kqueue'"):
        Reactor("kqueue", clock=MonotonicClock())  # type: ignore[arg-type]
    reactor = Reactor("epoll", clock=MonotonicClock())
    assert reactor.kind == "epoll"
    assert reactor.fell_back is None
    reactor.close()

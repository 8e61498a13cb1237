"""A reactor inside another loop: its one descriptor is readable when, and only when, there is something to do."""

from __future__ import annotations

import errno
import os
import resource
import select
from collections.abc import Iterator

import pytest

from libos._native import ffi, lib
from libos.clock import MonotonicClock
from libos.net.stack import Link, Stack
from libos.rand import Rng
from libos.sched.reactor import EV_READ, Reactor

SECOND = 1_000_000_000


class Front:
    """What the outer loop sees of a reactor."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.fd = reactor.embed()

    def readable(self, seconds: float = 0) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])

    def sleep(self) -> None:
        """Turn until there is nothing to do."""
        for _ in range(10):
            if not self.reactor.poll():
                assert not self.readable()
                return
        raise AssertionError("it does not come to rest")


@pytest.fixture
def front(reactor: Reactor) -> Iterator[Front]:
    front = Front(reactor)
    yield front
    reactor.unembed()


@pytest.fixture
def stack(front: Front) -> Iterator[Stack]:
    """A stack with a link that leads nowhere, asleep."""
    near, far = Link.pair(Rng(1))
    stack = Stack(Rng(1), front.reactor.now())
    stack.add_address(stack.add_link(near), "10.0.0.1/24")
    front.reactor.attach(stack.poller)
    yield stack
    front.reactor.detach(stack.poller)
    stack.close()
    far.close()


def test_there_may_be_work_from_before(front: Front) -> None:
    assert front.readable()
    front.sleep()


def test_embedded_once(front: Front) -> None:
    with pytest.raises(OSError, match="busy"):
        front.reactor.embed()
    front.reactor.unembed()
    front.reactor.unembed()
    with pytest.raises(OSError, match="Invalid"):
        front.reactor.poll()
    front.fd = front.reactor.embed()


def test_a_watched_descriptor(front: Front) -> None:
    got: list[int] = []
    r, w = os.pipe()
    front.reactor.watch(r, EV_READ, got.append)
    front.sleep()
    os.write(w, b"x")
    assert front.readable()
    assert front.reactor.poll()
    assert got == [EV_READ]
    assert front.readable(), "level-triggered: it has not been read"
    os.read(r, 1)
    front.sleep()
    front.reactor.unwatch(r)
    os.close(r)
    os.close(w)


def test_the_watch_set_is_built_anew(front: Front) -> None:
    """As after a fork: a file lives on elsewhere, epoll reports it, and the set gets another file under its number."""
    r, w = os.pipe()
    front.reactor.watch(r, EV_READ, lambda mask: None)
    front.sleep()
    elsewhere = os.dup(r)
    os.close(r)
    front.reactor.unwatch(r)
    os.write(w, b"x")
    assert front.readable()
    front.sleep()
    other, far = os.pipe()
    front.reactor.watch(other, EV_READ, lambda mask: None)
    front.sleep()
    os.write(far, b"x")
    assert front.readable()
    front.reactor.unwatch(other)
    for fd in (w, elsewhere, other, far):
        os.close(fd)


def test_a_deadline(front: Front, stack: Stack) -> None:
    """The timer is precise to much less than a millisecond, and it is not asked again until then."""
    front.sleep()
    due = front.reactor.now() + 20_000_000
    lib.stack_set_alarm(stack.handle, due)
    assert front.readable(), "awake: the deadline is a new one"
    assert not front.reactor.poll()
    assert not front.readable()
    assert front.readable(10)
    assert due <= front.reactor.now()
    assert front.reactor.poll(), "the alarm is an event of the stack"


def test_a_deadline_that_moved_on_costs_one_turn(front: Front, stack: Stack) -> None:
    front.sleep()
    lib.stack_set_alarm(stack.handle, front.reactor.now() + 1_000_000)
    assert not front.reactor.poll()
    lib.stack_set_alarm(stack.handle, lib.REACTOR_NEVER)
    front.reactor.poll()
    front.readable(0.01)
    front.sleep()


def test_a_call_wakes_once(front: Front, stack: Stack) -> None:
    """Whatever Python asks of a socket; the next turn is at the current time, however long the stack slept."""
    front.sleep()
    id = lib.sock_open(stack.handle, 2, 2)
    front.sleep()
    turns = front.reactor.statistics()["turns"]
    for _ in range(3):
        lib.sock_want(stack.handle, id, EV_READ)
    assert front.readable()
    front.sleep()
    assert front.reactor.statistics()["turns"] == turns + 1
    lib.sock_free(stack.handle, id)


def test_a_call_knows_the_time(front: Front, stack: Stack) -> None:
    """However long nobody turned the stack: an address cannot be had until a moment that is over."""
    front.sleep()
    while not front.reactor.poll() and front.readable(0.02):
        pass
    address = bytes(10) + b"\xff\xff\x0a\x00\x00\x05"
    over = front.reactor.now() - 1_000_000
    assert lib.stack_set_address(stack.handle, 2, address, 24, 0, over, over) == -errno.EINVAL


def test_frames_from_the_side_wake(front: Front) -> None:
    """What a stack of another reactor sends over a pair."""
    near, far = Link.pair(Rng(1))
    ours, other = Stack(Rng(1), front.reactor.now()), Stack(Rng(2), 0)
    ours.add_address(ours.add_link(near), "10.0.0.1/24")
    other.add_address(other.add_link(far), "10.0.0.2/24")
    front.reactor.attach(ours.poller)
    front.sleep()
    id = lib.sock_open(other.handle, 2, 2)
    name = ffi.new("struct sock_name *", {"addr": bytes(10) + b"\xff\xff\x0a\x00\x00\x01", "port": 9, "family": 2})
    lib.sock_sendto(other.handle, id, b"x", 1, name, ffi.NULL)
    other.run(SECOND)
    assert front.readable()
    front.sleep()
    front.reactor.detach(ours.poller)
    ours.close()
    other.close()


def test_freed_while_embedded(reactor: Reactor) -> None:
    reactor.embed()
    reactor.close()


def test_a_refusal_leaves_nothing() -> None:
    """No descriptor to be had."""
    reactor = Reactor("epoll", clock=MonotonicClock())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            reactor.embed()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    reactor.embed()
    reactor.close()

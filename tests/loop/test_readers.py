"""``add_reader`` and ``add_writer``: the host's descriptors, on every loop and beside every network."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

AnyLoop = asyncio.AbstractEventLoop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


Pair = tuple[socket.socket, socket.socket]


def test_readers_and_writers(loop: AnyLoop, pair: Pair) -> None:
    a, b = pair

    async def main() -> None:
        seen: asyncio.Queue[bytes] = asyncio.Queue()
        loop.add_reader(a, lambda: seen.put_nowait(a.recv(1)))
        b.send(b"xyz")  # one byte a call: it is called as long as there is something
        assert [await seen.get() for _ in range(3)] == [b"x", b"y", b"z"]
        writable: asyncio.Future[str] = loop.create_future()
        loop.add_writer(a, lambda: None if writable.done() else writable.set_result("writable"))
        assert await writable == "writable"
        b.send(b"!")
        assert await seen.get() == b"!"
        assert loop.remove_writer(a) is not False  # uvloop: None
        assert not loop.remove_writer(a)
        loop.add_reader(a, lambda: seen.put_nowait(b"another " + a.recv(1)))
        b.send(b"?")
        assert await seen.get() == b"another ?"
        assert loop.remove_reader(a) is not False
        assert not loop.remove_reader(a)
        b.send(b"unseen")
        await asyncio.sleep(0.001)
        assert seen.empty()

    loop.run_until_complete(main())


def test_by_number_and_with_arguments(loop: AnyLoop, pair: Pair) -> None:
    a, b = pair

    async def main() -> None:
        came = loop.create_future()

        def read(first: str, second: int) -> None:
            loop.remove_reader(a.fileno())
            came.set_result((first, second))

        loop.add_reader(a.fileno(), read, "one", 2)
        b.send(b"x")
        assert await came == ("one", 2)

    loop.run_until_complete(main())


def test_one_descriptor_has_a_reader_and_a_writer(loop: AnyLoop, pair: Pair) -> None:
    a, b = pair

    async def main() -> None:
        seen: list[str] = []
        loop.add_reader(a, lambda: (seen.append("read"), a.recv(1)))
        loop.add_writer(a, lambda: (seen.append("write"), loop.remove_writer(a)))
        b.send(b"x")
        await asyncio.sleep(0.002)
        assert sorted(seen) == ["read", "write"]
        loop.remove_reader(a)

    loop.run_until_complete(main())


def test_the_end_of_a_stream_is_readable(loop: AnyLoop, pair: Pair) -> None:
    a, b = pair

    async def main() -> None:
        end = loop.create_future()
        loop.add_reader(a, lambda: (end.set_result(a.recv(1)), loop.remove_reader(a)))
        b.shutdown(socket.SHUT_WR)
        assert await end == b""

    loop.run_until_complete(main())


def test_a_descriptor_that_hangs_up_is_readable_and_writable(loop: AnyLoop) -> None:
    """POLLHUP alone, as when the last reader of a pipe goes."""
    reading, writing = os.pipe()

    async def main() -> None:
        broken = loop.create_future()
        os.close(reading)
        loop.add_writer(writing, lambda: (broken.set_result(None), loop.remove_writer(writing)))
        await broken
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")

    loop.run_until_complete(main())
    os.close(writing)


def test_events_and_timers_and_fifos(loop: AnyLoop) -> None:
    event = os.eventfd(0, os.EFD_NONBLOCK)

    async def main() -> None:
        counts: asyncio.Queue[int] = asyncio.Queue()
        loop.add_reader(event, lambda: counts.put_nowait(os.eventfd_read(event)))
        for i in range(1, 20):
            os.eventfd_write(event, i)
            assert await counts.get() == i
        loop.remove_reader(event)

    loop.run_until_complete(main())
    os.close(event)


def test_a_number_that_is_used_again_is_another_descriptor(loop: AnyLoop) -> None:
    async def main() -> None:
        for _ in range(5):
            a, b = socket.socketpair()
            came = loop.create_future()
            loop.add_reader(a, came.set_result, None)
            b.send(b"x")
            await came
            loop.remove_reader(a)
            a.close()
            b.close()

    loop.run_until_complete(main())


def test_what_is_removed_is_not_called_even_if_it_was_ready(loop: AnyLoop) -> None:
    """Both are ready in one turn; the first to run removes the other."""

    async def main() -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        seen: list[int] = []

        def ready(index: int) -> None:
            seen.append(index)
            loop.remove_reader(pairs[0][0])
            loop.remove_reader(pairs[1][0])

        for index, (a, b) in enumerate(pairs):
            loop.add_reader(a, ready, index)
            b.send(b"x")
        await asyncio.sleep(0.002)
        assert len(seen) == 1
        for a, b in pairs:
            a.close()
            b.close()

    loop.run_until_complete(main())


def test_an_exception_in_a_reader_is_told_and_it_stays(loop: AnyLoop, pair: Pair) -> None:
    a, b = pair
    told: list[type[BaseException]] = []
    loop.set_exception_handler(lambda loop, context: told.append(type(context["exception"])))

    def broken() -> None:
        a.recv(1)
        raise ZeroDivisionError

    loop.add_reader(a, broken)
    b.send(b"xy")
    loop.run_until_complete(asyncio.sleep(0.002))
    assert told == [ZeroDivisionError] * 2
    loop.remove_reader(a)


def test_a_hundred_at_once(loop: AnyLoop) -> None:
    async def main() -> None:
        pairs = [socket.socketpair() for _ in range(100)]
        seen: set[int] = set()
        done = loop.create_future()

        def ready(index: int) -> None:
            loop.remove_reader(pairs[index][0])
            seen.add(index)
            if len(seen) == 100:
                done.set_result(None)

        for index, (a, b) in enumerate(pairs):
            loop.add_reader(a, ready, index)
            b.send(b"x")
        await done
        for a, b in pairs:
            a.close()
            b.close()

    loop.run_until_complete(main())

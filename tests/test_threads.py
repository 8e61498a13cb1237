"""Loops in threads: as many as there are, each with its own ring, in every world; and calls from any thread."""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import libos
from libos.machine import Machine, MachineLoop

THREADS = 8


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


async def echo(host: str, connections: int = 4, rounds: int = 20) -> bytes:
    """Clients and a server on one loop. What all clients have got back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        got = b""
        for round in range(rounds):
            writer.write(b"%03d" % round)
            got += await reader.readexactly(3)
        writer.close()
        await writer.wait_closed()
        return got

    async with await asyncio.start_server(serve, host, 0) as server:
        port = server.sockets[0].getsockname()[1]
        return b"".join(await asyncio.gather(*(ask(port) for _ in range(connections))))


WANTED = b"".join(b"%03d" % round for round in range(20)) * 4


@pytest.mark.parametrize("reactor", ["auto", "epoll"])
@pytest.mark.parametrize("net", ["host", "user"])
def test_each_thread_has_a_loop_of_its_own(net: str, reactor: str, threads: ThreadPoolExecutor) -> None:
    together = threading.Barrier(THREADS)

    async def main() -> tuple[bytes, object]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, MachineLoop)
        together.wait(20)  # all of them run at this moment
        return await echo("127.0.0.1"), loop.reactor

    def run(_: int) -> tuple[bytes, object]:
        return libos.run(main(), net=net, reactor=reactor)

    results = list(threads.map(run, range(THREADS)))
    assert [got for got, _ in results] == [WANTED] * THREADS
    assert len({id(reactor) for _, reactor in results}) == THREADS


@pytest.mark.parametrize("how", ["run", "Runner", "policy", "new_event_loop"])
def test_every_way_to_make_a_loop_works_in_a_thread(how: str, threads: ThreadPoolExecutor) -> None:
    def work() -> bytes:
        if how == "run":
            return libos.run(echo("127.0.0.1"))
        if how == "Runner":
            with asyncio.Runner(loop_factory=libos.new_event_loop) as runner:
                return runner.run(echo("127.0.0.1"))
        loop = libos.new_event_loop() if how == "new_event_loop" else libos.EventLoopPolicy().new_event_loop()
        try:
            return loop.run_until_complete(echo("127.0.0.1"))
        finally:
            loop.close()

    assert [future.result(30) for future in [threads.submit(work) for _ in range(3)]] == [WANTED] * 3


@pytest.mark.root
def test_two_taps_in_two_threads(threads: ThreadPoolExecutor) -> None:
    def run(subnet: int) -> bytes:
        return libos.run(echo(f"10.78.{subnet}.2"), net="tap", ip=f"10.78.{subnet}.2/24")

    assert list(threads.map(run, (1, 2))) == [WANTED] * 2


def test_a_machine_moves_from_thread_to_thread(new_machine: Callable[..., Machine]) -> None:
    """Its ring serves one thread; the next one finds a ring of its own."""
    machine = new_machine()
    for _ in range(3):
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(machine.run, echo("127.0.0.1")).result(30) == WANTED
    assert machine.run(echo("127.0.0.1")) == WANTED


@pytest.mark.parametrize("net", ["host", "user"])
def test_a_storm_of_calls_from_many_threads(net: str, threads: ThreadPoolExecutor) -> None:
    """None is lost, and those of one thread come in its order."""
    calls = 2000
    seen: dict[int, list[int]] = collections.defaultdict(list)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        end = asyncio.Event()

        def called(thread: int, n: int) -> None:
            assert threading.get_ident() == ours
            seen[thread].append(n)
            if sum(map(len, seen.values())) == THREADS * calls:
                end.set()

        def storm(thread: int) -> None:
            for n in range(calls):
                loop.call_soon_threadsafe(called, thread, n)

        ours = threading.get_ident()
        futures = [threads.submit(storm, thread) for thread in range(THREADS)]
        await asyncio.wait_for(end.wait(), 60)
        for future in futures:
            future.result(10)

    libos.run(main(), net=net)
    assert seen == {thread: list(range(calls)) for thread in range(THREADS)}


def test_a_call_from_a_thread_ends_a_wait_without_limit() -> None:
    for net in ("host", "user"):
        loop = libos.new_event_loop(net)
        try:
            threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,)).start()
            loop.run_forever()
        finally:
            loop.close()


def test_a_call_after_the_end_is_refused() -> None:
    loop = libos.new_event_loop()
    loop.close()
    with ThreadPoolExecutor(1) as thread, pytest.raises(RuntimeError, match="Event loop is closed"):
        thread.submit(loop.call_soon_threadsafe, print).result()


def test_loops_talk_to_each_other_across_threads(threads: ThreadPoolExecutor) -> None:
    """Two loops, two threads, coroutines handed over both ways."""
    there = libos.new_event_loop()
    running = threads.submit(there.run_forever)

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    async def main() -> list[int]:
        futures = [asyncio.run_coroutine_threadsafe(double(n), there) for n in range(100)]
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    try:
        assert libos.run(main()) == [2 * n for n in range(100)]
    finally:
        there.call_soon_threadsafe(there.stop)
        running.result(10)
        there.close()


# --- signals ---------------------------------------------------------------------------------------------------------


def test_signal_handlers_are_the_main_threads(threads: ThreadPoolExecutor) -> None:
    async def main() -> None:
        with pytest.raises((RuntimeError, ValueError), match="main thread"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    threads.submit(libos.run, main()).result(10)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_thread_leaves_the_wakeup_descriptor_alone(threads: ThreadPoolExecutor) -> None:
    inner: list[Any] = []

    async def outer() -> None:
        def wakeup() -> int:
            fd = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            return fd

        before = wakeup()
        inner.append(await asyncio.wrap_future(threads.submit(libos.run, echo("127.0.0.1"))))
        assert wakeup() == before != -1

    libos.run(outer())
    assert inner == [WANTED]
    assert signal.set_wakeup_fd(-1) == -1


def test_a_wakeup_descriptor_that_somebody_has_set_stays() -> None:
    a, b = os.pipe()
    os.set_blocking(b, False)
    assert signal.set_wakeup_fd(b) == -1
    try:
        libos.run(asyncio.sleep(0))
        assert signal.set_wakeup_fd(-1) == b
    finally:
        signal.set_wakeup_fd(-1)
        os.close(a)
        os.close(b)


def wakeup_descriptor() -> int:
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


def test_signals_still_wake_the_loop_when_its_last_handler_is_gone() -> None:
    """asyncio takes the descriptor away with the last handler; the loop runs on and needs it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert wakeup_descriptor() != -1

    libos.run(main())
    assert wakeup_descriptor() == -1


@pytest.mark.parametrize("net", ["host", "user"])
def test_an_interrupt_cancels_run(net: str) -> None:
    """KeyboardInterrupt comes out of run() after the tasks were cancelled, as with asyncio.Runner."""
    cancelled: list[str] = []

    async def main() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("main")
            raise

    with pytest.raises(KeyboardInterrupt):
        libos.run(main(), net=net)
    assert cancelled == ["main"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_ends_a_wait_without_limit() -> None:
    async def main() -> None:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        libos.run(main())

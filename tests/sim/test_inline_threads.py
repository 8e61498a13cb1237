"""Threads and executors of a machine's program: no thread of the host's, at moments that the seed chooses."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from libos.errors import EscapeError
from libos.sim import jobs

from .fake import FakeOwner, FakeWorld, world

MS = 1_000_000


def run(fake: FakeWorld, main: Coroutine[Any, Any, Any], owner: FakeOwner | None = None) -> Any:
    """On a plain loop of asyncio's; ``owner``'s time moves on whenever all else waits."""
    owner = owner or fake.alpha
    with fake.ownership.outside():
        loop = asyncio.new_event_loop()
    before = threading.active_count()

    def tick() -> None:
        owner.advance(MS // 10)
        loop.call_soon(tick)

    try:
        with fake(owner):
            loop.call_soon(tick)
            return loop.run_until_complete(main)
    finally:
        assert threading.active_count() == before
        loop.close()


def in_world(body: Callable[[FakeWorld], Coroutine[Any, Any, Any]], seed: int = 1) -> Any:
    with world(seed) as fake:
        return run(fake, body(fake))


# --- asyncio ---------------------------------------------------------------------------------------------------------


def test_to_thread_and_run_in_executor_are_done_later() -> None:
    async def main(fake: FakeWorld) -> None:
        began = time.monotonic_ns()
        done: list[int] = []
        future = asyncio.get_running_loop().run_in_executor(None, done.append, 1)
        assert done == []
        await future
        assert done == [1]
        assert 0 < time.monotonic_ns() - began <= 2 * MS
        assert await asyncio.to_thread(lambda a, b: a + b, 1, b=2) == 3
        await asyncio.get_running_loop().shutdown_default_executor()

    in_world(main)


def test_what_it_raises_comes_to_who_awaits() -> None:
    async def main(fake: FakeWorld) -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        with pytest.raises(EscapeError, match=r"time\.sleep\(\)"):
            await asyncio.to_thread(time.sleep, 1)

    in_world(main)


def test_the_order_is_the_seeds() -> None:
    async def main(fake: FakeWorld) -> list[int]:
        order: list[int] = []
        await asyncio.gather(*(asyncio.to_thread(order.append, n) for n in range(20)))
        assert sorted(order) == list(range(20))
        return order

    orders = [in_world(main, seed) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_it_is_another_thread_as_far_as_it_can_tell() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    def look() -> tuple[object, ...]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        thread = threading.current_thread()
        return thread is threading.main_thread(), thread.daemon, variable.get()

    async def main(fake: FakeWorld) -> None:
        variable.set("task")
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, look) == (False, False, "none")
        assert await asyncio.to_thread(look) == (False, False, "task")  # asyncio hands the context on
        assert threading.current_thread() is threading.main_thread()
        assert asyncio.get_running_loop() is loop

    in_world(main)


def test_a_thread_that_needs_the_loop_is_named() -> None:
    async def main(fake: FakeWorld) -> None:
        loop = asyncio.get_running_loop()

        def ask() -> Any:
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 42), loop).result()

        with pytest.raises(EscapeError, match=r"concurrent\.futures\.Future\.result\(\)"):
            await asyncio.to_thread(ask)
        await asyncio.sleep(0)  # what was asked for is done all the same
        await asyncio.sleep(0)

    in_world(main)


# --- executors -------------------------------------------------------------------------------------------------------


def test_an_executor_without_a_loop() -> None:
    with world() as fake, fake(fake.alpha):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda x: x * x, range(5))) == [0, 1, 4, 9, 16]
            futures = [pool.submit(pow, 2, n) for n in range(5)]
            done, not_done = concurrent.futures.wait(futures)
            assert (len(done), not_done) == (5, set())
            late = pool.submit(int)
        assert late.done()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)
        assert fake.alpha.advance() == 11  # their moments, which find all done
        assert pool._threads == set()  # type: ignore[attr-defined]


def test_cancelling() -> None:
    done: list[int] = []
    with world() as fake, fake(fake.alpha):
        pool = concurrent.futures.ThreadPoolExecutor()
        first, second = pool.submit(done.append, 1), pool.submit(done.append, 2)
        assert first.cancel()
        fake.alpha.advance()
        assert (done, first.cancelled(), second.done()) == ([2], True, True)
        third = pool.submit(done.append, 3)
        pool.shutdown(cancel_futures=True)
        assert third.cancelled()
        fake.alpha.advance()
        assert done == [2]


def test_an_initializer() -> None:
    seen: list[int] = []
    with world() as fake, fake(fake.alpha):
        with concurrent.futures.ThreadPoolExecutor(initializer=seen.append, initargs=(1,)) as pool:
            pool.submit(seen.append, 2).result()
            pool.submit(seen.append, 3).result()
            assert pool.submit(lambda: threading.current_thread().name).result() == "ThreadPoolExecutor-0_0"
        assert seen == [1, 2, 3]
        pool = concurrent.futures.ThreadPoolExecutor(initializer=lambda: 1 // 0)
        with pytest.raises(concurrent.futures.BrokenExecutor):
            pool.submit(int).result()
        with pytest.raises(concurrent.futures.BrokenExecutor):
            pool.submit(int)


# --- threads ---------------------------------------------------------------------------------------------------------


def test_a_thread_runs_by_itself_or_when_it_is_waited_for() -> None:
    seen: list[str] = []
    with world() as fake, fake(fake.alpha):
        alone, joined = (threading.Thread(target=seen.append, args=(name,)) for name in ("alone", "joined"))
        alone.start()
        joined.start()
        assert (seen, alone.is_alive(), joined.is_alive()) == ([], True, True)
        joined.join(0)
        assert joined.is_alive()
        joined.join()
        assert (seen, joined.is_alive()) == (["joined"], False)
        fake.alpha.advance()
        assert seen == ["joined", "alone"]
        alone.join()
        with pytest.raises(RuntimeError, match="only be started once"):
            alone.start()
        with pytest.raises(RuntimeError, match="before it is started"):
            threading.Thread().join()
        assert (alone.ident, joined.native_id) == (101, 102)
        assert (alone.name, joined.name) == ("Thread-1 (append)", "Thread-2 (append)")
        never = threading.Thread(target=seen.clear)
        never.start()
    assert not alone.is_alive()
    alone.join()
    assert "stopped" in repr(alone)
    never.join()
    assert (seen, never.is_alive()) == (["joined", "alone"], False)


def test_a_subclass_and_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: caught.append((args.exc_type, args.thread)))

    class Failing(threading.Thread):
        def run(self) -> None:
            assert threading.current_thread() is self
            with pytest.raises(RuntimeError, match="current thread"):
                self.join()
            raise LookupError

    with world() as fake, fake(fake.alpha):
        thread = Failing()
        thread.start()
        thread.join()
        leaving = threading.Thread(target=exit)
        leaving.start()
        leaving.join()
    assert caught == [(LookupError, thread)]


def test_a_timer() -> None:
    rung: list[float] = []
    with world() as fake, fake(fake.alpha):
        timer = threading.Timer(2.0, lambda: rung.append(time.monotonic()))
        timer.start()
        cancelled = threading.Timer(1.0, lambda: rung.append(0.0))
        cancelled.start()
        fake.alpha.advance(1000 * MS // 2)
        cancelled.cancel()
        fake.alpha.advance(3000 * MS)
        assert len(rung) == 1
        assert 102.0 < rung[0] < 102.01


def test_waiting_for_what_threads_do() -> None:
    with world() as fake, fake(fake.alpha):
        event, items = threading.Event(), queue.Queue[int](1)
        lock, simple = threading.Lock(), queue.SimpleQueue[str]()
        lock.acquire()
        for target in (event.set, lambda: items.put(7), lock.release, lambda: simple.put("x")):
            threading.Thread(target=target).start()
        assert event.wait()
        assert items.get() == 7
        assert lock.acquire()
        assert simple.get() == "x"
        barrier = threading.Barrier(1)
        assert barrier.wait() == 0


WAITS: dict[str, Callable[[], object]] = {
    "threading.Lock.acquire()": lambda: [lock := threading.Lock(), lock.acquire(), lock.acquire()],  # type: ignore[func-returns-value]
    "threading.Event.wait()": lambda: threading.Event().wait(),
    "threading.Event.wait() ": lambda: threading.Event().wait(0.5),
    "threading.Semaphore.acquire()": lambda: threading.Semaphore(0).acquire(),
    "threading.Barrier.wait()": lambda: threading.Barrier(2).wait(),
    "queue.Queue.get()": lambda: queue.Queue[int]().get(),
    "queue._PySimpleQueue.get()": lambda: queue.SimpleQueue[int]().get(),
    "concurrent.futures.Future.result()": lambda: concurrent.futures.Future[int]().result(),
    "concurrent.futures.wait()": lambda: concurrent.futures.wait([concurrent.futures.Future()]),
}


@pytest.mark.parametrize("call", WAITS)
def test_waiting_for_ever_raises_and_names_the_call(call: str) -> None:
    with world() as fake, fake(fake.alpha), pytest.raises(EscapeError) as caught:
        WAITS[call]()
    assert caught.value.call == f"a blocking {call.strip()}"


def test_threads_that_wait_for_each_other() -> None:
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def wait_for(other: int) -> None:
        try:
            threads[other].join()
        except EscapeError as error:
            failures.append(error)

    threads += [threading.Thread(target=wait_for, args=(other,)) for other in (1, 0)]
    with world() as fake, fake(fake.alpha):
        for thread in threads:
            thread.start()
        threads[0].join()
    assert [getattr(error, "call", None) for error in failures] == ["a blocking threading.Thread.join()"]


def test_locks_otherwise_do_what_locks_do() -> None:
    with world() as fake:
        with fake(fake.alpha):
            lock = threading.Lock()
            with lock:
                assert lock.locked()
                assert not lock.acquire(False)
                assert not lock.acquire(timeout=0)
            assert not lock.locked()
            with pytest.raises(RuntimeError):
                lock.release()
            with pytest.raises(ValueError, match="timeout"):
                lock.acquire(False, 1)
            threading.Condition(lock)
        assert type(threading.Lock()) is not type(lock)
    assert lock.acquire(timeout=0.001)  # it is a lock afterwards, too
    assert not lock.acquire(timeout=0.001)


def test_machines_do_not_do_each_others_work() -> None:
    seen: list[str] = []
    with world() as fake:
        for owner in (fake.alpha, fake.beta):
            with fake(owner):
                threading.Thread(target=lambda: seen.append(threading.current_thread().name), name=owner.name).start()
        with fake(fake.alpha), pytest.raises(EscapeError):
            threading.Event().wait()
        assert seen == ["alpha"]


def test_there_can_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_JOBS", 3)
    with world() as fake, fake(fake.alpha):
        for _ in range(3):
            threading.Thread().start()
        thread = threading.Thread()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start()
        assert not thread.is_alive()
        fake.alpha.advance()
        thread.start()

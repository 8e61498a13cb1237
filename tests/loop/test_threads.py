"""Other threads: those that wake the loop, and those that it sends work to."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def test_threads_wake_it(loop: AnyLoop) -> None:
    async def main() -> None:
        for i in range(100):
            future: asyncio.Future[int] = loop.create_future()
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, i))
            thread.start()
            assert await future == i
            thread.join()

    loop.run_until_complete(main())


def test_calls_of_many_threads_arrive_once_and_in_order(loop: AnyLoop) -> None:
    seen: dict[int, list[int]] = {n: [] for n in range(8)}
    done = loop.create_future()

    def elsewhere(number: int) -> None:
        for i in range(500):
            loop.call_soon_threadsafe(seen[number].append, i)
        loop.call_soon_threadsafe(finished, number)

    def finished(number: int) -> None:
        if all(len(calls) == 500 for calls in seen.values()) and not done.done():
            done.set_result(None)

    threads = [threading.Thread(target=elsewhere, args=(n,)) for n in seen]
    for thread in threads:
        thread.start()
    loop.run_until_complete(asyncio.wait_for(done, 20))
    for thread in threads:
        thread.join()
    assert all(calls == list(range(500)) for calls in seen.values())


def test_a_coroutine_may_be_submitted_from_a_thread(loop: AnyLoop) -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    def elsewhere() -> list[int]:
        futures = [asyncio.run_coroutine_threadsafe(double(i), loop) for i in range(50)]
        return [future.result(10) for future in futures]

    assert loop.run_until_complete(loop.run_in_executor(None, elsewhere)) == [2 * i for i in range(50)]


def test_executors(loop: AnyLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert await asyncio.gather(*(loop.run_in_executor(pool, pow, 2, i) for i in range(20))) == [
                2**i for i in range(20)
            ]
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        variable.set("of the task")
        assert await asyncio.to_thread(variable.get) == "of the task"

    loop.run_until_complete(main())


def test_the_default_executor_is_given_and_shut_down(loop: AnyLoop) -> None:
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="mine")
    loop.set_default_executor(pool)

    async def main() -> None:
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")
        await loop.shutdown_default_executor()
        with pytest.raises(RuntimeError, match=r"^Executor shutdown has been called$"):
            loop.run_in_executor(None, print)

    loop.run_until_complete(main())
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(print)


def test_waiting_for_a_thread_can_be_cancelled(loop: AnyLoop) -> None:
    release = threading.Event()

    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            waiting = loop.run_in_executor(pool, release.wait)
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            release.set()

    loop.run_until_complete(main())


def test_a_thread_stops_it(loop: AnyLoop) -> None:
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()


def test_two_loops_of_two_threads_talk(world: World) -> None:
    other = world.another_loop()
    thread = threading.Thread(target=other.run_forever)

    async def answer(question: int) -> int:
        await asyncio.sleep(0)
        return question + 1

    async def main() -> None:
        for i in range(20):
            assert await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(i), other)) == i + 1

    thread.start()
    world.run(main())
    other.call_soon_threadsafe(other.stop)
    thread.join()
    other.close()

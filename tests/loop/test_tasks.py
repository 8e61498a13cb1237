"""Tasks, futures, contexts, timeouts and asynchronous generators on every loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def test_cancelling_and_timeouts(loop: AnyLoop) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(asyncio.sleep(1000))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(1000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 0.001)

    loop.run_until_complete(main())


def test_a_future_belongs_to_its_loop(world: World) -> None:
    other = world.another_loop()
    future = other.create_future()
    with pytest.raises(ValueError, match="The future belongs to a different loop"):
        world.loop.run_until_complete(future)
    future.cancel()
    other.close()


def test_a_task_has_its_name_and_context(loop: AnyLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def look() -> str:
        found = variable.get()
        variable.set("changed inside")
        await asyncio.sleep(0)
        return found

    async def main() -> None:
        variable.set("outside")
        task = loop.create_task(look(), name="looking")
        assert task.get_name() == "looking"
        assert await task == "outside"
        assert variable.get() == "outside"
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        assert await loop.create_task(look(), context=context) == "given"
        assert context[variable] == "changed inside"

    loop.run_until_complete(main())


def test_a_task_factory_makes_the_tasks(loop: AnyLoop) -> None:
    made: list[str] = []

    class Own(asyncio.Task[Any]):
        pass

    def factory(loop: AnyLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__name__)
        return Own(coro, loop=loop, **options)

    async def job() -> str:
        return type(asyncio.current_task()).__name__

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert loop.run_until_complete(job()) == "Own"
    context = contextvars.copy_context()
    assert loop.run_until_complete(loop.create_task(job(), context=context, name="n")) == "Own"
    assert made == ["job", "job"]
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory("no")  # type: ignore[arg-type]
    loop.set_task_factory(None)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are from Python 3.12 on")
def test_eager_tasks_begin_at_once(loop: AnyLoop) -> None:
    seen: list[str] = []

    async def job() -> str:
        seen.append("begun")
        await asyncio.sleep(0)
        return "done"

    async def main() -> None:
        task = loop.create_task(job())
        assert seen == ["begun"]
        assert await task == "done"

    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    loop.run_until_complete(main())


async def group_that_fails() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(1000))
        raise ZeroDivisionError


def test_groups_queues_and_locks(loop: AnyLoop) -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        lock = asyncio.Lock()
        got: list[int] = []

        async def produce(first: int) -> None:
            for i in range(first, first + 10):
                await queue.put(i)

        async def consume() -> None:
            while True:
                item = await queue.get()
                async with lock:
                    got.append(item)
                queue.task_done()

        consumers = [asyncio.ensure_future(consume()) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for first in (0, 10, 20):
                group.create_task(produce(first))
        await queue.join()
        assert sorted(got) == list(range(30))
        for task in consumers:
            task.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        with pytest.raises(ExceptionGroup):
            await group_that_fails()

    loop.run_until_complete(main())


def test_an_exception_that_nobody_retrieves_is_told(world: World) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        future = world.loop.create_future()
        future.set_exception(KeyError("future"))
        del future
        gc.collect()

    world.run(main())
    told = [(context["message"], type(context["exception"])) for context in world.errors]
    assert told == [
        ("Task exception was never retrieved", ZeroDivisionError),
        ("Future exception was never retrieved", KeyError),
    ]
    world.errors.clear()


def test_a_pending_task_that_is_lost_is_told(world: World) -> None:
    async def wait_for_nothing() -> None:
        await asyncio.Future()

    async def main() -> None:
        task = asyncio.ensure_future(wait_for_nothing())
        await asyncio.sleep(0)
        del task
        gc.collect()

    world.run(main())
    assert [context["message"] for context in world.errors] == ["Task was destroyed but it is pending!"]
    world.errors.clear()


def test_asynchronous_generators_are_finished_at_the_end(loop: AnyLoop) -> None:
    seen: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            for i in range(10):
                yield i
        finally:
            await asyncio.sleep(0)
            seen.append(name)

    async def main() -> None:
        global_ones.append(numbers("left at the end"))
        assert await anext(global_ones[0]) == 0
        lost = numbers("lost")
        assert await anext(lost) == 0
        del lost
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        assert seen == ["lost"]

    global_ones: list[AsyncIterator[int]] = []
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert seen == ["lost", "left at the end"]


def test_a_generator_after_shutdown_asyncgens_is_warned_of(loop: AnyLoop) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        found = numbers()
        with pytest.warns(ResourceWarning, match=r"was scheduled after loop\.shutdown_asyncgens\(\) call"):
            await anext(found)
        await found.aclose()  # type: ignore[attr-defined]

    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(main())


def test_a_generator_that_fails_at_the_end_is_told(world: World) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    async def main() -> None:
        kept.append(numbers())
        await anext(kept[0])

    kept: list[AsyncIterator[int]] = []
    world.run(main())
    world.loop.run_until_complete(world.loop.shutdown_asyncgens())
    assert "an error occurred during closing of asynchronous generator" in world.errors[0]["message"]
    assert isinstance(world.errors[0]["exception"], ZeroDivisionError)
    world.errors.clear()


def test_all_tasks_and_the_current_one(loop: AnyLoop) -> None:
    async def main() -> None:
        me = asyncio.current_task()
        other = asyncio.ensure_future(asyncio.sleep(0))
        assert asyncio.all_tasks() == {me, other}
        await other
        assert asyncio.all_tasks(loop) == {me}

    loop.run_until_complete(main())
    assert asyncio.all_tasks(loop) == set()

"""The exception handler, and what debug mode tells."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from typing import Any

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def run_once(loop: AnyLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def divide() -> None:
    raise ZeroDivisionError


def test_an_exception_in_a_callback_goes_to_the_handler(loop: AnyLoop) -> None:
    told: list[tuple[AnyLoop, dict[str, Any]]] = []
    seen: list[str] = []

    def handler(loop: AnyLoop, context: dict[str, Any]) -> None:
        told.append((loop, context))

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    handle = loop.call_soon(divide)
    loop.call_soon(seen.append, "alive")
    loop.call_later(0, divide)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == ["alive"]
    assert [type(context["exception"]) for _, context in told] == [ZeroDivisionError] * 2
    assert told[0][0] is loop
    assert told[0][1]["handle"] is handle
    assert told[0][1]["message"].startswith("Exception in callback ")
    assert "divide" in told[0][1]["message"]


def test_without_a_handler_it_is_logged(loop: AnyLoop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None
    loop.call_soon(divide)
    run_once(loop)
    loop.default_exception_handler({"message": "by hand", "extra": 7})
    loop.call_exception_handler({"message": "by the loop"})
    first, second, third = (record for record in caplog.records if record.name == "asyncio")
    assert first.levelno == logging.ERROR
    assert first.getMessage().startswith("Exception in callback ")
    assert first.exc_info is not None
    assert isinstance(first.exc_info[1], ZeroDivisionError)
    assert second.getMessage() == "by hand\nextra: 7"
    assert third.getMessage() == "by the loop"
    caplog.clear()


def test_a_handler_that_fails_is_logged_with_what_it_was_told(loop: AnyLoop, caplog: pytest.LogCaptureFixture) -> None:
    def broken(loop: AnyLoop, context: dict[str, Any]) -> None:
        raise KeyError("handler")

    loop.set_exception_handler(broken)
    loop.call_soon(divide)
    run_once(loop)
    (record,) = (record for record in caplog.records if record.name == "asyncio")
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert "ZeroDivisionError" in record.getMessage()
    caplog.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_in_the_handler_comes_out(loop: AnyLoop, kind: type[BaseException]) -> None:
    def handler(loop: AnyLoop, context: dict[str, Any]) -> None:
        raise kind

    loop.set_exception_handler(handler)
    loop.call_soon(divide)
    with pytest.raises(kind):
        loop.run_forever()
    run_once(loop)


def test_only_a_callable_is_a_handler(loop: AnyLoop) -> None:
    with pytest.raises(TypeError, match=r"^A callable object or None is expected, got 'no'$"):
        loop.set_exception_handler("no")  # type: ignore[arg-type]


def test_debug_reports_what_holds_the_loop_up(loop: AnyLoop, caplog: pytest.LogCaptureFixture) -> None:
    loop.set_debug(True)
    assert loop.get_debug()
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0

    async def main() -> str:
        await asyncio.sleep(0)
        return "done"

    assert loop.run_until_complete(main()) == "done"
    slow = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any(text.startswith("Executing <Task ") and " took 0." in text for text in slow)
    caplog.clear()
    loop.slow_callback_duration = 100
    assert loop.run_until_complete(main()) == "done"
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []


def test_debug_remembers_where_things_were_made(world: World) -> None:
    loop = world.loop
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    loop.call_soon(divide)
    timer = loop.call_later(1000, divide)
    assert "created at " in repr(timer)
    assert __file__ in repr(timer)
    timer.cancel()

    async def fail() -> None:
        raise KeyError

    async def main() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    loop.run_until_complete(main())
    gc.collect()
    assert [type(context["exception"]) for context in world.errors] == [ZeroDivisionError, KeyError]
    for context in world.errors:
        assert any(frame.filename == __file__ for frame in context["source_traceback"])
    world.errors.clear()


def test_debug_notices_calls_of_other_threads(loop: AnyLoop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 100
    found: list[BaseException] = []

    def elsewhere() -> None:
        for call in (loop.call_soon, lambda f: loop.call_later(0, f), lambda f: loop.call_at(0, f)):
            try:
                call(print)
            except RuntimeError as error:
                found.append(error)

    async def main() -> None:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    loop.run_until_complete(main())
    assert [str(error) for error in found] == [
        "Non-thread-safe operation invoked on an event loop other than the current one"
    ] * 3


def test_debug_says_where_a_coroutine_came_from(loop: AnyLoop) -> None:
    async def forgotten() -> None:
        pass

    async def main() -> None:
        coroutine = forgotten()
        assert coroutine.cr_origin is not None
        with pytest.warns(RuntimeWarning, match=r"Coroutine created at"):
            del coroutine

    loop.set_debug(True)
    loop.slow_callback_duration = 100
    loop.run_until_complete(main())
    loop.set_debug(False)
    coroutine = forgotten()
    assert coroutine.cr_origin is None
    coroutine.close()


def test_debug_may_be_switched_while_it_runs(loop: AnyLoop) -> None:
    async def main() -> None:
        for on in (True, False, True):
            loop.set_debug(on)
            loop.slow_callback_duration = 100
            await asyncio.sleep(0)
            assert loop.get_debug() is on

    loop.run_until_complete(main())

"""Callbacks and timers; how a loop starts, stops, is interrupted, and ends."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


def test_callbacks_run_in_order_and_those_they_schedule_in_the_next_iteration(loop: AnyLoop) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("a")
        loop.call_soon(seen.append, "c")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.call_soon(seen.append, "b")
    loop.call_soon(seen.append, "never").cancel()
    loop.run_forever()
    assert seen == ["a", "b", "c"]


def test_a_callback_cancels_one_that_is_already_due(loop: AnyLoop) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: (soon.cancel(), timer.cancel()))
    soon = loop.call_soon(seen.append, "soon")
    timer = loop.call_later(0, seen.append, "timer")
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert seen == []
    assert soon.cancelled()
    assert timer.cancelled()


def test_stop_ends_the_iteration_it_is_called_in(loop: AnyLoop) -> None:
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same")
    loop.run_forever()
    assert seen == ["same"]


def test_stop_before_the_start_lets_one_iteration_run(loop: AnyLoop) -> None:
    seen: list[str] = []
    loop.call_soon(lambda: (seen.append("first"), loop.call_soon(seen.append, "second")))
    loop.stop()
    loop.run_forever()
    assert seen == ["first"]
    loop.stop()
    loop.run_forever()
    assert seen == ["first", "second"]


def test_timers_fire_in_the_order_of_their_times(loop: AnyLoop) -> None:
    seen: list[int] = []
    start = loop.time()
    for ms in (5, 1, 3, 0, 4, 2):
        loop.call_at(start + ms / 1000, seen.append, ms)
    loop.call_at(start + 0.0025, seen.append, -1).cancel()
    loop.call_at(start + 0.006, loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_timers_of_the_past_fire_at_once(loop: AnyLoop) -> None:
    seen: list[str] = []
    loop.call_at(loop.time() - 1000, seen.append, "at")
    loop.call_later(-1, seen.append, "later")
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert sorted(seen) == ["at", "later"]


def test_a_timer_is_not_early(loop: AnyLoop) -> None:
    async def main() -> None:
        for delay in (0, 0.0001, 0.0015, 0.003):
            start = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() - start >= delay

    loop.run_until_complete(main())


def test_a_timer_knows_its_time(loop: AnyLoop) -> None:
    at = loop.time() + 1000
    timer = loop.call_at(at, print)
    assert timer.when() == pytest.approx(at, abs=0.001)
    assert abs(loop.call_later(1000, print).when() - at) < 10
    assert not timer.cancelled()
    timer.cancel()
    timer.cancel()
    assert timer.cancelled()
    for handle in getattr(loop, "_scheduled", ()):
        handle.cancel()


def test_ten_thousand_cancelled_timers_keep_nothing_alive(loop: AnyLoop) -> None:
    """As when each piece of data sets an idle timeout anew."""

    class Argument:
        alive = 0

        def __init__(self) -> None:
            Argument.alive += 1

        def __del__(self) -> None:
            Argument.alive -= 1

    async def main() -> None:
        late = loop.call_later(1000, print)
        for _ in range(100):
            for _ in range(100):
                loop.call_later(500, print, Argument()).cancel()
            await asyncio.sleep(0)
        assert Argument.alive == 0
        late.cancel()

    loop.run_until_complete(main())


def test_the_context_goes_with_the_callback(loop: AnyLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_later(0.001, lambda: seen.append(f"later {variable.get()}"), context=context)
    loop.call_at(loop.time() + 0.002, lambda: seen.append(f"at {variable.get()}"), context=context)
    loop.call_soon_threadsafe(lambda: seen.append(variable.get()), context=context)
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert seen == ["inside", "outside", "inside", "later inside", "at inside"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_comes_out_and_the_loop_can_go_on(loop: AnyLoop, kind: type[BaseException]) -> None:
    def interrupt() -> None:
        raise kind

    loop.call_soon(interrupt)
    with pytest.raises(kind):
        loop.run_forever()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0, "on")) == "on"


def test_an_interrupt_ends_a_wait(loop: AnyLoop) -> None:
    """Ctrl-C with the default handler, while nothing else happens."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert loop.run_until_complete(asyncio.sleep(0, "on")) == "on"


def test_run_until_complete_gives_the_result_or_raises_the_exception(loop: AnyLoop) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    assert loop.run_until_complete(asyncio.sleep(0, 7)) == 7
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(fail())
    future = loop.create_future()
    loop.call_soon(future.set_result, 8)
    assert loop.run_until_complete(future) == 8
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(future)
    future.cancel()


def test_a_loop_that_runs_cannot_be_run_closed_or_nested(world: World) -> None:
    loop = world.loop
    other = world.another_loop()

    async def main() -> None:
        assert loop.is_running()
        assert asyncio.get_running_loop() is loop
        with pytest.raises(RuntimeError, match=r"^This event loop is already running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match=r"^Cannot run the event loop while another loop is running$"):
            other.run_forever()
        with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
            loop.close()

    try:
        loop.run_until_complete(main())
        assert not loop.is_running()
        assert other.run_until_complete(asyncio.sleep(0, "well")) == "well"
    finally:
        other.close()


def test_a_closed_loop_says_so(world: World) -> None:
    other = world.another_loop()
    other.run_until_complete(asyncio.sleep(0))
    other.close()
    other.close()
    assert other.is_closed()
    assert not other.is_running()
    for call in (
        lambda: other.call_soon(print),
        lambda: other.call_soon_threadsafe(print),
        lambda: other.call_later(1, print),
        lambda: other.call_at(1, print),
        lambda: other.run_in_executor(None, print),
        other.run_forever,
    ):
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            call()


def test_closing_drops_what_was_to_be_called(world: World) -> None:
    other = world.another_loop()
    other.call_soon(pytest.fail)
    other.call_later(0, pytest.fail)
    other.close()


def test_it_runs_in_any_thread_and_moves(loop: AnyLoop) -> None:
    async def main() -> int:
        await asyncio.sleep(0.001)
        await loop.run_in_executor(None, time.monotonic)
        return threading.get_ident()

    first = loop.run_until_complete(main())
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(loop.run_until_complete(main())))
    thread.start()
    thread.join()
    assert first == loop.run_until_complete(main()) != found[0]


def test_loops_of_several_threads_do_not_meet(world: World) -> None:
    def work(number: int) -> None:
        other = world.another_loop()

        async def main() -> int:
            assert asyncio.get_running_loop() is other
            for _ in range(50):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return number

        results.append(other.run_until_complete(main()))
        other.close()

    results: list[int] = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]

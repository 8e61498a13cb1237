"""What an asyncio loop owes to programs apart from I/O, on libos's loop and on the two that it stands in for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from libos.clock import MonotonicClock
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

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


def test_stop_ends_the_iteration_it_is_called_in(loop: AnyLoop) -> None:
    seen: list[str] = []
    loop.call_soon(loop.stop)
    loop.call_soon(seen.append, "same")
    loop.run_forever()
    assert seen == ["same"]


def test_timers_fire_in_the_order_of_their_times(loop: AnyLoop) -> None:
    if type(loop).__module__ == "uvloop":
        pytest.skip("uvloop counts in milliseconds")
    seen: list[int] = []
    start = loop.time()
    for ms in (5, 1, 3, 0, 4, 2):
        loop.call_at(start + ms / 1000, seen.append, ms)
    loop.call_at(start + 0.0025, seen.append, -1).cancel()
    loop.call_at(start + 0.006, loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_timer_is_not_early(loop: AnyLoop) -> None:
    if type(loop).__module__ == "uvloop":
        pytest.skip("uvloop counts in milliseconds")

    async def main() -> None:
        for delay in (0, 0.0001, 0.0015, 0.003):
            start = loop.time()
            await asyncio.sleep(delay)
            assert loop.time() - start >= delay

    loop.run_until_complete(main())


def test_threads_wake_it(loop: AnyLoop) -> None:
    async def main() -> None:
        for i in range(100):
            future: asyncio.Future[int] = loop.create_future()
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, i))
            thread.start()
            assert await future == i
            thread.join()

    loop.run_until_complete(main())


def test_a_coroutine_may_be_submitted_from_a_thread(loop: AnyLoop) -> None:
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    def elsewhere() -> list[int]:
        futures = [asyncio.run_coroutine_threadsafe(double(i), loop) for i in range(50)]
        return [future.result(10) for future in futures]

    assert loop.run_until_complete(loop.run_in_executor(None, elsewhere)) == [2 * i for i in range(50)]


def test_executors(loop: AnyLoop) -> None:
    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            assert await asyncio.gather(*(loop.run_in_executor(pool, pow, 2, i) for i in range(20))) == [
                2**i for i in range(20)
            ]
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, lambda: 1 // 0)
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()

    loop.run_until_complete(main())


def test_the_context_goes_with_the_callback(loop: AnyLoop) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    seen: list[str] = []
    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    loop.call_soon(lambda: seen.append(variable.get()), context=context)
    loop.call_soon(lambda: seen.append(variable.get()))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["inside", "outside"]


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


def test_an_exception_in_a_callback_goes_to_the_handler(loop: AnyLoop) -> None:
    told: list[dict[str, Any]] = []
    seen: list[str] = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    loop.call_soon(lambda: 1 // 0)
    loop.call_soon(seen.append, "alive")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert isinstance(told[0]["exception"], ZeroDivisionError)
    assert seen == ["alive"]


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


def test_signal_handlers(loop: AnyLoop) -> None:
    async def main() -> None:
        seen: asyncio.Queue[str] = asyncio.Queue()
        loop.add_signal_handler(signal.SIGUSR1, seen.put_nowait, "one")
        loop.add_signal_handler(signal.SIGUSR2, seen.put_nowait, "two")
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert await seen.get() == "one"
            os.kill(os.getpid(), signal.SIGUSR2)
            assert await seen.get() == "two"
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert loop.remove_signal_handler(signal.SIGUSR2)
        assert not loop.remove_signal_handler(signal.SIGUSR2)

    loop.run_until_complete(main())


def test_a_subprocess(loop: AnyLoop) -> None:
    async def main() -> None:
        program = "import sys; data = sys.stdin.read(); print(data[::-1]); sys.exit(3)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate(b"abc")
        assert out == b"cba\n"
        assert process.returncode == 3
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    loop.run_until_complete(main())


def test_debug_mode(loop: AnyLoop) -> None:
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    assert loop.run_until_complete(asyncio.sleep(0.001, "done")) == "done"


def test_a_closed_loop_says_so(loop: AnyLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))
    other = type(loop)(loop.reactor) if isinstance(loop, Loop) else type(loop)()
    other.close()
    other.close()
    assert other.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        other.call_soon(print)
    with pytest.raises(RuntimeError, match="closed"):
        other.run_forever()


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


def test_time_is_the_reactors(reactor: Reactor) -> None:
    loop = Loop(reactor)
    before = reactor.now()
    assert before <= loop.time() * 1e9 + 1e3
    assert abs(loop.time() - before * 1e-9) < 1
    loop.close()


def test_closing_leaves_a_reactor_that_is_not_its_own(reactor: Reactor) -> None:
    loop = Loop(reactor)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert reactor.sinks == {}
    reactor.turn(0)
    owner = Loop(Reactor("epoll", clock=MonotonicClock()), own_reactor=True)
    owner.close()
    assert owner.reactor.handle is None


def test_a_signal_just_before_the_wait_is_not_lost(reactor: Reactor) -> None:
    """While it runs, signals write to its self-pipe, whether or not anyone has asked asyncio for them."""
    loop = Loop(reactor)
    found: list[int] = []

    async def main() -> None:
        found.append(signal.set_wakeup_fd(-1))
        signal.set_wakeup_fd(found[0])

    assert signal.set_wakeup_fd(-1) == -1
    loop.run_until_complete(main())
    assert found[0] >= 0
    assert signal.set_wakeup_fd(-1) == -1
    loop.close()


def test_events_of_sockets_go_to_their_sinks_in_the_same_iteration(reactor: Reactor, new_probe: Any) -> None:
    loop = Loop(reactor)
    probe = new_probe()
    seen: list[object] = []

    def sink(mask: int) -> None:
        seen.append(("sink", mask, asyncio.get_running_loop() is loop))
        loop.call_soon(seen.append, "callback")
        loop.call_soon(loop.stop)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert seen == [("sink", 1, True), "callback"]
    loop.close()


def test_a_descriptor_replaced_within_a_turn_is_not_mistaken(reactor: Reactor, new_probe: Any) -> None:
    """A socket's sink closes a descriptor that was ready in the same turn, and opens another with its number."""
    loop = Loop(reactor)
    probe = new_probe()
    seen: list[str] = []
    first = os.eventfd(1)

    def sink(mask: int) -> None:
        loop.remove_reader(first)
        os.close(first)
        second = os.eventfd(0)
        assert second == first
        loop.add_reader(second, seen.append, "second")
        loop.call_soon(loop.stop)

    loop.add_reader(first, seen.append, "first")
    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert seen == []
    os.eventfd_write(first, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["second"]
    loop.remove_reader(first)
    os.close(first)
    loop.close()


def test_a_sink_may_set_timers_while_the_loop_stays_in_the_reactor(reactor: Reactor, new_probe: Any) -> None:
    loop = Loop(reactor)
    probe = new_probe()
    late = loop.call_later(1000, print)

    def sink(mask: int) -> None:
        for _ in range(1000):
            loop.call_later(2000, print).cancel()
        loop.call_later(0.001, loop.stop)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert not late.cancelled()
    late.cancel()
    loop.close()


def test_cancelled_timers_do_not_pile_up(reactor: Reactor, new_probe: Any) -> None:
    """As when each piece of data sets the idle timeout anew: the first timer stays the first."""
    loop = Loop(reactor)
    probe = new_probe()
    late = loop.call_later(1000, print)
    calls = 0

    def sink(mask: int) -> None:
        nonlocal calls
        calls += 1
        loop.call_later(2000, print).cancel()
        assert len(loop._scheduled) < 500  # type: ignore[attr-defined]
        if calls == 3000:
            loop.stop()
        else:
            reactor.sinks[probe.base | calls] = sink
            probe.raise_events(1)

    reactor.sinks[probe.base] = sink
    probe.raise_events(1)
    loop.run_forever()
    assert calls == 3000
    late.cancel()
    loop.close()

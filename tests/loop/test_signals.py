"""Signals as events of the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from .worlds import World

AnyLoop = asyncio.AbstractEventLoop


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
        loop.add_signal_handler(signal.SIGUSR1, seen.put_nowait, "replaced")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await seen.get() == "replaced"
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert loop.remove_signal_handler(signal.SIGUSR2)
        assert not loop.remove_signal_handler(signal.SIGUSR2)

    loop.run_until_complete(main())
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_signal_wakes_a_waiting_loop(loop: AnyLoop) -> None:
    async def main() -> None:
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGALRM, came.set_result, None)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        await came
        loop.remove_signal_handler(signal.SIGALRM)

    loop.run_until_complete(main())


def test_a_signal_of_another_thread_arrives(loop: AnyLoop) -> None:
    async def main() -> None:
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, came.set_result, None)
        thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1))
        thread.start()
        await came
        thread.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    loop.run_until_complete(main())


def test_removing_sigint_gives_back_the_interrupt(loop: AnyLoop) -> None:
    before = signal.getsignal(signal.SIGINT)

    async def main() -> None:
        came = loop.create_future()
        loop.add_signal_handler(signal.SIGINT, came.set_result, None)
        os.kill(os.getpid(), signal.SIGINT)
        await came
        assert loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.run_until_complete(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_closing_removes_the_handlers(world: World) -> None:
    other = world.another_loop()
    other.add_signal_handler(signal.SIGUSR1, print)
    other.close()
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) is signal.SIG_DFL


def test_signals_that_cannot_be_handled(loop: AnyLoop) -> None:
    with pytest.raises(RuntimeError, match=rf"^sig {int(signal.SIGKILL)} cannot be caught$"):
        loop.add_signal_handler(signal.SIGKILL, print)
    assert signal.set_wakeup_fd(-1) == -1


def test_only_the_main_thread_handles_signals(loop: AnyLoop) -> None:
    found: list[BaseException] = []

    def elsewhere() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except (RuntimeError, ValueError) as error:
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(found) == 1

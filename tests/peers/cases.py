"""What the programs on libos share: a program is a list of cases, each a coroutine function of its settings.

Plain asyncio, without a word of libos: the same file runs under python alone. For each case that passed a line of JSON
is printed; one that fails ends the program with its traceback. After each nothing may be left of it: no task, and (on
the kernel's sockets) no descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Case = Callable[..., Awaitable[Any]]


def run(*cases: Case) -> None:
    """All of them in one loop, with the program's arguments."""
    asyncio.run(_run(cases, sys.argv[1:]))


async def _run(cases: tuple[Case, ...], settings: list[str]) -> None:
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    await asyncio.to_thread(int)  # the executor's threads and the resolver's sockets are the loop's, not a case's
    for case in cases:
        before = descriptors()
        async with asyncio.timeout(20):
            await case(*settings)
            await nothing_left(before)
        gc.collect()  # what was never awaited or retrieved speaks now
        if failures:
            raise RuntimeError(f"{case.__name__}: {failures}") from failures[0].get("exception")
        print(json.dumps({"passed": case.__name__}), flush=True)


async def wish(what: str) -> None:
    """Ask whoever started us for something, and wait until it is done."""
    print(json.dumps({"wish": what}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def until(happened: Callable[[], Any]) -> None:
    """Where there is nothing to await. The case's time limit is this one's."""
    while not happened():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def descriptors() -> dict[int, str]:
    """What this process holds open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the directory itself
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


async def nothing_left(before: dict[int, str]) -> None:
    """Until there is neither a task nor a descriptor that is new: what a library closed may end a little later."""
    me = asyncio.current_task()

    def left() -> list[Any]:
        tasks = [task for task in asyncio.all_tasks() if task is not me]
        return tasks + [what for fd, what in descriptors().items() if before.get(fd) != what]

    try:
        await until(lambda: not left())
    except asyncio.CancelledError:
        raise RuntimeError(f"left behind: {left()}") from None

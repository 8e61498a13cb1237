"""What a machine's program gave to other threads: done in its own, at a moment that the seed chooses.

A Job is done once, by itself after a drawn delay, or sooner because the program waits for something that only a job can
bring about. While it is done, it is in another thread as far as the program can tell: ``threading.current_thread()``
says so, no loop runs in it, and its context is its own.

A job cannot wait for what would go on elsewhere meanwhile, for nothing does: see :meth:`Jobs.until`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import Callable
from types import FrameType

from libos.errors import EscapeError
from libos.sim.owner import Owner

__all__ = ["MAX_JOBS", "Job", "Jobs"]

MAX_JOBS = 100_000  # begun and not done yet, of one machine
_LATEST = 1_000_000  # ns until a job is done by itself
_WAITING = frozenset(("threading", "queue", "concurrent.futures._base", "concurrent.futures.thread"))


class Job:
    """Something to do once, as ``thread``."""

    __slots__ = ("_do", "_jobs", "_thread", "done", "number")

    def __init__(self, jobs: Jobs, number: int, thread: threading.Thread, do: Callable[[], None]) -> None:
        self.number = number  # of its machine
        self._jobs = jobs
        self._thread = thread
        self._do = do
        self.done = False

    @property
    def daemon(self) -> bool:
        return self._thread.daemon

    def run(self) -> None:
        """Do it, unless that was begun already."""
        if not self._jobs.begin(self):
            return
        threads: dict[int, threading.Thread] = vars(threading)["_active"]
        ident = threading.get_ident()
        before, threads[ident] = threads.get(ident), self._thread
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            contextvars.Context().run(self._do)
        finally:
            asyncio._set_running_loop(loop)
            if before is None:
                del threads[ident]
            else:
                threads[ident] = before
            self.done = True


class Jobs:
    """Those of one machine that are not begun yet."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._rng = owner.rng.fork()
        self._waiting: dict[Job, None] = {}  # in the order in which they came
        self._count = 0

    def add(self, thread: threading.Thread, do: Callable[[], None], *, after_ns: int = 0) -> Job:
        """A new job, ``after_ns`` or a little later. Raises RuntimeError when there are too many."""
        if len(self._waiting) >= MAX_JOBS:
            raise RuntimeError("can't start new thread")
        self._count += 1
        job = Job(self, self._owner.pid + self._count, thread, do)
        self._waiting[job] = None
        self._owner.call_later(after_ns + 1 + self._rng.below(_LATEST), job.run)
        return job

    def begin(self, job: Job) -> bool:
        """Take it out. False: somebody has."""
        if job not in self._waiting:
            return False
        del self._waiting[job]
        return True

    def finish(self) -> None:
        """The program has come to its end, and waits for threads that are no daemons, as Python does."""
        while left := [job for job in self._waiting if not job.daemon]:
            left[self._rng.below(len(left))].run()

    def until(self, come: Callable[[], bool], call: str) -> None:
        """The program waits, in ``call``, until ``come()``: do other jobs first, as chosen by the seed.

        When none is left, only what waits here could help. Raises EscapeError, which names what the program called.
        """
        while not come():
            if not self._waiting:
                raise EscapeError(
                    f"a blocking {_outermost(call)}",
                    "nothing else runs while it waits; await what asyncio has for it (asyncio.Event, asyncio.Queue …)",
                )
            list(self._waiting)[self._rng.below(len(self._waiting))].run()


def _outermost(call: str) -> str:
    """What the program itself called, if that is the standard library's, which then called us in the end."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in _WAITING:
            call = f"{module.removesuffix('._base')}.{frame.f_code.co_qualname}()"
        elif not module.startswith("libos.sim."):
            break
        frame = frame.f_back
    return call

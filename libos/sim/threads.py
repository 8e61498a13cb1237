"""``threading`` and ``concurrent.futures`` in a machine: no thread of the host's is started.

``Thread.start`` and ``ThreadPoolExecutor.submit`` (through it ``loop.run_in_executor`` and ``asyncio.to_thread``) make
a :class:`~libos.sim.jobs.Job`. Who waits for one (``join``, ``Future.result``, ``Event.wait``, ``Queue.get``, a lock)
has it done there and then. All of these wait for a lock in the end, and so the lock is where that happens.

Not seen: what a thread-local variable or an RLock makes of it (both know one thread only), and locks that were made
before the simulation began.
"""

from __future__ import annotations

import _thread
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from libos.sim.jobs import Job, Jobs
from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Function, Original, Patches

__all__ = ["own"]

_INSTEAD = "use threading.Thread or asyncio.to_thread(), which run inline"


def own(patches: Patches, ownership: Ownership) -> None:
    _own_thread(patches, ownership)
    _own_executor(patches, ownership)
    lock = _make_lock(ownership)
    patches.swap(_thread, "allocate_lock", lock)
    patches.swap(threading, "Lock", lock)
    patches.swap(queue, "SimpleQueue", vars(queue)["_PySimpleQueue"])  # the one in C waits by itself
    for name in ("start_new_thread", "start_new", "start_joinable_thread"):
        patches.function(_thread, name, ownership.refusal(f"_thread.{name}()", _INSTEAD))


# --- threads ---------------------------------------------------------------------------------------------------------


class _Numbers:
    """What a machine's threads and executors are called by, which the process counts otherwise."""

    def __init__(self, owner: Owner) -> None:
        self.threads = itertools.count(1)
        self.executors = itertools.count()


def _job_of(thread: threading.Thread) -> Job | None:
    return vars(thread).get("_libos_job")


def _own_thread(patches: Patches, ownership: Ownership) -> None:
    def start(original: Function) -> Function:
        def start(self: threading.Thread) -> None:
            own: Any = vars(self)
            if (owner := ownership.running()) is None or not own.get("_initialized"):
                original(self)
                return
            if own["_started"].is_set():
                raise RuntimeError("threads can only be started once")
            jobs = ownership.of(owner, Jobs)
            if isinstance(self, threading.Timer):
                job = jobs.add(self, lambda: _ring(self), after_ns=max(0, int(self.interval * 1e9)))
            else:
                job = jobs.add(self, lambda: _run(self))
            own.update(_libos_job=job, _ident=job.number, _native_id=job.number)
            own.update(_is_stopped=True, _handle=_Ended())  # what it has for good when the World is gone
            own["_started"].set()

        return start

    def join(original: Function) -> Function:
        def join(self: threading.Thread, timeout: float | None = None) -> None:
            job, owner = _job_of(self), ownership.running()
            if job is None:
                original(self, timeout)
            elif threading.current_thread() is self:
                raise RuntimeError("cannot join current thread")
            elif owner is not None and (timeout is None or timeout > 0):
                job.run()  # it may be one of those that are under way, and wait for this
                ownership.of(owner, Jobs).until(lambda: job.done, "threading.Thread.join()")

        return join

    def is_alive(original: Function) -> Function:
        def is_alive(self: threading.Thread) -> bool:
            job = _job_of(self)
            return original(self) if job is None else not job.done

        return is_alive

    def new_name(original: Original) -> Function:
        def name(template: str) -> Any:
            owner = ownership.running()
            return original(template) if owner is None else template % next(ownership.of(owner, _Numbers).threads)

        return name

    patches.function(threading, "_newname", new_name)
    patches.method(threading.Thread, "start", start)
    patches.method(threading.Thread, "join", join)
    patches.method(threading.Thread, "is_alive", is_alive)


class _Ended:
    """For Python 3.13 what _is_stopped is for those before."""

    ident = 0

    def is_done(self) -> bool:
        return True

    def join(self, timeout: float | None = None) -> None:
        pass


def _run(thread: threading.Thread) -> None:
    """As at the root of a thread: an exception goes to ``threading.excepthook``."""
    try:
        thread.run()
    except Exception:
        vars(thread)["_invoke_excepthook"](thread)
    except SystemExit:
        pass


def _ring(timer: threading.Timer) -> None:
    """A Timer whose interval has passed already."""
    if not timer.finished.is_set():
        timer.interval = 0
        _run(timer)


# --- executors -------------------------------------------------------------------------------------------------------


class _Pool:
    """What an executor has instead of threads."""

    def __init__(self, executor: Any) -> None:
        self.thread = threading.Thread(name=f"{executor._thread_name_prefix}_0", daemon=False)
        self.futures: dict[Future[Any], Job] = {}
        self._executor = executor
        self._ready = False

    def work(self, future: Future[Any], call: Callable[[], Any]) -> None:
        self.futures.pop(future, None)
        if not future.set_running_or_notify_cancel():
            return
        try:
            if not self._ready:
                self._ready = True
                self._initialize()
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _initialize(self) -> None:
        executor = self._executor
        if (initializer := getattr(executor, "_initializer", None)) is not None:
            try:
                initializer(*executor._initargs)
            except BaseException as error:
                executor._broken = "the initializer of the thread pool failed"
                raise BrokenThreadPool(executor._broken) from error


def _own_executor(patches: Patches, ownership: Ownership) -> None:
    def submit(original: Function) -> Function:
        def submit(self: Any, fn: Function, /, *args: Any, **kwargs: Any) -> Any:
            if (owner := ownership.running()) is None:
                return original(self, fn, *args, **kwargs)
            if self._broken:
                raise BrokenThreadPool(self._broken)
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            pool = vars(self).get("_libos_pool")
            if pool is None:
                pool = vars(self)["_libos_pool"] = _Pool(self)
            future: Future[Any] = Future()
            job = ownership.of(owner, Jobs).add(pool.thread, lambda: pool.work(future, lambda: fn(*args, **kwargs)))
            pool.futures[future] = job
            return future

        return submit

    def shutdown(original: Function) -> Function:
        def shutdown(self: Any, wait: bool = True, *, cancel_futures: bool = False) -> None:
            original(self, wait, cancel_futures=cancel_futures)
            pool: _Pool | None = vars(self).get("_libos_pool")
            if pool is None or ownership.running() is None:
                return
            for future, job in list(pool.futures.items()):
                if cancel_futures:
                    future.cancel()
                if wait:
                    job.run()

        return shutdown

    count: Function = vars(ThreadPoolExecutor)["_counter"]

    def number() -> Any:
        owner = ownership.running()
        return count() if owner is None else next(ownership.of(owner, _Numbers).executors)

    patches.value(ThreadPoolExecutor, "_counter", staticmethod(number))
    patches.method(ThreadPoolExecutor, "submit", submit)
    patches.method(ThreadPoolExecutor, "shutdown", shutdown)


# --- locks -----------------------------------------------------------------------------------------------------------


def _make_lock(ownership: Ownership) -> Any:
    """``threading.Lock``: one made in a machine knows how to wait there; others are the host's."""
    allocate = _thread.allocate_lock

    class Lock:
        __slots__ = ("__weakref__", "_lock")

        def __new__(cls) -> Any:
            return allocate() if ownership.running() is None else object.__new__(cls)

        def __init__(self) -> None:
            self._lock = allocate()

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            owner = ownership.running()
            if owner is None or not blocking or timeout == 0:
                return self._lock.acquire(blocking, timeout)
            if not self._lock.acquire(False):
                ownership.of(owner, Jobs).until(lambda: self._lock.acquire(False), "threading.Lock.acquire()")
            return True

        def release(self) -> None:
            self._lock.release()

        def locked(self) -> bool:
            return self._lock.locked()

        def _at_fork_reinit(self) -> None:
            self._lock = allocate()

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *exc_info: object) -> None:
            self._lock.release()

        def __repr__(self) -> str:
            return f"<{'locked' if self.locked() else 'unlocked'} threading.Lock of a machine>"

    return Lock

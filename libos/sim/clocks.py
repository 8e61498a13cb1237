"""``time`` and ``datetime`` by the clocks of the machine that runs.

Its wall clock is ``time.time``; every other clock of the process, the processor's time too, is its monotonic one: a
program computes in no time. The zone is UTC, for the whole process, because the C library has only one.
"""

from __future__ import annotations

import datetime
import errno
import os
import time
from typing import Any

from libos.errors import EscapeError, os_error
from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Function, Original, Patches

__all__ = ["own"]

_S = 1_000_000_000
_WALL = frozenset(
    vars(time)[name] for name in ("CLOCK_REALTIME", "CLOCK_TAI", "CLOCK_REALTIME_COARSE") if name in vars(time)
)
_STEADY = frozenset(value for name, value in vars(time).items() if name.startswith("CLOCK_")) - _WALL


def own(patches: Patches, ownership: Ownership) -> None:
    _own_clocks(patches, ownership)
    _own_calendar(patches, ownership)
    _own_datetime(patches, ownership)
    _set_zone(patches)


def _own_clocks(patches: Patches, ownership: Ownership) -> None:
    running = ownership.running

    # One closure for each, spelled out: programs look at the clock all the time.
    def steady(original: Original) -> Function:
        def read() -> float:
            owner = running()
            return original() if owner is None else owner.now_ns() / 1e9

        return read

    def steady_ns(original: Original) -> Function:
        def read() -> int:
            owner = running()
            return original() if owner is None else owner.now_ns()

        return read

    def wall(original: Original) -> Function:
        def read() -> float:
            owner = running()
            return original() if owner is None else owner.epoch_ns() / 1e9

        return read

    def wall_ns(original: Original) -> Function:
        def read() -> int:
            owner = running()
            return original() if owner is None else owner.epoch_ns()

        return read

    def by_number(unit: int) -> Any:
        def make(original: Original) -> Function:
            def read(clock: int, /) -> float:
                owner = running()
                if owner is None:
                    return original(clock)  # type: ignore[no-any-return]
                ns = _read(owner, clock)
                return ns if unit == 1 else ns / unit

            return read

        return make

    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        patches.function(time, name, steady)
        patches.function(time, f"{name}_ns", steady_ns)
    patches.function(time, "time", wall)
    patches.function(time, "time_ns", wall_ns)

    def sleep(original: Original) -> Function:
        def wait(seconds: float, /) -> None:
            owner = running()
            if owner is None:
                original(seconds)
            elif owner.sleep is None:
                raise EscapeError("time.sleep()", "it would stop everybody's time; await asyncio.sleep()")
            elif seconds < 0:
                raise ValueError("sleep length must be non-negative")
            else:
                owner.sleep(int(seconds * 1e9))

        return wait

    patches.function(time, "sleep", sleep)
    patches.function(time, "clock_gettime", by_number(_S))
    patches.function(time, "clock_gettime_ns", by_number(1))


def _read(owner: Owner, clock: int) -> int:
    if clock in _WALL:
        return owner.epoch_ns()
    if clock in _STEADY:
        return owner.now_ns()
    raise os_error(errno.EINVAL)


def _own_calendar(patches: Patches, ownership: Ownership) -> None:
    """The functions that mean now when they are not told when."""
    running = ownership.running

    def of_seconds(original: Original) -> Function:
        def convert(seconds: float | None = None, /) -> Any:
            if seconds is None and (owner := running()) is not None:
                seconds = owner.epoch_ns() // _S
            return original(seconds)

        return convert

    def asctime(original: Original) -> Function:
        return lambda *when: original(*(when or (time.localtime(),)))

    def strftime(original: Original) -> Function:
        return lambda format, *when: original(format, *(when or (time.localtime(),)))

    for name in ("localtime", "gmtime", "ctime"):
        patches.function(time, name, of_seconds)
    patches.function(time, "asctime", asctime)
    patches.function(time, "strftime", strftime)


def _own_datetime(patches: Patches, ownership: Ownership) -> None:
    """``date.today`` and ``datetime.today`` ask ``time.time``; these two do not."""
    running = ownership.running

    def now(original: Any) -> Function:
        def read(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
            owner = running()
            return original.__get__(None, cls)(tz) if owner is None else _now(cls, owner, tz)

        return read

    def utcnow(original: Any) -> Function:
        def read(cls: Any) -> Any:
            owner = running()
            return original.__get__(None, cls)() if owner is None else _now(cls, owner, None)

        return read

    patches.class_method(datetime.datetime, "now", now)
    patches.class_method(datetime.datetime, "utcnow", utcnow)


def _now(cls: Any, owner: Owner, tz: datetime.tzinfo | None) -> Any:
    seconds, ns = divmod(owner.epoch_ns(), _S)
    return cls.fromtimestamp(seconds, tz).replace(microsecond=ns // 1000)


def _set_zone(patches: Patches) -> None:
    before = os.environ.get("TZ")

    def put_back() -> None:
        os.unsetenv("TZ") if before is None else os.putenv("TZ", before)
        time.tzset()

    patches.also(put_back)
    os.putenv("TZ", "UTC0")
    time.tzset()

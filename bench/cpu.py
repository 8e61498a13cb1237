"""The host's cpus, and the CPU time that processes have used of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator

__all__ = ["children_ns", "clock_of", "one_cpu"]


@contextlib.contextmanager
def one_cpu() -> Iterator[int]:
    """This thread, and what it starts, on the last of its cpus."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(usable)})
    try:
        yield max(usable)
    finally:
        os.sched_setaffinity(0, usable)


def children_ns() -> int:
    """CPU time of the children that were waited for: between two calls, of those alone that ended between them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((used.ru_utime + used.ru_stime) * 1e9)


def clock_of(pid: int) -> int:
    """For ``time.clock_gettime_ns``: the CPU time of the process. Raises OSError."""
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return clock.value

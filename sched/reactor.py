"""The reactor: where one machine waits, and who is called when it wakes.

A :class:`Reactor` is a thin face over ``reactor.c``. One turn (``objects/turns.c``) is one call into it; it comes back
with an array of events, each ``token << 16 | mask``, and calls the sink that ``sinks`` holds for each token. Nothing
else stands between a packet and a protocol: no handle, no queue, no key object.

Tokens: a host descriptor's is its number; a socket's of an attached poller is ``base | socket id``.

Events are level-triggered: as long as a condition holds and is wanted, each turn reports it. A sink may be
called once more than there is reason for (its socket was replaced by another sink of the same turn) and must not
mind. Sinks do not raise; what comes out of one all the same (``KeyboardInterrupt``) comes out of :meth:`turn`, and the
events behind it come again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, Literal

from libos._loop import Turns
from libos._native import ffi, lib
from libos.clock import Clock
from libos.errors import HostError, check

__all__ = [
    "EV_ERROR",
    "EV_GONE",
    "EV_READ",
    "EV_REQUEST",
    "EV_SENT",
    "EV_WRITE",
    "NEVER",
    "HostSockets",
    "Reactor",
    "address",
]

EV_READ: int = lib.EV_READ
EV_WRITE: int = lib.EV_WRITE
EV_ERROR: int = lib.EV_ERROR
EV_REQUEST: int = lib.EV_REQUEST
EV_SENT: int = lib.EV_SENT
EV_GONE = 1 << 15  # whoever drives the socket goes away: told by Python to every sink, never by C
NEVER: int = lib.REACTOR_NEVER

Sink = Callable[[int], object]

RING_ENTRIES = 256
POLLER_SHIFT = 40


class Reactor(Turns):
    """Waits in io_uring or in epoll.

    ``kind`` is what is wanted; ``auto`` takes io_uring and, where the host refuses it, epoll. Afterwards
    ``reactor.kind`` says what it became, and ``reactor.fell_back`` why it is not io_uring. ``clock`` must run with
    the host's ``CLOCK_MONOTONIC``. ``spin_us`` is how long a wait polls before it blocks.

    One thread at a time; raises :class:`HostError` when the host refuses what was asked for by name.
    """

    def __init__(self, kind: Literal["auto", "io_uring", "epoll"] = "auto", *, clock: Clock, spin_us: int = 0) -> None:
        if kind not in ("auto", "io_uring", "epoll"):
            raise ValueError(f"no reactor {kind!r}: auto, io_uring or epoll")
        self.clock = clock
        self.now: Callable[[], int] = clock.now
        self.fell_back: str | None = None
        self._hosts: HostSockets | None = None
        self.handle: Any = None
        out = ffi.new("struct reactor **")
        if kind != "epoll":
            refusal = _new_ring(out, clock.offset % 2**64)
            if refusal is not None and kind == "io_uring":
                raise HostError(f"no io_uring here: {refusal}")
            self.fell_back = refusal
        if kind == "epoll" or self.fell_back is not None:
            check(lib.reactor_new_epoll(out, clock.offset % 2**64), "epoll")
        self.handle = out[0]
        self.kind: str = "epoll" if kind == "epoll" or self.fell_back is not None else "io_uring"
        lib.reactor_set_spin(self.handle, spin_us * 1000)
        self._bind(address(self.handle), address(lib.reactor_turn_ops()))

    @property
    def inherited(self) -> bool:
        """Whether this process was forked from the reactor's own: then it can only be closed."""
        return self.handle is not None and lib.reactor_inherited(self.handle) == 1

    def attach(self, poller: Any) -> int:
        """Drive ``poller`` (a ``struct poller *``) from now on. The base of its sockets' tokens."""
        return check(lib.reactor_attach(self.handle, poller), "attach") << POLLER_SHIFT

    def detach(self, poller: Any) -> None:
        """Let go of ``poller``. Its sockets' sinks are the caller's to remove."""
        check(lib.reactor_detach(self.handle, poller), "detach")

    def watch(self, fd: int, mask: int, sink: Sink) -> None:
        """Call ``sink(mask)`` in each turn in which ``fd`` is ready for what ``mask`` (EV_READ | EV_WRITE) wants.

        A hang-up or an error counts as both. Watching anew replaces mask and sink. Raises what epoll_ctl(2) does:
        ``PermissionError`` for a regular file.
        """
        check(lib.reactor_watch(self.handle, fd, mask))
        self.sinks[fd] = sink

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``, which may be closed already. Not an error if it is not watched."""
        if self.sinks.pop(fd, None) is not None and self.handle is not None:
            check(lib.reactor_watch(self.handle, fd, 0))

    @property
    def hosts(self) -> HostSockets:
        """The host's stream sockets on this reactor. Made when they are first asked for."""
        if self._hosts is None:
            self._hosts = HostSockets(self.handle, self.sinks)
        return self._hosts

    def _refused(self, rc: int) -> None:
        check(rc, "waiting")

    # --- inside another loop, see embed.c ------------------------------------------------------------------------

    def embed(self) -> int:
        """A descriptor that is readable when :meth:`poll` has something to do. It stays ours."""
        return check(lib.reactor_embed(self.handle), "embed")

    def unembed(self) -> None:
        if self.handle is not None:
            lib.reactor_unembed(self.handle)

    def statistics(self) -> dict[str, int]:
        """Counts since the start."""
        out = ffi.new("uint64_t[]", lib.REACTOR_COUNTERS)
        lib.reactor_counters(self.handle, out)
        names = ("turns", "blocked", "completions", "submissions", "events", "restarts", "overflows")
        return dict(zip(names, ffi.unpack(out, lib.REACTOR_COUNTERS), strict=True))

    def close(self) -> None:
        """Let go of the host. Pollers are detached and their links freed before. May be called twice."""
        if self.handle is not None:
            if self.turning:
                raise RuntimeError("Cannot close a reactor in a turn")
            self._unbind()
            if self._hosts is not None:
                self._hosts.close()
            lib.reactor_free(self.handle)
            self.handle = None
            self.sinks.clear()


class HostSockets:
    """The host's stream sockets of one reactor: see ``host.py`` for what they look like."""

    def __init__(self, reactor: Any, sinks: dict[int, Sink]) -> None:
        out = ffi.new("struct host_sockets **")
        check(lib.hosts_new(out, reactor))
        self.handle = out[0]
        self.sinks = sinks
        self.base: int = lib.hosts_base(self.handle)
        self.owner = address(self.handle)
        self.ops = address(lib.host_stream_ops())

    def close(self) -> None:
        """Whoever still has a socket here hears that it is gone."""
        number = self.base >> POLLER_SHIFT
        told = [sink for token, sink in self.sinks.items() if token >> POLLER_SHIFT == number]
        for sink in told:
            sink(EV_GONE)
        lib.hosts_free(self.handle)  # only now the kernel reads nothing more of what a sink has lent to it


def address(pointer: Any) -> int:
    """Of a cffi pointer, for ``libos._loop``."""
    return int(ffi.cast("uintptr_t", pointer))


def _new_ring(out: Any, clock_offset: int) -> str | None:
    """Put an io_uring reactor into ``out``; or why there can be none."""
    try:
        import liburing  # type: ignore[import-untyped]
    except ImportError as error:
        return f"the liburing package does not load ({error})"
    library = liburing.liburing.__file__
    rc = lib.reactor_new_ring(out, os.fsencode(library), RING_ENTRIES, clock_offset)
    if rc >= 0:
        return None
    if rc in (-errno.EPERM, -errno.EACCES):
        return "io_uring_setup is not permitted (a container's seccomp filter, or the sysctl kernel.io_uring_disabled)"
    if rc == -errno.ENOSYS:
        return "this kernel is too old or built without it (Linux 5.11 is the oldest that will do)"
    return f"io_uring_setup: {os.strerror(-rc)}"

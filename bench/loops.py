"""The event loops that the benchmarks compare, by name."""

from __future__ import annotations

import asyncio

import libos

__all__ = ["LOOPS", "new_loop"]

LOOPS = ("asyncio", "uvloop", "libos-host", "libos-host-epoll", "libos-tap")


def new_loop(name: str, **settings: object) -> asyncio.AbstractEventLoop:
    """The loop of this name; ``settings`` are of libos's machine."""
    match name:
        case "asyncio":
            return asyncio.new_event_loop()
        case "uvloop":
            import uvloop

            return uvloop.new_event_loop()
        case "libos-host":
            return libos.new_event_loop("host", reactor="io_uring", **settings)
        case "libos-host-epoll":
            return libos.new_event_loop("host", reactor="epoll", **settings)
        case "libos-tap":
            return libos.new_event_loop("tap", **settings)
    raise ValueError(f"no loop {name!r}")

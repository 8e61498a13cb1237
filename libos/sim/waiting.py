"""What everybody is waiting for: programs, their tasks, and where each task awaits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libos.sim.world import World

__all__ = ["describe"]

DEPTH_MAX = 100


def describe(world: World) -> str:
    """One paragraph for each program that has not ended."""
    lines = []
    for program in world.unfinished():
        lines.append(f"  {program}{' (daemon)' if program.daemon else ''}:")
        if program.until is not None:
            left = program.until - program.machine.reactor.now()
            lines.append(f"    sleeps for another {left / 1e9:.6f} s")
        elif program.loop is None:
            lines.append("    has not run yet")
        for task in program.tasks():
            lines.append(f"    task {task.get_name()}:")
            lines += [f"      {place}" for place in await_stack(task)] or ["      is ready"]
        if program.loop is not None and not program.tasks():
            lines.append("    a loop without tasks")
    return "\n".join(lines)


def await_stack(task: Any) -> Iterator[str]:
    """From the task's coroutine down to what it awaits at last."""
    awaitable = task.get_coro()
    for _ in range(DEPTH_MAX):
        frame = _first(awaitable, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            break
        code = frame.f_code
        yield f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"
        awaitable = _first(awaitable, "cr_await", "gi_yieldfrom", "ag_await")
        if awaitable is None:
            return
    if awaitable is not None and awaitable is not task.get_coro():
        yield f"{type(awaitable).__name__}"


def _first(thing: object, *names: str) -> Any:
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)

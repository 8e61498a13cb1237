"""What is kept of a failing run: it is run once more, with captures and a record of its events.

    DIR/seed17/log.txt          what the programs wrote, merged, with virtual times; and what failed
    DIR/seed17/events.txt       every visit, draw, line, end and fault, with the digest that it led to
    DIR/seed17/*.pcap           a capture of every wire's end at a machine
    DIR/seed17/timeline.html    all of it in one picture

Captures change nothing of what happens: the second run has the first one's digest, or the scenario is not
deterministic, which the log says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TextIO

from libos.sched.sim import EVENT_BYTES, unpack_events
from libos.sim.capture import frames_of
from libos.sim.faults import is_healed
from libos.sim.record import EVENT_NAMES
from libos.sim.timeline import Action, Timeline
from libos.sim.times import show
from libos.sim.trial import Outcome, ScenarioFile
from libos.sim.world import World

__all__ = ["run_and_keep"]

EVENTS_MAX = 1 << 20
FRAMES_MAX = 1 << 18


def run_and_keep(
    scenario: ScenarioFile, first: Outcome, out: str | os.PathLike[str], suffix: str = "", **options: Any
) -> Path:
    """The folder that it made. ``options``: the World's, as they were."""
    folder = Path(out) / f"seed{first.seed}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.pcap"):
        old.unlink()
    with scenario.world(first.seed, capture=folder, **options) as world:
        world.sim.record(EVENTS_MAX)
        again = scenario.run(world)
        with open(folder / "events.txt", "w", encoding="utf-8") as file:
            _write_events(world, file)
        with open(folder / "log.txt", "w", encoding="utf-8", errors="backslashreplace") as file:
            _write_log(world, first, again, file)
    # The captures are whole now.
    frames = frames_of(world.captures, world.epoch, FRAMES_MAX)
    picture = Timeline(
        title=f"{scenario.file.name}, seed {first.seed}",
        failed=again.failed or "",
        machines=list(world.machines),
        end=again.time,
        lines=list(world.log),
        frames=frames,
        actions=_actions(world, again.time),
    )
    (folder / "timeline.html").write_text(picture.html(), encoding="utf-8", errors="backslashreplace")
    return folder


def _actions(world: World, end: int) -> list[Action]:
    """What the world did, and the faults: each a band for as long as it lasted, in the lane of whom it concerns."""
    found = [Action(at, what) for at, what in world.actions]
    heals = [(at, fault) for at, fault in world.applied if fault.kind == "heal"]
    for at, fault in world.applied:
        if fault.kind == "heal":
            found.append(Action(at, str(fault)))
            continue
        healed = (when for when, heal in heals if when > at and is_healed(fault, heal))
        last = min(at + fault.duration if fault.duration else end, next(healed, end), end)
        found.append(Action(at, str(fault), last, [name for name in fault.a if name in world.machines]))
    return sorted(found, key=lambda action: action.time)


def _write_events(world: World, file: TextIO) -> None:
    raw = world.sim.events()
    for when, value, who, kind in unpack_events(raw):
        file.write(f"{show(when)} {world.names[who]}: {EVENT_NAMES.get(kind, kind)} ({value:016x})\n")
    if len(raw) == EVENTS_MAX * EVENT_BYTES:
        file.write(f"(these are the first {EVENTS_MAX}; there may be more)\n")
    file.write(f"digest {world.digest}\n")


def _write_log(world: World, first: Outcome, again: Outcome, file: TextIO) -> None:
    file.write(world.log.text())
    if world.log.dropped:
        file.write(f"(the {world.log.dropped} oldest lines are not here)\n")
    file.write(f"\nseed {again.seed}, at {show(again.time)} s: {again.failed}\n\n{again.trace}")
    if (first.digest, first.failed) != (again.digest, again.failed):
        file.write(
            f"\nThe scenario is not deterministic: the run before had the digest {first.digest}, this one"
            f" {again.digest}.\nBefore, it failed so: {first.failed}\n"
        )

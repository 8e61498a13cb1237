"""A process that runs the seeds it is told: ``python -m libos.sim.worker``, the other end of ``hunt.py``.

It reads a request in each line of its standard input (the first one names the scenario), and answers each with a line
on what was its standard output; while it shrinks, with ``{"alive": true}`` after each run before that. What a scenario
prints outside of machines goes to standard error. Its end is the end of its input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, TextIO

from libos.errors import LibosError
from libos.sim.faults import Fault
from libos.sim.keep import run_and_keep
from libos.sim.shrink import shrink
from libos.sim.times import to_ns
from libos.sim.trial import Outcome, ScenarioFile, summary

__all__ = ["serve"]

REAL_LIMIT = "5min"  # of a run, unless told otherwise


def serve(requests: TextIO, answer: Callable[[Mapping[str, Any]], object]) -> None:
    """Answer all requests: the scenario's ``{"file", "limits"}``, then seeds: ``{"seed", "out", "shrink"}``."""
    first = json.loads(requests.readline())
    try:
        scenario = ScenarioFile.load(first["file"], first["limits"])
    except LibosError as error:
        answer({"refused": str(error)})
        return
    except Exception as error:
        answer({"refused": f"{first['file']}: {summary(error)}"})
        return
    if scenario.limits.real_limit is None:
        scenario.limits = replace(scenario.limits, real_limit=REAL_LIMIT)
    answer({"real_limit": to_ns(scenario.limits.real_limit or REAL_LIMIT) / 1e9})
    for line in requests:
        request = json.loads(line)
        outcome, faults = _run(scenario, request["seed"])
        if outcome.failed is not None and request["out"] is not None:
            run_and_keep(scenario, outcome, request["out"])
        if outcome.failed is not None and request["shrink"]:
            outcome = _shrink(scenario, outcome, faults, request["out"], lambda: answer({"alive": True}))
        answer(asdict(outcome))


def _run(scenario: ScenarioFile, seed: int, **options: Any) -> tuple[Outcome, list[tuple[int, Fault]]]:
    with scenario.world(seed, **options) as world:
        return scenario.run(world), world.applied


def _shrink(
    scenario: ScenarioFile,
    first: Outcome,
    faults: list[tuple[int, Fault]],
    out: str | None,
    alive: Callable[[], object],
) -> Outcome:
    """With the few faults that are enough for the same failure."""
    if not faults:
        return first

    def fails(some: list[tuple[int, Fault]]) -> bool:
        again, _ = _run(scenario, first.seed, faults=some)
        alive()
        return again.is_like(first)

    found = shrink(faults, fails)
    if not found.reproduced:
        return replace(first, runs=found.runs)
    small, _ = _run(scenario, first.seed, faults=found.items)
    if out is not None:
        folder = run_and_keep(scenario, small, out, "-shrunk", faults=found.items)
        (folder / "faults.json").write_text(json.dumps(found.items) + "\n")
    return replace(first, shrunk=small.faults, runs=found.runs)


def main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, lambda what: print(json.dumps(what), file=answers, flush=True))


if __name__ == "__main__":
    main()

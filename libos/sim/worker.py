"""A process that runs the seeds it is told: ``python -m libos.sim.worker``, the other end of ``hunt.py``.

It reads a request in each line of its standard input (the first one names the scenario), and answers each with a line
on what was its standard output; what a scenario prints outside of machines goes to standard error. Its end is the end
of its input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TextIO

from libos.errors import LibosError
from libos.sim.keep import run_and_keep
from libos.sim.scenario import Outcome, Scenario, summary

__all__ = ["serve"]


def serve(requests: TextIO, answer: Callable[[Mapping[str, Any]], object]) -> None:
    """Answer all requests: the scenario's ``{"file", "limits"}``, then seeds: ``{"seed", "out"}``."""
    first = json.loads(requests.readline())
    try:
        scenario = Scenario.load(first["file"], first["limits"])
    except LibosError as error:
        answer({"refused": str(error)})
        return
    except Exception as error:
        answer({"refused": f"{first['file']}: {summary(error)}"})
        return
    answer({"ready": True})
    for line in requests:
        request = json.loads(line)
        answer(asdict(_run(scenario, request["seed"], request["out"])))


def _run(scenario: Scenario, seed: int, out: str | None) -> Outcome:
    with scenario.world(seed) as world:
        outcome = scenario.run(world)
    if outcome.failed is not None and out is not None:
        run_and_keep(scenario, outcome, out)
    return outcome


def main() -> None:
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, lambda what: print(json.dumps(what), file=answers, flush=True))


if __name__ == "__main__":
    main()

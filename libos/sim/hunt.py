"""Many seeds of a scenario in several processes: the failing ones are what is looked for.

Each worker (``worker.py``) is a process of its own, with ``PYTHONHASHSEED=0``, and has one seed at a time. One that
dies, or that is silent for much longer than a run may take (code that never hands over), is ended and replaced, and its
seed has failed. Workers are out of the terminal's reach: Ctrl-C is the parent's business, who ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from libos.errors import ConfigError
from libos.sim.trial import Outcome

__all__ = ["Hunt", "hunt"]

ANSWER_MAX = 16 << 20
GRACE = 5.0  # s that a worker may be later than its limit of real time


@dataclass(frozen=True, slots=True)
class Hunt:
    """``limits``: given on the command line."""

    file: str
    limits: Mapping[str, Any]
    jobs: int = 1
    out: str | None = None
    shrink: bool = False
    grace: float = GRACE


async def hunt(plan: Hunt, seeds: Iterable[int], tell: Callable[[Outcome], object]) -> None:
    """Run them all, and tell each one's outcome. Raises ConfigError if the scenario cannot be run at all."""
    left = iter(seeds)
    workers = [asyncio.ensure_future(_work(plan, left, tell)) for _ in range(plan.jobs)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _work(plan: Hunt, left: Iterator[int], tell: Callable[[Outcome], object]) -> None:
    seed = next(left, None)
    while seed is not None:
        async with _worker(plan) as (worker, patience):
            while seed is not None:
                outcome = await _ask(worker, plan, seed, patience)
                tell(outcome)
                seed = next(left, None)
                if worker.returncode is not None:
                    break


async def _ask(worker: asyncio.subprocess.Process, plan: Hunt, seed: int, patience: float) -> Outcome:
    _send(worker, {"seed": seed, "out": plan.out, "shrink": plan.shrink})
    try:
        while "alive" in (answer := await asyncio.wait_for(_receive(worker), patience)):
            pass
    except TimeoutError:
        await _end(worker)
        return Outcome(seed, f"did not hand over for {patience:g} s of real time, and was ended")
    except EOFError:
        return Outcome(seed, await _death(worker))
    return Outcome.of_json(answer)


@contextlib.asynccontextmanager
async def _worker(plan: Hunt) -> AsyncIterator[tuple[asyncio.subprocess.Process, float]]:
    """One that is ready, and the seconds after which it has been silent for too long."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "libos.sim.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        limit=ANSWER_MAX,
        start_new_session=True,
    )
    try:
        _send(worker, {"file": plan.file, "limits": dict(plan.limits)})
        try:
            answer = await _receive(worker)
        except EOFError:
            raise ConfigError(f"{plan.file}: {await _death(worker)}") from None
        if "refused" in answer:
            raise ConfigError(answer["refused"])
        yield worker, answer["real_limit"] + plan.grace
    finally:
        await _end(worker)


def _send(worker: asyncio.subprocess.Process, what: Mapping[str, Any]) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(what).encode() + b"\n")


async def _receive(worker: asyncio.subprocess.Process) -> dict[str, Any]:
    assert worker.stdout is not None
    line = await worker.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _death(worker: asyncio.subprocess.Process) -> str:
    status = await worker.wait()
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"the process that ran it ended {how}"


async def _end(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    await worker.wait()

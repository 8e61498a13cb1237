"""``libos sim``: a scenario for one seed, with what its machines say; or for many, looking for those that fail.

Everything a run depends on is in the command: sets of strings would have another order in each process, so one seed is
run by an interpreter with ``PYTHONHASHSEED=0`` (this one is replaced if it has another), and so are many (``hunt.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from libos.errors import ConfigError, LibosError
from libos.sim.faults import Fault
from libos.sim.hunt import Hunt, hunt
from libos.sim.keep import run_and_keep
from libos.sim.output import Line
from libos.sim.seeds import parse_seeds
from libos.sim.times import show
from libos.sim.trial import Limits, Outcome, ScenarioFile, summary

__all__ = ["sim"]

SHOWN_MAX = 20  # failing seeds with a line each on the terminal


@click.command()
@click.argument("scenario", metavar="SCENARIO.py")
@click.option("--seeds", metavar="A..B", help="Run all of these, both ends included; also a list: 1,5,10..19.")
@click.option("--seed", metavar="N", help="Run this one (0, unless told otherwise), and print what its machines say.")
@click.option("--jobs", metavar="N", type=click.IntRange(1, 256), default=1, help="So many processes. Default: 1.")
@click.option("--until", metavar="TIME", help="Stop at this virtual time: 60s, 1.5h. Default: when all programs ended.")
@click.option("--real-limit", metavar="TIME", help="A run that takes longer has failed. With --seeds: 5min.")
@click.option("--shrink", is_flag=True, help="Reduce the faults of failing seeds to the few that are enough.")
@click.option("--faults", metavar="FILE", help="With --seed: these faults, that were shrunk and kept, and no others.")
@click.option("--out", metavar="DIR", help="Keep log, captures, events and a timeline of each failing seed there.")
def sim(
    scenario: str,
    seeds: str | None,
    seed: str | None,
    jobs: int,
    shrink: bool,
    faults: str | None,
    out: str | None,
    **limits: str | None,
) -> None:
    """Run a scenario of simulated machines: one seed, or many to find those that fail.

    SCENARIO.py defines scenario(world), which fills a libos.sim.World; if it likes, check(world), called after the run;
    and SETTINGS, a dict with until, real_limit, virtual_limit, epoch. A seed fails if any of it raises.

    \b
    libos sim scenario.py --seeds 0..999 --jobs 2 --out failures
    libos sim scenario.py --seed 17

    The exit status is 1 if a seed failed. Ctrl-C ends it with what was found so far.
    """
    if seeds is not None and seed is not None:
        raise ConfigError("--seed and --seeds: one of them")
    if seeds is None and shrink:
        raise ConfigError("--shrink: with --seeds, of one seed too (--seeds 17)")
    if seeds is not None and faults is not None:
        raise ConfigError("--faults: with --seed")
    Limits().with_settings(limits)  # or a worker would complain
    if not Path(scenario).is_file():
        raise ConfigError(f"{scenario}: no such file")
    if out is not None:
        _make(out)
    if seeds is None:
        failed = _one(scenario, parse_seeds("--seed", seed or "0")[0], limits, out, faults)
    else:
        failed = _many(scenario, parse_seeds("--seeds", seeds), limits, out, jobs, shrink)
    sys.exit(failed)


def read_faults(file: str) -> list[tuple[int, Fault]]:
    """As ``--out`` keeps them."""
    try:
        read = json.loads(Path(file).read_text(encoding="utf-8"))
        return [(when, Fault(kind, tuple(a), tuple(b), value, lasts)) for when, (kind, a, b, value, lasts) in read]
    except OSError as error:
        raise ConfigError(f"--faults {file}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"--faults {file}: not a list of faults, as --out keeps one") from None


def _make(out: str) -> None:
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from None


# --- one -------------------------------------------------------------------------------------------------------------


def _one(file: str, seed: int, limits: dict[str, str | None], out: str | None, faults: str | None) -> int:
    _fix_hash_seed()
    options: dict[str, Any] = {} if faults is None else {"faults": read_faults(faults)}
    try:
        scenario = ScenarioFile.load(file, limits)
    except LibosError:
        raise
    except Exception as error:
        raise ConfigError(f"{file}: {summary(error)}") from None
    width = 0

    def echo(line: Line) -> None:
        nonlocal width
        width = max(width, len(line.machine))
        print(f"{show(line.time):>13} {line.machine:<{width}} | {line.text}", file=sys.__stdout__, flush=True)

    with scenario.world(seed, echo=echo, **options) as world:
        try:
            outcome = scenario.run(world)
        except KeyboardInterrupt:
            print(f"interrupted at {show(world.now)} s, seed {seed}", file=sys.stderr)
            return 130
    if outcome.failed is None:
        print(f"seed {seed}: right, {show(outcome.time)} s in {outcome.took:.2f} s, digest {outcome.digest}")
        return 0
    print(f"\n{outcome.trace.rstrip()}\n\nseed {seed}: {_failure(outcome)}", file=sys.stderr)
    if out is not None:
        print(f"kept in {run_and_keep(scenario, outcome, out, **options)}", file=sys.stderr)
    return 1


def _fix_hash_seed() -> None:
    """Sets of strings have the same order in each run; for that the interpreter must begin anew."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})


# --- many ------------------------------------------------------------------------------------------------------------


def _many(
    file: str, seeds: Sequence[int], limits: dict[str, str | None], out: str | None, jobs: int, shrink: bool
) -> int:
    done: list[Outcome] = []
    plan = Hunt(file, limits, jobs=min(jobs, len(seeds)), out=out, shrink=shrink)
    columns = TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    interrupted = False
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("none failed", total=len(seeds))

        def tell(outcome: Outcome) -> None:
            done.append(outcome)
            failures = sum(1 for each in done if each.failed is not None)
            bar.update(task, advance=1, description=f"{failures or 'none'} failed")

        try:
            asyncio.run(hunt(plan, seeds, tell))
        except KeyboardInterrupt:
            interrupted = True
    return _report(file, seeds, done, limits, out, interrupted)


def _report(
    file: str,
    seeds: Sequence[int],
    done: list[Outcome],
    limits: dict[str, str | None],
    out: str | None,
    interrupted: bool,
) -> int:
    failures = sorted((each for each in done if each.failed is not None), key=lambda each: each.seed)
    given = [word for name in ("until", "real_limit") if limits[name] for word in _as_option(name, limits[name])]
    for outcome in failures[:SHOWN_MAX]:
        print(f"seed {outcome.seed}: {_failure(outcome)}")
        again = ["libos", "sim", file, "--seed", str(outcome.seed), *given]
        if outcome.shrunk is not None:
            print(f"  of its {len(outcome.faults)} faults {len(outcome.shrunk)} are enough ({outcome.runs} runs):")
            print("".join(f"    {fault}\n" for fault in outcome.shrunk), end="")
            if out is not None:
                again += ["--faults", f"{out}/seed{outcome.seed}-shrunk/faults.json"]
        elif outcome.faults:
            print(f"  after {len(outcome.faults)} faults")
        print(f"  {shlex.join(again)}")
    if len(failures) > SHOWN_MAX:
        print(
            f"and {len(failures) - SHOWN_MAX} more: {','.join(str(each.seed) for each in failures[SHOWN_MAX:][:100])}"
        )
    if failures and out is not None:
        print(f"kept in {out}: {', '.join(f'seed{each.seed}' for each in failures[:SHOWN_MAX])}")
    virtual = sum(each.time for each in done) / 1e9
    stopped = f"interrupted after {len(done)} of " if interrupted else ""
    print(f"{stopped}{len(seeds)} seeds, {len(failures)} failed; {virtual:.1f} s of virtual time")
    return 130 if interrupted and not failures else 1 if failures else 0


def _as_option(name: str, value: Any) -> tuple[str, str]:
    return f"--{name.replace('_', '-')}", str(value)


def _failure(outcome: Outcome) -> str:
    # Of a run that did not come to its end nobody knows the time.
    at = f"at {show(outcome.time)} s"
    return f"{outcome.failed}, {at}" if outcome.digest and at not in str(outcome.failed) else str(outcome.failed)

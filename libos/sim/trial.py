"""A scenario: a file that says what is in a world, run for one seed after the other.

    SETTINGS = {"until": "60s"}     # optional: until, real_limit, virtual_limit, epoch

    def scenario(world):            # machines, networks, faults
        ...

    def check(world):               # optional: after the run, raises if something is wrong
        ...

A run has failed when any of the two raises, or the run in between. All that happens to a seed is an :class:`Outcome`,
which travels between processes as JSON.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from libos.clock import MonotonicClock
from libos.errors import ConfigError
from libos.sim.times import show, to_ns
from libos.sim.world import World

__all__ = ["Limits", "Outcome", "ScenarioFile"]

_LIBOS = f"{Path(__file__).resolve().parent.parent}{os.sep}"
LINE_MAX = 160


@dataclass(frozen=True, slots=True)
class Limits:
    """How :meth:`World.run <libos.sim.world.World.run>` is called."""

    until: str | float | None = None
    real_limit: str | float | None = None
    virtual_limit: str | float = "30d"
    epoch: int | None = None

    def __post_init__(self) -> None:
        for name in ("until", "real_limit", "virtual_limit"):
            value = getattr(self, name)
            try:
                if value is not None:
                    to_ns(value)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"{name}: {error}") from None

    def with_settings(self, given: Mapping[str, Any]) -> Limits:
        """Those that are given there too."""
        given = {name: value for name, value in given.items() if value is not None}
        if wrong := sorted(given.keys() - asdict(self).keys()):
            raise ConfigError(f"SETTINGS: {wrong[0]}: allowed: {', '.join(asdict(self))}")
        return replace(self, **given)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed. ``failed``: what went wrong, in a line; ``trace``: all that is known about it."""

    seed: int
    failed: str | None = None
    time: int = 0  # virtual, ns
    digest: str = ""
    took: float = 0.0  # real, s
    trace: str = ""
    faults: tuple[str, ...] = ()  # that were applied, a line each
    shrunk: tuple[str, ...] | None = None  # those of them that are enough
    runs: int = 0  # that this took

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Outcome:
        shrunk = fields["shrunk"]
        return cls(**{**fields, "faults": (*fields["faults"],), "shrunk": None if shrunk is None else (*shrunk,)})

    def is_like(self, other: Outcome) -> bool:
        """Whether both failed, and by the same kind of error."""
        kinds = [str(each.failed).partition(" ")[0].partition(":")[0] for each in (self, other)]
        return self.failed is not None and other.failed is not None and kinds[0] == kinds[1]


class ScenarioFile:
    """Made by :meth:`load`."""

    def __init__(
        self,
        build: Callable[[World], object],
        check: Callable[[World], object] | None,
        limits: Limits,
        file: Path,
    ) -> None:
        self.build = build
        self.check = check
        self.limits = limits
        self.file = file

    @classmethod
    def load(cls, file: str | Path, given: Mapping[str, Any]) -> ScenarioFile:
        """Run the file as a module, with its folder first in ``sys.path``. ``given`` wins over its SETTINGS.
        Raises ConfigError if it is none; what the file itself raises is raised as it is."""
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"{file}: no such file")
        name = f"libos_scenario_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{file}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look there
        sys.path.insert(0, str(path.resolve().parent))
        try:
            spec.loader.exec_module(module)
        except SyntaxError as error:
            raise ConfigError(f"{file}:{error.lineno}: {error.msg}") from None
        build, check = getattr(module, "scenario", None), getattr(module, "check", None)
        if not callable(build):
            raise ConfigError(f"{file}: there is no function scenario(world) in it")
        if inspect.iscoroutinefunction(build) or inspect.iscoroutinefunction(check):
            raise ConfigError(f"{file}: scenario and check are ordinary functions, not coroutines")
        settings = getattr(module, "SETTINGS", {})
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{file}: SETTINGS is a dict")
        limits = Limits().with_settings(settings).with_settings(given)
        return cls(build, check if callable(check) else None, limits, path)

    def world(self, seed: int, **options: Any) -> World:
        """A new one of that seed, still empty."""
        if self.limits.epoch is not None:
            options["epoch"] = self.limits.epoch
        return World(seed, **options)

    def run(self, world: World) -> Outcome:
        """All of it in ``world``, which stays open. Ctrl-C is raised, whatever else goes wrong is in the Outcome."""
        clock = MonotonicClock()
        began = clock.now()
        error: BaseException | None = None
        limits = self.limits
        try:
            self.build(world)
            world.run(limits.until, virtual_limit=limits.virtual_limit, real_limit=limits.real_limit)
            if self.check is not None:
                self.check(world)
        except KeyboardInterrupt:
            raise
        except BaseException as caught:
            error = caught
        outcome = Outcome(
            world.seed,
            time=world.now,
            digest=world.digest,
            took=(clock.now() - began) * 1e-9,
            faults=tuple(f"{show(when)} {fault}" for when, fault in world.applied),
        )
        if error is None:
            return outcome
        trace = "".join(traceback.format_exception(type(error), error, _outside_libos(error.__traceback__)))
        return replace(outcome, failed=summary(error), trace=trace)


def summary(error: BaseException) -> str:
    """In one line: what, and where in the user's code."""
    text = next(iter(str(error).splitlines()), "")
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if len(line) > LINE_MAX:
        line = f"{line[: LINE_MAX - 1]}…"
    if (place := _place(error.__traceback__)) is not None:
        line += f" ({place})"
    return line


def _place(trace: TracebackType | None) -> str | None:
    """The innermost frame that is neither libos's nor the standard library's."""
    library = str(Path(traceback.__file__).parent)
    for frame in reversed(traceback.extract_tb(trace)):
        if not frame.filename.startswith((_LIBOS, "<")) and (
            not frame.filename.startswith(library) or "site-packages" in frame.filename
        ):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return None


def _outside_libos(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames of libos that it begins with: how a world runs a program interests nobody here."""
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename.startswith(_LIBOS):
        at = at.tb_next
    return at if at is not None else trace

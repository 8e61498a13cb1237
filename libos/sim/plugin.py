"""The pytest plug-in: tests that run in a simulated world, for many seeds.

    @pytest.mark.libos_sim(seeds=50)
    def test_it(world):
        world.machine("server", serve, daemon=True)
        world.machine("client", ask, args=("server",))
        world.run()

``world`` is a :class:`~libos.sim.world.World`, closed after the test; each seed is a test of its own (``[seed17]``).
``seeds`` is how many, or a sequence of them; ``--libos-seeds`` says otherwise: how many, ``A..B``, or ``A,B``. Without
the mark there is one seed, 0. What else the mark is given is given to the World. A failure says which seed it was, how
to repeat it, and what the programs wrote.

Whoever has libos installed has this imported by pytest: it imports nothing itself until somebody asks for a world.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from libos.sim.world import World

MARK = "libos_sim"
SEEDS = 10  # of a mark that does not say how many
LINES_SHOWN = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("libos")
    group.addoption("--libos-seeds", metavar="N|A..B", help="Seeds for tests marked libos_sim, instead of theirs.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}(seeds=N): run with N seeds in a simulated world (libos)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker(MARK)
    if mark is None:
        return
    if "world" not in metafunc.fixturenames:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: marked {MARK}, but takes no world")
    seeds = _seeds(metafunc.config, mark)
    metafunc.parametrize("world", seeds, ids=[f"seed{seed}" for seed in seeds], indirect=True)


def _seeds(config: pytest.Config, mark: pytest.Mark) -> Sequence[int]:
    text: str | None = config.getoption("--libos-seeds")
    if text is None:
        seeds = mark.kwargs.get("seeds", SEEDS)
        return range(seeds) if isinstance(seeds, int) else [*seeds]
    from libos.errors import ConfigError
    from libos.sim.seeds import parse_seeds

    if text.isdecimal():
        return range(int(text))
    try:
        return parse_seeds("--libos-seeds", text)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A simulated world (libos.sim.World) of its own; see the mark libos_sim for many seeds."""
    from libos.sim.world import World

    mark = request.node.get_closest_marker(MARK)
    options = {name: value for name, value in mark.kwargs.items() if name != "seeds"} if mark is not None else {}
    with World(getattr(request, "param", 0), **options) as world:
        request.node.stash[_WORLD] = world
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    world = item.stash.get(_WORLD, None)
    if world is not None and call.when == "call" and report.failed:
        report.sections.append(("libos world", _describe(item, world)))
    if world is not None and call.when == "teardown":
        del item.stash[_WORLD]
    return report


def _describe(item: pytest.Item, world: World) -> str:
    from libos.sim.record import hash_seed_is_fixed
    from libos.sim.times import show

    again = shlex.join(["pytest", item.nodeid])
    if item.config.getoption("--libos-seeds") is not None and item.get_closest_marker(MARK) is not None:
        again += f" --libos-seeds {world.seed}..{world.seed}"
    if not hash_seed_is_fixed():
        again += "    # with PYTHONHASHSEED=0 for both, if it iterates over sets of strings"
    elif "PYTHONHASHSEED" in os.environ:
        again = f"PYTHONHASHSEED={os.environ['PYTHONHASHSEED']} {again}"
    lines = [f"seed {world.seed}, at {show(world.now)} s, digest {world.digest}", f"again: {again}"]
    log = list(world.log)
    if len(log) > LINES_SHOWN:
        lines.append(f"(the last {LINES_SHOWN} of {len(log)} lines)")
    return "\n".join([*lines, *map(str, log[-LINES_SHOWN:])])


_WORLD = pytest.StashKey[Any]()

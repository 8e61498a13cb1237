"""The pytest plug-in, in small projects of their own, each run by a pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each starts an interpreter, and a pytest in it

BODY = """
import asyncio
import pytest

async def hello():
    await asyncio.sleep(1)
    print("hello")

@pytest.mark.libos_sim(seeds=5, epoch=10**18)
def test_many(world):
    assert world.epoch == 10**18
    world.machine("a", hello)
    world.run()
    assert world.seed != 3

@pytest.mark.libos_sim(seeds=[7, 9])
class TestInAClass:
    def test_it(self, world):
        assert world.seed in (7, 9)

def test_one(world):
    assert world.seed == 0
"""

Pytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    def run(text: str, *args: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n")
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-m", "pytest", "-p", "libos.sim.plugin", "-p", "no:cacheprovider", "-q", *args]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_each_seed_is_a_test(run_pytest: Pytest) -> None:
    done = run_pytest(BODY)
    assert done.returncode == 1
    assert "FAILED test_it.py::test_many[seed3]" in done.stdout
    assert "1 failed, 7 passed" in done.stdout
    assert re.search(r"^seed 3, at 1.000000 s, digest [0-9a-f]{16}$", done.stdout, re.MULTILINE)
    assert "PYTHONHASHSEED=0 pytest 'test_it.py::test_many[seed3]'" in done.stdout
    assert "\n1.000000 a: hello\n" in done.stdout
    alone = run_pytest(BODY, "test_it.py::test_many[seed3]")
    assert "1 failed" in alone.stdout


def test_the_command_line_says_which(run_pytest: Pytest) -> None:
    done = run_pytest(BODY, "--libos-seeds", "3", "-k", "many")
    assert done.returncode == 0
    assert "3 passed" in done.stdout
    done = run_pytest(BODY, "--libos-seeds", "2..4", "-k", "many")
    assert "1 failed, 2 passed" in done.stdout
    assert "--libos-seeds 3..3" in done.stdout
    done = run_pytest(BODY, "--libos-seeds", "4..2")
    assert done.returncode != 0
    assert "4..2 is no range of seeds" in done.stdout + done.stderr


def test_a_mark_without_a_world_is_a_mistake(run_pytest: Pytest) -> None:
    done = run_pytest("import pytest\n@pytest.mark.libos_sim\ndef test_it(): pass")
    assert done.returncode != 0
    assert "takes no world" in done.stdout + done.stderr


def test_it_costs_nothing_for_others(run_pytest: Pytest) -> None:
    """No extension is loaded, and a fixture of the project's own name wins."""
    done = run_pytest(
        "import pytest, sys\n"
        "@pytest.fixture\n"
        "def world(): return 'mine'\n"
        "def test_it(world):\n"
        "    assert world == 'mine'\n"
        "    assert {each for each in sys.modules if each.startswith('libos')} == "
        "{'libos', 'libos.sim', 'libos.sim.plugin'}\n"
        "    assert 'greenlet' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stdout

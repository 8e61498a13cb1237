"""``libos sim``: which seeds fail, what is said and kept of them, and how the command ends."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from libos.errors import ConfigError
from libos.sim import World
from libos.sim.capture import frames_of
from libos.sim.hunt import Hunt, hunt
from libos.sim.output import Line
from libos.sim.seeds import parse_seeds
from libos.sim.timeline import Action, Timeline
from libos.sim.trial import Outcome, ScenarioFile
from tests.sim.echo import ask, serve

# The client gives up on a wire that loses frames: some seeds fail, most do not.
HASTY = """
import asyncio

async def serve():
    async def handle(reader, writer):
        while line := await reader.readline():
            print("asked", line.decode().strip())
            writer.write(line)
        writer.close()
    server = await asyncio.start_server(handle, port=7)
    await server.serve_forever()

async def ask(host):
    reader, writer = await asyncio.open_connection(host, 7)
    for i in range(5):
        writer.write(b"%d\\n" % i)
        print("got", await asyncio.wait_for(reader.readline(), 0.15))
    writer.close()

def scenario(world):
    world.network(wire="delay=5ms,jitter=2ms,loss=2%")
    world.machine("server", serve, daemon=True)
    world.machine("client", ask, args=("server",))
    world.at("40ms", world_says_so)

def world_says_so():
    pass

def check(world):
    assert world.time < 10
"""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def libos_sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``libos sim``, in a folder of its own, on a scenario with this text."""
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)

    def run(text: str, *args: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "scenario.py").write_text(text)
        command = [sys.executable, "-m", "libos", "sim", "scenario.py", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


def failing(text: str) -> list[int]:
    return [int(seed) for seed in re.findall(r"^seed (\d+):", text, re.MULTILINE)]


# --- many seeds ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_seeds_that_fail_do_so_again(libos_sim: Command, tmp_path: Path) -> None:
    done = libos_sim(HASTY, "--seeds", "0..19", "--jobs", "2", "--out", "kept")
    assert done.returncode == 1, done.stderr
    failed = failing(done.stdout)
    assert 0 < len(failed) < 20
    assert f"20 seeds, {len(failed)} failed" in done.stdout
    first = failed[0]
    line = re.search(rf"^seed {first}: (TimeoutError \(scenario.py:\d+\), at [\d.]+ s)$", done.stdout, re.MULTILINE)
    assert line is not None, done.stdout
    assert f"\n  libos sim scenario.py --seed {first}\n" in done.stdout

    again = libos_sim(HASTY, "--seed", str(first))
    assert again.returncode == 1
    assert line[1] in again.stderr
    assert "in ask" in again.stderr  # the traceback
    kept = (tmp_path / "kept" / f"seed{first}" / "log.txt").read_text()
    said = re.findall(r"^ *([\d.]+) (\w+) +\| (.*)$", again.stdout, re.MULTILINE)
    assert [f"{at} {who}: {what}" for at, who, what in said] == kept.split("\n\n")[0].splitlines()
    assert "not deterministic" not in kept

    folder = tmp_path / "kept" / f"seed{first}"
    names = {"log.txt", "events.txt", "timeline.html", "server-net.pcap", "client-net.pcap"}
    assert {file.name for file in folder.iterdir()} == names
    picture = (folder / "timeline.html").read_text()
    assert "world_says_so" in picture
    assert 'class="lost"' in picture
    assert not {f"seed{seed}" for seed in range(20) if seed not in failed} & {
        each.name for each in folder.parent.iterdir()
    }


@pytest.mark.slow
def test_none_fails(libos_sim: Command) -> None:
    done = libos_sim("def scenario(world):\n    world.machine('a', print, args=('hello',))", "--seeds", "3,5..6")
    assert (done.returncode, done.stdout) == (0, "3 seeds, 0 failed; 0.0 s of virtual time\n")
    one = libos_sim("def scenario(world):\n    world.machine('a', print, args=('hello',))", "--seed", "3")
    assert one.returncode == 0
    assert one.stdout.startswith("     0.000000 a | hello\nseed 3: right, 0.000000 s in ")


@pytest.mark.slow
def test_faults_are_shrunk_and_the_few_fail_again(libos_sim: Command, tmp_path: Path) -> None:
    text = """
import asyncio
SETTINGS = {"until": "10s"}
def scenario(world):
    for name in "abc":
        world.machine(name, asyncio.sleep, args=(20,))
    for i in range(10):
        world.at(f"{i}s").pause("a" if i % 2 else "b", lasts="300ms")
    world.at("3500ms").clog("c", lasts="1s")
    world.at("9500ms").heal()
def check(world):
    kinds = [fault.kind for _, fault in world.applied]
    assert world.seed == 0 or not ("clog" in kinds and kinds.count("pause") > 1), "both"
"""
    done = libos_sim(text, "--seeds", "0..1", "--shrink", "--out", "kept")
    assert done.returncode == 1, done.stderr
    said = re.search(r"\n  of its 12 faults 3 are enough \(\d+ runs\):\n((?:    .*\n)+)  libos sim (.*)\n", done.stdout)
    assert said is not None, done.stdout
    few = [line.strip() for line in said[1].splitlines()]
    assert len(few) == 3
    assert "3.500000 clog c for 1 s" in few
    again = libos_sim(text, *said[2].split()[1:])
    assert again.returncode == 1
    assert "AssertionError: both (scenario.py:" in again.stderr
    picture = (tmp_path / "kept" / "seed1-shrunk" / "timeline.html").read_text()
    assert picture.count('class="band"') == 3
    width = re.search(r'class="band" [^>]*width="([\d.]+)"[^>]*><title>3.500000 s  clog c', picture)
    assert width is not None
    assert 124 < float(width[1]) < 127  # a second of ten


@pytest.mark.slow
def test_a_seed_that_kills_its_process_or_holds_it(tmp_path: Path) -> None:
    text = """
SETTINGS = {"real_limit": 0.1}
import faulthandler
def scenario(world):
    world.machine("a", misbehave, args=(world.seed,))
def misbehave(seed):
    if seed == 1:
        faulthandler._sigsegv()
    while seed == 3:
        pass
"""
    (tmp_path / "scenario.py").write_text(text)
    found: list[Outcome] = []
    asyncio.run(hunt(Hunt(str(tmp_path / "scenario.py"), {}, grace=0.2), range(5), found.append))
    assert [(each.seed, each.failed) for each in found] == [
        (0, None),
        (1, "the process that ran it ended by SIGSEGV"),
        (2, None),
        (3, "did not hand over for 0.3 s of real time, and was ended"),
        (4, None),
    ]


@pytest.mark.slow
def test_ctrl_c_reports_what_was_found(libos_sim: Command, tmp_path: Path) -> None:
    (tmp_path / "scenario.py").write_text(
        "import sys, pathlib\n"
        "def scenario(world):\n"
        "    if world.seed == 1:\n"
        "        raise ValueError('one')\n"
        "    if world.seed == 2:\n"
        "        pathlib.Path('there').touch()\n"
        "        while True: pass\n"
    )
    command = [sys.executable, "-m", "libos", "sim", "scenario.py", "--seeds", "0..999999"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "there").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1, err
    assert failing(out) == [1]
    assert "interrupted after 2 of 1000000 seeds, 1 failed" in out
    assert "Traceback" not in err


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1", "no function scenario"),
        ("async def scenario(world): pass", "not coroutines"),
        ("def scenario(:", "scenario.py:1: invalid syntax"),
        ("def scenario(world): pass\nSETTINGS = 3", "SETTINGS is a dict"),
        ("def scenario(world): pass\nSETTINGS = {'util': '3s'}", "SETTINGS: util: allowed: until,"),
        ("def scenario(world): pass\nSETTINGS = {'until': '3 parsecs'}", "until: '3 parsecs' is no time"),
    ],
)
def test_what_is_no_scenario(tmp_path: Path, text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "scenario.py").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        ScenarioFile.load(tmp_path / "scenario.py", {})


@pytest.mark.slow
def test_mistakes_are_one_line(libos_sim: Command) -> None:
    done = libos_sim("import nosuch", "--seeds", "0..3")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("ModuleNotFoundError: No module named 'nosuch' (scenario.py:1)")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["", "x", "3..", "..3", "9..1", "1;2", "-1", "1..2..3", "99999999999999999999"])
def test_what_are_no_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds("--seeds", text)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", range(7, 8)), ("0..3", range(4)), ("5,1..2,5", [5, 1, 2]), ("0..9", range(10))],
)
def test_seeds(text: str, seeds: Iterable[int]) -> None:
    assert parse_seeds("--seeds", text) == seeds


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_captures_change_nothing_and_show_all(tmp_path: Path) -> None:
    def run(**options: Path) -> tuple[World, str]:
        with World(seed=5, **options) as world:  # type: ignore[arg-type]
            world.network(wire="delay=5ms,jitter=2ms,loss=3%,duplicate=2%,corrupt=1%")
            server = world.machine("server", serve, daemon=True)
            client = world.machine("client", ask, args=("server",))
            world.wire(server, client, "delay=1ms")
            world.run()
            stats.append([way for wire in world.networks["net"].wires.values() for way in wire.stats()])
            return world, world.digest

    stats: list[list[dict[str, int]]] = []
    seen, digest = run(capture=tmp_path)
    assert digest == run()[1]
    assert [each.file.name for each in seen.captures] == [
        *("server-net.pcap", "client-net.pcap", "server-client@server.pcap", "server-client@client.pcap")
    ]
    on_net = frames_of(seen.captures[:2], seen.epoch, 1 << 20)
    arrived = [each for each in on_net if each.came is not None]
    assert len(arrived) == sum(way["out_packets"] for way in stats[0][1::2])
    whole = [each for each in arrived if each.sent is not None]
    assert all(10**7 <= each.came - each.sent < 15 * 10**6 for each in whole if each.came and each.sent is not None)
    assert any(each.came is None for each in on_net)  # lost
    assert any(each.sent is None for each in on_net)  # damaged
    assert any(each.what.startswith("TCP ") and "> 7 SYN" in each.what for each in on_net)


def test_text_in_the_picture_is_text() -> None:
    evil = "<script>alert('&')</script>\x1b[31m"
    lines = [Line(5, evil, "stdout", evil)]
    picture = Timeline(evil, evil, [evil], 10, lines, [], [Action(3, evil), Action(4, evil, 6, [evil])])
    html = picture.html()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")  # nothing from elsewhere


def test_a_picture_of_nothing() -> None:
    assert "<svg" in Timeline("a", "", [], 0, [], []).html()

"""Nothing of the host gets through: every public function, in two interpreters with other hash seeds, says the same.

The child is run twice. It calls what the modules offer with arguments that fit somebody, and prints what came of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = """
import datetime, os, platform, random, secrets, socket, sys, tempfile, threading, time, uuid, logging
sys.path.insert(0, sys.argv[1])
from fake import world

ARGUMENTS = [(), (3,), (0,), (7, 9), (0.25, 0.75), ("a",), (b"abc",), ([3, 1, 2],), ("%c", ), (1.5, 2.0, 1.75)]

def functions():
    for module in (time, random, uuid, secrets):
        for name, value in sorted(vars(module).items()):
            if callable(value) and name[0] != "_" and (module, name) not in ((uuid, "main"), (time, "sleep")):
                yield f"{module.__name__}.{name}", value
    for cls in (random.Random, random.SystemRandom):
        for name in sorted(vars(random.Random) | vars(cls).keys()):
            if name[0] != "_":
                yield f"{cls.__name__}().{name}", lambda *a, cls=cls, name=name: getattr(cls(), name)(*a)
    for name in ("now", "today", "utcnow"):
        yield f"datetime.{name}", getattr(datetime.datetime, name)
    for name in ("getpid", "getppid", "times", "cpu_count", "getloadavg", "urandom", "getrandom"):
        yield f"os.{name}", getattr(os, name)
    yield "date.today", datetime.date.today
    yield "astimezone", lambda: datetime.datetime.now().astimezone()
    yield "gethostname", socket.gethostname
    yield "environ", lambda: dict(os.environ)
    yield "node", platform.node
    yield "mktemp", lambda: tempfile.mktemp(dir="/nowhere")
    yield "record", lambda: sorted((k, v) for k, v in vars(logging.makeLogRecord({})).items() if k != "thread")

with world() as fake:
    for owner in (fake.alpha, fake.beta):
        with fake(owner):
            for name, function in functions():
                for arguments in ARGUMENTS:
                    try:
                        said = repr(function(*map(list_or_same, arguments)))
                    except Exception as error:
                        said = repr(error)
                    fake.report.append((owner.name, name, arguments, said))
for line in fake.report:
    print(*line)
""".replace("map(list_or_same, arguments)", "(list(a) if type(a) is list else a for a in arguments)").replace(
    "with world() as fake:\n", "with world() as fake:\n    fake.report = []\n"
)


def lines(hash_seed: str, zone: str) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone, "PYTHONWARNINGS": "ignore"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    return re.sub(r" at 0x[0-9a-f]+", "", child.stdout).splitlines()


@pytest.mark.slow
def test_two_interpreters_see_the_same() -> None:
    first, second = lines("1", "UTC"), lines("2", "America/New_York")
    differ = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
    assert not differ
    assert len(first) > 1500
    fine = [line for line in first if "Error(" not in line]
    assert len(fine) > 300

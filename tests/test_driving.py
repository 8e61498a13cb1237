"""What docs/driving.md says of driving a stack from outside, tried: its examples, and a program in C."""

from __future__ import annotations

import doctest
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "build" / "libos-stack"

EXPECTED = """\
 0.000 S. 0 bytes
 0.010 P. 5 bytes
 0.210 P. 5 bytes
rtt 10000 us, 1 retransmissions
 0.500 . 0 bytes
 0.500 F. 0 bytes
0 sockets, 0 buffers left
"""


def test_the_examples_of_the_page() -> None:
    failed, tried = doctest.testfile(str(ROOT / "docs" / "driving.md"), module_relative=False)
    assert tried > 20
    assert not failed


@pytest.fixture(scope="module")
def library() -> Path:
    """As a user builds it."""
    if not shutil.which("make") or not shutil.which("cc"):
        pytest.skip("needs make and a C compiler")
    subprocess.run(["make", "--silent", "libos-stack"], cwd=ROOT, check=True, capture_output=True)
    return LIBRARY


@pytest.mark.slow
@pytest.mark.parametrize("how", ["shared", "static"])
def test_a_program_in_c(library: Path, tmp_path: Path, how: str) -> None:
    """examples/drive.c, against the library of either kind"""
    program = tmp_path / "drive"
    link = [f"-L{library}", "-l:libos-stack.so", f"-Wl,-rpath,{library}"]
    if how == "static":
        link = [str(library / "libos-stack.a"), "-ldl"]
    command = [
        "cc",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{library}",
        str(ROOT / "examples" / "drive.c"),
        "-o",
        str(program),
    ]
    subprocess.run(command + link, check=True)
    run = subprocess.run([program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == EXPECTED


@pytest.mark.slow
def test_the_library_shows_what_its_header_declares(library: Path) -> None:
    """And nothing else, so that it can live in another program."""
    if not shutil.which("nm"):
        pytest.skip("needs binutils")
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", library / "libos-stack.so"], capture_output=True, text=True, check=True
    ).stdout
    header = (library / "libos-stack.h").read_text()
    names = [line.split()[2] for line in symbols.splitlines()]
    assert "drive_new" in names
    assert [name for name in names if f"{name}(" not in header] == []

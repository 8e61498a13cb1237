"""``known.toml``: which of CPython's tests are run, which are left out, and which have another outcome than asyncio's.

Three kinds of entries, each with its reason:

``left-out``    tests that are not run, for they say nothing of our loop
``internal``    tests that fail because they look at what asyncio keeps to itself
``difference``  tests that fail because a program can notice a difference. Each has an entry of that name in
                ``docs/asyncio-differences.md``, which may list others, that no test of CPython's shows
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "docs" / "asyncio-differences.md"


@dataclass(frozen=True)
class Entry:
    tests: tuple[str, ...]
    reason: str
    name: str = ""  # of the heading in the document
    python: str = ""  # "3.12": from this version on; "-3.11": up to this one
    reactor: str = ""

    @property
    def is_for_this_python(self) -> bool:
        wanted = tuple(int(part) for part in self.python.removeprefix("-").split(".") if part)
        here = sys.version_info[: len(wanted)]
        return here <= wanted if self.python.startswith("-") else here >= wanted

    def covers(self, test: str, reactor: str) -> bool:
        return self.reactor in ("", reactor) and any(fnmatchcase(test, pattern) for pattern in self.tests)


@dataclass(frozen=True)
class Known:
    """What is true of the running interpreter."""

    modules: dict[str, float]
    left_out: tuple[Entry, ...]
    deviations: tuple[Entry, ...]

    def reason(self, test: str, reactor: str) -> str | None:
        """Why ``test`` fails, if it is to."""
        return next((entry.reason for entry in self.deviations if entry.covers(test, reactor)), None)


def load() -> Known:
    table = tomllib.loads((HERE / "known.toml").read_text())

    def entries(kind: str) -> tuple[Entry, ...]:
        found = (_entry(**fields) for fields in table.get(kind, ()))
        return tuple(entry for entry in found if entry.is_for_this_python)

    return Known(table["modules"], entries("left-out"), entries("internal") + entries("difference"))


def _entry(tests: list[str], **fields: Any) -> Entry:
    return Entry(tuple(tests), **fields)


def headings() -> list[str]:
    """The differences that the document tells of."""
    return [line.removeprefix("## ") for line in DOCUMENT.read_text().splitlines() if line.startswith("## ")]

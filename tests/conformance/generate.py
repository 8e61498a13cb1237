"""``docs/tcp-conformance.md``: what the standards ask, and the tests that show it.

A test says in its docstring what it shows: ``RFC 9293 3.8.4 (MUST-25): off unless asked for``, ``RFC 2018 3: ...``.
Requirements of RFC 9293 are named by the labels of its appendix B; of other documents by number and section. Nothing
else is kept by hand but what is asked (``rfc9293.toml``, with reasons for what is not done, and ``rfcs.toml``).

``python tests/conformance/generate.py`` (``make conformance``) writes the file.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DOCUMENT = ROOT / "docs" / "tcp-conformance.md"

LABEL = re.compile(r"\b(?:MUST|SHLD|MAY|REC)-\d+\b")
PLACE = r"(?:figures? |appendix |sections? |and |erratum )*(?:[A-Z]\.)?\d+(?:\.\d+)*(?: ?\((?:[a-z][\w.]{0,3}|\d)\))*"
MENTION = re.compile(rf"\bRFC (\d+)((?:,? {PLACE})*)")
LEAST_RFC = 500  # a plain number above this is a document, below it a section


class Test(NamedTuple):
    """A test and what its docstring names."""

    path: str
    name: str
    doc: str

    @property
    def labels(self) -> set[str]:
        return set(LABEL.findall(self.doc))

    @property
    def documents(self) -> dict[int, list[str]]:
        """RFC numbers, each with the places in it."""
        found: dict[int, list[str]] = {}
        for number, tail in MENTION.findall(" ".join(self.doc.split())):
            places = found.setdefault(int(number), [])
            for place in filter(None, (part.strip() for part in tail.split(","))):
                if place.isdigit() and int(place) > LEAST_RFC:
                    places = found.setdefault(int(place), [])
                elif place not in places:
                    places.append(place)
        return found

    def link(self, note: str = "") -> str:
        return f"[`{self.name}`](../{self.path})" + (f" ({note})" if note else "")


def tests() -> list[Test]:
    """Every test function that has a docstring, by file and place."""
    return [
        Test(file.relative_to(ROOT).as_posix(), node.name, ast.get_docstring(node) or "")
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]


def requirements() -> dict[str, tuple[str, str]]:
    """By label: section, and what is asked."""
    table = tomllib.loads((HERE / "rfc9293.toml").read_text())["requirements"]
    return {label: (section, asks) for label, (section, asks) in table.items()}


def reasons() -> dict[str, str]:
    return dict(tomllib.loads((HERE / "rfc9293.toml").read_text())["reasons"])


def documents() -> dict[str, dict[int, str]]:
    """By area: number, and what it is about."""
    areas = tomllib.loads((HERE / "rfcs.toml").read_text())
    return {area: {int(number): title for number, title in rows.items()} for area, rows in areas.items()}


LEVELS = {
    "MUST": "What must be",
    "SHLD": "What should be",
    "REC": "What is recommended",
    "MAY": "What may be",
}
AREAS = {"tcp": "Other documents on TCP", "network": "Below and around TCP", "more": "Named besides"}
HEAD = """\
# Conformance of TCP

Generated from the docstrings of the tests by `make conformance`; a test fails when it is out of date, or when there is
something in it that must be and neither is shown by a test nor has a reason. Requirements are those of RFC 9293,
appendix B, by its labels; what they ask is told in our words.
"""


def render() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    shown: defaultdict[str, list[Test]] = defaultdict(list)
    about: defaultdict[int, list[Test]] = defaultdict(list)
    for test in tests():
        for label in test.labels:
            shown[label].append(test)
        for number in test.documents:
            about[number].append(test)
    why = reasons()
    yield HEAD
    yield "## RFC 9293"
    for level, title in LEVELS.items():
        rows = [(label, *row) for label, row in requirements().items() if label.startswith(level + "-")]
        done = sum(bool(shown[label]) for label, _, _ in rows)
        yield f"\n### {title}\n\n{done} of {len(rows)} shown by a test.\n"
        yield "| | section | asks | shown by |"
        yield "|---|---|---|---|"
        for label, section, asks in rows:
            cell = "<br>".join(test.link() for test in shown[label]) or why.get(label, "No test.")
            yield f"| {label} | {section} | {asks} | {cell} |"
    areas = documents()
    known = {9293}.union(*areas.values())
    areas["more"] = dict.fromkeys(sorted(about.keys() - known), "")
    for area, title in AREAS.items():
        yield f"\n## {title}\n"
        yield "| RFC | about | shown by (section) |"
        yield "|---|---|---|"
        for number, subject in areas[area].items():
            cell = "<br>".join(test.link(", ".join(test.documents[number])) for test in about[number]) or "No test."
            yield f"| [{number}](https://www.rfc-editor.org/rfc/rfc{number}) | {subject} | {cell} |"


if __name__ == "__main__":
    DOCUMENT.write_text(render())

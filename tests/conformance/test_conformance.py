"""The table of what the standards ask: everything in it is known, shown or answered for, and up to date."""

from __future__ import annotations

from . import generate


def test_what_must_be_is_shown_or_answered_for() -> None:
    shown = {label for test in generate.tests() for label in test.labels}
    missing = [
        label
        for label in generate.requirements()
        if label.startswith("MUST") and label not in shown and label not in generate.reasons()
    ]
    assert not missing, f"name them in the docstrings of tests, or give reasons in rfc9293.toml: {missing}"


def test_labels_are_those_of_the_rfc() -> None:
    known = generate.requirements()
    assert len(known) == 119
    for test in generate.tests():
        assert test.labels <= known.keys(), f"{test.path}, {test.name}: {test.labels - known.keys()}"


def test_reasons_are_for_what_is_not_shown() -> None:
    shown = {label for test in generate.tests() for label in test.labels}
    assert not shown & generate.reasons().keys()
    assert generate.reasons().keys() <= generate.requirements().keys()


def test_the_document_is_up_to_date() -> None:
    assert generate.DOCUMENT.read_text() == generate.render(), "run `make conformance`, and commit what it wrote"


def test_what_a_docstring_names() -> None:
    def named(doc: str) -> dict[int, list[str]]:
        return generate.Test("", "", doc).documents

    assert named("RFC 6298 2.1, 5.5: after 1 s; RFC 9293 figure 7") == {6298: ["2.1", "5.5"], 9293: ["figure 7"]}
    assert named("RFC 5681 3.2, RFC 6582 3.2 step 3") == {5681: ["3.2"], 6582: ["3.2"]}
    assert named("RFC 1122 3.2.1.3 (c), and what RFC 5681, 6582 say") == {1122: ["3.2.1.3 (c)"], 5681: [], 6582: []}
    assert generate.Test("", "", "RFC 9293 3.8.4 (MUST-25, SHLD-12)").labels == {"MUST-25", "SHLD-12"}

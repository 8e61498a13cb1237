"""What ``libos ss`` and its like have in common: which machine, as what, and what to say when one keeps us waiting."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

__all__ = ["Show", "look_command", "title"]

Show = Callable[[], None]


def look_command(name: str, *views: str) -> Callable[[Callable[..., Show]], click.Command]:
    """A command of ``libos`` that asks machines for ``views``. The function gets their answers as its first argument,
    may narrow them down, and returns what prints them; with ``--json`` they are printed as they then are."""

    def make(function: Callable[..., Show]) -> click.Command:
        def run(process: str, as_json: bool, **options: Any) -> None:
            from libos.look.client import look

            answers = look(process, views, _say_slow)
            show = function(answers, **options)
            if as_json:
                import msgspec

                print(msgspec.json.format(msgspec.json.encode(answers)).decode())
            else:
                show()

        run.__doc__ = function.__doc__
        vars(run)["__click_params__"] = vars(function).get("__click_params__", [])
        command = click.option("--json", "as_json", is_flag=True, help="For programs: all fields, times in ns.")(run)
        command = click.option(
            "-p", "--process", default="", metavar="PID|NAME", help="One machine, by its pid or a part of its program."
        )(command)
        return click.command(name)(command)

    return make


def _say_slow(pid: int) -> None:
    print(f"libos: machine {pid} keeps us waiting: the program does not turn its loop", file=sys.stderr, flush=True)


def title(machine: Mapping[str, Any]) -> str:
    """One line: which machine this is."""
    where = " and ".join(machine["addresses"])
    return f"machine {machine['pid']}: {machine['program']} (world {machine['world']}{where and ', '}{where})"

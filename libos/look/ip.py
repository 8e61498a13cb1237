"""``libos ip``: addresses, routes and neighbours of running machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from libos.look.command import Show, look_command, title

__all__ = ["ip"]

_VIEWS = ("addresses", "routes", "neighbours")


@look_command("ip", *_VIEWS)
@click.argument("what", required=False, type=click.Choice(["addr", "route", "neigh"]))
def ip(answers: list[dict[str, Any]], what: str | None) -> Show:
    """Show addresses, routes and neighbours of machines that run, as ip(8) does.

    \b
    libos ip
    libos ip neigh --json
    """
    for said in answers:
        for view in _VIEWS:
            if what is not None and not view.startswith(what):
                del said[view]

    def show() -> None:
        for at, said in enumerate(answers):
            print("\n" * bool(at) + title(said["machine"]))
            if said["machine"]["world"] == "host":
                print("its network is the kernel's: ip shows it")
                continue
            for line in lines(said):
                print(line)

    return show


def lines(said: Mapping[str, Any]) -> Iterator[str]:
    """Of one machine."""
    for index, addresses in said.get("addresses", {}).items():
        for row in addresses:
            rival = f" taken by {row['rival']}" if row["rival"] else ""
            yield f"addr {row['address']}/{row['prefix']} dev {device(index)} {row['origin']} {row['state']}{rival}"
    for row in said.get("routes", ()):
        network = "default" if row["network"].endswith("/0") else row["network"]
        via = f" via {row['gateway']}" if row["gateway"] else ""
        yield f"route {network}{via} dev {device(row['interface'])}"
    for index, neighbours in said.get("neighbours", {}).items():
        for row in neighbours:
            where = f" lladdr {row['mac']}" if row["mac"] else ""
            router = " router" if row["router"] else ""
            yield f"neigh {row['address']} dev {device(index)}{where}{router} {row['state']}"


def device(index: str | int) -> str:
    """Interfaces have numbers; the first is the loopback."""
    return "lo" if int(index) == 1 else f"if{index}"

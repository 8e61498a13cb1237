"""What ``libos run`` says about its machine, on stderr: a line when it is up, a screen when it is down."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libos.machine import Machine

__all__ = ["print_booted", "print_summary"]

# Guest ports whose users open a URL.
_SCHEMES = MappingProxyType({80: "http", 443: "https", 3000: "http", 5000: "http", 8000: "http", 8080: "http"})


def booted(machine: Machine) -> str:
    """One line: the world, its addresses, and where to reach it."""
    config = machine.config
    parts = [f"world {config.net} on {machine.reactor.kind}"]
    addresses = " and ".join(interface.partition("/")[0] for interface in machine.addresses)
    if machine.tap:
        parts.append(f"{addresses} on {machine.tap}")
    elif addresses:
        parts.append(f"{addresses} behind a gateway")
    else:
        parts.append("the host's own addresses")
    if machine.gateway is not None:
        parts.extend(_published(machine.gateway.published))
    elif config.publish:
        parts.append(f"nothing to publish in world {config.net}")
    return "libos: " + ", ".join(parts)


def _published(bound: list[tuple[str, int, int, str]]) -> list[str]:
    parts = []
    for address, port, guest, protocol in bound:
        if address == "::1" and ("127.0.0.1", port, guest, protocol) in bound:
            continue  # one of the two is enough to tell
        host = f"[{address}]" if ":" in address else address
        scheme = _SCHEMES.get(guest) if protocol == "tcp" else None
        parts.append(f"open {scheme}://{host}:{port}/" if scheme else f"{host}:{port}/{protocol} -> {guest}")
    return parts


def print_booted(machine: Machine) -> None:
    if machine.reactor.fell_back:
        print(f"libos: {machine.reactor.fell_back}", file=sys.stderr)
    print(booted(machine), file=sys.stderr, flush=True)


def print_summary(machine: Machine, counts: Mapping[str, int]) -> None:
    """Packets, connections, bytes, retransmissions. In world `host` the kernel counted them, and not for us alone."""
    from rich.console import Console  # at the end: a program that serves does not wait for it
    from rich.table import Table

    table = Table()
    if "packets_in" in counts:
        table.add_column(f"world {machine.config.net}")
        table.add_column("in", justify="right")
        table.add_column("out", justify="right")
        for name in ("packets", "bytes", "connections"):
            table.add_row(name, f"{counts[f'{name}_in']:,}", f"{counts[f'{name}_out']:,}")
        table.add_row("retransmissions", "", f"{counts['retransmissions']:,}")
        if counts["dropped"]:
            table.add_row("dropped frames", f"{counts['dropped']:,}", "")
    else:
        table.add_column(f"world {machine.config.net}, {machine.reactor.kind}")
        table.add_column("", justify="right")
        for name, count in counts.items():
            table.add_row(name.removeprefix("reactor_"), f"{count:,}")
    Console(stderr=True).print(table)

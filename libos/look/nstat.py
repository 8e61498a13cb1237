"""``libos nstat``: the counters of running machines, by their SNMP names."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import click

from libos.look.command import Show, look_command, title

__all__ = ["nstat"]


@look_command("nstat", "counters")
@click.option("-z", "--zeros", is_flag=True, help="Those that are zero too.")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
def nstat(answers: list[dict[str, Any]], zeros: bool, patterns: tuple[str, ...]) -> Show:
    """Show what machines that run have counted, as nstat(8) does.

    \b
    libos nstat                  whatever has happened at all
    libos nstat 'Tcp*Retrans*'   of that, retransmissions
    libos nstat -z --json

    The names are the kernel's (/proc/net/snmp, snmp6, netstat), and mean what they mean there, but that Udp* and Icmp*
    count both families. Counting begins with the machine.
    """
    for said in answers:
        said["counters"] = {
            name: count
            for name, count in (said["counters"] or {}).items()
            if (count or zeros) and (not patterns or any(fnmatch(name, pattern) for pattern in patterns))
        }

    def show() -> None:
        for at, said in enumerate(answers):
            print("\n" * bool(at) + f"#{title(said['machine'])}")
            if said["machine"]["world"] == "host":
                print("# its counters are the kernel's: nstat shows them")
            for name, count in said["counters"].items():
                print(f"{name:<32}{count}")

    return show

"""The command ``libos``.

Start-up counts (a page must be served half a second after ``libos run``), so each command imports what it needs when
it runs, and rich only where there is a table to print. A mistake of the user's or a refusal of the host's
(LibosError) is one line on stderr and exit status 2.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import click

__all__ = ["main"]


# Commands that live in modules of their own, imported when they are asked for.
_ELSEWHERE = MappingProxyType(
    {
        "bench": ("libos.bench.cli", "Measure libos beside the kernel's TCP, asyncio and uvloop."),
        "ip": ("libos.look.ip", "Show addresses, routes and neighbours of machines that run."),
        "nstat": ("libos.look.nstat", "Show what machines that run have counted."),
        "sim": ("libos.sim.cli", "Run a scenario of simulated machines, for one seed or many."),
        "ss": ("libos.look.ss", "Show the sockets of machines that run."),
    }
)


class Commands(click.Group):
    """With those of ``_ELSEWHERE``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in _ELSEWHERE:
            command: click.Command = getattr(importlib.import_module(_ELSEWHERE[name][0]), name)
            return command
        return super().get_command(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.commands[name].get_short_help_str(80)) for name in sorted(self.commands)]
        rows += [(name, help) for name, (_, help) in _ELSEWHERE.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"libos {version('libos')}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def cli() -> None:
    """A library operating system: one process is one machine, with its own TCP/IP.

    \b
    An unmodified asyncio program on a network of its own, as any user:
        libos run --publish 8080:80 examples/hello_http.py
        curl http://127.0.0.1:8080/
    The same program on the kernel's sockets, and on a real interface (root):
        libos run --net host app.py
        libos run --net tap --ip 10.0.3.15/24 app.py
    Many simulated machines, a thousand times, each time otherwise:
        libos sim scenario.py --seeds 0..999 --jobs 2
    What this host offers, and what to do about what it lacks:
        libos doctor
    What a machine that runs is doing, from another shell:
        libos ss -tie
        libos nstat
    """


class RunCommand(click.Command):
    """Everything after APP.py or ``-m MODULE`` is the program's, whatever it looks like. Only ``--net`` and
    ``--publish`` may also stand directly behind APP.py; ``--`` there says that they are the program's after all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, theirs = self._split(args)
        return super().parse_args(ctx, [*ours, "--", *theirs])

    def _split(self, args: list[str]) -> tuple[list[str], list[str]]:
        at = 0
        while at < len(args) and args[at].startswith("-") and args[at] != "--":
            word = args[at]
            at += 1 if "=" in word or word in ("-h", "--help") or word[:2] == "-m" != word else 2
            if word[:2] == "-m":
                return args[:at], args[at:]
        rest = args[at + 1 :] if args[at : at + 1] == ["--"] else args[at:]
        end = 1
        while end < len(rest) and rest[end].partition("=")[0] in ("--net", "--publish"):
            end += 1 if "=" in rest[end] else 2
        behind = rest[1:end]
        if rest[end : end + 1] == ["--"]:
            end += 1
        return [*args[:at], *behind], [*rest[:1], *rest[end:]]


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _option(*names: str, metavar: str, help: str, several: bool = False, required: bool = False) -> Decorator:
    return click.option(*names, metavar=metavar, help=help, multiple=several, required=required)


@cli.command(cls=RunCommand)
@_option(
    "--net",
    metavar="host|user|tap",
    help="The world: the kernel's sockets, a gateway that needs no privileges (the default), a TAP device (root).",
)
@_option(
    "--publish",
    metavar="[ADDR:]HOST:GUEST[/udp]",
    several=True,
    help="Lead a port of the host (of its loopback, if there is no ADDR) to one of the machine. Several.",
)
@_option(
    "--ip",
    metavar="ADDR/PREFIX|dhcp|auto",
    several=True,
    help="The machine's addresses, v4 and v6. On tap also dhcp (v4), auto (v6: routers, DHCPv6). Several.",
)
@_option("--gateway", metavar="ADDR", several=True, help="Default route; one for v4, one for v6.")
@_option("--dns", metavar="ADDR", several=True, help="Name servers. Several.")
@_option("--search", metavar="DOMAIN", several=True, help="Where to look for short names. Several.")
@_option("--hosts", metavar="NAME=ADDR", several=True, help="A name that needs no name server. Several.")
@_option("--hosts-file", metavar="FILE", help="More of them, in the format of /etc/hosts.")
@_option("--mtu", metavar="BYTES", help="Largest IP packet. Default: 65520 on user, 1500 on tap.")
@_option("--tap", metavar="NAME", help="Name of the TAP device. One that exists is taken as it is.")
@_option("--spin-us", metavar="N", help="Poll so long before blocking: lower latency, one core busy.")
@_option("--reactor", metavar="auto|io_uring|epoll", help="Where to wait.")
@_option("--pcap", metavar="FILE", help="Write all packets there (libpcap's format).")
@_option(
    "--impair",
    metavar="WHAT",
    help="A bad wire: loss=2%,delay=5ms,jitter=1ms,reorder=5%,duplicate=1%,corrupt=0.1%,rate=100mbit,seed=7",
)
@_option("--memory", metavar="SIZE", help="Packet buffers at most. Default: 256M.")
@_option("--config", "file", metavar="machine.toml", help="The same keys in a file; the command line wins.")
@_option("-m", "module", metavar="MODULE", help="Run a module, as python -m does; the rest are its arguments.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED, metavar="APP.py [ARGS]...")
def run(file: str | None, module: str | None, program: tuple[str, ...], **settings: Any) -> None:
    """Run an asyncio program inside a machine.

    The program is not changed and need not know: asyncio.run(), uvloop and every library on top of them get the
    machine's event loop, sockets and names. libos's own options stand before APP.py or -m MODULE; what follows is the
    program's.

    \b
    libos run --publish 8080:80 examples/hello_http.py
    libos run --publish 8080:80 -m uvicorn examples.api:app --port 80
    libos run --net tap --ip 10.0.3.15/24 --pcap wire.pcap app.py
    libos run --impair loss=2%,delay=5ms,seed=7 client.py https://example.org/
    libos run --config machine.toml app.py

    Ctrl-C ends the program and prints what went over the wire.
    """
    from libos.config import Source, configure, read_toml
    from libos.launch import Program, launch
    from libos.report import print_booted, print_summary

    if module is None and not program:
        raise click.UsageError("what shall it run? APP.py or -m MODULE")
    sources = [read_toml(file)] if file else []
    config = configure(*sources, Source.command_line(settings))
    what = Program(program[0], program[1:]) if module is None else Program(module, program, module=True)
    sys.exit(launch(what, config, booted=print_booted, ended=print_summary))


@cli.command()
@_option(
    "--a", metavar="NAME[@NETNS]", help="One end: a TAP device, in a network namespace where wanted.", required=True
)
@_option("--b", metavar="NAME[@NETNS]", help="The other end.", required=True)
@_option("--impair", metavar="WHAT", help="How bad it is, both ways: as libos run --impair, and see below.")
@_option("--a-to-b", metavar="WHAT", help="How bad it is that way, instead.")
@_option("--b-to-a", metavar="WHAT", help="How bad it is that way, instead.")
@_option("--mtu", metavar="BYTES", help="Of both devices. Default: 1500.")
@_option(
    "--seed", metavar="N", help="Makes the same choices for the n-th frame of each direction. Default: some number."
)
@_option("--duration", metavar="SECONDS", help="Default: until Ctrl-C.")
@_option("--spin-us", metavar="N", help="Poll so long before blocking: precise to some microseconds, one core busy.")
@_option("--reactor", metavar="auto|io_uring|epoll", help="Where to wait.")
@_option("--pcap", metavar="FILE", help="Write what A sends and what reaches it there (libpcap's format).")
@_option("--pcap-b", metavar="FILE", help="The same of B.")
@_option("--json", "json_to", metavar="FILE", help="Write the figures there at the end; - is standard output.")
def wire(**options: str | None) -> None:
    """Join two TAP devices by a bad wire, in real time (root).

    \b
    ip netns add left; ip netns add right
    libos wire --a w0@left --b w0@right --impair loss=1%,delay=10ms,rate=100mbit,buffer=50ms
    ip -n left addr add 10.9.0.1/24 dev w0; ip -n right addr add 10.9.0.2/24 dev w0
    ip netns exec left ping 10.9.0.2

    \b
    loss=2%,burst=3       lost frames; in runs of that mean length
    delay=5ms,jitter=1ms  on the way; order=keep: jitter reorders nothing
    reorder=5%            frames that overtake all that is delayed
    duplicate=1%          frames that come twice; corrupt=0.1%: with one bit flipped
    rate=100mbit          what the line carries, and the buffer in front of it, which drops at its tail:
    buffer=20ms           a time, or bytes (buffer=256K); bucket=64K: sent at once after a pause
    queue=10000           frames held at most, those on the way included

    A wire that loses, counts or reorders frames takes none larger than the MTU; one that only delays takes segments
    of 64 KiB whole.
    """
    from libos.wire import plan_of, run_wire

    plan, settings = plan_of(options)
    run_wire(plan, **settings)


@cli.command()
def doctor() -> None:
    """Say what this host offers to libos, and what to do about what it lacks."""
    from libos.doctor import examine, print_findings

    print_findings(examine())


def main() -> None:
    """The entry point."""
    from libos.errors import LibosError

    try:
        cli.main(prog_name="libos")
    except LibosError as error:
        print(f"libos: {error}", file=sys.stderr)
        sys.exit(2)

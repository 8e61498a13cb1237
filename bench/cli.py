"""``libos bench``: the command line of the benchmarks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from libos.bench.echo import CASES, Case, bench_echo
from libos.bench.flood import bench_flood, flood_table
from libos.bench.load import CASES as LOADS
from libos.bench.load import LOADED, bench_load, load_table
from libos.bench.loop import COMPARED, bench_loop, loop_table
from libos.bench.loop_cases import CASES as LOOP_CASES
from libos.bench.report import Report, Results, ratios_table, rows_table
from libos.bench.segment import CASES as SEGMENTS
from libos.bench.segment import bench_segment, segment_table
from libos.bench.servers import PEERS
from libos.bench.start import PROGRAMS, bench_start, start_table, where_table
from libos.bench.web import CASES as HTTP_CASES
from libos.bench.web import SERVED, bench_http
from libos.bench.wire import CASES as WIRES
from libos.bench.wire import PAIRS, bench_wire, wire_table
from libos.errors import ConfigError, LibosError

__all__ = ["bench"]


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


@click.group()
def bench() -> None:
    """Measure libos beside the kernel's TCP, asyncio and uvloop, on this host."""


@contextlib.contextmanager
def _progress(runs: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr for so many runs; what it gives is told of each when it begins."""
    columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("building", total=runs)
        done = -1

        def progress(what: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, description=what, completed=done)

        yield progress
        bar.update(task, description="done", total=done + 1, completed=done + 1)


def _print_report(report: Report, out: Console) -> None:
    out.print(rows_table(report))
    if (ratios := ratios_table(report)) is not None:
        out.print("Peer / reference: CPU of the server, in total, p50. Below 1 the peer needs less.")
        out.print(ratios)


def _finish(report: Results[Any], out: Console, json_file: Path | None) -> None:
    """What was left out, the file, the exit status."""
    for item in report.left_out:
        out.print(f"left out: {item.what}: {item.why}", style="red" if item.why.startswith("failed") else "yellow")
    if json_file is not None:
        json_file.write_text(report.to_json() + "\n")
    if report.failures:
        raise LibosError(f"{report.failures} of the measurements failed: see above")
    if not report.rows:
        raise LibosError("nothing was measured: see above")


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _chosen(option: str, given: str, allowed: Collection[str]) -> list[str]:
    """The names in ``given``. Raises ConfigError for one that is not allowed."""
    names = _split(given)
    for name in names:
        if name not in allowed:
            raise ConfigError(f"--{option} {name}: allowed: {', '.join(allowed)}")
    return names


# Options that most commands have.


def _several(option: str, allowed: Iterable[str], help: str) -> Decorator:
    return click.option(f"--{option}", default=",".join(allowed), show_default=True, help=help)


def _repeat(default: int) -> Decorator:
    return click.option(
        "--repeat",
        type=click.IntRange(1, 1000),
        default=default,
        show_default=True,
        help="Runs of each, in turn; medians are reported.",
    )


def _seconds(default: float, least: float) -> Decorator:
    return click.option(
        "--seconds",
        type=click.FloatRange(least, 600),
        default=default,
        show_default=True,
        help="Length of one measurement.",
    )


_json = click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there."
)


@bench.command()
@_json
@_several("cases", (case.name for case in CASES), "CONNSxBYTES, several.")
@_several("peers", PEERS, "Which servers to measure, several.")
@_seconds(1.0, least=0.05)
@_repeat(3)
def echo(json_file: Path | None, cases: str, peers: str, seconds: float, repeat: int) -> None:
    """TCP echo: one closed-loop client in C against each peer, in turn.

    \b
    c-epoll, c-uring         servers in C on the kernel's TCP (veth pair between two network namespaces)
    asyncio, uvloop          one Python Protocol, same path
    libos-host[-epoll]       the same Protocol on libos's loop (io_uring, epoll), kernel TCP, same path
    libos-tap[-spin]         the same Protocol on libos's own TCP/IP, on a TAP device; blocking, spinning
    tap-floor[-spin]         C without any TCP state on the same TAP: no user-space stack can be cheaper
    *-streams                asyncio's streams (readexactly, write) in place of a Protocol; the ratio is to uvloop's

    The figure to compare is the CPU time of server and client together, per request: which of the two does the
    kernel's work differs between veth and TAP. Between peers on the same path the server's own compares too. The rate
    swings with whatever else the machine does.

    Root is needed for namespaces and TAP devices; without it the kernel's peers run over the loopback. What could not
    run is listed with the reason. The exit status is 1 when a peer failed (wrong bytes, a lost connection, a stall).

    \b
    libos bench echo                                         all of it
    libos bench echo --cases 64x1024 --repeat 7              the case that the README quotes
    libos bench echo --peers uvloop,libos-tap --json now.json
    """
    chosen = _chosen("peers", peers, PEERS)
    wanted = [Case.parse(text) for text in _split(cases)]
    if json_file is not None:
        json_file.touch()  # not after minutes of work that it cannot be written
    with _progress(len(wanted) * len(chosen) * repeat) as progress:
        report = bench_echo(wanted, chosen, seconds=seconds, repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nConnections x bytes. CPU per request: of the server, in total with the client's.")
        _print_report(report, out)
    _finish(report, out, json_file)


@bench.command()
@_json
@_several("cases", LOADS, "Which loads, several.")
@_several("peers", LOADED, "Which servers to measure, several.")
@_seconds(1.0, least=0.1)
@_repeat(3)
def load(json_file: Path | None, cases: str, peers: str, seconds: float, repeat: int) -> None:
    """One stream each way, and connections that live for one request, against each peer in turn (root).

    \b
    up         the client sends, 64 KiB a write; the server's program takes it
    down       the server's program sends, 64 KiB a write
    connect    32 at a time: connect, 64 bytes there and back, close

    \b
    libos bench load                                     all of it
    libos bench load --cases connect --repeat 7 --peers uvloop,libos-tap
    """
    loads, chosen = _chosen("cases", cases, LOADS), _chosen("peers", peers, LOADED)
    if os.geteuid() != 0:
        raise ConfigError("libos bench load: needs root, for network namespaces: sudo libos bench load")
    if json_file is not None:
        json_file.touch()
    with _progress(len(loads) * len(chosen) * repeat) as progress:
        report = bench_load(loads, chosen, seconds=seconds, repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print(
            "\nRates; CPU of the server, and of both sides, for each MiB or connection; rates divided by others'."
        )
        out.print(load_table(report))
    _finish(report, out, json_file)


@bench.command()
@_json
@_several("cases", HTTP_CASES, "Which servers' programs, several.")
@_several("peers", SERVED, "On which loop and path, several.")
@click.option(
    "--seconds",
    type=click.IntRange(1, 600),
    default=3,
    show_default=True,
    help="Length of one measurement (wrk knows whole ones only); a second to warm up comes before each.",
)
@_repeat(3)
def http(json_file: Path | None, cases: str, peers: str, seconds: int, repeat: int) -> None:
    """Small answers of aiohttp and of uvicorn with httptools, by wrk: 64 connections, one thread.

    \b
    asyncio, uvloop          the program on the kernel's TCP (veth pair between two network namespaces)
    libos-host[-epoll]       the same on libos's loop (io_uring, epoll), kernel TCP, same path
    libos-tap                the same on libos's own TCP/IP, on a TAP device

    The server has one cpu and wrk the other. The figure to compare is the CPU time of both together, per request; see
    libos bench echo --help. Needs wrk, and root for namespaces and TAP devices; without root the kernel's peers run
    over the loopback. A run with an error in it counts as failed.

    \b
    libos bench http                                         all of it: a minute and a half
    libos bench http --cases uvicorn --peers uvloop,libos-tap --repeat 7
    """
    names, chosen = _chosen("cases", cases, HTTP_CASES), _chosen("peers", peers, SERVED)
    if json_file is not None:
        json_file.touch()
    with _progress(len(names) * len(chosen) * repeat) as progress:
        report = bench_http(names, chosen, seconds=seconds, repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nCPU per request: of the server, in total with wrk's.")
        _print_report(report, out)
    _finish(report, out, json_file)


@bench.command()
@_json
@_several("programs", PROGRAMS, "Which to start, several.")
@_repeat(15)
def start(json_file: Path | None, programs: str, repeat: int) -> None:
    """How long a process takes that runs a coroutine which does nothing.

    \b
    asyncio, uvloop          asyncio.run(main()), uvloop.run(main())
    libos-host[-epoll]       libos.run(main(), net="host"), on io_uring and on epoll
    libos-user               libos.run(main(), net="user"): a machine with a TCP/IP of its own, and its gateway

    From before the process is made until it has ended; by turns, on one cpu. A second table says where the time goes.
    """
    names = _chosen("programs", programs, PROGRAMS)
    if json_file is not None:
        json_file.touch()
    with _progress(repeat + 1) as progress:
        report = bench_start(names, repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nA process from its beginning to its end.")
        out.print(start_table(report))
        out.print("Where the time goes, in ms.")
        out.print(where_table(report))
    _finish(report, out, json_file)


@bench.command()
@_json
@_several("cases", LOOP_CASES, "What to measure, several.")
@_several("loops", COMPARED, "Which event loops, several.")
@_repeat(25)
def loop(json_file: Path | None, cases: str, loops: str, repeat: int) -> None:
    """What a callback, a timer or a task costs on each event loop, without any I/O.

    All loops live in one process on one cpu and take turns, some 10,000 callbacks at a time. The figure is CPU time for
    each of them; behind libos's stands its speed in relation to uvloop's and asyncio's: above 1, libos is faster.

    \b
    soon-chain    call_soon: each callback schedules the next
    soon-batch    call_soon: all scheduled, then run
    soon-args     call_soon with two arguments
    soon-context  call_soon with context=
    threadsafe    call_soon_threadsafe
    later-due     call_later, mixed deadlines within 5 ms, until all were due
    at-due        call_at: the same
    later-zero    call_later(0)
    cancel        call_later, cancelled at once
    cancel-batch  call_later, cancelled when all are pending
    task          create_task, and wait for it
    yield         sleep(0) in a task
    ping-pong     two tasks that wake each other by a Future
    gather        gather of 1,000 coroutines, for each

    \b
    libos bench loop                                         all of it: half a minute
    libos bench loop --cases soon-chain,later-due --repeat 99
    libos bench loop --loops uvloop,libos-host --json now.json
    """
    names, chosen = _chosen("cases", cases, LOOP_CASES), _chosen("loops", loops, COMPARED)
    if json_file is not None:
        json_file.touch()
    with _progress(len(names)) as progress:
        report = bench_loop(names, chosen, repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nCPU time of one, in ns; speed / uvloop's, / asyncio's. Above 1 libos is faster.")
        out.print(loop_table(report))
    _finish(report, out, json_file)


@bench.command()
@_json
@_repeat(5)
def segment(json_file: Path | None, repeat: int) -> None:
    """What one segment costs in the stack alone, in CPU time, with lwIP's figure beside it.

    Two stacks joined in memory: no system call, no Python. Needs a C compiler and a checkout; lwIP needs
    liblwip-dev.
    """
    if json_file is not None:
        json_file.touch()
    with _progress(len(SEGMENTS) * 2 * repeat) as progress:
        report = bench_segment(repeat=repeat, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nCPU time for each segment of data, from the call that writes it to the call that reads it.")
        out.print(segment_table(report))
    _finish(report, out, json_file)


@bench.command()
@_json
@_several("cases", WIRES, "Which wires, several.")
@_several("pairs", ("-".join(pair) for pair in PAIRS), "Who sends to whom, several.")
@_seconds(5.0, least=0.2)
@_repeat(3)
@click.option("--seed", type=click.IntRange(0, 1 << 32), default=1, show_default=True, help="Of the first run's wire.")
def wire(json_file: Path | None, cases: str, pairs: str, seconds: float, repeat: int, seed: int) -> None:
    """One stream over bad wires: the kernel's TCP and libos's, in all four pairs, on the same wire (root).

    Both hosts are network namespaces, joined by libos wire; every pair meets the same wire with the same seed. The
    figure is what reaches the receiving program, slow start included; in parentheses, divided by kernel to kernel.

    \b
    rtt1 .. rtt200      a clean wire with a buffer, by its round trip in ms
    far                 100 ms, 0.01 % loss, 1 Gbit/s
    loss0.1 .. loss20   lost frames in percent; bursts: 1 % in runs of five
    reorder, jitter     frames that overtake; duplicate, corrupt
    narrow, shallow     10 Mbit/s; a buffer of 5 ms

    \b
    libos bench wire                                          all of it: about 20 minutes
    libos bench wire --cases far,loss1 --seconds 10 --repeat 5
    libos bench wire --pairs kernel-kernel,libos-kernel --json now.json
    """
    by_name = {"-".join(pair): pair for pair in PAIRS}
    wires, chosen = _chosen("cases", cases, WIRES), [by_name[name] for name in _chosen("pairs", pairs, by_name)]
    if json_file is not None:
        json_file.touch()
    with _progress(len(wires) * len(chosen) * repeat) as progress:
        report = bench_wire(wires, chosen, seconds=seconds, repeat=repeat, seed=seed, progress=progress)
    out = Console()
    if report.rows:
        out.print("\nMbit/s that reach the program; divided by kernel to kernel.")
        out.print(wire_table(report))
    _finish(report, out, json_file)


@bench.command()
@_json
@click.option("--rates", default="20000,100000,0", show_default=True, help="SYNs a second, several; 0: as many as go.")
@click.option("--conns", type=click.IntRange(1, 1024), default=16, show_default=True, help="Established connections.")
@_seconds(2.0, least=0.2)
@_repeat(3)
def flood(json_file: Path | None, rates: str, conns: int, seconds: float, repeat: int) -> None:
    """A SYN flood on a TAP device: what a libos server's established connections keep (root).

    Requests a second in quiet, with the same frames going to another station, and with all of them for the server;
    then what the last is of the first and of the second. The server's cpu has nothing else to do; the flooder shares
    the client's.
    """
    if not all(word.isdecimal() for word in _split(rates)):
        raise ConfigError(f"--rates {rates}: allowed: numbers, as 20000,100000,0")
    if json_file is not None:
        json_file.touch()
    with _progress(len(_split(rates)) * 3 * repeat) as progress:
        report = bench_flood(
            [int(word) for word in _split(rates)], conns=conns, seconds=seconds, repeat=repeat, progress=progress
        )
    out = Console()
    if report.rows:
        out.print("\nRequests a second of established connections; what they keep.")
        out.print(flood_table(report))
    _finish(report, out, json_file)

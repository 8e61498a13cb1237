"""``libos wire``: two TAP devices joined by a bad wire, in real time.

What a host, a container or a machine of libos's sends to one device comes out of the other, after what the impairment
does to it. The frames move in C, driven by one reactor; Python starts it, shows how it goes, and reports at the end.

Where frames are lost, reordered, metered and so on, segments of 64 KiB would be hit as one: then the devices take none,
and the hosts cut to the MTU before the wire sees anything. A wire that only delays takes them whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from libos.clock import MonotonicClock
from libos.config import IMPAIRMENT, parse_impairment
from libos.errors import ConfigError, HostError
from libos.net.link.impairment import Impairment
from libos.net.link.netns import Namespace
from libos.net.link.tap import open_tap
from libos.net.link.wire import Wire
from libos.net.stack import Link
from libos.rand import Rng
from libos.sched.reactor import Reactor

__all__ = ["End", "TapWire", "WirePlan", "plan_of", "run_wire"]

QUEUE = 100_000  # frames held: 100 ms of 1 Gbit/s are 8,000
TAP_QUEUE = 16384  # frames: a sender's whole window may arrive at once
LOOK_NS = 100_000_000  # a turn is no longer, so that a signal is seen
_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class End:
    """A TAP device's name, and the namespace that it is in ("": ours)."""

    name: str
    netns: str = ""

    @classmethod
    def parse(cls, text: str) -> End:
        """``NAME[@NETNS]``."""
        name, at, netns = text.partition("@")
        if not 0 < len(name) < 16 or "/" in name or (at and not netns):
            raise ConfigError(f"{text}: allowed: NAME[@NETNS], a name of 1 to 15 letters")
        return cls(name, netns)

    def __str__(self) -> str:
        return f"{self.name}@{self.netns}" if self.netns else self.name

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Inside its namespace."""
        if not self.netns:
            yield
            return
        with Namespace.find(self.netns) as namespace, namespace.entered():
            yield


@dataclass(frozen=True, slots=True)
class WirePlan:
    """What a wire is to be: its ends, each direction's impairment, captures ("": none)."""

    a: End
    b: End
    a_to_b: Impairment
    b_to_a: Impairment
    mtu: int = 1500
    pcap_a: str = ""
    pcap_b: str = ""


class TapWire:
    """The devices and the wire between them; there as soon as it is made. HostError leaves nothing behind."""

    def __init__(self, plan: WirePlan, reactor: Reactor, rng: Rng) -> None:
        self.plan, self.reactor = plan, reactor
        self.whole = not (plan.a_to_b.per_frame or plan.b_to_a.per_frame)  # segments of 64 KiB pass
        with contextlib.ExitStack() as undo:
            a = self._open(plan.a, plan.pcap_a, rng, undo)
            b = self._open(plan.b, plan.pcap_b, rng, undo)
            self._wire = Wire(a, b, plan.a_to_b, plan.b_to_a, rng=rng)
            undo.callback(self._wire.close)
            reactor.attach(self._wire.poller)
            undo.pop_all()

    def _open(self, end: End, pcap: str, rng: Rng, undo: contextlib.ExitStack) -> Link:
        with end.entered():
            tap = open_tap(end.name, mtu=self.plan.mtu, segments=self.whole, queue=TAP_QUEUE)
        with contextlib.ExitStack() as guard:
            guard.callback(os.close, tap.fd)
            link = Link.tap(self.reactor.handle, tap.fd, rng, mtu=tap.mtu, caps=tap.caps)
            guard.pop_all()
        undo.callback(link.close)
        if not pcap:
            return link
        fd = _create(pcap)
        with contextlib.ExitStack() as guard:
            guard.callback(os.close, fd)
            link = link.with_pcap(fd, self.reactor.clock.epoch_offset)
            guard.pop_all()
        undo.callback(link.close)
        return link

    def stats(self) -> tuple[dict[str, int], dict[str, int]]:
        """As :meth:`Wire.stats`, and ``overrun``: frames that the sending host dropped because we were too slow."""
        both = self._wire.stats()
        for end, counts in zip((self.plan.a, self.plan.b), both, strict=True):
            with end.entered():
                counts["overrun"] = _dropped_by_device(end.name)
        return both

    def close(self) -> None:
        """The devices go with it. May be called twice."""
        if self._wire.poller is not None:
            self.reactor.detach(self._wire.poller)
            self._wire.poller = None
            self._wire.close()

    def __enter__(self) -> TapWire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _create(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise HostError(f"cannot write --pcap {path}: {error.strerror}") from None


def _dropped_by_device(name: str) -> int:
    """The kernel's count of frames for us that found the device's queue full (proc_net_dev)."""
    with open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        for line in lines:
            device, _, fields = line.partition(":")
            if device.strip() == name:
                return int(fields.split()[11])
    return 0


# --- the command -----------------------------------------------------------------------------------------------------


def plan_of(options: Mapping[str, str | None]) -> tuple[WirePlan, dict[str, Any]]:
    """The command's options as a plan and the settings of :func:`run_wire`. ConfigError."""
    given = {key: value for key, value in options.items() if value is not None}
    both = given.get("impair", "")
    there, back = (_impairment(key, given.get(key, both)) for key in ("a_to_b", "b_to_a"))
    mtu = _number("mtu", given.get("mtu", "1500"), 68, 65521)
    settings: dict[str, Any] = {"spin_us": _number("spin_us", given.get("spin_us", "0"), 0, 1_000_001)}
    if "seed" in given:
        settings["seed"] = _number("seed", given["seed"], 0, 1 << 64)
    if "duration" in given:
        settings["seconds"] = float(_number("duration", given["duration"], 0, 1 << 31, float))
    if given.get("reactor", "auto") not in ("auto", "io_uring", "epoll"):
        raise ConfigError(f"--reactor {given['reactor']}: allowed: auto, io_uring or epoll")
    settings |= {"kind": given.get("reactor", "auto"), "json_to": given.get("json_to", "")}
    ends = End.parse(given["a"]), End.parse(given["b"])
    return WirePlan(*ends, there, back, mtu, given.get("pcap", ""), given.get("pcap_b", "")), settings


def _impairment(key: str, text: str) -> Impairment:
    if not text:
        return Impairment(queue=QUEUE)
    try:
        how = parse_impairment(text)
    except ValueError as error:
        raise ConfigError(f"--{key.replace('_', '-')} {text}: {error}; allowed: {IMPAIRMENT}") from None
    return how if "queue=" in text else how._replace(queue=QUEUE)


def _number(key: str, text: str, low: int, high: int, kind: Callable[[str], Any] = int) -> Any:
    with contextlib.suppress(ValueError):
        if low <= (number := kind(text)) < high:
            return number
    raise ConfigError(f"--{key.replace('_', '-')} {text}: allowed: {low} to {high - 1}")


def run_wire(
    plan: WirePlan,
    *,
    seed: int | None = None,
    seconds: float | None = None,
    spin_us: int = 0,
    kind: Literal["auto", "io_uring", "epoll"] = "auto",
    json_to: str = "",
) -> None:
    """Until ``seconds`` are over, Ctrl-C or SIGTERM. ``json_to``: a file for the figures, ``-`` standard output."""
    if seed is None:
        seed = Rng().bits(32)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)  # ns; by default the kernel may wake us 50 us late
    if not spin_us:
        # A wire does not wait for what else the host does: on two busy cores 35 us late on average, else 1 ms.
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
    clock = MonotonicClock(0)
    reactor = Reactor(kind, clock=clock, spin_us=spin_us)
    stopped: list[int] = []
    try:
        with TapWire(plan, reactor, Rng(seed)) as wire:
            before = {sig: signal.signal(sig, lambda sig, _: stopped.append(sig)) for sig in _ENDS}
            try:
                _say(f"libos: wire between {plan.a} and {plan.b} on {reactor.kind}, seed {seed}; Ctrl-C ends it\n")
                begin = reactor.now()
                _turn(wire, reactor, stopped, None if seconds is None else begin + int(seconds * 1e9))
                report = _report(wire, seed, (reactor.now() - begin) / 1e9)
            finally:
                for sig, handler in before.items():
                    signal.signal(sig, handler)
    finally:
        reactor.close()
    if json_to == "-":
        print(json.dumps(report, indent=2))
    elif json_to:
        with open(json_to, "w", encoding="utf-8") as file:
            file.write(json.dumps(report, indent=2) + "\n")
    if json_to != "-":
        _say("\r" + "\n".join(_summary(row) for row in report["rows"]) + "\n")


_ENDS = (signal.SIGINT, signal.SIGTERM)


def _turn(wire: TapWire, reactor: Reactor, stopped: list[int], end: int | None) -> None:
    live, shown = sys.stderr.isatty(), wire.stats()
    next_look = reactor.now() + 10**9
    while not stopped and (end is None or reactor.now() < end):
        left = LOOK_NS if end is None else min(LOOK_NS, max(end - reactor.now(), 0))
        reactor.turn(left)
        if live and reactor.now() >= next_look:
            next_look += 10**9
            now = wire.stats()
            both = (_rate(*each) for each in zip(_WAYS, shown, now, strict=True))
            _say("\r" + "   ".join(both))
            shown = now


_WAYS = ("a to b", "b to a")


def _rate(way: str, before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The last second, in one line's half."""
    packets, bits = (now[key] - before[key] for key in ("out_packets", "out_bytes"))
    lost = now["lost"] + now["dropped"] - before["lost"] - before["dropped"]
    return f"{way}: {packets:7,} frames/s {bits * 8 / 1e6:8.1f} Mbit/s {lost:5,} lost {now['held']:6,} under way"


def _report(wire: TapWire, seed: int, seconds: float) -> dict[str, Any]:
    plan = wire.plan
    ways = zip(("a_to_b", "b_to_a"), (plan.a_to_b, plan.b_to_a), wire.stats(), strict=True)
    return {
        "host": {
            "reactor": wire.reactor.kind,
            "kernel": os.uname().release,
            "cpus": os.cpu_count(),
            "realtime": os.sched_getscheduler(0) == os.SCHED_FIFO,
        },
        "wire": {"a": str(plan.a), "b": str(plan.b), "mtu": plan.mtu, "whole_segments": wire.whole, "seed": seed},
        "seconds": round(seconds, 3),
        "rows": [{"direction": way, "impairment": how._asdict(), **counts} for way, how, counts in ways],
    }


def _summary(row: Mapping[str, Any]) -> str:
    fates = ("lost", "duplicated", "corrupted", "reordered", "dropped", "refused", "overrun")
    parts = [f"{row[fate]:,} {fate}" for fate in fates if row[fate]]
    late = row["late_ns"] / row["out_packets"] / 1e3 if row["out_packets"] else 0.0
    counted = f"{row['in_packets']:,} frames in, {row['out_packets']:,} out"
    return ", ".join([f"{row['direction'].replace('_', ' ')}: {counted}", *parts, f"{late:.1f} us late on average"])


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()

"""The world: machines, what joins them, and the order in which things happen.

`run` asks the Sim (``sched/sim.c``) again and again whose turn it is. The answer is a machine, whose programs then go
on until they hand over; or that time has come to a time of the world's own (:meth:`World.at`), or that nothing is left
to happen. Everything else, wires and TCP included, happens in C in between.

One thread runs a world. Every choice comes from the seed: who goes next among those that are runnable at one instant,
what wires do, and every machine's own draws.

Ownership: the world owns its machines, networks, wires, and the Sim. :meth:`World.close` kills what runs and frees all.
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import os
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from libos.clock import Clock, MonotonicClock
from libos.errors import WorldError
from libos.net.stack import Link
from libos.rand import Rng
from libos.sched.reactor import NEVER
from libos.sched.sim import IDLE, UNTIL, Sim
from libos.sim.capture import Capture
from libos.sim.checks import Checks
from libos.sim.errors import Deadlock, LimitReached
from libos.sim.faults import Faults, Schedule
from libos.sim.logs import LogSetup
from libos.sim.machine import SimMachine
from libos.sim.names import WorldHosts
from libos.sim.network import LAN, MTU, Network, SimWire, WireSpec, as_impairment, new_wire
from libos.sim.output import Line, Log
from libos.sim.owner import Owner, Ownership
from libos.sim.program import Face, Program, Target
from libos.sim.record import ENDED, OUTPUT, STARTED, TIMER
from libos.sim.scenario import ACTION, Scenario
from libos.sim.shared import Collector, shared
from libos.sim.times import Duration, show, to_ns
from libos.sim.waiting import describe

__all__ = ["World"]

EPOCH = 1_750_000_000 * 10**9  # the time of day at which a world begins, unless told otherwise
ACTIONS_MAX = 10_000
LOOK_EVERY = 256  # steps between two looks at real time
SUBNETS = ("10.0.0.0/16",)
WIRES = 0x0AFF0000  # 10.255.0.0: subnets of wires


class World(Scenario):
    """``seed``: what all choices come from. ``epoch``: the time of day at its beginning, ns since 1970. ``echo``: gets
    each line that a program writes. ``faults``: with their times; those and no others happen, whatever is asked for.
    ``clock``: of real time, for the limit. ``capture``: a folder, for a pcap of every wire's end at a machine; they are
    whole when the world is closed, and change nothing of what happens."""

    def __init__(
        self,
        seed: int = 0,
        *,
        epoch: int = EPOCH,
        echo: Callable[[Line], object] | None = None,
        faults: Schedule | None = None,
        clock: Clock | None = None,
        capture: str | os.PathLike[str] | None = None,
    ) -> None:
        self.seed = seed
        self.epoch = epoch
        self.rng = Rng(seed)
        self.sim = Sim(self.rng.bits(64))
        self.hosts = WorldHosts()
        self.log = Log()
        self.log_setup = LogSetup()
        self.numbers = itertools.count(1)  # of tasks
        self.face = Face.current()
        self.running: Program | None = None
        self.process: Owner | None = None  # its process, as it sees it
        self.ownership = Ownership(lambda: self.process)
        self.interrupted = False
        self.machines: dict[str, SimMachine] = {}
        self.networks: dict[str, Network] = {}
        self.wires: dict[str, SimWire] = {}
        self.names: list[str] = []  # of everything that the Sim drives, by id
        self._steps: list[Callable[[], None]] = []  # by id, too
        self._echo = echo
        self._real = MonotonicClock() if clock is None else clock
        self._times: list[tuple[int, int, int, Callable[[], object]]] = []  # a heap
        self._orders = itertools.count(), itertools.count(), itertools.count()  # by rank
        self._awaited = 0
        self._failed: BaseException | None = None
        self._spinning = False
        self._collector = Collector()
        self._closed = False
        self.captures: list[Capture] = []
        self.actions: deque[tuple[int, str]] = deque(maxlen=ACTIONS_MAX)  # that were called: when, and their names
        self._capture = None if capture is None else Path(capture)
        self.fault_rng = self.rng.fork()  # what is drawn for faults shifts nothing else
        self.checks = Checks(self)
        self.faults = Faults(self, faults)

    # --- what is in it -----------------------------------------------------------------------------------------------

    def network(
        self, name: str = "net", *, subnets: tuple[str, ...] = SUBNETS, wire: WireSpec = LAN, ports: int = 4096
    ) -> Network:
        """A switched network. ``wire``: what lies between the switch and each machine, as ``--impair`` has it."""
        self._check(name, self.networks)
        network = self.networks[name] = Network(self, name, subnets, wire, ports=ports)
        return network

    def machine(
        self,
        name: str,
        program: Target | None = None,
        *,
        args: tuple[Any, ...] = (),
        daemon: bool = False,
        network: Network | None = None,
        ip: str | list[str] | None = None,
        skew: Duration = 0,
        drift_ppb: int = 0,
        env: Mapping[str, str] = MappingProxyType({}),
        **settings: Any,
    ) -> SimMachine:
        """A machine on ``network`` (by default the first, made if there is none), where the others know it by its name.

        ``ip``: with prefixes; without, the next of the network's. ``skew``: how wrong its time of day is (a number may
        be negative); ``drift_ppb``: ns that its clocks gain each second. ``env``: its program's.
        ``settings``: keys of ``machine.toml``. With a ``program`` it starts at once; see :meth:`SimMachine.start`.
        """
        self._check(name, self.machines)
        if network is None:
            network = next(iter(self.networks.values()), None) or self.network()
        addresses = network.next_addresses() if ip is None else [ip] if isinstance(ip, str) else list(ip)
        for address in addresses:
            network.take(address)
        machine = SimMachine(
            self,
            name,
            addresses,
            network.plug(name),
            network.wires[name],
            skew=_signed_ns(skew),
            drift_ppb=drift_ppb,
            settings=settings,
        )
        self.machines[name] = machine
        self.hosts.add(name, machine.addresses)
        if program is not None:
            machine.start(program, *args, daemon=daemon, env=env)
        return machine

    def wire(
        self,
        a: SimMachine,
        b: SimMachine,
        how: WireSpec = None,
        back: WireSpec = None,
        *,
        ip: tuple[str, str] | None = None,
        mtu: int = MTU,
    ) -> SimWire:
        """A wire from a machine to another, beside the network. ``how`` goes both ways, unless ``back`` is given.

        ``ip``: the addresses of its two ends, with prefixes (by default of a small subnet of its own).
        """
        name = f"{a.name}-{b.name}"
        self._check(name, self.wires)
        there = as_impairment(how)
        number = 4 * len(self.wires)
        ends = ip or tuple(f"{ipaddress.ip_address(WIRES + number + i)}/30" for i in (1, 2))
        wire = self.wires[name] = new_wire(self, a, b, there, there if back is None else as_impairment(back), mtu)
        for i, machine in enumerate((a, b)):
            machine.add_link(wire.insides[i], ends[i], wire, i, mtu)
        return wire

    def captured(self, link: Link, mac: bytes, machine: str, name: str) -> Link:
        """A wire's end at a machine (its interface has the address ``mac``), with a capture if there is to be one."""
        if self._capture is None:
            return link
        name = name.replace("/", "_")
        boot = sum(each.file.name.startswith((f"{name}.pcap", f"{name}.boot")) for each in self.captures) + 1
        file = self._capture / (f"{name}.pcap" if boot == 1 else f"{name}.boot{boot}.pcap")
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            link = link.with_pcap(fd, self.epoch, live=False)
        except OSError:
            os.close(fd)
            raise
        self.captures.append(Capture(file, machine, mac))
        return link

    def call_at(self, when: int, action: Callable[[], object], rank: int = ACTION) -> None:
        """Of several at one time: the ends of faults, beginnings of faults, actions."""
        heapq.heappush(self._times, (when, rank, next(self._orders[rank]), action))

    def block(self, source: str, target: str, blocked: bool) -> None:
        """Nothing that one machine sends reaches the other, by networks and by wires."""
        for network in self.networks.values():
            network.block(source, target, blocked)
        for wire in self.wires.values():
            if {source, target} == set(wire.between):
                wire.block(wire.between.index(source), blocked or not self.machines[source].up)

    def wires_of(self, name: str) -> list[SimWire]:
        """Those between a machine and its networks; or that between two machines."""
        if name in self.wires:
            return [self.wires[name]]
        return [network.wires[name] for network in self.networks.values() if name in network.wires]

    def wait_for(self, programs: int) -> None:
        """So many more (or less) have to end before the world does."""
        self._awaited += programs

    def _check(self, name: str, known: Any) -> None:
        if self._closed:
            raise WorldError("this world is closed")
        if name in known:
            raise ValueError(f"there is a {name!r} already")

    def new_id(self, name: str, machine: SimMachine | None = None) -> int:
        """For something that the Sim drives."""
        self.names.append(name)
        self._steps.append(machine.step if machine is not None else _nothing)
        return len(self.names) - 1

    # --- time --------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Virtual time since the beginning, ns."""
        return self.sim.now()

    @property
    def time(self) -> float:
        """The same in seconds."""
        return self.now / 1e9

    def run(
        self,
        until: Duration | None = None,
        *,
        virtual_limit: Duration = "30d",
        real_limit: Duration | None = None,
    ) -> None:
        """Let time pass until ``until``; or, without, until all programs have ended that are no daemons.

        The first exception that a program ends with is raised as it is, with a note of where and when it was. Raises
        Deadlock if nothing can happen any more, and LimitReached at a limit.
        """
        if self._closed or self._spinning:
            raise WorldError("this world is closed" if self._closed else "this world runs already")
        ends = until is None
        stop = to_ns(virtual_limit if until is None else until)
        deadline = None if real_limit is None else self._real.now() + to_ns(real_limit)
        self._spinning = True
        try:
            with shared(self):
                self._spin(stop, ends, deadline)
        finally:
            self._spinning = False

    def _spin(self, stop: int, ends: bool, deadline: int | None) -> None:
        following, steps, left = self.sim.next, self._steps, LOOK_EVERY
        self._fire()
        while not (ends and self._awaited == 0 and not self.checks.pending):
            # Without an end in sight it is asked whether anything is left to happen.
            who = following(min(stop, self._times[0][0]) if self._times else NEVER if ends else stop)
            if who >= 0:
                steps[who]()
                self._raise_failure()
                if not self.checks.idle:
                    self.checks.look()
                left -= 1
            elif who == UNTIL:
                if not self._fire() and self.now >= stop and not ends:
                    return
            elif who == IDLE:
                raise Deadlock(self._say_waiting("deadlock: nothing is left to happen"))
            else:
                left = 0
            if left <= 0:
                left = LOOK_EVERY
                self._look(deadline)
            if ends and self._awaited and self.now >= stop:
                raise LimitReached(self._say_waiting("the limit of virtual time is reached"))

    def _look(self, deadline: int | None) -> None:
        self._collector.step(LOOK_EVERY)
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt
        if deadline is not None and self._real.now() >= deadline:
            raise LimitReached(self._say_waiting("the limit of real time is reached"))

    def _fire(self) -> bool:
        """Calls what is due."""
        fired = False
        while self._times and self._times[0][0] <= self.now:
            _, rank, order, action = heapq.heappop(self._times)
            if rank == ACTION:  # faults note themselves
                self.sim.note(TIMER, 0, order)
                self.actions.append((self.now, getattr(action, "__name__", type(action).__name__)))
            action()
            self._raise_failure()
            if not self.checks.idle:
                self.checks.look()
            fired = True
        return fired

    def _raise_failure(self) -> None:
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def _say_waiting(self, what: str) -> str:
        return f"{what}, at {show(self.now)} s, seed {self.seed}. Not ended:\n{describe(self)}"

    # --- what programs tell ------------------------------------------------------------------------------------------

    def program_started(self, program: Program) -> None:
        self.sim.note(STARTED, program.machine.id, zlib.crc32(program.name.encode()))
        self._awaited += not program.daemon

    def program_ended(self, program: Program) -> None:
        machine = program.machine
        machine.forget(program)
        for stream, text in program.pending.items():
            if text:
                self.say(machine, stream, text)
        self._awaited -= not program.daemon
        self.sim.note(ENDED, machine.id, zlib.crc32(type(program.error).__name__.encode()))
        if program.error is not None and self._failed is None:
            self._failed = program.error

    def unfinished(self) -> list[Program]:
        return [program for machine in self.machines.values() for program in machine.programs if not program.ended]

    def say(self, machine: SimMachine, stream: str, text: str) -> None:
        """A line of a program."""
        line = Line(self.now, machine.name, stream, text)
        self.sim.note(OUTPUT, machine.id, zlib.crc32(f"{stream}:{text}".encode(errors="replace")))
        self.log.append(line)
        if self._echo is not None:
            self._echo(line)

    # --- what happened -----------------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """Of everything that happened so far: who ran when, each frame on each wire, lines, ends of programs."""
        return f"{self.sim.counters()[2]:016x}"

    def statistics(self) -> dict[str, int]:
        """``visits`` of machines and wires, and ``steps``: those in which Python took part."""
        visits, steps, _ = self.sim.counters()
        return {"visits": visits, "steps": steps, "now": self.now, "lines_dropped": self.log.dropped}

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Kill all programs, free everything. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as undo:
            undo.callback(self.sim.close)
            for network in self.networks.values():
                undo.callback(network.close)
            for wire in self.wires.values():
                undo.callback(wire.close)
            for machine in self.machines.values():
                undo.callback(machine.close)
            undo.enter_context(shared(self))
            for machine in self.machines.values():
                machine.kill()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _signed_ns(skew: Duration) -> int:
    return to_ns(skew) if isinstance(skew, str) or skew >= 0 else -to_ns(-skew)


def _nothing() -> None:
    """A wire has no programs."""

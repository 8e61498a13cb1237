"""A machine of a simulated world: a Machine on virtual time, and the programs on it.

A crash takes the Machine with all that its programs and its stack had in memory: a restart makes another, with the same
name, addresses and hardware addresses, at the ends of the same wires. ``disk`` is what survives.

Ownership: it owns its Machine (reactor, stack, its end of the link) and its programs; the world closes it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from libos.config import configure
from libos.errors import WorldError
from libos.machine import Machine
from libos.net.stack import Link
from libos.sched.sim import SimReactor
from libos.sim.program import Program, Target

if TYPE_CHECKING:
    from libos.sim.network import SimWire
    from libos.sim.world import World

__all__ = ["SimMachine"]

MTU = 1500
MEMORY = 32 << 20
SOCKETS = 4096
FIRST_PID = 100
NO_ENV: Mapping[str, str] = MappingProxyType({})


class Socket(NamedTuple):
    """Where a wire goes into the machine: which end of it, and the interface there."""

    wire: SimWire
    end: int
    mac: bytes
    mtu: int
    address: str  # of the first one the machine's configuration has it


class SimMachine:
    """Made by :meth:`World.machine <libos.sim.world.World.machine>`. ``skew``: how far its time of day is off, ns;
    ``drift_ppb``: ns that its clocks gain each second. ``settings``: keys of ``machine.toml``."""

    def __init__(
        self,
        world: World,
        name: str,
        addresses: list[str],
        link: Link,
        wire: SimWire,
        *,
        skew: int,
        drift_ppb: int,
        settings: Any,
    ) -> None:
        self.world = world
        self.name = name
        self.addresses = [address.partition("/")[0] for address in addresses]
        self.id = world.new_id(name, self)
        self._rng = world.rng.fork()
        self.rng = self._rng.fork()  # of its programs
        self.pids = itertools.count(FIRST_PID)
        self._config = configure(net="pair", ip=addresses, **{"memory": MEMORY, "sockets": SOCKETS, **settings})
        self._skew, self._drift_ppb = skew, drift_ppb
        self._skewed = 0  # by faults, beside that
        self._sockets = [Socket(wire, 0, link.mac, MTU, "")]
        self.up = True
        self.disk: dict[str, Any] = {}
        self.programs: list[Program] = []
        self._live: tuple[Program, ...] = ()
        self._lost: tuple[Program, ...] = ()  # by the crash
        self._owed = 0  # of these, whom the world waits for
        self._boot(link)

    def _boot(self, link: Link) -> None:
        world, rng = self.world, self._rng.fork()
        # Each machine's monotonic clock starts somewhere else, so that times which travel show at once.
        self.reactor = SimReactor(
            world.sim,
            self.id,
            shown=rng.bits(50),
            drift_ppb=self._drift_ppb,
            epoch=world.epoch + world.now + self._skew + self._skewed,
        )
        self.machine = Machine(self._config, rng=rng, link=link, reactor=self.reactor)
        network = self.machine.network
        assert network is not None
        self.network = network
        if not self._config.hosts and not self._config.hosts_file:
            network.resolver.hosts = world.hosts

    def __repr__(self) -> str:
        return f"<SimMachine {self.name} {' '.join(self.addresses)}>"

    def add_link(self, link: Link, address: str, wire: SimWire, end: int, mtu: int) -> None:
        """One more interface. The link is the machine's from now on; ``address``: with its prefix."""
        self._sockets.append(Socket(wire, end, link.mac, mtu, address))
        self._add_interface(link, address)
        self.addresses.append(address.partition("/")[0])

    def _add_interface(self, link: Link, address: str) -> None:
        stack = self.network.stack
        stack.add_address(stack.add_link(link), address)
        self.reactor.want()

    @property
    def address(self) -> str:
        """Its first one, without a prefix."""
        return self.addresses[0]

    def start(
        self, target: Target, *args: Any, name: str | None = None, daemon: bool = False, env: Mapping[str, str] = NO_ENV
    ) -> Program:
        """Run a program from now on; see :class:`~libos.sim.program.Program`. The world does not wait for daemons.
        ``env``: added to the environment that a program finds."""
        if not self.up:
            raise WorldError(f"{self.name} has crashed")
        program = Program(self, target, args, name=name, daemon=daemon, env=env)
        self.programs.append(program)
        self._live = (*self._live, program)
        self.world.program_started(program)
        self.reactor.want()
        return program

    def signal(self, sig: int) -> bool:
        """As kill(2) to each program: its loop's handler is called. False: nobody has one for it."""
        handled = [program.loop.handle_signal(sig) for program in self._live if program.loop is not None]
        return any(handled)

    @property
    def result(self) -> Any:
        """Of its first program."""
        return self.programs[0].result

    def step(self) -> None:
        """Its turn: events to their sinks, then what is ready in each program."""
        if len(self._live) != 1 or self._live[0].loop is None:
            self.reactor.turn(0)  # or nobody might take the events
        for program in self._live:
            program.step()

    def now_ns(self) -> int:
        """Its monotonic clock."""
        return self.reactor.now()

    def epoch_ns(self) -> int:
        """The time of day, ns since 1970."""
        return self.reactor.now() + self.reactor.clock.epoch_offset

    # --- faults ------------------------------------------------------------------------------------------------------

    def disturb(self, *, paused: bool, cost: int, skew: int, drift_ppb: int) -> None:
        """What faults do to it now; see ``faults.py``."""
        if self.up:
            self.reactor.pause(paused)
            self.reactor.set_cost(cost)
            self.reactor.set_drift(self._drift_ppb + drift_ppb)
            self.reactor.clock.epoch_offset += skew - self._skewed
        self._skewed = skew

    def crash(self, *, back: bool) -> None:
        """Programs and memory are gone, and no frame says so. ``back``: it will be restarted, and the world waits."""
        self.disk = copy.deepcopy(self.disk)  # what the dying do to theirs has not happened
        for socket in self._sockets:
            socket.wire.block(socket.end)
        self._lost = self._live
        self._owed = sum(not program.daemon for program in self._lost) if back else 0
        self.world.wait_for(self._owed)
        self.kill()
        self.up = False
        self.machine.halt()

    def restart(self) -> None:
        """The programs that ran start again, from their beginnings."""
        links = []
        for socket in self._sockets:
            inside, outside = Link.pair(self._rng, mtu=socket.mtu, caps=Link.CSUM, mac=socket.mac)
            outside = self.world.captured(outside, socket.mac, self.name, socket.wire.ends[socket.end])
            socket.wire.replug(socket.end, outside)
            socket.wire.block(socket.end, False)
            links.append(inside)
        self._boot(links[0])
        self.up = True
        for link, socket in zip(links[1:], self._sockets[1:], strict=True):
            self._add_interface(link, socket.address)
        lost, self._lost = self._lost, ()
        for old in lost:
            place = self.programs.index(old)
            new = self.start(old.target, *old.args, name=old.name, daemon=old.daemon, env=old.env)
            self.programs[place] = self.programs.pop()
            assert self.programs[place] is new
        self.world.wait_for(-self._owed)
        self._owed = 0

    def forget(self, program: Program) -> None:
        """It has ended."""
        self._live = tuple(each for each in self._live if each is not program)

    def kill(self) -> None:
        """All its programs, at once."""
        for program in self._live:
            program.kill()

    def close(self) -> None:
        self.kill()
        self.machine.close()

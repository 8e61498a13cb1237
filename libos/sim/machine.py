"""A machine of a simulated world: a Machine on virtual time, and the programs on it.

Ownership: it owns its Machine (reactor, stack, its end of the link) and its programs; the world closes it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from libos.config import configure
from libos.machine import Machine
from libos.sched.sim import SimReactor
from libos.sim.program import Program, Target

if TYPE_CHECKING:
    from libos.net.stack import Link
    from libos.sim.world import World

__all__ = ["SimMachine"]

MEMORY = 32 << 20
SOCKETS = 4096
FIRST_PID = 100
NO_ENV: Mapping[str, str] = MappingProxyType({})


class SimMachine:
    """Made by :meth:`World.machine <libos.sim.world.World.machine>`. ``skew``: how far its time of day is off, ns;
    ``drift_ppb``: ns that its clocks gain each second. ``settings``: keys of ``machine.toml``."""

    def __init__(
        self,
        world: World,
        name: str,
        addresses: list[str],
        link: Link,
        *,
        skew: int,
        drift_ppb: int,
        settings: Any,
    ) -> None:
        self.world = world
        self.name = name
        self.addresses = [address.partition("/")[0] for address in addresses]
        self.id = world.new_id(name, self)
        rng = world.rng.fork()
        self.rng = rng.fork()  # of its programs
        self.pids = itertools.count(FIRST_PID)
        config = configure(net="pair", ip=addresses, **{"memory": MEMORY, "sockets": SOCKETS, **settings})
        # Each machine's monotonic clock starts somewhere else, so that times which travel show at once.
        self.reactor = SimReactor(
            world.sim, self.id, shown=rng.bits(50), drift_ppb=drift_ppb, epoch=world.epoch + world.now + skew
        )
        self.machine = Machine(config, rng=rng, link=link, reactor=self.reactor)
        network = self.machine.network
        assert network is not None
        self.network = network
        if not config.hosts and not config.hosts_file:
            network.resolver.hosts = world.hosts
        self.programs: list[Program] = []
        self._live: tuple[Program, ...] = ()

    def __repr__(self) -> str:
        return f"<SimMachine {self.name} {' '.join(self.addresses)}>"

    def add_link(self, link: Link, address: str) -> None:
        """One more interface. The link is the machine's from now on; ``address``: with its prefix."""
        stack = self.network.stack
        stack.add_address(stack.add_link(link), address)
        self.addresses.append(address.partition("/")[0])
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

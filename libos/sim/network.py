"""What joins the machines of a world: networks (a switch, and a wire from it to each machine) and wires between two.

A wire is simulated by ``net/link/wire.c`` in virtual time, without Python: each way it has an impairment (delay, loss,
rate ...). It is driven by a reactor of the world's own, like a machine without programs. Between a machine's stack and
its wire is a pair of link ends in memory.

Ownership: a network owns its switch and its wires; a wire owns the links at its ends. The world closes both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from libos.config import parse_impairment
from libos.net.link.impairment import Impairment
from libos.net.link.switch import Switch
from libos.net.link.wire import Wire
from libos.net.stack import Link
from libos.sched.sim import SimReactor

if TYPE_CHECKING:
    from libos.sim.machine import SimMachine
    from libos.sim.world import World

__all__ = ["LAN", "MTU", "Network", "SimWire", "WireSpec", "as_impairment", "new_wire"]

# A wire's memory is address space; what its frames take is resident.
WIRE_MEMORY = 16 << 20
MTU = 1500

WireSpec = Impairment | str | None

SOUND = Impairment()
LAN = Impairment(delay=50_000, jitter=50_000, keep_order=True)


def as_impairment(spec: WireSpec) -> Impairment:
    """``spec`` may be text, as ``--impair`` takes it: ``"delay=5ms,loss=1%"``. None: a wire without fault or delay."""
    if isinstance(spec, str):
        return parse_impairment(spec)
    return Impairment() if spec is None else spec


class SimWire(Wire):
    """A wire that its world drives. ``name``: of its ends."""

    def __init__(self, world: World, name: str, a: Link, b: Link, there: Impairment, back: Impairment) -> None:
        self.name = name
        self.ends = (name, name)  # what captures at them are called
        self.insides: tuple[Link, ...] = ()  # of a wire between two machines: what they take
        self.between: tuple[str, ...] = ()  # these two
        self._how = [there, back]
        self._worse: list[Impairment] = []
        super().__init__(a, b, there, back, rng=world.rng, memory=WIRE_MEMORY)
        self._reactor = SimReactor(world.sim, world.new_id(f"wire {name}"))
        self._reactor.attach(self.poller)

    def _woken(self) -> None:
        self._reactor.want()

    def impair(self, direction: int, how: Impairment) -> None:
        self._how[direction] = how
        self.worsen(direction, self._worse)

    def worsen(self, direction: int, faults: list[Impairment]) -> None:
        """It is as it was made, but for what each of these says."""
        self._worse = faults
        how = self._how[direction]
        for fault in faults:
            said = {name: value for name, value in fault._asdict().items() if value != getattr(SOUND, name)}
            how = how._replace(**said)
        super().impair(direction, how)
        self._woken()

    def clog(self, direction: int, until: int = (1 << 64) - 1) -> None:
        super().clog(direction, until)
        self._woken()

    def set_down(self, down: bool = True) -> None:
        super().set_down(down)
        self._woken()

    def close(self) -> None:
        if self._handle is not None:
            self._reactor.detach(self.poller)
            super().close()
            self._reactor.close()


class Network:
    """A switched network. ``subnets``: where machines get their addresses from, one each; ``wire``: what lies between
    the switch and each machine."""

    def __init__(self, world: World, name: str, subnets: tuple[str, ...], wire: WireSpec, *, ports: int) -> None:
        self.world = world
        self.name = name
        self.subnets = [ipaddress.ip_network(subnet) for subnet in subnets]
        self.wires: dict[str, SimWire] = {}  # by machine; the first direction is the machine's way out
        self._ports: dict[str, int] = {}  # by machine
        self._how = as_impairment(wire)
        self._free: list[Iterator[Any]] = [iter(subnet.hosts()) for subnet in self.subnets]
        self._taken: set[str] = set()
        self._switch = Switch(world.rng, ports, stations=4 * ports)  # so many that none is forgotten for want of room

    def next_addresses(self) -> list[str]:
        """With their prefixes."""
        found = []
        for subnet, free in zip(self.subnets, self._free, strict=True):
            address = next((str(each) for each in free if str(each) not in self._taken), None)
            if address is None:
                raise ValueError(f"network {self.name}: no address of {subnet} is left")
            self._taken.add(address)
            found.append(f"{address}/{subnet.prefixlen}")
        return found

    def take(self, address: str) -> None:
        """Somebody has chosen it."""
        self._taken.add(address.partition("/")[0])

    def plug(self, machine: str, wire: WireSpec = None) -> Link:
        """A new machine's end; that of its wire is 0."""
        how = self._how if wire is None else as_impairment(wire)
        self._ports[machine], port = self._switch.plug(mtu=MTU, caps=Link.CSUM)
        inside, outside = Link.pair(self.world.rng, mtu=MTU, caps=Link.CSUM)
        name = f"{machine}-{self.name}"
        outside = self.world.captured(outside, inside.mac, machine, name)
        self.wires[machine] = SimWire(self.world, name, outside, port, how, how)
        return inside

    def block(self, source: str, target: str, blocked: bool) -> None:
        """Nothing that one machine sends reaches the other, if both are here. What is under way to it arrives."""
        if source in self._ports and target in self._ports:
            self._switch.block(self._ports[source], self._ports[target], blocked)

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()
        self._switch.close()


def new_wire(world: World, a: SimMachine, b: SimMachine, there: Impairment, back: Impairment, mtu: int) -> SimWire:
    """From a machine to another, who are to take its ``insides``."""
    left, near = Link.pair(world.rng, mtu=mtu, caps=Link.CSUM)
    right, far = Link.pair(world.rng, mtu=mtu, caps=Link.CSUM)
    name = f"{a.name}-{b.name}"
    ends = f"{name}@{a.name}", f"{name}@{b.name}"
    near, far = world.captured(near, left.mac, a.name, ends[0]), world.captured(far, right.mac, b.name, ends[1])
    wire = SimWire(world, name, near, far, there, back)
    wire.ends, wire.insides = ends, (left, right)
    wire.between = a.name, b.name
    return wire

"""A machine: one booted instance of everything, put together from a configuration.

    host    Reactor                                      the kernel's sockets
    user    Reactor, Stack <- [pcap] <- [impair] <- pair <- Gateway <- the kernel's sockets
    tap     Reactor, Stack <- [pcap] <- [impair] <- tap  <- the kernel's bridge or routes
    pair    Reactor, Stack <- [pcap] <- [impair] <- pair <- another machine

A machine may be used from one thread at a time, the two of a pair from the same one. Its loops come one after another
and share it: what a closed loop left behind is the next one's (listening sockets are not, they belong to transports).
Or it is attached to a loop that somebody else runs (``attach.py``). Ownership: the machine owns its reactor, network,
stack and gateway, and whatever they own: :meth:`Machine.close` frees all of it, in the order that lets the last bytes
out first. A constructor that fails has left nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from libos.attach import Attachment, NetworkCalls
from libos.clock import Clock, MonotonicClock
from libos.config import MachineConfig
from libos.errors import AddressError, ConfigError, HostError, WorldError
from libos.plan import Plan
from libos.rand import Rng
from libos.sched.loop import Loop
from libos.sched.reactor import Reactor

if TYPE_CHECKING:
    from libos.net.config.service import Configurator
    from libos.net.names.hosts import Hosts
    from libos.net.network import StackNetwork
    from libos.net.stack import Link, Stack
    from libos.net.user.gateway import Gateway
    from libos.net.view import NetView

__all__ = ["Machine", "MachineLoop"]

T = TypeVar("T")

LINGER_NS = 2_000_000_000
PAIR_MTU = 65520
TAP_MTU = 1500
TAP_PACE = 50_000_000  # ns for each second of RFC 5227 and RFC 4862: a TAP's neighbours answer in microseconds
ADDRESS_WAIT = 10_000_000_000


def _hosts(config: MachineConfig) -> Hosts:
    from libos.net.names.hosts import Hosts, read_hosts

    text = ""
    if config.hosts_file:
        try:
            with open(config.hosts_file, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise ConfigError(f"hosts-file {config.hosts_file}: {error.strerror}") from None
    return Hosts(config.hosts.addresses(), read_hosts(text))


class Machine(NetworkCalls):
    """Boots at once. ``clock`` and ``rng`` are its only sources of time and randomness. ``say`` gets a line when an
    address was leased, or turns out to be somebody else's. Addresses that others are asked for come later: see
    :meth:`wait_for_addresses`. ``link`` is the device in world ``pair``, and ``reactor`` another than the host's (its
    clock is the machine's then): both are the machine's from now on.

    Raises HostError (no TAP, a port taken …) or ConfigError, with nothing left behind.
    """

    def __init__(
        self,
        config: MachineConfig | None = None,
        *,
        clock: Clock | None = None,
        rng: Rng | None = None,
        say: Callable[[str], object] = lambda line: None,
        link: Link | None = None,
        reactor: Reactor | None = None,
    ) -> None:
        self.config = config = MachineConfig() if config is None else config
        self.rng = Rng(config.seed) if rng is None else rng
        if reactor is not None:
            clock = reactor.clock
        self.clock = MonotonicClock(self.rng.bits(50)) if clock is None else clock
        self.stack: Stack | None = None
        self.network: StackNetwork | None = None
        self.gateway: Gateway | None = None
        self.tap: str | None = None  # the device's name
        self.configurator: Configurator | None = None
        self._say = say
        self.attachment: Attachment | None = None
        self.link: Link | None = None  # as the stack sees it
        self._loops: weakref.WeakSet[MachineLoop] = weakref.WeakSet()
        self._closed = False
        self._final: dict[str, int] | None = None
        with ExitStack() as undo:
            if reactor is not None:
                undo.callback(reactor.close)
            if link is not None:
                undo.callback(link.close)
            if (link is None) == (config.net == "pair"):
                allowed = "pair, with link=" if link else "host, user or tap (those of world pair: see Machine.pair)"
                raise ConfigError(f"net={config.net}: allowed: {allowed}")
            self.plan = Plan.of(config)
            self.reactor = reactor or Reactor(config.reactor, clock=self.clock, spin_us=config.spin_us)
            undo.callback(self.reactor.close)
            if config.net != "host":
                self._boot_network(undo, link)
            self._undo = undo.pop_all()

    # Each part is pushed on `undo` as soon as it exists. A link's close does nothing once a wrapper or a stack has it.

    def _boot_network(self, undo: ExitStack, link: Link | None) -> None:
        # Imported here, for a machine in world `host` needs none of it.
        from libos.net.names.resolver import Resolver
        from libos.net.network import StackNetwork
        from libos.net.stack import Stack
        from libos.net.user.resolvconf import host_names

        config, plan = self.config, self.plan
        self.stack = Stack(
            rng=self.rng.fork(),
            now=self.reactor.now(),
            memory=config.memory,
            sockets=config.sockets,
            rcvbuf=config.rcvbuf,
            sndbuf=config.sndbuf,
            rcvbuf_max=config.rcvbuf_max,
            sndbuf_max=config.sndbuf_max,
            notsent_lowat=config.notsent_lowat,
            mtu_probing=config.mtu_probing,
            congestion=config.congestion,
            ecn=config.ecn,
        )
        undo.callback(self.stack.close)
        self.link = self._wrapped(self._open_link(undo) if link is None else link, undo)
        ifindex = self.stack.add_link(self.link)
        if config.net != "tap":  # a link with two ends, where nobody else can have them
            for interface in plan.ip:
                self.stack.add_address(ifindex, interface)
        for gateway in plan.gateway:
            self.stack.add_route(ifindex, "::/0" if ":" in gateway else "0.0.0.0/0", gateway)
        search: tuple[str, ...] = config.search
        ndots = config.ndots
        if config.net == "user" and not config.dns and not search:  # its server is the host's, so are its short names
            host = host_names()
            search, ndots = host.search, max(ndots, host.ndots)
        resolver = Resolver(
            self.rng.fork(), servers=config.dns or plan.dns, search=search, ndots=ndots, hosts=_hosts(config)
        )
        self.network = StackNetwork(self.stack, self.reactor, resolver=resolver)
        undo.callback(self.network.close)
        if config.net == "tap":
            self.configurator = self._new_configurator(self.network, self.link.mac, ifindex)
            undo.callback(self.configurator.close)
        if self.gateway is not None:
            self.gateway.inside = self.stack.handle, self.network.base

    def _new_configurator(self, network: StackNetwork, mac: bytes, ifindex: int) -> Configurator:
        from libos.net.config.service import Configurator

        config = self.config
        service = Configurator(
            self.reactor,
            network.stack,
            network.base,
            ifindex,
            mac,
            rng=self.rng.fork(),
            name=self.tap or "",
            pace=TAP_PACE,
            learned=lambda servers, search: (
                None if config.dns else network.resolver.set_servers(servers, config.search or search)
            ),
            say=self._say,
        )
        for interface in self.plan.ip:
            service.add_static(interface)
        if "dhcp" in config.ip:
            service.start_dhcp()
        if "auto" in config.ip:
            service.start_auto()
        return service

    def _open_link(self, undo: ExitStack) -> Link:
        from libos.net.stack import Link

        config, plan = self.config, self.plan
        whole = config.impair is None  # a bad wire loses packets, not the 64 KiB segments that offloads make
        if config.net == "tap":
            from libos.net.link.tap import open_tap

            # A device that is there already was set up by someone who knows what it is for.
            there = config.tap in (name for _, name in socket.if_nameindex())
            tap = open_tap(config.tap, addresses=() if there else plan.peer, mtu=config.mtu or TAP_MTU, segments=whole)
            self.tap = tap.name
            with ExitStack() as guard:
                guard.callback(os.close, tap.fd)
                link = Link.tap(self.reactor.handle, tap.fd, self.rng, mtu=tap.mtu, caps=tap.caps)
                guard.pop_all()
            undo.callback(link.close)
            return link
        from libos.net.user.gateway import Gateway
        from libos.net.user.resolvconf import host_names

        if whole:
            ours, far = Link.pair(self.rng, mtu=config.mtu or PAIR_MTU)
        else:
            ours, far = Link.pair(self.rng, mtu=config.mtu or TAP_MTU, caps=Link.CSUM)
        undo.callback(ours.close)
        undo.callback(far.close)
        self.gateway = Gateway(
            self.reactor,
            far,
            rng=self.rng.fork(),
            addresses=plan.peer,
            guest=[interface.partition("/")[0] for interface in plan.ip],
            dns=plan.dns,
            nameserver=host_names().nameserver,
            publish=config.publish,
        )
        undo.callback(self.gateway.close)
        return ours

    def _wrapped(self, link: Link, undo: ExitStack) -> Link:
        """The capture is the outermost: it shows what the stack sees."""
        config = self.config
        if config.impair is not None:
            link = link.with_impairment(config.impair, self.rng)
            undo.callback(link.close)
        if config.pcap:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                fd = os.open(config.pcap, flags, 0o644)
            except OSError as error:
                raise HostError(f"cannot write --pcap {config.pcap}: {error.strerror}") from None
            with ExitStack() as guard:
                guard.callback(os.close, fd)
                link = link.with_pcap(fd, self.clock.epoch_offset)
                guard.pop_all()
            undo.callback(link.close)
        return link

    # --- use -----------------------------------------------------------------------------------------------------

    @property
    def net(self) -> NetView:
        """The machine's network, to look at: its sockets, counters, addresses, routes, neighbours, names.

        Raises WorldError in world `host`, where all of that is the kernel's.
        """
        if self.network is None:
            raise WorldError(f"world {self.config.net} has no network of its own: ask the kernel (ss, nstat, ip)")
        from libos.net.view import NetView

        return NetView(self.network)

    def new_event_loop(self) -> MachineLoop:
        """A loop on this machine. See :class:`MachineLoop`."""
        return MachineLoop(self)

    @classmethod
    def pair(
        cls, a: MachineConfig | None = None, b: MachineConfig | None = None, **options: Any
    ) -> tuple[Machine, Machine]:
        """Two machines joined by a wire in memory. See :func:`libos.pair.new_pair`."""
        from libos.pair import new_pair

        return new_pair(cls, a, b, **options)

    def attach(self, loop: asyncio.AbstractEventLoop | None = None) -> Attachment:
        """Live in ``loop`` (None: the running one) from now on. See :class:`libos.attach.Attachment`.

        ``loop`` is of this thread, running or about to; ``spin_us`` does not apply there. WorldError: the machine has
        no network of its own (world `host`), is closed, attached already, or has an open loop of its own.
        """
        if self._closed:
            raise WorldError("this machine is closed")
        if self.network is None:
            raise WorldError("world host has no network to attach: the loop has the kernel's sockets already")
        if self.attachment is not None:
            raise WorldError("this machine is attached already: detach it first")
        if any(not own.is_closed() for own in self._loops):
            raise WorldError("this machine has an open loop of its own: close it first")
        self.attachment = Attachment(self, asyncio.get_running_loop() if loop is None else loop)
        return self.attachment

    def left(self, attachment: Attachment) -> None:
        """``attachment`` has ended."""
        if self.attachment is attachment:
            self.attachment = None

    def run(self, main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
        """``asyncio.run(main)`` on this machine."""
        with asyncio.Runner(loop_factory=self.new_event_loop, debug=debug) as runner:
            return runner.run(main)

    @property
    def addresses(self) -> tuple[str, ...]:
        """With their prefixes: those that it has now, but for loopback's and link-local ones."""
        return self.plan.ip if self.configurator is None else tuple(self.configurator.addresses())

    def wait_for_addresses(self, timeout_ns: int = ADDRESS_WAIT) -> None:
        """Until there is one of each family that somebody was asked for. AddressError: there was none in time."""
        service, deadline = self.configurator, self.reactor.now() + timeout_ns
        while service is not None and (missing := service.missing()):
            left = deadline - self.reactor.now()
            if left <= 0:
                raise AddressError(
                    f"{'; '.join(missing)} in {timeout_ns // 10**9} s: is the device on a bridge, or does somebody "
                    "serve there? --ip ADDR/PREFIX asks nobody"
                )
            self.reactor.turn(left)

    def statistics(self) -> dict[str, int]:
        """Since boot (to the end, once closed): packets, bytes (of frames), drops; TCP connections and retransmitted
        segments; what the reactor did. In world `host` the kernel does the counting, and only the last is here.
        """
        if self._final is not None:
            return self._final
        counts = {f"reactor_{name}": count for name, count in self.reactor.statistics().items()}
        if self.stack is None or self.link is None:
            return counts
        link, stack = self.link.stats(), self.stack.counters()
        return {
            "packets_in": link["rx_packets"],
            "packets_out": link["tx_packets"],
            "bytes_in": link["rx_bytes"],
            "bytes_out": link["tx_bytes"],
            "dropped": link["rx_dropped"] + link["tx_dropped"],
            "connections_in": stack["TcpPassiveOpens"],
            "connections_out": stack["TcpActiveOpens"],
            "connections_open": stack["TcpCurrEstab"],
            "retransmissions": stack["TcpRetransSegs"],
            **counts,
        }

    def seat(self, loop: MachineLoop) -> bool:
        """Whether ``loop`` may run on our reactor: it is this process's, and free of loops of other threads."""
        if self._closed:
            raise WorldError("this machine is closed")
        if self.reactor.inherited:
            return False
        if self.attachment is not None:
            raise WorldError("this machine is attached to a loop: detach it first")
        if any(other.thread != loop.thread and not other.is_closed() for other in self._loops):
            return False
        self._loops.add(loop)
        return True

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let freed sockets send what they still have (for at most two seconds), then free everything.

        That waits here, and holds up a loop that the machine is attached to, where ``async with machine.attach()`` has
        done it before. In world `pair` the other machine could not answer meanwhile, so nothing is waited for.
        """
        if self._closed:
            return
        if self.reactor.turning:
            raise WorldError("a machine cannot be closed in an event of its own: loop.call_soon(machine.close) can")
        self._closed = True
        if self.attachment is not None:
            self.attachment.detach()
        with self._undo:
            if (
                self.network is not None and not self.reactor.inherited
            ):  # a forked child has nothing to say to the peers
                self.network.hang_up()
                self._linger()
                if self.configurator is not None:
                    self.configurator.close()
                    self.reactor.turn(0)  # what it said at last
            self._final = self.statistics()

    def halt(self) -> None:
        """Free everything and say nothing to anybody, as when the power goes. Its loops are dead from then on."""
        if not self._closed:
            self._closed = True
            if self.attachment is not None:
                self.attachment.detach()
            with self._undo:
                self._final = self.statistics()

    def lingering(self) -> int:
        """Closed connections that still have something to get through."""
        if self.stack is None:
            return 0
        return self.stack.lingering() + (0 if self.gateway is None else self.gateway.lingering())

    def _linger(self) -> None:
        """Turn until two turns in a row found nothing to wait for: the first may have moved an end of stream on."""
        patience = 0 if self.config.net == "pair" else LINGER_NS
        deadline, quiet = self.reactor.now() + patience, 0
        self.reactor.turn(0)
        while quiet < 2 and (left := deadline - self.reactor.now()) > 0:
            busy = self.lingering()
            quiet = 0 if busy else quiet + 1
            self.reactor.turn(min(left, 10_000_000) if busy else 0)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class MachineLoop(Loop):
    """A loop on ``machine``; with ``own_machine``, closing it closes the machine. Without a machine it has one in world
    `host`, which it owns: so it is called as uvloop.Loop is.

    While another thread's loop is open, and in a process that was forked from the machine's, it is a loop beside the
    machine: in world `host` it has the kernel's sockets like any other, elsewhere its network calls raise WorldError.
    """

    def __init__(self, machine: Machine | None = None, *, own_machine: bool = False) -> None:
        self._own_machine = own_machine or machine is None
        self.machine = Machine(MachineConfig(net="host")) if machine is None else machine
        self.thread = threading.get_ident()
        try:
            self._take_seat(self.machine)
        except BaseException:
            if self._own_machine:
                self.machine.close()
            raise

    def _take_seat(self, machine: Machine) -> None:
        if machine.seat(self):
            super().__init__(machine.reactor, machine.network)
        else:
            reactor = Reactor(machine.config.reactor, clock=machine.clock)
            elsewhere: Any = None if machine.network is None else _Elsewhere()
            super().__init__(reactor, elsewhere, own_reactor=True)

    def close(self) -> None:
        super().close()
        if self._own_machine and self.is_closed():
            self.machine.close()


class _Elsewhere:
    """The network of a loop beside the machine."""

    def owns(self, sock: object) -> bool:
        return False

    async def refuse(self, loop: object, *args: object, **kwargs: object) -> NoReturn:
        raise WorldError(
            "the machine's network belongs to the loop of another thread, or of the process that this one was forked "
            "from: a machine runs in one thread at a time (run the network code there, or give it a machine of its own)"
        )

    create_connection = create_server = create_datagram_endpoint = connect_accepted_socket = refuse
    getaddrinfo = getnameinfo = refuse

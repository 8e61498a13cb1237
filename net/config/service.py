"""Configures one interface of a machine, for as long as the machine lives.

    static   addresses that are used at once, checked meanwhile, and kept (RFC 5227, 2.4 (c))
    dhcp     IPv4 by DHCP
    auto     IPv6 by routers (RFC 4861, RFC 4862), and by DHCPv6 where they say so

It gives the clients sockets, time and the interface, carries out what they decide, and tells the resolver which name
servers were learned. Driven by reactor events and the stack's alarm alone, so it works before, between and beside
loops.

Ownership: it owns its two sockets and the stack's events (socket id 0); :meth:`Configurator.close` gives leases back,
and comes before the stack's end.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.interface import NEVER, Interface, InterfaceAddress
from libos.net.stack import pack_address

if TYPE_CHECKING:  # the clients are imported when they are wanted: most machines have addresses given by hand
    from libos.net.config import dhcp4, dhcp6
    from libos.net.stack import Stack
    from libos.rand import Rng
    from libos.sched.reactor import Reactor

__all__ = ["Configurator"]

SERVER4, CLIENT4, SERVER6, CLIENT6 = 67, 68, 547, 546
ALL_SERVERS = "ff02::1:2"
DATAGRAMS_PER_TURN = 32
DATAGRAM_MAX = 65535
IAID = 1
SO_BINDTOIFINDEX = 62  # asm-generic/socket.h

Route = tuple[str, str | None]


class Configurator:
    """``learned(servers, search)`` is called when name servers were; ``say`` gets a line for a person now and then."""

    def __init__(
        self,
        reactor: Reactor,
        stack: Stack,
        base: int,
        ifindex: int,
        mac: bytes,
        *,
        rng: Rng,
        name: str,
        hostname: str = "",
        pace: int = 1_000_000_000,
        learned: Callable[[Sequence[str], Sequence[str]], object] = lambda servers, search: None,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.interface = Interface(stack, ifindex)
        self.name = name
        self.dhcp4: dhcp4.Client | None = None
        self.dhcp6: dhcp6.Client | None = None
        self._reactor = reactor
        self._handle = stack.handle
        self._base = base
        self._mac = mac
        self._rng = rng
        self._hostname = hostname
        self._pace = pace
        self._learned = learned
        self._say = say
        self._auto = False
        self._sockets: dict[int, int] = {}  # family: socket id
        self._routes: list[Route] = []
        self._inform: dhcp6.Inform | None = None
        self._names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._said: set[str] = set()
        self._buffer = ffi.new("uint8_t[]", DATAGRAM_MAX)
        self._from = ffi.new("struct sock_name *")
        self.interface.set_pace(pace)
        self._others = reactor.sinks.get(base)  # whose the stack's other events are
        reactor.sinks[base] = self._event

    # --- what is wanted --------------------------------------------------------------------------------------------

    def add_static(self, interface: str) -> None:
        flags = Interface.DETECT | Interface.AT_ONCE | Interface.KEEP
        self.interface.set_address(interface, flags)

    def start_dhcp(self) -> None:
        from libos.net.config import dhcp4
        from libos.net.config.fields import client_id, duid_ll

        identifier = client_id(IAID, duid_ll(self._mac))
        self.dhcp4 = dhcp4.Client(self._rng.fork(), self._mac, identifier=identifier, hostname=self._hostname)
        self._open(socket.AF_INET, CLIENT4)
        self._do4(self.dhcp4.start(self._reactor.now()))

    def start_auto(self) -> None:
        from libos.net.config import dhcp6
        from libos.net.config.fields import duid_ll

        self._auto = True
        self.dhcp6 = dhcp6.Client(self._rng.fork(), duid=duid_ll(self._mac), iaid=IAID)
        self._open(socket.AF_INET6, CLIENT6)
        self.interface.autoconf(Interface.FORM_ADDRESSES)

    def addresses(self) -> list[str]:
        """Those that the machine has now and others can reach, with their prefixes."""
        return [f"{a.address}/{a.prefix}" for a in self.interface.addresses() if a.usable and a.origin != "link-local"]

    def missing(self) -> list[str]:
        """What a person waits for, in their words; empty: there is an address of each family that was asked for."""
        usable = [a for a in self.interface.addresses() if a.usable and a.origin != "link-local"]
        missing = []
        if self.dhcp4 is not None and not any(self._is_leased(a.address) for a in usable):
            missing.append(_why4(self.dhcp4, self.name))
        if self._auto and not any(":" in a.address for a in usable):
            missing.append(self._why6())
        return missing

    def close(self) -> None:
        """Give the leases back, forget the sockets. May be called twice."""
        now = self._reactor.now()
        if self.dhcp4 is not None:
            self._do4(self.dhcp4.release(now))
        if self.dhcp6 is not None:
            self._do6(self.dhcp6.release(now))
        if self._reactor.sinks.pop(self._base, None) is not None and self._others is not None:
            self._reactor.sinks[self._base] = self._others
        for id in self._sockets.values():
            self._reactor.sinks.pop(self._base | id, None)
            lib.sock_free(self._handle, id)
        self._sockets.clear()
        lib.stack_set_alarm(self._handle, lib.REACTOR_NEVER)

    # --- events ----------------------------------------------------------------------------------------------------

    def _event(self, mask: int) -> None:
        """Of the stack: something about addresses or routers (EV_READ), the alarm (EV_WRITE)."""
        if self._others is not None and mask & ~(lib.EV_READ | lib.EV_WRITE):
            self._others(mask)
        if not mask & (lib.EV_READ | lib.EV_WRITE):
            return
        now = self._reactor.now()
        if mask & lib.EV_READ:
            self._look(now)
        if self.dhcp4 is not None:
            self._do4(self.dhcp4.timeout(now))
        if self.dhcp6 is not None:
            self._do6(self.dhcp6.timeout(now))

    def _look(self, now: int) -> None:
        """What became of addresses that were being checked, and what routers say."""
        addresses = {a.address: a for a in self.interface.addresses()}
        for a in addresses.values():
            if a.state == "duplicate":
                self._duplicate(a, now)
        if (four := self.dhcp4) is not None and four.lease is not None:
            checked = addresses.get(four.lease.address)
            if checked is not None and checked.usable:
                self._do4(four.confirmed(now))
        if (six := self.dhcp6) is not None:
            if six.lease is not None:
                states = [addresses.get(bound.address) for bound in six.lease.addresses]
                if all(a is not None and a.usable for a in states):
                    self._do6(six.confirmed(now))
            self._follow_routers(six, now)
        self._tell_names()
        if self.missing() == []:
            self._announce()

    def _follow_routers(self, client: dhcp6.Client, now: int) -> None:
        """RFC 4861, 4.2: the M flag starts DHCPv6 for addresses, the O flag for the rest. It is not stopped again."""
        from libos.net.config import dhcp6

        said = self.interface.advertised()
        informing = client.state in (dhcp6.State.STOPPED, dhcp6.State.INFORMING, dhcp6.State.INFORMED)
        if said.managed and informing:
            self._do6(client.start(now, stateful=True, delay=self._pace))
        elif said.other and client.state is dhcp6.State.STOPPED:
            self._do6(client.start(now, stateful=False, delay=self._pace))

    def _duplicate(self, a: InterfaceAddress, now: int) -> None:
        address, line = a.address, f"{a.address} on {self.name} is in use by {a.rival or 'another host'}: not used"
        if a.origin != "static":  # formed by the stack, which has tried others; it stays listed
            if line not in self._said:
                self._said.add(line)
                self._say(line)
            return
        self._say(line)
        self.interface.remove_address(address)
        if self._is_leased(address):
            assert self.dhcp4 is not None
            self._do4(self.dhcp4.declined(now))
        elif (six := self.dhcp6) is not None and six.lease and any(b.address == address for b in six.lease.addresses):
            self._do6(six.declined(now))

    def _is_leased(self, address: str) -> bool:
        return self.dhcp4 is not None and self.dhcp4.lease is not None and self.dhcp4.lease.address == address

    def _announce(self) -> None:
        """Say once of each address that it is there."""
        for interface in self.addresses():
            if interface not in self._said:
                self._said.add(interface)
                lease = self.dhcp4.lease if self.dhcp4 is not None else None
                if lease is not None and interface == f"{lease.address}/{lease.prefix}":
                    time = "for ever" if lease.until == NEVER else f"for {lease.seconds} s"
                    self._say(f"{interface} on {self.name}, leased by {lease.server} {time}")

    # --- what the clients decide -----------------------------------------------------------------------------------

    def _do4(self, actions: Sequence[dhcp4.Action]) -> None:
        from libos.net.config import dhcp4

        for action in actions:
            match action:
                case dhcp4.Send(data, to):
                    self._send(socket.AF_INET, data, to or "255.255.255.255", SERVER4)
                case dhcp4.Bind(lease):
                    self._bind4(lease)
                case dhcp4.Unbind(lease, _):
                    self._set_routes([])
                    self._forget(lease.address)
                    self._said.discard(f"{lease.address}/{lease.prefix}")
                    self._tell_names()
        self._set_alarm()

    def _bind4(self, lease: dhcp4.Lease) -> None:
        flags = Interface.DETECT | Interface.RENEW
        self._set_address(f"{lease.address}/{lease.prefix}", flags, lease.until, lease.until)
        if lease.mtu is not None:
            self.interface.set_mtu(min(lease.mtu, self.interface.advertised().mtu))
        network = ipaddress.ip_interface(f"{lease.address}/{lease.prefix}").network
        routes: list[Route] = list(lease.routes) or [("0.0.0.0/0", router) for router in lease.routers[:1]]
        on_link: list[Route] = []
        for _, router in routes:  # one outside of the network is on the link all the same
            if router is not None and ipaddress.ip_address(router) not in network:
                on_link.append((f"{router}/32", None))
        self._set_routes([*dict.fromkeys(on_link), *routes])
        self._tell_names()

    def _do6(self, actions: Sequence[dhcp6.Action]) -> None:
        from libos.net.config import dhcp6

        for action in actions:
            match action:
                case dhcp6.Send(data):
                    self._send(socket.AF_INET6, data, ALL_SERVERS, SERVER6)
                case dhcp6.Bind(lease):
                    flags = Interface.DETECT | Interface.RENEW | Interface.NO_ROUTE
                    for a in lease.addresses:
                        self._set_address(f"{a.address}/128", flags, a.preferred_until, a.valid_until)
                    self._tell_names()
                case dhcp6.Unbind(lease, _):
                    for a in lease.addresses:
                        self._forget(a.address)
                    self._tell_names()
                case dhcp6.Inform():
                    self._inform = action
                    self._tell_names()
        self._set_alarm()

    def _set_alarm(self) -> None:
        clients = [client.deadline for client in (self.dhcp4, self.dhcp6) if client is not None]
        lib.stack_set_alarm(self._handle, min(clients, default=lib.REACTOR_NEVER))

    def _set_address(self, interface: str, flags: int, preferred_until: int, valid_until: int) -> None:
        try:
            self.interface.set_address(interface, flags, preferred_until=preferred_until, valid_until=valid_until)
        except OSError as error:
            self._say(f"{interface} on {self.name} cannot be used: {error.strerror}")

    def _forget(self, address: str) -> None:
        if any(a.address == address for a in self.interface.addresses()):  # it may have expired
            self.interface.remove_address(address)

    def _set_routes(self, routes: list[Route]) -> None:
        for network, router in self._routes:
            if (network, router) not in routes:
                self.interface.remove_route(network, router)
        for network, router in routes:
            if (network, router) not in self._routes:
                self.interface.add_route(network, router)
        self._routes = routes

    def _tell_names(self) -> None:
        """Name servers and search domains of all sources, IPv4's first: of those that answer, the first is asked."""
        servers, search = list[str](), list[str]()
        if self.dhcp4 is not None and (lease := self.dhcp4.lease) is not None:
            servers += lease.dns
            search += lease.search or ((lease.domain,) if lease.domain else ())
        if self.dhcp6 is not None and (lease6 := self.dhcp6.lease) is not None:
            servers += lease6.dns
            search += lease6.search
        if self._inform is not None:
            servers += self._inform.dns
            search += self._inform.search
        if self._auto:
            servers += self.interface.servers()
            search += self.interface.domains()
        names = tuple(dict.fromkeys(servers)), tuple(dict.fromkeys(search))
        if names != self._names:
            self._names = names
            self._learned(*names)

    # --- sockets ---------------------------------------------------------------------------------------------------

    def _open(self, family: int, port: int) -> None:
        id = check(lib.sock_open(self._handle, socket.SOCK_DGRAM, family))
        self._sockets[family] = id
        check(lib.sock_setopt(self._handle, id, socket.SOL_SOCKET, SO_BINDTOIFINDEX, self.interface.index))
        if family == socket.AF_INET:
            check(lib.sock_setopt(self._handle, id, socket.SOL_SOCKET, socket.SO_BROADCAST, 1))
        else:
            check(lib.sock_setopt(self._handle, id, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
        anyone = pack_address("0.0.0.0" if family == socket.AF_INET else "::")
        check(lib.sock_bind(self._handle, id, anyone, port), f"port {port}")
        self._reactor.sinks[self._base | id] = lambda mask: self._receive(family, id)

    def _send(self, family: int, data: bytes, to: str, port: int) -> None:
        """What cannot be sent now (no route to the server any more) is what retransmission is for."""
        fields = {"addr": pack_address(to), "port": port, "family": family}
        name: Any = ffi.new("struct sock_name *", fields)
        lib.sock_sendto(self._handle, self._sockets[family], data, len(data), name, ffi.NULL)

    def _receive(self, family: int, id: int) -> None:
        for _ in range(DATAGRAMS_PER_TURN):
            n = lib.sock_recvfrom(self._handle, id, self._buffer, DATAGRAM_MAX, self._from, ffi.NULL)
            if n < 0:
                lib.sock_error(self._handle, id)
                return
            data, now = bytes(ffi.buffer(self._buffer, n)), self._reactor.now()
            if family == socket.AF_INET and self.dhcp4 is not None:
                self._do4(self.dhcp4.received(data, now))
            elif family == socket.AF_INET6 and self.dhcp6 is not None:
                self._do6(self.dhcp6.received(data, now))

    # --- words -----------------------------------------------------------------------------------------------------

    def _why6(self) -> str:
        said = self.interface.advertised()
        if not said.heard:
            return f"no router advertised itself on {self.name}"
        if said.managed:
            return f"no DHCPv6 server gave an address on {self.name}"
        return f"the routers on {self.name} advertise no prefix to form addresses in"


def _why4(client: dhcp4.Client, name: str) -> str:
    from libos.net.config import dhcp4

    if client.lease is not None:
        return f"the DHCP server offered {client.lease.address} on {name}, which is still being checked"
    if client.state is dhcp4.State.REQUESTING:
        return f"a DHCP server answered on {name}, and then did not confirm its offer"
    if client.state is dhcp4.State.INIT:
        return f"a DHCP server answered on {name}, but its address could not be used"
    return f"no DHCP server answered on {name}"

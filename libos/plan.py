"""Who has which address on a machine's link, as far as that is decided before it boots."""

from __future__ import annotations

from typing import Any, NamedTuple

from libos.config import MachineConfig
from libos.errors import ConfigError

__all__ = ["Plan"]


class Plan(NamedTuple):
    """Who has which address on a machine's link. Interfaces carry their prefix; the rest are bare addresses."""

    ip: tuple[str, ...]
    gateway: tuple[str, ...]  # the default routes
    peer: tuple[str, ...]  # interfaces of the far end: the user world's gateway, the host's side of a TAP
    dns: tuple[str, ...]

    @classmethod
    def of(cls, config: MachineConfig) -> Plan:
        """Fill what ``config`` leaves open: addresses by world, then in each subnet .2 the gateway and .3 the DNS."""
        if config.net == "host":
            return cls((), (), (), ())
        import ipaddress  # the other worlds' programs can wait for it

        if config.net == "pair":  # the other end has a plan of its own
            if asked := [each for each in config.ip if not each.static]:
                raise ConfigError(f"ip {asked[0]}: allowed: in world tap (in world pair there is nobody to ask)")
            return cls(config.ip, config.gateway, (), config.dns)
        subnet = "10.0.2.{}/24", "fd00:6c69:626f:73::{}/64"
        if config.net == "tap":
            subnet = "10.0.3.{}/24", "fd00:6c69:626f:74::{}/64"
        asked = [each for each in config.ip if not each.static]
        if asked and config.net != "tap":
            raise ConfigError(f"ip {asked[0]}: allowed: in world tap (in world {config.net} there is nobody to ask)")
        ip: tuple[str, ...] = tuple(each for each in config.ip if each.static)
        if not config.ip:
            ip = tuple(each.format(15) for each in subnet)
        gateway, peer, dns = [], [], []
        for interface in map(ipaddress.ip_interface, _first_of_each_family(ip)):
            chosen = next((g for g in config.gateway if ipaddress.ip_address(g).version == interface.version), None)
            far = ipaddress.ip_address(chosen) if chosen else _free(interface, 2)
            if far not in interface.network or far == interface.ip:
                raise ConfigError(f"gateway {far}: allowed: another address in {interface.network}")
            gateway.append(str(far))
            peer.append(f"{far}/{interface.network.prefixlen}")
            if config.net == "user":
                dns.append(str(_free(interface, 3, far)))
        return cls(ip, tuple(gateway), tuple(peer), tuple(dns))


def _first_of_each_family(interfaces: tuple[str, ...]) -> list[str]:
    return list({(":" in each): each for each in reversed(interfaces)}.values())


def _free(interface: Any, first: int, *taken: object) -> Any:
    """The address of the subnet with number ``first``, or the next that is free."""
    network = interface.network
    for number in range(first, min(first + 3, network.num_addresses - 1)):
        if network[number] not in (interface.ip, *taken):
            return network[number]
    raise ConfigError(f"ip {interface}: allowed: a subnet with room for a gateway and a name server (/29, /125)")

"""The names of a world's machines: one hosts table that all of them have, and that grows with the world."""

from __future__ import annotations

from collections.abc import Iterable

from libos.net.names.hosts import Host, Hosts, canonical

__all__ = ["WorldHosts"]


class WorldHosts(Hosts):
    def __init__(self) -> None:
        super().__init__()
        self._machines: dict[str, Host] = {}
        self._machine_at: dict[str, str] = {}

    def add(self, name: str, addresses: Iterable[str]) -> None:
        """A machine."""
        host = self._machines[canonical(name)] = Host(name, tuple(addresses))
        for address in host.addresses:
            self._machine_at.setdefault(address, name)

    def find(self, name: str) -> Host | None:
        return self._machines.get(canonical(name)) or super().find(name)

    def name_of(self, address: str) -> str | None:
        return self._machine_at.get(address) or super().name_of(address)

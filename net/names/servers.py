"""Name servers: in which order to ask them, and what was learned of each.

The order is the configured one (or, with ``rotate``, starts one further with each question), but a server that failed
goes to the end for a while: 1 s, and twice as long after each failure in a row, up to a minute. It is not left out:
when all of them fail, all are asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from libos.net.sockaddr import Address

__all__ = ["Server", "Servers"]

DNS_PORT = 53
PENALTY_NS = 1_000_000_000
PENALTY_MAX_NS = 60_000_000_000


class Server:
    """One name server, as ``"10.0.0.3"``, ``"fd00::3"``, ``"fe80::1%2"``, with ``#port`` where that is not 53."""

    __slots__ = ("edns", "failures", "mixed_case", "name", "text", "until")

    def __init__(self, text: str) -> None:
        address, _, port = text.partition("#")
        host, _, scope = address.partition("%")
        number = int(port or DNS_PORT)
        self.text = text
        self.name: Address = (host, number, 0, int(scope or 0)) if ":" in host else (host, number)
        self.edns = True  # until it says that it does not know it
        self.mixed_case = True  # until it is seen, by TCP, to fold the case of names
        self.failures = 0
        self.until = 0

    def __repr__(self) -> str:
        return f"<Server {self.text} failures={self.failures}>"

    def answered(self) -> None:
        self.failures = 0
        self.until = 0

    def failed(self, now: int) -> None:
        self.until = now + min(PENALTY_NS << min(self.failures, 10), PENALTY_MAX_NS)
        self.failures += 1


class Servers:
    """The configured ones."""

    def __init__(self, servers: Iterable[str], *, rotate: bool = False) -> None:
        self.all = [Server(text) for text in servers]
        self._rotate = rotate
        self._first = 0

    def order(self, now: int) -> list[Server]:
        """For one question."""
        servers = self.all
        if self._rotate and servers:
            servers = servers[self._first :] + servers[: self._first]
            self._first = (self._first + 1) % len(servers)
        return sorted(servers, key=lambda server: server.until if server.until > now else 0)

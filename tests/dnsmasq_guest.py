"""A machine in somebody's network namespace, for test_dnsmasq.py: does what its arguments say, prints JSON lines.

A server's shortest lease is two minutes. So the machine's clock is moved on instead (``renew``, ``rebind``): the client
then does what it would do at that time, and the server really answers.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from libos.config import configure
from libos.errors import AddressError
from libos.machine import Machine

SECOND = 1_000_000_000


class Guest:
    """The machine, and the words for what is to be seen."""

    def __init__(self, *ip: str) -> None:
        self.lines: list[str] = []
        self.machine = Machine(configure(net="tap", tap="t0", ip=ip), say=self.lines.append)
        assert self.machine.configurator is not None
        self.service = self.machine.configurator

    def say(self, word: str, **values: object) -> None:
        print(json.dumps({"event": word, **values}), flush=True)

    def turn(self, until: Any, seconds: float = 8) -> bool:
        """Let the machine live until ``until()``."""
        end = self.machine.reactor.now() + round(seconds * SECOND)
        while not until() and self.machine.reactor.now() < end:
            self.machine.reactor.turn(SECOND // 100)
        return bool(until())

    def boot(self) -> None:
        start = self.machine.reactor.now()
        try:
            self.machine.wait_for_addresses(6 * SECOND)
        except AddressError as error:
            self.say("none", why=str(error), lines=self.lines)
            return
        network = self.machine.network
        assert network is not None
        self.say(
            "boot",
            addresses=list(self.machine.addresses),
            servers=list(network.resolver.servers),
            search=list(network.resolver.search),
            ms=(self.machine.reactor.now() - start) // 1_000_000,
            lines=self.lines,
        )

    def names(self) -> None:
        """Wait for name servers, that may come later than addresses."""
        network = self.machine.network
        assert network is not None
        self.turn(lambda: network.resolver.servers and network.resolver.search)
        self.say("names", servers=list(network.resolver.servers), search=list(network.resolver.search))

    def renew(self) -> None:
        self._again("renewing", lambda lease, now: {"renew_at": now})

    def rebind(self) -> None:
        self._again("rebinding", lambda lease, now: {"renew_at": now, "rebind_at": now})

    def _again(self, word: str, change: Any) -> None:
        client: Any = self.service.dhcp4 or self.service.dhcp6
        now = self.machine.reactor.now()
        old = client.lease
        client.lease = dataclasses.replace(old, **change(old, now))
        client.deadline = now
        seen = set()

        def done() -> bool:
            seen.add(client.state.name)
            return client.state.name == "BOUND" and client.lease.until > old.until

        self.service._set_alarm()
        self.say(word, done=self.turn(done), states=sorted(seen), addresses=list(self.machine.addresses))

    def refused(self) -> None:
        """Wait until an address turned out to be somebody else's."""
        self.turn(lambda: self.lines)
        self.turn(lambda: False, 0.3)
        self.say("refused", lines=self.lines, addresses=list(self.machine.addresses))

    def live(self) -> None:
        """Be there for two seconds, to be spoken to."""
        self.say("live")
        self.turn(lambda: False, 2)


def main() -> None:
    ip, words = sys.argv[1].split(","), sys.argv[2:]
    guest = Guest(*ip)
    try:
        for word in words:
            getattr(guest, word)()
    finally:
        guest.machine.close()


main()

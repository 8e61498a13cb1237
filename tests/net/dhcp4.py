"""A DHCPv4 client, its clock and what it did; scapy is the server. For test_dhcp4*.py."""

from __future__ import annotations

from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP

from libos.net.config.dhcp4 import Bind, Client, Send
from libos.net.config.fields import client_id, duid_ll
from libos.rand import Rng

MAC = bytes.fromhex("020000000002")
IDENTIFIER = client_id(1, duid_ll(MAC))
SECOND = 10**9
START = 1000 * SECOND
SERVER, ADDRESS = "10.0.0.1", "10.0.0.42"


class Network:
    """A client, its clock, and what it did."""

    def __init__(self, seed: int = 1, **options: Any) -> None:
        self.client = Client(Rng(seed), MAC, identifier=IDENTIFIER, **options)
        self.now = START
        self.actions: list[Any] = []
        self.actions += self.client.start(self.now)

    def at(self, second: float) -> Network:
        target = START + round(second * SECOND)
        while self.client.deadline <= target:
            self.now = max(self.now, self.client.deadline)
            self.actions += self.client.timeout(self.now)
        self.now = target
        return self

    def sent(self) -> tuple[Any, dict[str, Any], str | None]:
        """The next message: its BOOTP header and options, as scapy reads them, and where it went."""
        action = self.actions.pop(0)
        assert isinstance(action, Send)
        packet = BOOTP(action.data)
        assert len(action.data) >= 300
        return packet, options_of(packet), action.to

    def sent_kinds(self) -> list[int]:
        kinds = [options_of(BOOTP(a.data))["message-type"] for a in self.actions if isinstance(a, Send)]
        self.actions = [a for a in self.actions if not isinstance(a, Send)]
        return kinds

    def answer(self, kind: str, to: Any, **fields: Any) -> None:
        """A server's answer to the message ``to``."""
        self.actions += self.client.received(bytes(reply(kind, to, **fields)), self.now)

    def bound(self, **fields: Any) -> Network:
        discover, _, _ = self.sent()
        self.answer("offer", discover, **fields)
        request, _, _ = self.sent()
        self.answer("ack", request, **fields)
        (bind,) = self.actions
        assert isinstance(bind, Bind)
        self.actions.clear()
        self.client.confirmed(self.now)
        return self


def options_of(packet: Any) -> dict[str, Any]:
    return {o[0]: o[1] if len(o) == 2 else list(o[1:]) for o in packet[DHCP].options if isinstance(o, tuple)}


def reply(kind: str, to: Any, *, address: str = ADDRESS, lease: int = 3600, op: int = 2, **fields: Any) -> Any:
    options: list[Any] = [("message-type", kind), ("server_id", fields.pop("server", SERVER))]
    if kind != "nak":
        options += [("lease_time", lease), ("subnet_mask", fields.pop("mask", "255.255.255.0"))]
    options += [*fields.pop("more", []), "end"]
    head: dict[str, Any] = {"xid": to.xid, "chaddr": MAC + bytes(10), **fields}
    return BOOTP(op=op, yiaddr="0.0.0.0" if kind == "nak" else address, **head) / DHCP(options=options)

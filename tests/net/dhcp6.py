"""A DHCPv6 client, its clock and what it did; scapy is the server. For test_dhcp6*.py."""

from __future__ import annotations

import itertools
from typing import Any

from scapy.layers.dhcp6 import (
    DUID_LL,
    DUID_UUID,
    DHCP6_Advertise,
    DHCP6_Decline,
    DHCP6_InfoRequest,
    DHCP6_Rebind,
    DHCP6_Release,
    DHCP6_Renew,
    DHCP6_Reply,
    DHCP6_Request,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
    DHCP6OptPref,
    DHCP6OptServerId,
    DHCP6OptStatusCode,
)

from libos.net.config.dhcp6 import Bind, Client, Send, State
from libos.net.config.fields import duid_ll
from libos.rand import Rng

MAC = "02:00:00:00:00:02"
DUID = duid_ll(bytes.fromhex(MAC.replace(":", "")))
SERVER = DUID_LL(lladdr="02:00:00:00:00:01")
OTHER = DUID_UUID(uuid="00112233-4455-6677-8899-aabbccddeeff")
ADDRESS = "2001:db8::42"
SECOND = 10**9
START = 1000 * SECOND
KINDS = {
    1: DHCP6_Solicit,
    3: DHCP6_Request,
    5: DHCP6_Renew,
    6: DHCP6_Rebind,
    8: DHCP6_Release,
    9: DHCP6_Decline,
    11: DHCP6_InfoRequest,
}


class Network:
    """A client, its clock, and what it did."""

    def __init__(self, seed: int = 1, *, stateful: bool = True) -> None:
        self.client = Client(Rng(seed), duid=DUID)
        self.now = START
        self.actions: list[Any] = self.client.start(self.now, stateful=stateful, delay=0)
        self.actions += self.client.timeout(self.now)

    def at(self, second: float) -> Network:
        target = START + round(second * SECOND)
        while self.client.deadline <= target:
            self.now = max(self.now, self.client.deadline)
            self.actions += self.client.timeout(self.now)
        self.now = target
        return self

    def next(self) -> Network:
        """To the next thing that it does by itself."""
        self.now = max(self.now, self.client.deadline)
        self.actions += self.client.timeout(self.now)
        return self

    def sent(self, kind: Any) -> Any:
        action = self.actions.pop(0)
        assert isinstance(action, Send), action
        packet = KINDS[action.data[0]](action.data)
        assert isinstance(packet, kind), packet.summary()
        assert bytes(packet[DHCP6OptClientId].duid) == DUID
        return packet

    def answer(
        self, to: Any, *options: Any, kind: Any = DHCP6_Reply, server: Any = SERVER, client: bytes = DUID
    ) -> None:
        packet = kind(trid=to.trid) / DHCP6OptServerId(duid=server) / DHCP6OptClientId(duid=client)
        for option in options:
            packet /= option
        self.actions += self.client.received(bytes(packet), self.now)

    def bound(self, **lease: Any) -> Network:
        solicit = self.sent(DHCP6_Solicit)
        self.answer(solicit, DHCP6OptPref(prefval=255), ia(**lease), kind=DHCP6_Advertise)
        self.answer(self.sent(DHCP6_Request), ia(**lease))
        (bind,) = self.actions
        assert isinstance(bind, Bind)
        self.actions.clear()
        self.client.confirmed(self.now)
        assert self.client.state is State.BOUND
        return self


def ia(
    address: str = ADDRESS,
    preferred: int = 1000,
    valid: int = 2000,
    t1: int = 0,
    t2: int = 0,
    iaid: int = 1,
    status: int = 0,
) -> Any:
    inner: list[Any] = [DHCP6OptIAAddress(addr=address, preflft=preferred, validlft=valid)]
    if status:
        inner = [DHCP6OptStatusCode(statuscode=status)]
    return DHCP6OptIA_NA(iaid=iaid, T1=t1, T2=t2, ianaopts=inner)


def gaps(net: Network, kind: Any, n: int) -> list[float]:
    times = []
    for _ in range(n):
        net.sent(kind)
        times.append(net.now)
        net.next()
    return [(b - a) / SECOND for a, b in itertools.pairwise(times)]

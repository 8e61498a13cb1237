"""What the DHCPv6 client believes: nothing that is not for it, and no nonsense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp6 import (
    DHCP6_Advertise,
    DHCP6_Reply,
    DHCP6_Request,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptPref,
    DHCP6OptRapidCommit,
    DHCP6OptStatusCode,
)
from scapy.packet import Raw

from libos.net.config.dhcp6 import Bind
from libos.net.config.message6 import Address, IaNa, Kind, Message, Option

from .dhcp6 import ADDRESS, DUID, OTHER, Network, ia


@pytest.mark.parametrize(
    "options",
    [
        [ia(iaid=7)],
        [ia(status=2)],
        [ia("fe80::1")],
        [ia("ff02::1")],
        [ia("::")],
        [ia(preferred=3000)],
        [ia(valid=0, preferred=0)],
        [DHCP6OptStatusCode(statuscode=1), ia()],
        [Raw(b"\0\3\0\x0c" + bytes(11))],
        [Raw(b"\0\3\0\1\0")],
        [],
    ],
)
def test_what_is_no_advertisement_for_us(options: list[Any]) -> None:
    """RFC 8415 16.3, 18.2.9"""
    net = Network()
    net.answer(net.sent(DHCP6_Solicit), DHCP6OptPref(prefval=255), *options, kind=DHCP6_Advertise)
    assert net.actions == []
    assert net.client.dropped == 1


def test_what_is_for_somebody_else() -> None:
    """RFC 8415 16.3, 16.10: another transaction, another client, no server."""
    net = Network()
    solicit = net.sent(DHCP6_Solicit)
    net.answer(DHCP6_Solicit(trid=solicit.trid ^ 1), ia(), DHCP6OptRapidCommit())
    net.answer(solicit, ia(), DHCP6OptRapidCommit(), client=b"other")
    bare = DHCP6_Reply(trid=solicit.trid) / DHCP6OptClientId(duid=DUID) / ia() / DHCP6OptRapidCommit()
    net.actions += net.client.received(bytes(bare), net.now)
    assert net.actions == []
    assert net.client.dropped == 3


def test_a_reply_of_another_server_is_not_taken() -> None:
    net = Network()
    net.answer(net.sent(DHCP6_Solicit), DHCP6OptPref(prefval=255), ia(), kind=DHCP6_Advertise)
    net.answer(net.sent(DHCP6_Request), ia(), server=OTHER)
    assert net.actions == []


@settings(deadline=None)
@given(
    st.sampled_from(Kind),
    st.integers(0, 2**24 - 1),
    st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=50)), max_size=8),
)
def test_parse_and_emit_are_inverse(kind: Kind, xid: int, options: list[tuple[int, bytes]]) -> None:
    message = Message(kind, xid, tuple(options))
    assert Message.parse(message.emit()) == message


@settings(deadline=None)
@given(st.lists(st.builds(Address, st.just(ADDRESS), st.integers(0, 9), st.integers(9, 2**32 - 1)), max_size=8))
def test_an_association_and_its_bytes(addresses: list[Address]) -> None:
    association = IaNa(3, 1, 2, tuple(addresses))
    assert IaNa.parse(association.emit()) == association


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_datagram_raises(data: bytes) -> None:
    net = Network()
    net.client.received(data, net.now)


@settings(deadline=None)
@given(
    st.sampled_from([Kind.ADVERTISE, Kind.REPLY]),
    st.lists(st.tuples(st.sampled_from([3, 5, 7, 13, 14, 23, 24, 32, 82, 83]), st.binary(max_size=60)), max_size=6),
    st.booleans(),
)
def test_no_options_raise_or_give_nonsense(kind: Kind, extra: list[tuple[int, bytes]], stateful: bool) -> None:
    net = Network(stateful=stateful)
    good: list[tuple[int, bytes]] = [(Option.CLIENT, DUID), (Option.SERVER, b"server")]
    lease = IaNa(1, addresses=(Address(ADDRESS, 50, 100),)).emit()
    for tail in (extra, [*extra, (Option.IA_NA, lease), (Option.RAPID_COMMIT, b"")]):
        message = Message(kind, net.client._xid, (*good, *tail))
        for action in net.client.received(message.emit(), net.now):
            if isinstance(action, Bind):
                assert action.lease.addresses
                assert action.lease.renew_at <= action.lease.rebind_at <= action.lease.until
    assert net.client.deadline >= net.now

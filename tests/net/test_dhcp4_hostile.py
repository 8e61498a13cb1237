"""What the DHCPv4 client believes: nothing that is not for it, and no nonsense."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP

from libos.net.config.dhcp4 import NEVER, Bind, State, Unbind
from libos.net.config.fields import BadMessage, decode_names, encode_name
from libos.net.config.message4 import Kind, Message, routes

from .dhcp4 import MAC, Network, reply


@pytest.mark.parametrize(
    "fields",
    [
        {"xid": 1},
        {"chaddr": bytes(16)},
        {"op": 1},
        {"lease": 1},
        {"address": "0.0.0.0"},
        {"address": "127.0.0.1"},
        {"address": "224.0.0.1"},
        {"server": "0.0.0.0"},
        {"mask": "255.0.255.0"},
        {"more": [("client_id", b"other")]},
        {"more": [(3, b"\1\2\3")]},
        {"more": [(119, b"\xc0\0")]},
        {"more": [(121, b"\x21\1\2\3\4\5")]},
        {"more": [(26, b"\1")]},
        {"htype": 6},
        {"options": b"none"},
    ],
    ids=lambda fields: "-".join(map(str, fields)),
)
def test_what_is_no_offer_for_us(fields: dict[str, Any]) -> None:
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover, **fields)
    assert net.actions == []
    assert net.client.dropped == 1
    assert net.client.state is State.SELECTING


def test_an_ack_of_another_server_is_not_taken() -> None:
    """RFC 2131 4.3.2: it was not chosen."""
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover)
    request, _, _ = net.sent()
    net.answer("ack", request, server="10.0.0.66")
    net.answer("nak", request, server="10.0.0.66")
    assert net.client.state is State.REQUESTING


def test_an_answer_to_nothing_is_not_taken() -> None:
    net = Network().bound()
    for kind in ("offer", "ack", "nak"):
        net.answer(kind, BOOTP(xid=net.client._xid))
    assert net.actions == []
    assert net.client.state is State.BOUND


def test_names_that_loop() -> None:
    """RFC 3397, RFC 1035 4.1.4: pointers go back."""
    for data in (b"\xc0\0", b"\1a\xc0\2", b"\1a\xc0\5\0", b"\xc0", b"\1a", b"\x40" + b"a" * 64 + b"\0"):
        with pytest.raises(BadMessage):
            decode_names(data)


def test_options_in_the_names_fields() -> None:
    """RFC 2132 9.3: overload 3, file before sname (RFC 3396 7)."""
    base = bytearray(Message(Kind.OFFER, 7, MAC, {52: b"\3"}, reply=True).emit())
    base[108 : 108 + 8] = b"\x0f\2ex" + b"\xff" + bytes(3)
    base[44 : 44 + 8] = b"\x0f\5ample"[:8] + b"\xff"
    assert Message.parse(bytes(base)).options[15] == b"example"


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 254).filter(lambda code: code not in (52, 53)), st.binary(max_size=600), max_size=8),
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
)
def test_parse_and_emit_are_inverse(options: dict[int, bytes], kind: Kind, xid: int) -> None:
    """RFC 3396 for what is longer than 255 bytes."""
    message = Message(kind, xid, MAC, options, reply=True, secs=9, broadcast=True, yiaddr=b"\1\2\3\4")
    assert Message.parse(message.emit()) == message


@settings(deadline=None)
@given(st.binary(max_size=700))
def test_no_datagram_raises(data: bytes) -> None:
    net = Network()
    net.client.received(data, net.now)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([1, 3, 6, 15, 26, 51, 52, 54, 58, 59, 61, 119, 121]), st.binary(max_size=40)))
)
def test_no_options_raise_or_give_nonsense(extra: list[tuple[int, bytes]]) -> None:
    net = Network()
    discover, _, _ = net.sent()
    raw = bytes(reply("offer", discover))
    at = raw.rindex(b"\xff")
    tail = b"".join(struct.pack("BB", code, len(value)) + value for code, value in extra)
    actions = net.client.received(raw[:at] + tail + b"\xff", net.now)
    if actions:
        request = BOOTP(actions[0].data)
        for action in net.client.received(raw[:at].replace(b"\x35\x01\x02", b"\x35\x01\x05") + tail + b"\xff", net.now):
            assert isinstance(action, Bind)
            assert 0 <= action.lease.prefix <= 32
            assert action.lease.renew_at <= action.lease.rebind_at <= action.lease.until
        assert request.xid == discover.xid


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_routes_are_networks(data: bytes) -> None:
    try:
        found = routes(data)
    except BadMessage:
        return
    for network, router in found:
        ipaddress.ip_network(network)
        assert router is None or ipaddress.ip_address(router)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_names_are_names(data: bytes) -> None:
    try:
        names = decode_names(data)
    except BadMessage:
        return
    for name in names:
        assert decode_names(encode_name(name)) == (name,)


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(["time", "offer", "ack", "nak", "decline"]), st.floats(0, 500))),
)
def test_any_order_of_events(seed: int, events: list[tuple[str, float]]) -> None:
    """There is always something that will happen, and a lease exactly while it was given."""
    net = Network(seed % 1000)
    second = 0.0
    bound = False
    for what, wait in events:
        second += wait
        if what == "time":
            net.at(second)
        elif what == "decline":
            net.actions += net.client.declined(net.now)
        else:
            net.answer(what, BOOTP(xid=net.client._xid), lease=300)
            net.client.confirmed(net.now)
        for action in net.actions:
            bound = not isinstance(action, Unbind) if isinstance(action, (Bind, Unbind)) else bound
        net.actions.clear()
        assert bound == (net.client.lease is not None)
        assert net.client.deadline < NEVER
        if net.client.lease is not None:
            assert net.client.deadline <= net.client.lease.until

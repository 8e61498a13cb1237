"""The DHCPv4 client (RFC 2131) by itself: what it says when, and what it believes. scapy is the server."""

from __future__ import annotations

import ipaddress
import itertools
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from libos.net.config.dhcp4 import NEVER, Bind, Client, Send, State, Unbind
from libos.net.config.fields import BadMessage, client_id, decode_names, duid_ll, encode_name
from libos.net.config.message4 import Kind, Message, routes
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


# --- getting an address ---


def test_discover() -> None:
    """RFC 2131 4.4.1, table 5; RFC 4361 6.1; RFC 6842"""
    net = Network(hostname="guest")
    packet, options, to = net.sent()
    assert to is None
    assert (packet.op, packet.htype, packet.hlen, packet.flags, packet.ciaddr) == (1, 1, 6, 0x8000, "0.0.0.0")
    assert packet.chaddr[:6] == MAC
    assert options["message-type"] == 1
    assert options["client_id"] == IDENTIFIER == b"\xff\0\0\0\1\0\3\0\1" + MAC
    assert options["hostname"] == b"guest"
    assert options["max_dhcp_size"] == 1500
    wanted = options["param_req_list"]
    assert {1, 3, 6, 15, 26, 119, 121} <= set(wanted)
    assert wanted.index(121) < wanted.index(3)  # RFC 3442


def test_offer_request_ack() -> None:
    """RFC 2131 3.1: the request names the server and the address, and goes to everybody."""
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover)
    packet, options, to = net.sent()
    assert to is None
    assert (options["message-type"], options["server_id"], options["requested_addr"]) == (3, SERVER, ADDRESS)
    assert (packet.xid, packet.ciaddr, packet.flags) == (discover.xid, "0.0.0.0", 0x8000)
    net.answer("ack", packet)
    (bind,) = net.actions
    assert isinstance(bind, Bind)
    assert (bind.lease.address, bind.lease.prefix, bind.lease.server) == (ADDRESS, 24, SERVER)
    assert net.client.state is State.CHECKING
    net.client.confirmed(net.now)
    assert net.client.state is State.BOUND


def test_what_a_lease_says() -> None:
    """RFC 2132; RFC 3397; RFC 3442"""
    search = encode_name("example.org") + b"\3lab" + b"\xc0\0"  # the second ends as the first does
    net = Network().bound(
        more=[
            ("router", "10.0.0.1", "10.0.0.3"),
            ("name_server", "10.0.0.53", "10.0.0.54"),
            ("domain", b"example.org\0"),
            (119, search),
            (121, bytes([0, 10, 0, 0, 9, 16, 172, 16, 0, 0, 0, 0])),
            ("interface-mtu", 1400),
            ("hostname", b"box"),
        ]
    )
    lease = net.client.lease
    assert lease is not None
    assert lease.routers == ("10.0.0.1", "10.0.0.3")
    assert lease.dns == ("10.0.0.53", "10.0.0.54")
    assert (lease.domain, lease.search) == ("example.org", ("example.org", "lab.example.org"))
    assert lease.routes == (("0.0.0.0/0", "10.0.0.9"), ("172.16.0.0/16", None))
    assert (lease.mtu, lease.hostname, lease.seconds) == (1400, "box", 3600)


def test_discover_is_sent_again_less_and_less_often() -> None:
    """RFC 2131 4.1: 4 s, 8, 16, 32, 64, 64, each a second more or less."""
    net = Network()
    times = []
    while len(times) < 8:
        assert net.sent()[1]["message-type"] == 1
        times.append(net.now)
        net.now = net.client.deadline
        net.actions += net.client.timeout(net.now)
    gaps = [(b - a) / SECOND for a, b in itertools.pairwise(times)]
    for gap, nominal in zip(gaps, (4, 8, 16, 32, 64, 64, 64), strict=True):
        assert nominal - 1 <= gap <= nominal + 1
    assert len(set(gaps)) == 7


def test_seconds_since_the_beginning() -> None:
    """RFC 2131 2, secs"""
    net = Network().at(30)
    seconds = []
    while net.actions:
        seconds.append(net.sent()[0].secs)
    assert seconds[0] == 0
    assert seconds == sorted(seconds)
    assert seconds[-1] > 20


def test_a_request_without_an_answer_begins_anew() -> None:
    """RFC 2131 3.1 (5): after some retransmissions."""
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover)
    net.at(200)
    kinds = net.sent_kinds()
    assert kinds[:5] == [3, 3, 3, 3, 1]


def test_nak_begins_anew_after_a_while() -> None:
    """RFC 2131 3.1 (4)"""
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover)
    request, _, _ = net.sent()
    net.answer("nak", request)
    assert net.actions == []
    net.at(1.9)
    assert net.actions == []
    net.at(2)
    assert net.sent()[1]["message-type"] == 1


# --- keeping it ---


def test_renew_by_unicast_at_t1() -> None:
    """RFC 2131 4.4.5: half of the lease (a little less, by chance), to the server, from the address."""
    net = Network().bound(lease=1000)
    net.at(474)
    assert net.actions == []
    net.at(500)
    packet, options, to = net.sent()
    assert to == SERVER
    assert (packet.ciaddr, packet.flags, options["message-type"]) == (ADDRESS, 0, 3)
    assert "server_id" not in options
    assert "requested_addr" not in options
    net.answer("ack", packet, lease=1000)
    (bind,) = net.actions
    assert isinstance(bind, Bind)
    assert net.client.state is State.BOUND  # not checked again
    assert bind.lease.until <= net.now + 1000 * SECOND
    assert bind.lease.until > START + 1400 * SECOND


def test_rebind_by_broadcast_at_t2() -> None:
    """RFC 2131 4.4.5: seven eighths; any server may answer."""
    net = Network().bound(lease=1000)
    net.at(874)
    while net.actions:
        assert net.sent()[2] == SERVER
    net.at(875)
    packet, options, to = net.sent()
    assert to is None
    assert (packet.ciaddr, options["message-type"]) == (ADDRESS, 3)
    net.answer("ack", packet, server="10.0.0.2")
    assert net.client.lease is not None
    assert net.client.lease.server == "10.0.0.2"


def test_renewals_are_spaced() -> None:
    """RFC 2131 4.4.5: again after half of the time that is left until T2, and not within 60 s."""
    net = Network().bound(lease=8000)
    times = []
    while net.client.state is not State.REBINDING:
        net.now = net.client.deadline
        net.actions += net.client.timeout(net.now)
        times.append((net.now - START) / SECOND)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) > 4
    assert all(gap >= 59.9 for gap in gaps[:-1])
    assert times[-1] == 7000
    assert gaps[0] == pytest.approx((7000 - times[0]) / 2, abs=1)


def test_the_servers_t1_and_t2() -> None:
    """RFC 2132 9.11, 9.12; those that make no sense are not taken."""
    net = Network().bound(lease=1000, more=[("renewal_time", 100), ("rebinding_time", 200)])
    lease = net.client.lease
    assert lease is not None
    assert START + 95 * SECOND <= lease.renew_at <= START + 100 * SECOND
    assert lease.rebind_at == START + 200 * SECOND
    net = Network().bound(lease=1000, more=[("renewal_time", 900), ("rebinding_time", 200)])
    assert net.client.lease is not None
    assert net.client.lease.rebind_at == START + 875 * SECOND


def test_a_lease_that_ends() -> None:
    """RFC 2131 4.4.5: the address is given up at once, and another looked for."""
    net = Network().bound(lease=100)
    net.at(99.9)
    net.actions.clear()
    net.at(100)
    unbind = net.actions.pop(0)
    assert isinstance(unbind, Unbind)
    assert net.sent()[1]["message-type"] == 1
    assert net.client.lease is None


def test_nak_of_a_renewal() -> None:
    """RFC 2131 4.4.5"""
    net = Network().bound(lease=1000).at(500)
    request, _, _ = net.sent()
    net.answer("nak", request)
    (unbind,) = net.actions
    assert isinstance(unbind, Unbind)


def test_a_lease_for_ever() -> None:
    """RFC 2131 3.3: all ones"""
    net = Network().bound(lease=0xFFFFFFFF)
    assert net.client.deadline == NEVER


def test_another_address_in_a_renewal() -> None:
    net = Network().bound(lease=1000).at(500)
    request, _, _ = net.sent()
    net.answer("ack", request, address="10.0.0.43")
    unbind, bind = net.actions
    assert isinstance(unbind, Unbind)
    assert isinstance(bind, Bind)
    assert net.client.state is State.CHECKING


# --- giving it back ---


def test_decline() -> None:
    """RFC 2131 3.1 (5), 4.4.4, table 5: and ten seconds of patience."""
    net = Network()
    discover, _, _ = net.sent()
    net.answer("offer", discover)
    request, _, _ = net.sent()
    net.answer("ack", request)
    net.actions.clear()
    net.actions += net.client.declined(net.now)
    packet, options, to = net.sent()
    assert to is None
    assert (options["message-type"], options["requested_addr"], options["server_id"]) == (4, ADDRESS, SERVER)
    assert (packet.ciaddr, packet.flags) == ("0.0.0.0", 0)
    assert "param_req_list" not in options
    assert isinstance(net.actions.pop(), Unbind)
    net.at(9.9)
    assert net.actions == []
    net.at(10)
    assert net.sent()[1]["message-type"] == 1


def test_release() -> None:
    """RFC 2131 4.4.6: to the server, and nothing after it."""
    net = Network().bound()
    net.actions += net.client.release(net.now)
    packet, options, to = net.sent()
    assert (to, packet.ciaddr) == (SERVER, ADDRESS)
    assert (options["message-type"], options["server_id"]) == (7, SERVER)
    assert isinstance(net.actions.pop(), Unbind)
    assert net.client.deadline == NEVER
    assert net.client.release(net.now) == []


# --- hostile input ---


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


@given(
    st.dictionaries(st.integers(1, 254).filter(lambda code: code not in (52, 53)), st.binary(max_size=600), max_size=8),
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
)
def test_parse_and_emit_are_inverse(options: dict[int, bytes], kind: Kind, xid: int) -> None:
    """RFC 3396 for what is longer than 255 bytes."""
    message = Message(kind, xid, MAC, options, reply=True, secs=9, broadcast=True, yiaddr=b"\1\2\3\4")
    assert Message.parse(message.emit()) == message


@given(st.binary(max_size=700))
def test_no_datagram_raises(data: bytes) -> None:
    net = Network()
    net.client.received(data, net.now)


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


@given(st.binary(max_size=64))
def test_routes_are_networks(data: bytes) -> None:
    try:
        found = routes(data)
    except BadMessage:
        return
    for network, router in found:
        ipaddress.ip_network(network)
        assert router is None or ipaddress.ip_address(router)


@given(st.binary(max_size=80))
def test_names_are_names(data: bytes) -> None:
    try:
        names = decode_names(data)
    except BadMessage:
        return
    for name in names:
        assert decode_names(encode_name(name)) == (name,)


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

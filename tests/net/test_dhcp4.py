"""The DHCPv4 client (RFC 2131) by itself: what it says when."""

from __future__ import annotations

import itertools

import pytest

from libos.net.config.dhcp4 import NEVER, Bind, State, Unbind
from libos.net.config.fields import encode_name

from .dhcp4 import ADDRESS, IDENTIFIER, MAC, SECOND, SERVER, START, Network

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

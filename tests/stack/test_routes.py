"""Which way a packet goes (RFC 1122 3.3.1, RFC 1812 5.2.4.3), and in which zone (RFC 4007)."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from libos._native import ffi, lib
from libos.errors import check
from libos.net.routes import Route, delete_route, routes, set_route
from libos.net.stack import pack_address, unpack_address

from .harness import fails
from .packets import FAR, OUR_MAC, OURS, PEER_MAC, ROUTER

SECOND = {4: "10.7.0.2", 6: "fd07::2"}
SECOND_ROUTER = {4: "10.7.0.254", 6: "fd07::fe"}
DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
FAR_NET = {4: "192.0.2.0/24", 6: "2001:db8::/32"}
BINDTOIFINDEX = 62


class Two:
    """The harness, and a second link with an address of each family on it."""

    def __init__(self, h):
        self.h = h
        self.link, self.index = h.add_link(SECOND[4] + "/24", SECOND[6] + "/64")

    def asked(self, address=None):
        """Who is asked for on which link, when a datagram goes to ``address``: the next hop."""
        h = self.h
        h.link.drain()
        self.link.drain()
        u = h.open(2)
        h.sendto(u, b"x", address or FAR[h.family], 9)
        h.stack.run(h.now)
        found = []
        for name, link in (("first", h.link), ("second", self.link)):
            for frame, _ in link.drain():
                packet = Ether(frame)
                if ARP in packet or ICMPv6ND_NS in packet:
                    found.append((name, packet[ARP].pdst if ARP in packet else packet[ICMPv6ND_NS].tgt))
        h.free(u)
        return found


@pytest.fixture
def two(harness, family):
    return Two(harness(family, routes=False, neighbours=False))


def next_hop(two, address=None):
    (hop,) = two.asked(address)
    return hop


def test_the_longest_prefix_wins(two):
    """RFC 1812 5.2.4.3"""
    h, f = two.h, two.h.family
    set_route(h.stack, Route(DEFAULT[f], h.ifindex, ROUTER[f]))
    set_route(h.stack, Route(FAR_NET[f], two.index, SECOND_ROUTER[f]))
    assert next_hop(two) == ("second", SECOND_ROUTER[f])
    delete_route(h.stack, Route(FAR_NET[f], two.index))
    assert next_hop(two) == ("first", ROUTER[f])


def test_of_equals_the_lowest_metric(two):
    h, f = two.h, two.h.family
    set_route(h.stack, Route(DEFAULT[f], h.ifindex, ROUTER[f], metric=200))
    assert next_hop(two) == ("first", ROUTER[f])
    set_route(h.stack, Route(DEFAULT[f], two.index, SECOND_ROUTER[f], metric=100))
    assert next_hop(two) == ("second", SECOND_ROUTER[f])
    set_route(h.stack, Route(DEFAULT[f], h.ifindex, ROUTER[f], metric=50))
    far = "192.0.2.8" if f == 4 else "2001:db8::8"
    assert [row.metric for row in routes(h.stack) if row.network == DEFAULT[f]] == [50, 100, 200]
    h.after("10s")
    h.frames()
    assert two.asked(far) == [("first", ROUTER[f])]


def test_a_route_is_replaced_not_doubled(two):
    h, f = two.h, two.h.family
    before = routes(h.stack)
    for gateway in (ROUTER[f], OURS[f][:-1] + "9"):
        set_route(h.stack, Route(DEFAULT[f], h.ifindex, gateway, metric=7))
        assert [row.gateway for row in routes(h.stack) if row.metric == 7] == [gateway]
    with fails("ESRCH"):
        delete_route(h.stack, Route(DEFAULT[f], h.ifindex, ROUTER[f], metric=7))
    with fails("ESRCH"):
        delete_route(h.stack, Route(DEFAULT[f], h.ifindex, metric=8))
    delete_route(h.stack, Route(DEFAULT[f], h.ifindex, metric=7))
    assert routes(h.stack) == before


def test_what_is_listed_is_what_was_set(two):
    h, f = two.h, two.h.family
    route = Route(FAR_NET[f], two.index, SECOND_ROUTER[f], SECOND[f], 5, 1400)
    set_route(h.stack, route)
    assert route in routes(h.stack)
    connected = {row.network for row in routes(h.stack) if row.gateway is None}
    assert {"10.0.0.0/24", "fd00::/64", "10.7.0.0/24", "fd07::/64", "fe80::/64"} <= connected


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ifindex": 9}, "ENODEV"),
        ({"gateway": {4: "fd00::fe", 6: "10.0.0.254"}}, "EINVAL"),
        ({"gateway": {4: "224.0.0.1", 6: "ff02::1"}}, "EINVAL"),
        ({"source": {4: "10.0.0.99", 6: "fd00::99"}}, "EINVAL"),
        ({"mtu": 100}, "EINVAL"),
    ],
    ids=["interface", "family", "group", "source", "mtu"],
)
def test_refusals(two, changes, error):
    f = two.h.family
    wanted = {name: value[f] if isinstance(value, dict) else value for name, value in changes.items()}
    with fails(error):
        set_route(
            two.h.stack, Route(**{"network": DEFAULT[f], "ifindex": two.h.ifindex, "gateway": ROUTER[f], **wanted})
        )


def test_the_table_is_bounded(two):
    h, f = two.h, two.h.family
    with fails("ENOBUFS"):
        for metric in range(100):
            set_route(h.stack, Route(DEFAULT[f], h.ifindex, ROUTER[f], metric=metric))
    assert len(routes(h.stack)) == 64


def test_a_route_may_name_the_source(harness, family):
    h = harness(family)
    extra = "10.0.0.50" if family == 4 else "fd00::50"
    h.stack.add_address(h.ifindex, extra + ("/24" if family == 4 else "/64"))
    set_route(h.stack, Route(FAR_NET[family], h.ifindex, ROUTER[family], source=extra))
    u = h.open(2)
    h.sendto(u, b"x", FAR[family], 9)
    assert h.expect_packet().payload.src == extra
    h.sendto(u, b"x", h.their, 9)
    assert h.expect_packet().payload.src == h.ours


def test_a_route_may_be_narrower_than_its_link(harness, family):
    """Its MTU is that of packets and of segments."""
    h = harness(family)
    set_route(h.stack, Route(FAR_NET[family], h.ifindex, ROUTER[family], mtu=1300))
    u = h.open(2)
    h.sendto(u, bytes(1400), FAR[family], 9)
    assert all(len(each.packet) <= 1314 for each in h.frames())
    h.sendto(u, bytes(1400), h.their, 9)
    assert len(h.frames()) == 1
    h.connect(80, FAR[family])
    assert dict(h.expect_packet()[TCP].options)["MSS"] == 1300 - (40 if family == 4 else 60)


def test_no_route_is_counted(harness, family):
    """IpOutNoRoutes, Ip6OutNoRoutes: RFC 4293"""
    h = harness(family, routes=False)
    u = h.open(2)
    name = "IpOutNoRoutes" if family == 4 else "Ip6OutNoRoutes"
    with fails("ENETUNREACH"):
        h.sendto(u, b"x", FAR[family], 9)
    assert h.counted(name) == 1
    with fails("ENETUNREACH"):
        h.connect(80, FAR[family])
    assert h.counted(name) == 1
    h.inject(h.ip(src=FAR[family]) / UDP(sport=1, dport=9))  # an answer that has no way back
    assert h.counted(name) == 1
    h.expect_nothing()


def test_weak_host_model(two):
    """RFC 1122 3.3.4.2: what is for an address of ours is ours, whichever link it came by."""
    h, f = two.h, two.h.family
    u = h.open(2)
    h.bind(u, 7)
    h.inject(h.ip(dst=SECOND[f]) / UDP(sport=1111, dport=7) / b"hello")
    assert h.recvfrom(u)[0] == b"hello"


# --- zones ---

LINK_LOCAL = "fe80::1"


@pytest.fixture
def zones(harness):
    """Two links, and fe80::1 on both of them."""
    two = Two(harness(6, neighbours=False))
    for link, mac in ((two.h.link, OUR_MAC), (two.link, "02:00:00:00:01:00")):
        m = bytes.fromhex(mac.replace(":", ""))
        own = b"\xfe\x80" + bytes(6) + bytes([m[0] ^ 2, m[1], m[2], 0xFF, 0xFE, m[3], m[4], m[5]])
        own_text = str(ipaddress.IPv6Address(own))
        ns = ICMPv6ND_NS(tgt=own_text) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC)
        link.inject(bytes(Ether(src=PEER_MAC, dst=mac) / IPv6(src=LINK_LOCAL, dst=own_text, hlim=255) / ns), two.h.now)
        two.h.stack.run(two.h.now)
        link.drain()
    two.own = ["fe80::ff:fe00:2", "fe80::ff:fe00:100"]
    return two


def left(two):
    """The packets that left by each link."""
    two.h.stack.run(two.h.now)
    return [[Ether(frame)[IPv6] for frame, _ in link.drain()] for link in (two.h.link, two.link)]


def arrive(two, which, packet):
    link, mac = ((two.h.link, OUR_MAC), (two.link, "02:00:00:00:01:00"))[which]
    link.inject(bytes(Ether(src=PEER_MAC, dst=mac) / packet), two.h.now)


def index(two, which):
    return (two.h.ifindex, two.index)[which]


def sendto(two, u, data, address, port, scope):
    name = ffi.new("struct sock_name *", {"addr": pack_address(address), "port": port, "ifindex": scope})
    return check(lib.sock_sendto(two.h.handle, u, data, len(data), name, ffi.NULL))


@pytest.mark.parametrize("which", [0, 1])
def test_answers_leave_by_the_link_of_the_question(zones, which):
    """RFC 4007 9: a zone is not left; ping, and a refused connection."""
    arrive(zones, which, IPv6(src=LINK_LOCAL, dst=zones.own[which]) / ICMPv6EchoRequest())
    arrive(zones, which, IPv6(src=LINK_LOCAL, dst=zones.own[which]) / TCP(sport=1, dport=9, flags="S"))
    sent = left(zones)
    assert sent[1 - which] == []
    echo, refused = sent[which]
    assert ICMPv6EchoReply in echo
    assert refused[TCP].flags == "RA"
    assert {echo.src, refused.src} == {zones.own[which]}


@pytest.mark.parametrize("which", [0, 1])
def test_another_links_address_is_not_ours(zones, which):
    """RFC 4007 9: the weak host model ends at the zone."""
    arrive(zones, which, IPv6(src=LINK_LOCAL, dst=zones.own[1 - which]) / ICMPv6EchoRequest())
    assert left(zones) == [[], []]
    assert zones.h.counted("Ip6InAddrErrors") == 1


@pytest.mark.parametrize("which", [0, 1])
def test_datagrams_have_a_scope(zones, which):
    """RFC 3493 3.3: sin6_scope_id, in both directions."""
    u = zones.h.open(2)
    zones.h.bind(u, 7)
    sendto(zones, u, b"x", LINK_LOCAL, 9, index(zones, which))
    sent = left(zones)
    assert [len(packets) for packets in sent] == [int(which == 0), int(which == 1)]
    assert sent[which][0].src == zones.own[which]
    arrive(zones, which, IPv6(src=LINK_LOCAL, dst=zones.own[which]) / UDP(sport=9, dport=7) / b"back")
    name, to = ffi.new("struct sock_name *"), ffi.new("struct sock_name *")
    check(lib.sock_recvfrom(zones.h.handle, u, ffi.new("uint8_t[9]"), 9, name, to))
    assert (unpack_address(bytes(ffi.buffer(name.addr))), name.ifindex) == (LINK_LOCAL, index(zones, which))
    assert to.ifindex == index(zones, which)


@pytest.mark.parametrize("which", [0, 1])
def test_connections_stay_in_their_zone(zones, which):
    """The same addresses and ports on both links are two connections."""
    listener = zones.h.listen(80)
    for link in (0, 1):
        arrive(zones, link, IPv6(src=LINK_LOCAL, dst=zones.own[link]) / TCP(sport=4000, dport=80, flags="S", seq=5))
    assert [len(packets) for packets in left(zones)] == [1, 1]
    c = zones.h.open()
    check(lib.sock_setopt(zones.h.handle, c, socket.SOL_SOCKET, BINDTOIFINDEX, index(zones, which)))
    check(lib.sock_connect(zones.h.handle, c, pack_address(LINK_LOCAL), 90))
    sent = left(zones)
    assert sent[1 - which] == []
    assert sent[which][0][TCP].flags == "S"
    name = ffi.new("struct sock_name *")
    check(lib.sock_getname(zones.h.handle, c, lib.SOCK_REMOTE, name))
    assert name.ifindex == index(zones, which)
    zones.h.abort(c)
    zones.h.free(listener)
    left(zones)


def test_the_same_four_numbers_on_two_links_are_two_connections(zones):
    """RFC 4007 6: the zone is part of the address."""
    both = "fe80::5"
    for which in (0, 1):
        zones.h.stack.add_address(index(zones, which), both + "/64")
    listener = zones.h.listen(80)
    for which in (0, 1):
        arrive(zones, which, IPv6(src=LINK_LOCAL, dst=both) / TCP(sport=4000, dport=80, flags="S", seq=5 + which))
    sent = left(zones)
    assert [[packet[TCP].flags for packet in packets] for packets in sent] == [["SA"], ["SA"]]
    assert [packets[0][TCP].ack for packets in sent] == [6, 7]
    zones.h.free(listener)
    left(zones)


def test_a_socket_bound_to_an_interface_hears_no_other(zones):
    """socket(7), SO_BINDTODEVICE"""
    u = zones.h.open(2)
    check(lib.sock_setopt(zones.h.handle, u, socket.SOL_SOCKET, BINDTOIFINDEX, zones.index))
    assert lib.sock_getopt(zones.h.handle, u, socket.SOL_SOCKET, BINDTOIFINDEX) == zones.index
    zones.h.bind(u, 7)
    for which in (0, 1):
        arrive(zones, which, IPv6(src=LINK_LOCAL, dst=zones.own[which]) / UDP(sport=9, dport=7) / bytes([which]))
    assert zones.h.recvfrom(u)[0] == b"\1"
    with fails("EAGAIN"):
        zones.h.recvfrom(u)
    left(zones)
    with fails("ENODEV"):
        check(lib.sock_setopt(zones.h.handle, u, socket.SOL_SOCKET, BINDTOIFINDEX, 9))


def test_our_own_link_local_address_is_reached_on_loopback(harness):
    h = harness(6)
    u, v = h.open(2), h.open(2)
    h.bind(u, 7)
    h.sendto(v, b"self", "fe80::ff:fe00:2", 7)
    h.stack.run(h.now)
    assert h.recvfrom(u)[0] == b"self"
    assert IP not in h.ip()

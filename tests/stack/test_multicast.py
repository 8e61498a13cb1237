"""Groups: who hears them, and how they are sent to (RFC 1112, RFC 3678)."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from libos._native import lib
from libos.errors import check

from .groups import (
    BLOCK_SOURCE,
    GROUP,
    JOIN,
    JOIN_SOURCE,
    LEAVE,
    LEAVE_SOURCE,
    LEVEL,
    OTHER,
    S1,
    S2,
    UNBLOCK,
    change,
    group_frame,
    heard,
    join,
    leave,
    option,
    packed,
    receiver,
    send,
    sockaddr,
)
from .harness import fails

# --- who hears what ---


@pytest.fixture
def quiet(harness, family):
    """A harness that shows no reports."""
    return harness(family)


def test_only_groups_that_were_joined_are_heard(quiet):
    """RFC 1112 7.2"""
    h, u = quiet, receiver(quiet)
    send(h)
    assert heard(h, u) == []
    assert h.counted("IpInAddrErrors" if h.family == 4 else "Ip6InAddrErrors") == 1
    join(h, u)
    send(h)
    send(h, b"other", OTHER[h.family])
    assert heard(h, u) == [b"hello"]
    leave(h, u)
    send(h)
    assert heard(h, u) == []


def test_all_hosts_are_in_all_nodes(quiet):
    """RFC 1112 4, RFC 4291 2.7.1"""
    h, u = quiet, receiver(quiet)
    send(h, group="224.0.0.1" if h.family == 4 else "ff02::1")
    assert heard(h, u) == [b"hello"]


def test_every_member_gets_a_copy(quiet):
    h = quiet
    members = [receiver(h, reuse=True) for _ in range(3)]
    for u in members:
        join(h, u)
    send(h)
    assert [heard(h, u) for u in members] == [[b"hello"]] * 3


def test_who_has_not_joined_hears_with_those_who_have(quiet):
    """ip(7), IP_MULTICAST_ALL: by default all groups that the host has joined, and without it, one's own."""
    h = quiet
    member, other = receiver(h, reuse=True), receiver(h, reuse=True)
    join(h, member)
    send(h)
    assert heard(h, other) == [b"hello"]
    check(lib.sock_setopt(h.handle, other, LEVEL[h.family], 49 if h.family == 4 else 29, 0))
    send(h)
    assert heard(h, other) == []
    assert heard(h, member) == [b"hello"] * 2


def test_a_socket_may_be_bound_to_the_group(quiet):
    """It hears that group alone, and sends from the host's own address."""
    h = quiet
    u, both = h.open(2), receiver(h, 8)
    h.bind(u, 7, GROUP[h.family])
    join(h, u)
    join(h, both, OTHER[h.family])
    send(h, b"other", OTHER[h.family])
    send(h)
    assert heard(h, u) == [b"hello"]
    h.sendto(u, b"x", h.their, 9)
    assert h.expect_packet().payload.src == h.ours


def test_sources_are_filtered_for_each_socket(quiet):
    """RFC 3678 2, RFC 3376 3.1: one wants a source, one all but a source, one all."""
    h = quiet
    f, g = h.family, GROUP[h.family]
    one, but, every = (receiver(h, reuse=True) for _ in range(3))
    change(h, one, JOIN_SOURCE, g, S1[f])
    change(h, but, JOIN, g)
    change(h, but, BLOCK_SOURCE, g, S1[f])
    change(h, every, JOIN, g)
    send(h, b"1", source=S1[f])
    send(h, b"2", source=S2[f])
    assert (heard(h, one), heard(h, but), heard(h, every)) == ([b"1"], [b"2"], [b"1", b"2"])
    change(h, one, JOIN_SOURCE, g, S2[f])
    change(h, but, UNBLOCK, g, S1[f])
    send(h, b"1", source=S1[f])
    send(h, b"2", source=S2[f])
    assert (heard(h, one), heard(h, but)) == ([b"1", b"2"], [b"1", b"2"])
    change(h, one, LEAVE_SOURCE, g, S1[f])
    change(h, one, LEAVE_SOURCE, g, S2[f])  # the last: the membership goes with it
    with fails("EADDRNOTAVAIL"):
        change(h, one, LEAVE, g)


def test_refusals(quiet):
    """ip(7), ipv6(7)"""
    h, u, f = quiet, receiver(quiet), quiet.family
    with fails("EINVAL"):
        join(h, u, h.their)
    with fails("ENODEV"):
        join(h, u, ifindex=9)
    with fails("EADDRNOTAVAIL"):
        leave(h, u)
    join(h, u)
    with fails("EADDRINUSE"):
        join(h, u)
    with fails("EINVAL"):  # it hears all of it
        change(h, u, JOIN_SOURCE, GROUP[f], S1[f])
    with fails("EADDRNOTAVAIL"):
        change(h, u, UNBLOCK, GROUP[f], S1[f])
    for n in range(10):
        change(h, u, BLOCK_SOURCE, GROUP[f], f"10.0.1.{n}" if f == 4 else f"fd00::1:{n}")
    with fails("ENOBUFS"):  # Linux: igmp_max_msf
        change(h, u, BLOCK_SOURCE, GROUP[f], S1[f])
    for n in range(19):
        join(h, u, f"239.9.9.{n}" if f == 4 else f"ff15::9:{n}")
    with fails("ENOBUFS"):  # Linux: igmp_max_memberships
        join(h, u, OTHER[f])
    for raw in (b"", bytes(7)):
        with fails("EINVAL"):
            option(h, u, LEVEL[f], socket.IP_ADD_MEMBERSHIP if f == 4 else socket.IPV6_JOIN_GROUP, raw)
        with fails("EINVAL"):
            option(h, u, LEVEL[f], JOIN_SOURCE, raw)
    if f == 4:
        six = h.open(2, 6)
        join(h, six)  # a v6 socket hears v4 groups, by the options of IPv4
        with fails("EINVAL"):
            option(h, u, socket.IPPROTO_IP, JOIN, bytes(8) + sockaddr("ff15::1"))


def test_the_options_of_ipv4_with_sources(harness):
    """ip(7): ip_mreq_source is group, interface, source."""
    h = harness(4)
    u = receiver(h)
    raw = packed(GROUP[4]) + packed(h.ours) + packed(S1[4])
    option(h, u, socket.IPPROTO_IP, 39, raw)  # IP_ADD_SOURCE_MEMBERSHIP
    send(h, b"1", source=S1[4])
    send(h, b"2", source=S2[4])
    assert heard(h, u) == [b"1"]
    option(h, u, socket.IPPROTO_IP, 40, raw)
    with fails("ENODEV"):
        option(h, u, socket.IPPROTO_IP, 39, packed(GROUP[4]) + packed("10.9.9.9") + packed(S1[4]))


# --- sending ---


def test_a_group_is_sent_to_for_one_hop(quiet):
    """RFC 1112 6.1: TTL 1, unless the sender says otherwise."""
    h, u = quiet, quiet.open(2)
    for hops in (None, 1, 5, 255):
        if hops:
            name = socket.IP_MULTICAST_TTL if h.family == 4 else socket.IPV6_MULTICAST_HOPS
            check(lib.sock_setopt(h.handle, u, LEVEL[h.family], name, hops))
            assert lib.sock_getopt(h.handle, u, LEVEL[h.family], name) == hops
        h.sendto(u, b"x", GROUP[h.family], 9)
        h.stack.run(h.now)
        (frame,) = [frame for frame, _ in h.link.drain() if UDP in Ether(frame)]
        assert frame[22 if h.family == 4 else 21] == (hops or 1)
    if h.family == 4:
        option(h, u, socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, b"\7")  # a byte will do
        assert lib.sock_getopt(h.handle, u, socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7


def test_members_on_this_host_hear_it_too(quiet):
    """RFC 1112 6.1: a copy is looped back, unless that is switched off."""
    h = quiet
    u, sender = receiver(h), h.open(2)
    join(h, u)
    h.sendto(sender, b"both", GROUP[h.family], 7)
    h.expect_packet()
    data, address, _ = h.recvfrom(u)
    assert (data, address) == (b"both", h.ours)
    name = socket.IP_MULTICAST_LOOP if h.family == 4 else socket.IPV6_MULTICAST_LOOP
    check(lib.sock_setopt(h.handle, sender, LEVEL[h.family], name, 0))
    h.sendto(sender, b"away", GROUP[h.family], 7)
    h.expect_packet()
    assert heard(h, u) == []


def test_no_member_no_copy(quiet):
    h, u = quiet, receiver(quiet)
    h.sendto(u, b"x", GROUP[h.family], 7)
    h.expect_packet()
    assert heard(h, u) == []


def test_a_large_one_is_heard_whole_and_sent_in_fragments(quiet):
    h, u = quiet, receiver(quiet)
    join(h, u)
    h.sendto(u, b"y" * 5000, GROUP[h.family], 7)
    assert heard(h, u) == [b"y" * 5000]
    assert len(h.frames()) == 4


def two_links(h):
    return h.add_link("10.7.0.2/24", "fd07::2/64")


def sent_by(h, link):
    """Frames that are no reports, of both links."""
    h.stack.run(h.now)
    h._collect()
    first, h.sent = [each.packet for each in h.sent], []
    second = [Ether(frame) for frame, _ in link.drain()]
    return len(first), len([p for p in second if UDP in p])


def test_the_interface_is_the_senders_choice(quiet):
    """RFC 1112 6.1, RFC 3493 5.2; ipv6(7): the scope of the address first."""
    h = quiet
    link, index = two_links(h)
    u = h.open(2)
    h.sendto(u, b"x", GROUP[h.family], 9)
    assert sent_by(h, link) == (1, 0)
    if h.family == 4:
        option(h, u, socket.IPPROTO_IP, socket.IP_MULTICAST_IF, packed("10.7.0.2"))
    else:
        check(lib.sock_setopt(h.handle, u, socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index))
    h.sendto(u, b"x", GROUP[h.family], 9)
    assert sent_by(h, link) == (0, 1)
    if h.family == 4:
        with fails("EADDRNOTAVAIL"):
            option(h, u, socket.IPPROTO_IP, socket.IP_MULTICAST_IF, packed("10.9.9.9"))
        option(h, u, socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(4))
    else:
        with fails("ENODEV"):
            check(lib.sock_setopt(h.handle, u, socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 9))
        check(lib.sock_setopt(h.handle, u, socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 0))
    h.sendto(u, b"x", GROUP[h.family], 9)
    assert sent_by(h, link) == (1, 0)


def test_a_membership_is_of_one_interface(quiet):
    """RFC 1112 6.1"""
    h = quiet
    link, index = two_links(h)
    u = receiver(h)
    join(h, u, ifindex=index)
    send(h)  # by the first link
    assert heard(h, u) == []
    source = "10.7.0.1" if h.family == 4 else "fd07::1"
    packet = h.ip(src=source, dst=GROUP[h.family]) / UDP(sport=1111, dport=7) / b"hello"
    link.inject(bytes(group_frame(h, packet)), h.now)
    assert heard(h, u) == [b"hello"]
    join(h, u, ifindex=h.ifindex)  # the same group, the other interface
    send(h)
    assert heard(h, u) == [b"hello"]

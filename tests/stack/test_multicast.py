"""Groups: who hears them (RFC 1112, RFC 3678), and what routers are told (RFC 3376, RFC 3810, RFC 2236, RFC 2710)."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from scapy.layers.igmp import IGMP, IGMP_MQ, IGMPv2_MR, IGMPv3_MQ, IGMPv3_MR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether

from libos._native import lib
from libos.errors import check

from .harness import fails
from .packets import PEER_MAC

GROUP = {4: "239.1.2.3", 6: "ff15::1:203"}
OTHER = {4: "239.1.2.4", 6: "ff15::1:204"}
S1 = {4: "10.0.0.1", 6: "fd00::1"}
S2 = {4: "10.0.0.3", 6: "fd00::3"}
SOLICITED = {"ff02::1:ff00:2"}  # of both our addresses: fd00::2 and the link-local one
IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = range(1, 7)
LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
JOIN, BLOCK_SOURCE, UNBLOCK, LEAVE, JOIN_SOURCE, LEAVE_SOURCE = range(42, 48)  # MCAST_*, RFC 3678 5.1
V3, V2 = {4: "IGMPv3", 6: "MLDv2"}, {4: "IGMPv2", 6: "MLDv1"}


def packed(address):
    return ipaddress.ip_address(address).packed


def sockaddr(address):
    ip = ipaddress.ip_address(address)
    raw = struct.pack("=HHI", socket.AF_INET6, 0, 0) if ip.version == 6 else struct.pack("=HH", socket.AF_INET, 0)
    return (raw + ip.packed).ljust(128, b"\0")


def option(h, u, level, name, raw):
    check(lib.sock_setsockopt(h.handle, u, level, name, raw, len(raw)))


def change(h, u, what, group, source=None, ifindex=0):
    """MCAST_*, which are the same for both families."""
    raw = struct.pack("=II", ifindex, 0) + sockaddr(group) + (sockaddr(source) if source else b"")
    option(h, u, LEVEL[h.family], what, raw)


def join(h, u, group=None, ifindex=0):
    """The plain option of each family."""
    group = group or GROUP[h.family]
    if h.family == 4:
        option(h, u, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed(group) + bytes(4) + struct.pack("=i", ifindex))
    else:
        option(h, u, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed(group) + struct.pack("=i", ifindex))


def leave(h, u, group=None):
    group = group or GROUP[h.family]
    if h.family == 4:
        option(h, u, socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, packed(group) + bytes(4))
    else:
        option(h, u, socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, packed(group) + bytes(4))


def receiver(h, port=7, *, reuse=False):
    u = h.open(2)
    if reuse:
        h.set(u, SO_REUSEADDR=1)
    h.bind(u, port)
    return u


def group_frame(h, packet):
    dst = packet.dst
    raw = packed(dst)
    mac = bytes([1, 0, 0x5E, raw[1] & 127, *raw[2:]]) if h.family == 4 else b"\x33\x33" + raw[12:]
    return Ether(src=PEER_MAC, dst=":".join(f"{b:02x}" for b in mac)) / packet


def send(h, data=b"hello", group=None, source=None, port=7):
    packet = h.ip(src=source or h.their, dst=group or GROUP[h.family]) / UDP(sport=1111, dport=port) / data
    h.inject(group_frame(h, packet))


def heard(h, u):
    got = []
    while True:
        try:
            got.append(h.recvfrom(u)[0])
        except BlockingIOError:
            return got


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


# --- what routers are told ---


@pytest.fixture
def r(harness, family):
    """A harness that shows reports; those of our own addresses are over."""
    h = harness(family, reports=True)
    h.at("10s")
    h.frames()
    return h


def records(packet):
    """(type, group, sources) of each record of a report of the newest version; where it goes is checked."""
    if IP in packet:
        assert packet[IP].dst == "224.0.0.22"
        assert packet.dst == "01:00:5e:00:00:16"
        report = packet[IGMPv3_MR]
        assert report.numgrp == len(report.records)
        return [(each.rtype, each.maddr, sorted(each.srcaddrs)) for each in report.records]
    assert (packet[IPv6].dst, packet[IPv6].src, packet.dst) == ("ff02::16", "fe80::ff:fe00:2", "33:33:00:00:00:16")
    report = packet[ICMPv6MLReport2]
    found, record = [], report.records[0]
    while isinstance(record, ICMPv6MLDMultAddrRec):  # scapy has them one in the other
        found.append((record.rtype, record.dst, sorted(record.sources)))
        record = record.payload
    assert report.records_number == len(found)
    return found


def expect_records(h, *expected):
    assert records(h.expect_packet()) == list(expected)


def expect_again(h, *expected, within="1s"):
    """The same, robustness - 1 times more, within the unsolicited report interval."""
    start = h.now
    h.after(within)
    (sent,) = h.sent
    assert start < sent.time <= h.now
    h.sent = []
    assert records(sent.packet) == list(expected)


def test_joining_and_leaving_are_told_twice(r):
    """RFC 3376 5.1, RFC 3810 6.1"""
    u = receiver(r)
    join(r, u)
    expect_records(r, (TO_EX, GROUP[r.family], []))
    expect_again(r, (TO_EX, GROUP[r.family], []))
    r.after("100s")
    r.expect_nothing()
    leave(r, u)
    expect_records(r, (TO_IN, GROUP[r.family], []))
    expect_again(r, (TO_IN, GROUP[r.family], []))
    r.after("100s")
    r.expect_nothing()


def test_closing_leaves(r):
    u = receiver(r)
    join(r, u)
    expect_records(r, (TO_EX, GROUP[r.family], []))
    r.free(u)
    expect_records(r, (TO_IN, GROUP[r.family], []))
    expect_again(r, (TO_IN, GROUP[r.family], []))


def test_a_second_member_is_no_news(r):
    a, b = receiver(r, 7), receiver(r, 8)
    join(r, a)
    r.after("2s")
    r.frames()
    join(r, b)
    leave(r, a)
    r.after("2s")
    r.expect_nothing()


def test_sources_are_told(r):
    """RFC 3376 5.1: ALLOW and BLOCK for what is new and what is gone, a change of mode with its list."""
    f, g = r.family, GROUP[r.family]
    u, v = receiver(r, 7), receiver(r, 8)
    change(r, u, JOIN_SOURCE, g, S1[f])
    expect_records(r, (ALLOW, g, [S1[f]]))
    expect_again(r, (ALLOW, g, [S1[f]]))
    change(r, u, JOIN_SOURCE, g, S2[f])
    expect_records(r, (ALLOW, g, [S2[f]]))
    change(r, u, LEAVE_SOURCE, g, S1[f])  # before the second time: both are told
    expect_records(r, (ALLOW, g, [S2[f]]), (BLOCK, g, [S1[f]]))
    expect_again(r, (BLOCK, g, [S1[f]]))
    change(r, v, JOIN, g)
    expect_records(r, (TO_EX, g, []))
    change(r, v, BLOCK_SOURCE, g, S1[f])
    expect_records(r, (TO_EX, g, [S1[f]]))  # the mode is still to be told once more
    r.after("2s")
    r.frames()
    change(r, v, BLOCK_SOURCE, g, S2[f])  # which u wants: nothing changes for the routers (RFC 3376 3.2)
    r.after("2s")
    r.expect_nothing()
    change(r, v, UNBLOCK, g, S1[f])
    expect_records(r, (ALLOW, g, [S1[f]]))
    expect_again(r, (ALLOW, g, [S1[f]]))
    change(r, v, LEAVE, g)
    expect_records(r, (TO_IN, g, [S2[f]]))
    r.free(u)
    expect_records(r, (TO_IN, g, []))
    r.after("2s")
    r.frames()


def query(h, *, group=None, sources=(), delay="10s", version=3, qrv=2, src=None, alert=True):
    """A querier's question, as a frame. ``delay``: in which it wants to be answered."""
    seconds = float(delay.rstrip("s"))
    if h.family == 4:
        ip = IP(src=src or h.their, dst=group or "224.0.0.1", ttl=1, tos=0xC0, options=[b"\x94\4\0\0"])
        if version == 3:
            delay_code = round(seconds * 10)
            body = IGMPv3_MQ(mrcode=delay_code, gaddr=group or "0.0.0.0", srcaddrs=list(sources), qrv=qrv, qqic=125)
        else:
            body = IGMP_MQ(gaddr=group or "0.0.0.0", mrcode=round(seconds * 10) if version == 2 else 0)
        packet = ip / body
    else:
        ip = IPv6(src=src or "fe80::1", dst=group or "ff02::1", hlim=1)
        if alert:
            ip /= IPv6ExtHdrHopByHop(options=[RouterAlert()])
        if version == 3:
            body = ICMPv6MLQuery2(
                mladdr=group or "::", mrd=round(seconds * 1000), sources=list(sources), QRV=qrv, QQIC=125
            )
        else:
            body = ICMPv6MLQuery(mladdr=group or "::", mrd=round(seconds * 1000))
        packet = ip / body
    h.inject(group_frame_of(h, packet))


def group_frame_of(h, packet):
    raw = packed(packet.dst)
    mac = bytes([1, 0, 0x5E, raw[1] & 127, *raw[2:]]) if h.family == 4 else b"\x33\x33" + raw[12:]
    return Ether(src=PEER_MAC, dst=":".join(f"{b:02x}" for b in mac)) / packet


@pytest.fixture
def member(r):
    """``r``, with a member of GROUP, and one of OTHER that wants one source; all reports of that are over."""
    u = receiver(r)
    join(r, u)
    change(r, u, JOIN_SOURCE, OTHER[r.family], S1[r.family])
    r.after("10s")
    r.frames()
    r.member = u
    return r


def answer(h, within):
    """The one report that comes within that time, and some time before its end."""
    start = h.now
    h.after(within)
    (sent,) = h.sent
    h.sent = []
    assert start <= sent.time <= h.now
    return sorted(r for r in records(sent.packet) if r[1] not in SOLICITED)


def test_a_general_query_is_answered_in_one(member):
    """RFC 3376 5.2, RFC 3810 6.2: all groups in one report, at a random time within the delay."""
    f = member.family
    expected = sorted([(IS_EX, GROUP[f], []), (IS_IN, OTHER[f], [S1[f]])])
    times = []
    for _ in range(4):
        query(member)
        start = member.now
        member.after("10s")
        (sent,) = member.sent
        member.sent = []
        assert sorted(r for r in records(sent.packet) if r[1] not in SOLICITED) == expected
        times.append(sent.time - start)
    assert len(set(times)) > 1


def test_ipv6_addresses_are_told_of(harness):
    """RFC 3810 6, RFC 4291 2.8: the solicited-node group of each address, from the start; all-nodes never."""
    h = harness(6, reports=True)
    told = set()
    h.at("2s")
    for sent in h.frames():
        told |= {record[:2] for record in records(sent.packet)}
    assert told == {(TO_EX, group) for group in SOLICITED}
    h.stack.add_address(h.ifindex, "fd00::99/64")
    expect_records(h, (TO_EX, "ff02::1:ff00:99", []))
    query(h, delay="1s")
    h.after("1s")
    asked = {record[:2] for sent in h.frames() for record in records(sent.packet) if record[0] == IS_EX}
    assert asked == {(IS_EX, group) for group in (*SOLICITED, "ff02::1:ff00:99")}
    check(lib.stack_remove_address(h.handle, h.ifindex, ipaddress.ip_address("fd00::99").packed))
    expect_records(h, (TO_IN, "ff02::1:ff00:99", []))
    h.after("2s")
    h.frames()


def test_a_group_query_is_about_one(member):
    f = member.family
    query(member, group=GROUP[f], delay="1s")
    assert answer(member, "1s") == [(IS_EX, GROUP[f], [])]
    query(member, group="239.5.5.5" if f == 4 else "ff15::55", delay="1s")
    member.after("1s")
    member.expect_nothing()


def test_a_source_query_is_about_those(member):
    """RFC 3376 5.2: which of them are wanted; nothing if none is."""
    f = member.family
    query(member, group=OTHER[f], sources=[S1[f], S2[f]], delay="1s")
    assert answer(member, "1s") == [(IS_IN, OTHER[f], [S1[f]])]
    query(member, group=OTHER[f], sources=[S2[f]], delay="1s")
    member.after("1s")
    member.expect_nothing()
    query(member, group=GROUP[f], sources=[S1[f], S2[f]], delay="1s")  # excludes nothing: both
    assert answer(member, "1s") == [(IS_IN, GROUP[f], sorted([S1[f], S2[f]]))]


def test_answers_are_joined(member):
    """RFC 3376 5.2 (1), (4), (5): a general answer is enough; a group's is more than its sources'; sources add up."""
    f = member.family
    query(member, delay="1s")
    query(member, group=GROUP[f], delay="10s")
    assert len(answer(member, "12s")) == 2
    query(member, group=OTHER[f], sources=[S2[f]], delay="1s")
    query(member, group=OTHER[f], sources=[S1[f]], delay="1s")
    assert answer(member, "1s") == [(IS_IN, OTHER[f], [S1[f]])]
    query(member, group=OTHER[f], sources=[S1[f]], delay="1s")
    query(member, group=OTHER[f], delay="1s")
    assert answer(member, "1s") == [(IS_IN, OTHER[f], [S1[f]])]


def test_the_querier_says_how_often_to_tell(member):
    """RFC 3376 8.1: the robustness variable of the last query"""
    query(member, qrv=4, delay="1s")
    member.after("2s")
    member.frames()
    leave(member, member.member)
    member.after("10s")
    sent = member.frames()
    assert [records(each.packet) for each in sent] == [[(TO_IN, GROUP[member.family], [])]] * 4


def old_report(packet, leave=False):
    """The group of a report (or leave) of the older version; its addresses are checked."""
    if IP in packet:
        message = packet[IGMP]
        assert message.type == (0x17 if leave else 0x16)
        assert packet[IP].dst == ("224.0.0.2" if leave else message.gaddr)
        return message.gaddr
    message = packet[ICMPv6MLDone if leave else ICMPv6MLReport]
    assert packet[IPv6].dst == ("ff02::2" if leave else message.mladdr)
    return message.mladdr


def test_an_older_querier_is_spoken_to_in_its_language(member):
    """RFC 3376 7.2.1, RFC 3810 8.2.1: reports to the group itself, a leave to the routers, and not for ever."""
    f = member.family
    query(member, version=2, delay="2s")
    member.after("2s")
    told = {old_report(each.packet) for each in member.frames()}
    assert told - SOLICITED == {GROUP[f], OTHER[f]}
    leave(member, member.member)
    assert old_report(member.expect_packet(), leave=True) == GROUP[f]
    join(member, member.member)
    assert old_report(member.expect_packet()) == GROUP[f]
    member.after("10s")
    assert [old_report(each.packet) for each in member.frames()] == [GROUP[f]]
    member.after("250s")  # 2 x 125 s and the delay of the query
    member.frames()
    leave(member, member.member)
    expect_records(member, (TO_IN, GROUP[f], []))
    member.after("2s")
    member.frames()


def test_another_members_report_is_enough(member):
    """RFC 2236 3, RFC 2710 4: of the older versions, one report for a group will do."""
    f, h = member.family, member
    query(h, version=2, delay="10s")
    if f == 4:
        other = IP(src=S2[4], dst=GROUP[4], ttl=1, options=[b"\x94\4\0\0"]) / IGMPv2_MR(gaddr=GROUP[4])
    else:
        other = (
            IPv6(src="fe80::3", dst=GROUP[6], hlim=1)
            / IPv6ExtHdrHopByHop(options=[RouterAlert()])
            / ICMPv6MLReport(mladdr=GROUP[6])
        )
    h.inject(group_frame_of(h, other))
    h.after("10s")
    assert {old_report(each.packet) for each in h.frames()} - SOLICITED == {OTHER[f]}


def test_the_oldest_knows_no_leave(harness):
    """RFC 3376 7.2.1: IGMPv1, a query without a delay; answered within 10 s."""
    h = harness(4, reports=True)
    u = receiver(h)
    join(h, u)
    h.at("2s")
    h.frames()
    query(h, version=1)
    h.after("10s")
    (sent,) = [each for each in h.frames() if IP in each.packet]
    assert (sent.packet[IGMP].type, sent.packet[IGMP].gaddr) == (0x12, GROUP[4])
    leave(h, u)
    h.after("20s")
    h.expect_nothing()


def test_queries_that_are_none(member):
    """RFC 3376 4.1, RFC 3810 5.1.14, 6.2: too short, a wrong sum, of no group, not from this link."""
    h = member
    if h.family == 4:
        for body in (b"\x11\0", b"\x11\x0a\0\0\0\0\0\0", bytes(IGMP_MQ(gaddr="10.0.0.1", mrcode=10))):
            h.inject(group_frame_of(h, IP(src=h.their, dst="224.0.0.1", ttl=1, proto=2) / body))
        too_many = IGMPv3_MQ(mrcode=10, gaddr=GROUP[4], srcaddrs=[S1[4]], numsrc=2)
        h.inject(group_frame_of(h, IP(src=h.their, dst="224.0.0.1", ttl=1) / too_many))
        assert h.counted("IgmpInErrors") == 4
    else:
        query(h, delay="1s", src="fd00::1")
        query(h, delay="1s", alert=False)
        packet = IPv6(src="fe80::1", dst="ff02::1", hlim=2) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        h.inject(group_frame_of(h, packet / ICMPv6MLQuery2(mrd=1000)))
        too_many = ICMPv6MLQuery2(mladdr=GROUP[6], mrd=1000, sources=[S1[6]], sources_number=2)
        packet = IPv6(src="fe80::1", dst="ff02::1", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / too_many
        h.inject(group_frame_of(h, packet))
        assert h.counted("IcmpInErrors") == 4
    h.after("20s")
    h.expect_nothing()


def test_a_report_is_as_large_as_a_packet_may_be(harness, family):
    """RFC 3376 4.2.16: sources that do not fit into one message are in the next."""
    h = harness(family, reports=True, mtu=200 if family == 4 else 1280)
    for n in range(12):
        u = receiver(h, 100 + n)
        for m in range(10):
            source = f"10.0.{n + 1}.{m}" if family == 4 else f"fd00::{n + 1}:{m}"
            change(h, u, JOIN_SOURCE, (GROUP if n % 2 else OTHER)[family], source)
    h.at("10s")
    h.frames()
    query(h, delay="1s")
    h.after("1s")
    told = {}
    sent = h.frames()
    assert len(sent) == (4 if family == 4 else 2)
    for each in sent:
        for kind, group, sources in records(each.packet):
            if group not in SOLICITED:
                assert kind == IS_IN
                told.setdefault(group, []).extend(sources)
    assert {group: len(set(sources)) for group, sources in told.items()} == {GROUP[family]: 60, OTHER[family]: 60}


def test_nothing_is_told_on_loopback(harness):
    """And what is heard there is only what was sent there."""
    h = harness(4, reports=True)
    u = receiver(h)
    join(h, u, ifindex=1)
    h.after("2s")
    assert all(IPv6 in each.packet for each in h.frames())

"""What routers are told of groups (RFC 3376, RFC 3810, and their predecessors RFC 2236, RFC 2710)."""

from __future__ import annotations

import ipaddress

import pytest
from scapy.layers.igmp import IGMP, IGMP_MQ, IGMPv2_MR, IGMPv3_MQ, IGMPv3_MR
from scapy.layers.inet import IP
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

from libos._native import lib
from libos.errors import check

from .groups import (
    ALLOW,
    BLOCK,
    BLOCK_SOURCE,
    GROUP,
    IS_EX,
    IS_IN,
    JOIN,
    JOIN_SOURCE,
    LEAVE,
    LEAVE_SOURCE,
    OTHER,
    S1,
    S2,
    SOLICITED,
    TO_EX,
    TO_IN,
    UNBLOCK,
    change,
    group_frame,
    join,
    leave,
    receiver,
)

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
    h.inject(group_frame(h, packet))


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


def test_an_older_leave_is_said_once(member):
    """RFC 2236 3, RFC 2710 4"""
    query(member, version=2, delay="1s")
    member.after("2s")
    member.frames()
    leave(member, member.member)
    assert old_report(member.expect_packet(), leave=True) == GROUP[member.family]
    member.after("60s")
    member.expect_nothing()


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
    h.inject(group_frame(h, other))
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
            h.inject(group_frame(h, IP(src=h.their, dst="224.0.0.1", ttl=1, proto=2) / body))
        too_many = IGMPv3_MQ(mrcode=10, gaddr=GROUP[4], srcaddrs=[S1[4]], numsrc=2)
        h.inject(group_frame(h, IP(src=h.their, dst="224.0.0.1", ttl=1) / too_many))
        assert h.counted("IgmpInErrors") == 4
    else:
        query(h, delay="1s", src="fd00::1")
        query(h, delay="1s", alert=False)
        packet = IPv6(src="fe80::1", dst="ff02::1", hlim=2) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
        h.inject(group_frame(h, packet / ICMPv6MLQuery2(mrd=1000)))
        too_many = ICMPv6MLQuery2(mladdr=GROUP[6], mrd=1000, sources=[S1[6]], sources_number=2)
        packet = IPv6(src="fe80::1", dst="ff02::1", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / too_many
        h.inject(group_frame(h, packet))
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

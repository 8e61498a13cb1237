"""What the stack counts (net/counters.h): traffic by transcripts; and that no counter is without a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.l2 import Ether

from .harness import fails
from .packets import FAR, OUR_MAC, PEER_MAC

ROOT = Path(__file__).resolve().parents[2]


def test_every_counter_is_asked_for():
    """Its name stands in a test; a test that only counts by another name cannot hold it to anything."""
    names = re.findall(r"\bX\((\w+)\)", (ROOT / "net" / "counters.h").read_text())
    assert len(names) > 50
    tests = "\n".join(file.read_text() for file in sorted((ROOT / "tests").rglob("test_*.py")))
    quoted = set(re.findall(r'"(\w+)"', tests))
    missing = sorted(set(names) - quoted)
    assert missing == []


def test_the_list_is_what_a_stack_has(h):
    names = re.findall(r"\bX\((\w+)\)", (ROOT / "net" / "counters.h").read_text())
    assert list(h.stack.counters()) == names


def test_packets(h):
    """RFC 4293: received (with what is wrong with them), delivered to a protocol, handed down for sending"""
    ip = "Ip" if h.family == 4 else "Ip6"
    h.meet()
    for name in ("InReceives", "InDelivers", "OutRequests"):
        h.counted(ip + name)
    h.counted("IcmpOutMsgs")
    echo = ICMP(type=8) if h.family == 4 else ICMPv6EchoRequest()
    h.inject(h.ip() / echo)
    h.expect_packet()
    wrong = h.ip(dst=FAR[h.family]) / UDP(sport=1, dport=2)
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / wrong)
    h.expect_nothing()
    assert h.counted("IpInReceives" if h.family == 4 else "Ip6InReceives") == 2
    assert h.counted("IpInDelivers" if h.family == 4 else "Ip6InDelivers") == 1
    assert h.counted("IpOutRequests" if h.family == 4 else "Ip6OutRequests") == 1
    assert h.counted("IcmpOutMsgs") == 1


def test_no_route(harness, family):
    """RFC 4293, ipSystemStatsOutNoRoutes"""
    h = harness(family, routes=False)
    u = h.open(2)
    with fails("ENETUNREACH"):
        h.sendto(u, b"x", FAR[family], 9)
    assert h.counted("IpOutNoRoutes" if family == 4 else "Ip6OutNoRoutes") == 1
    assert h.counted("Ip6OutNoRoutes" if family == 4 else "IpOutNoRoutes") == 0


def test_segments_and_bytes(h):
    """RFC 4022: segments, with those in error; bytes of payload, of our own counting"""
    p, c = h.established()
    assert (h.counted("TcpInSegs"), h.counted("TcpOutSegs")) == (2, 1)
    p.rx("PA", data=b"12345")
    h.send(c, b"123")
    p.expect("PA", ack=6)
    p.rx("A")
    assert (h.counted("TcpInSegs"), h.counted("TcpOutSegs")) == (2, 1)
    assert (h.counted("TcpInBytes"), h.counted("TcpOutBytes")) == (5, 3)
    assert h.recv(c) == b"12345"


def test_established(h):
    """RFC 4022, tcpCurrEstab: ESTABLISHED or CLOSE-WAIT, and a gauge"""
    p, c = h.established()
    assert h.counted("TcpCurrEstab") == 1
    p.rx("FA")
    p.expect("A")
    assert h.counted("TcpCurrEstab") == 0
    h.free(c)
    p.expect("FA")
    assert h.counted("TcpCurrEstab") == -1
    p.rx("A")


def test_time_wait_is_bounded(harness, family):
    """RFC 9293 3.6.1 asks for two segment lifetimes, but not for the last place that a new connection could have."""
    h = harness(family, sockets=8)
    listener = h.listen(80)
    for port in range(1, 7):
        p, c = h.established(listener, port=port)
        h.free(c)
        p.expect("FA")
        p.rx("FA", ack=2)
        p.expect("A", ack=2)
    h.after("1ms")
    assert h.states() == ["LISTEN"] + ["TIME-WAIT"] * 4
    assert h.counted("TcpExtTCPTimeWaitOverflow") == 2
    h.established(listener, port=9)


def test_recovery_without_sack(h):
    """RFC 6582 3.2: duplicates alone"""
    p, c = h.established()
    h.send(c, b"x" * 10_000)
    h.frames()
    for _ in range(3):
        p.rx("A", ack=1)
    h.frames()
    assert h.counted("TcpExtTCPRenoRecovery") == 1
    assert h.counted("TcpExtTCPSackRecovery") == 0
    p.rx("A", ack=10_001)
    h.frames()


def test_an_unneeded_timeout_is_seen_by_timestamps(h):
    """RFC 3522 3.2: the time-out's retransmission had not been needed"""
    p, c = h.established(ts=1)
    h.send(c, b"x" * 988)
    p.expect("PA")
    old = p.ts_echo
    h.after("1s")
    assert h.frames()
    h.after("1ms")
    p.rx("A", ack=989, ts=(2, old))
    assert h.counted("TcpExtTCPLossUndo") + h.counted("TcpExtTCPSpuriousRTOs") == 1


def test_dsack_is_counted(h):
    """RFC 2883 4: the peer had it twice"""
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, options=[("SAckOK", b"")], mss=1000)
    p.expect("SA")
    p.rx("A", seq=1)
    c = h.accept(listener)
    h.send(c, b"x" * 1000)
    p.expect("PA")
    h.after("1s")
    h.frames()
    p.rx("A", ack=1001)
    p.rx("A", ack=1001, options=[("SAck", (p.iss + 1, p.iss + 1001))])
    assert h.counted("TcpExtTCPDSACKRecv") == 1


@pytest.mark.parametrize("name", ["IpInReceives", "Ip6InReceives"])
def test_loopback_counts_too(h, name):
    """A packet to ourselves is sent and received like any."""
    before = h.stack.counters()[name]
    u = h.open(2, family=4 if name == "IpInReceives" else 6)
    h.bind(u, 7, family=4 if name == "IpInReceives" else 6)
    h.sendto(u, b"x", "127.0.0.1" if name == "IpInReceives" else "::1", 7)
    h.after("1ms")
    assert h.recvfrom(u)[0] == b"x"
    assert h.stack.counters()[name] == before + 1


def test_defer_accept(h):
    """tcp(7), TCP_DEFER_ACCEPT: the ACK that has no data is not what the listener waits for"""
    listener = h.listen(80, TCP_DEFER_ACCEPT=3)
    p = h.peer()
    p.rx("S", seq=0)
    p.expect("SA")
    p.rx("A", seq=1)
    assert h.counted("TcpExtTCPDeferAcceptDrop") == 1
    p.rx("PA", seq=1, data=b"now")
    assert h.recv(h.accept(listener)) == b"now"
    h.after("40ms")
    h.frames()


def test_answers_that_are_held_back(h):
    """RFC 5961 7, in spirit: of two that have lost each other, neither answers each empty segment"""
    p, _ = h.established()
    p.rx("A", seq=-1000)
    p.expect("A", ack=1)
    p.rx("A", seq=-1000)
    h.expect_nothing()
    assert h.counted("TcpExtTCPACKSkippedSeq") == 1


def test_no_patience_for_a_fin(h):
    """tcp(7), TCP_LINGER2 below 0: FIN-WAIT-2 is not waited in"""
    p, c = h.established(TCP_LINGER2=-1)
    h.free(c)
    p.expect("FA")
    p.rx("A", ack=2)
    h.frames()
    assert h.counted("TcpExtTCPAbortOnLinger") == 1
    assert h.states() == []


def test_orphans_are_bounded(harness, family):
    """What nobody owns any more must not keep out who wants in."""
    h = harness(family, sockets=8)
    listener = h.listen(80)
    for port in range(1, 7):
        _, c = h.established(listener, port=port)
        h.free(c)
        h.frames()
    assert h.states().count("FIN-WAIT-1") == 4
    assert h.counted("TcpExtTCPAbortOnMemory") == 2
    h.established(listener, port=9)


def test_strays_that_are_not_answered(h):
    """RFC 5961 7 in short: an empty segment beside the window is answered once in a while"""
    p, _ = h.established()
    h.at("1s")
    p.rx("A", seq=-100)
    p.expect("A", seq=1, ack=1)
    p.rx("A", seq=-100)
    h.expect_nothing()
    assert h.counted("TcpExtTCPACKSkippedSeq") == 1


def test_what_is_out_of_order_is_given_up_for_what_is_in_order(harness, family):
    """RFC 2018 8: what was SACKed may be discarded when memory runs out"""
    h = harness(family, memory=256 << 10, rcvbuf=4 << 20)
    h.meet()
    listener = h.listen(80)
    p, _ = h.established(listener, ws=7)
    for at in range(1001, 40_001, 1000):
        h.inject(p.segment("A", seq=1 + at, data=b"x" * 1000))
    h.frames()
    other, d = h.established(listener, port=40001, ws=7)
    for at in range(1, 1_000_000, 1000):
        other.rx("A", seq=at, data=b"y" * 1000)
        if h.counted("TcpExtTCPRcvQDrop"):
            break
    h.frames()
    p.rx("A", seq=1, data=b"z" * 1000)
    assert h.counted("TcpExtOfoPruned") == 1
    h.abort(d)
    h.frames()

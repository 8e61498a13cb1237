"""What an application may ask of TCP, and TCP of IP (RFC 9293 3.9): opens, addresses, reports of errors, fields."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ND_NS
from scapy.layers.l2 import ARP, Ether

from libos._native import lib
from libos.errors import check

from .harness import ERROR, READ, fails
from .packets import OUR_MAC, PEER_MAC

SECOND = {4: "10.0.0.3", 6: "fd00::3"}  # another address of ours
BITS = {4: "/24", 6: "/64"}


# --- opens ---


def test_a_listener_disturbs_nobody(h):
    """RFC 9293 3.9.1.1 (MUST-41): a second one is refused, and the first, and its connections, do not notice"""
    listener = h.listen(80)
    p, c = h.established(listener)
    with fails("EADDRINUSE"):
        h.listen(80)
    h.listen(81)
    p.rx("PA", data=b"still here")
    assert h.recv(c) == b"still here"
    _, d = h.established(listener, port=40001)
    assert h.state(d) == "ESTABLISHED"
    h.after("40ms")
    p.expect("A")


@pytest.mark.parametrize("state", ["SYN-SENT", "SYN-RECEIVED", "ESTABLISHED"])
def test_listening_on_the_port_of_a_connection(h, state):
    """RFC 9293 3.9.1.1 (MUST-42)"""
    c = h.connect(80, local_port=5000)
    p = h.peer(port=80, to=5000)
    p.expect("S")
    if state == "SYN-RECEIVED":
        p.rx("S", seq=0)
        p.expect("SA")
    elif state == "ESTABLISHED":
        p.rx("SA", seq=0)
        p.expect("A")
    assert h.state(c) == state
    listener = h.listen(5000)
    q = h.peer(port=1234, to=5000)
    q.rx("S", seq=0)
    q.expect("SA")
    q.rx("A", seq=1)
    assert h.events()[listener] == READ


def test_the_address_that_was_asked_for(h):
    """RFC 9293 3.9.1.1 (MUST-43, MUST-45): named by an active open, and kept"""
    h.stack.add_address(h.ifindex, SECOND[h.family] + BITS[h.family])
    c = h.open()
    h.bind(c, 0, SECOND[h.family])
    h.connect_again(c, 80)
    packet = h.expect_packet()
    assert packet.payload.src == SECOND[h.family]
    answer = TCP(sport=80, dport=packet[TCP].sport, flags="SA", seq=0, ack=packet[TCP].seq + 1)
    h.inject(h.ip(dst=SECOND[h.family]) / answer)
    h.send(c, b"x")
    frames = h.frames()
    assert len(frames) >= 1
    h.after("5s")
    frames += h.frames()
    assert {s.packet.payload.src for s in frames} == {SECOND[h.family]}


def test_a_listener_for_one_address(h):
    """RFC 9293 3.9.1.1 (MUST-43): a passive open with an address hears what comes to that"""
    h.stack.add_address(h.ifindex, SECOND[h.family] + BITS[h.family])
    listener = h.open()
    h.bind(listener, 80, SECOND[h.family])
    lib.sock_listen(h.handle, listener, 4, 0)
    h.inject(h.ip() / TCP(sport=1, dport=80, flags="S"))
    assert "R" in str(h.expect_packet()[TCP].flags)
    h.inject(h.ip(dst=SECOND[h.family]) / TCP(sport=1, dport=80, flags="S"))
    packet = h.expect_packet()
    assert (str(packet[TCP].flags), packet.payload.src) == ("SA", SECOND[h.family])


def test_the_address_that_ip_chooses(h):
    """RFC 9293 3.9.1.1 (MUST-44): the one in the network of the peer; asked for before the SYN goes"""
    other, there = {4: ("172.16.0.2/12", "172.16.9.9"), 6: ("fd77::2/64", "fd77::9")}[h.family]
    h.stack.add_address(h.ifindex, other)
    c = h.connect(80, there)
    assert h.expect_packet().payload.src == other.partition("/")[0]
    assert h.info(c).local[0] == other.partition("/")[0]
    h.connect(80)
    assert h.expect_packet().payload.src == h.ours


# --- who may open with us ---


@pytest.mark.parametrize(
    ("v4", "v6"),
    [("224.0.0.1", "ff02::1"), ("255.255.255.255", "ff02::2"), ("10.0.0.255", "ff05::3")],
    ids=["group", "everybody", "network"],
)
def test_a_syn_to_many_is_not_for_tcp(h, v4, v6):
    """RFC 9293 3.9.2.3 (MUST-57): in silence"""
    h.listen(80)
    dst = v4 if h.family == 4 else v6
    h.inject(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / h.ip(dst=dst) / TCP(sport=1, dport=80, flags="S"))
    h.inject(Ether(src=PEER_MAC, dst=OUR_MAC) / h.ip(dst=dst) / TCP(sport=1, dport=80, flags="S"))
    h.at("5s").expect_nothing()
    assert h.states() == ["LISTEN"]


@pytest.mark.parametrize(
    ("v4", "v6"),
    [("224.0.0.1", "ff02::1"), ("255.255.255.255", "::"), ("10.0.0.255", "ff0e::1"), ("0.0.0.0", "::")],
    ids=["group", "everybody", "network", "nobody"],
)
def test_a_syn_from_nobody(h, v4, v6):
    """RFC 9293 3.9.2.3 (MUST-63): an address that cannot be a sender's"""
    h.listen(80)
    h.inject(h.ip(src=v4 if h.family == 4 else v6) / TCP(sport=1, dport=80, flags="S"))
    h.at("5s").expect_nothing()
    assert h.states() == ["LISTEN"]


# --- ICMP ---


def test_source_quench(harness):
    """RFC 9293 3.9.2.2 (MUST-55), RFC 6633 3: a forged one slows nobody down"""
    h = harness(4)
    p, c = h.established()
    h.send(c, b"x" * 20_000)
    last = h.frames()[-1].packet
    cwnd = h.info(c).cwnd
    h.inject(h.ip() / ICMP(type=4) / bytes(last[IP])[:28])
    h.expect_nothing()
    assert (h.state(c), h.info(c).cwnd) == ("ESTABLISHED", cwnd)
    p.rx("R", seq=1)


@pytest.mark.parametrize("kind", [0x83, 0x89], ids=["loose", "strict"])
def test_a_source_route_is_not_followed(harness, kind):
    """RFC 7126 4.3, 4.4: the answers to a SYN that has one go where the routes say"""
    h = harness(4)
    h.listen(80)
    option = bytes([kind, 7, 8]) + bytes([192, 0, 2, 99]) + b"\0"
    h.inject(IP(src=h.their, dst=h.ours, options=option) / TCP(sport=1, dport=80, flags="S"))
    for s in h.frames():
        assert s.packet[IP].ihl == 5
        assert s.packet[IP].dst == h.their


def unreachable(h, packet):
    """Host unreachable (network, in IPv6), about what left."""
    inner = bytes(packet.payload)
    h.inject(h.ip() / (ICMP(type=3, code=1) if h.family == 4 else ICMPv6DestUnreach(code=0)) / inner)


def test_a_soft_error_is_the_reason_in_the_end(h):
    """RFC 9293 3.9.1.8, 3.9.2.2 (MUST-47, SHLD-25), RFC 1122 4.2.4.1: it ends nothing; what ends then says why"""
    _, c = h.established(TCP_USER_TIMEOUT=5000)
    h.send(c, b"x")
    unreachable(h, h.expect_packet())
    assert (h.state(c), h.error(c)) == ("ESTABLISHED", None)
    h.after("10s")
    h.frames()
    assert h.error(c) in ("EHOSTUNREACH", "ENETUNREACH")


def test_a_soft_error_that_passed_is_forgotten(h):
    """RFC 1122 4.2.4.1: the path worked again, and failed for another reason"""
    p, c = h.established(TCP_USER_TIMEOUT=5000)
    h.send(c, b"x")
    unreachable(h, h.expect_packet())
    p.rx("A", ack=2)
    h.send(c, b"y")
    h.after("10s")
    h.frames()
    assert h.error(c) == "ETIMEDOUT"


def test_who_wants_to_know_of_soft_errors_does(h):
    """RFC 9293 3.9.1.8 (MUST-47, SHLD-20): IP_RECVERR, off by default; the connection goes on"""
    p, c = h.established()
    level, name = (0, 11) if h.family == 4 else (41, 25)
    check(lib.sock_setopt(h.handle, c, level, name, 1))
    h.send(c, b"x")
    packet = h.expect_packet()
    unreachable(h, packet)
    assert h.events()[c] & ERROR
    assert h.error(c) in ("EHOSTUNREACH", "ENETUNREACH")
    assert h.state(c) == "ESTABLISHED"
    check(lib.sock_setopt(h.handle, c, level, name, 0))
    unreachable(h, packet)
    assert h.error(c) is None
    p.rx("A", ack=2)


def test_time_to_live(harness):
    """RFC 9293 3.9.2 (MUST-49): IP_TTL, inherited from the listener"""
    h = harness(4)
    h.hops = 9
    listener = h.listen(80)
    check(lib.sock_setopt(h.handle, listener, 0, 2, 9))
    h.inject(h.ip() / TCP(sport=1, dport=80, flags="S"))
    assert h.expect_packet()[IP].ttl == 9
    h.inject(h.ip() / TCP(sport=1, dport=80, flags="R", seq=1))


# --- how long to try ---


@pytest.mark.parametrize(("patience", "seconds"), [(5000, 5), (200_000, 200)])
def test_how_long_to_try_is_the_applications(h, patience, seconds):
    """RFC 9293 3.8.3 (MUST-21), RFC 5482: R2 of one connection, by TCP_USER_TIMEOUT"""
    _, c = h.established(TCP_USER_TIMEOUT=patience)
    h.send(c, b"x")
    h.at(f"{seconds}s")
    assert len(h.frames()) > 2
    assert h.state(c) == "ESTABLISHED"
    h.after("2s")
    assert h.error(c) == "ETIMEDOUT"
    h.frames()


def test_after_three_retransmissions_the_next_hop_is_doubted(h):
    """RFC 9293 3.8.3 (MUST-20, SHLD-10), RFC 1122 3.3.1.4: IP is told, and makes sure that the neighbour is there"""
    p, c = h.connected(local_port=5000)
    h.answers_neighbours = False
    h.send(c, b"x")
    h.after("6.1s")
    assert all(TCP in s.packet for s in h.frames())
    h.after("400ms")
    others = [s.packet for s in h.frames() if TCP not in s.packet]
    assert len(others) == 1
    assert others[0].dst == PEER_MAC
    assert ARP in others[0] or ICMPv6ND_NS in others[0]
    h.answers_neighbours = True
    h.after("3s")
    h.frames()
    p.rx("A", ack=2)
    assert h.state(c) == "ESTABLISHED"
    h.frames()


# --- keepalive ---


def test_keepalive_is_off(h):
    """RFC 9293 3.8.4 (MUST-25, MUST-28): nobody asks unless told to; then after two hours"""
    p, c = h.established()
    h.after("86400s").expect_nothing()
    assert lib.sock_getopt(h.handle, c, 6, 4) == 7200  # TCP_KEEPIDLE
    h.set(c, SO_KEEPALIVE=1)
    h.after("7199s").expect_nothing()
    h.after("1s")
    p.expect("A", seq=0, length=0)
    p.rx("A")

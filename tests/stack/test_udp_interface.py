"""UDP on one interface (SO_BINDTOIFINDEX), also before that has an address: what DHCP lives by."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from .harness import fails
from .packets import OURS, PEER_MAC

SO_BINDTOIFINDEX = 62
EVERYBODY = "ff:ff:ff:ff:ff:ff"


@pytest.fixture
def h(harness):
    """An interface without an address, and without a route."""
    h = harness(4, routes=False)
    h.interface.remove_address(OURS[4])
    return h


def bound(h, port=68, family=4):
    id = h.open(2, family)
    h.set_option(id, socket.SOL_SOCKET, SO_BINDTOIFINDEX, h.ifindex)
    h.set_option(id, socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    h.bind(id, port, family=family)
    return id


def test_who_has_no_address_speaks_to_everybody(h):
    """RFC 2131 4.1, RFC 1122 3.2.1.3 (a): from 0.0.0.0 to 255.255.255.255"""
    h.sendto(bound(h), b"hello", "255.255.255.255", 67)
    packet = h.expect_packet()
    assert (packet.dst, packet[IP].src, packet[IP].dst) == (EVERYBODY, "0.0.0.0", "255.255.255.255")
    assert (packet[UDP].sport, packet[UDP].dport) == (68, 67)


def test_without_an_interface_it_does_not(h):
    u = h.open(2)
    h.set_option(u, socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    with fails("ENETUNREACH"):
        h.sendto(u, b"hello", "255.255.255.255", 67)


def test_and_not_to_one(h):
    """RFC 1122 3.2.1.3 (a): 0.0.0.0 is no address to be answered at."""
    with fails("ENETUNREACH"):
        h.sendto(bound(h), b"hello", "10.0.0.1", 67)


def test_an_address_is_used_as_soon_as_there_is_one(h):
    u = bound(h)
    h.interface.set_address("10.0.0.9/24")
    h.sendto(u, b"hello", "255.255.255.255", 67)
    assert h.expect_packet()[IP].src == "10.0.0.9"


def test_what_everybody_hears_is_heard_without_an_address(h):
    u = bound(h)
    answer = IP(src="10.0.0.1", dst="255.255.255.255") / UDP(sport=67, dport=68) / Raw(b"offer")
    h.inject(Ether(src=PEER_MAC, dst=EVERYBODY) / answer)
    assert h.recvfrom(u) == (b"offer", "10.0.0.1", 67)


def test_other_interfaces_are_not_heard(h):
    u = h.open(2)
    h.set_option(u, socket.SOL_SOCKET, SO_BINDTOIFINDEX, 1)  # loopback
    h.bind(u, 68)
    answer = IP(src="10.0.0.1", dst="255.255.255.255") / UDP(sport=67, dport=68) / Raw(b"offer")
    h.inject(Ether(src=PEER_MAC, dst=EVERYBODY) / answer)
    with pytest.raises(BlockingIOError):
        h.recvfrom(u)


def test_a_group_on_the_link_needs_no_route(h):
    """RFC 8415 7.1: All_DHCP_Relay_Agents_and_Servers, from our link-local address."""
    h.interface.remove_address(OURS[6])
    h.sendto(bound(h, 546, 6), b"solicit", "ff02::1:2", 547)
    packet = h.expect_packet()
    assert (packet[IPv6].src, packet[IPv6].dst, packet.dst) == ("fe80::ff:fe00:2", "ff02::1:2", "33:33:00:01:00:02")


def test_there_must_be_such_an_interface(h):
    u = h.open(2)
    for index in (-1, 3, 300):
        with fails("ENODEV"):
            h.set_option(u, socket.SOL_SOCKET, SO_BINDTOIFINDEX, index)

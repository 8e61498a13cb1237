"""Groups as the tests have them: addresses, the options by which sockets join and leave, packets to them."""

from __future__ import annotations

import ipaddress
import socket
import struct

from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from libos._native import lib
from libos.errors import check

from .packets import PEER_MAC

GROUP = {4: "239.1.2.3", 6: "ff15::1:203"}
OTHER = {4: "239.1.2.4", 6: "ff15::1:204"}
S1 = {4: "10.0.0.1", 6: "fd00::1"}
S2 = {4: "10.0.0.3", 6: "fd00::3"}
SOLICITED = {"ff02::1:ff00:2"}  # of both our addresses: fd00::2 and the link-local one
IS_IN, IS_EX, TO_IN, TO_EX, ALLOW, BLOCK = range(1, 7)
LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
JOIN, BLOCK_SOURCE, UNBLOCK, LEAVE, JOIN_SOURCE, LEAVE_SOURCE = range(42, 48)  # MCAST_*, RFC 3678 5.1


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

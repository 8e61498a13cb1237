"""Frames as the tests see them: the addresses of the little network, and what scapy makes of what the stack sent.

Every frame is checked when it is parsed: its lengths, its checksums (by plain Python), what its headers must say.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import NoPayload, Packet

from libos.net.stack import pack_address

OUR_MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
OURS = {4: "10.0.0.2", 6: "fd00::2"}
PEER = {4: "10.0.0.1", 6: "fd00::1"}
ROUTER = {4: "10.0.0.254", 6: "fd00::fe"}
FAR = {4: "192.0.2.7", 6: "2001:db8::7"}
AF = {4: socket.AF_INET, 6: socket.AF_INET6}
ANY = {4: pack_address("0.0.0.0"), 6: bytes(16)}


def internet_checksum(data: bytes) -> int:
    """RFC 1071, as plainly as it can be said."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def relative(number: int, base: int) -> int:
    """``number - base`` in 32 bits, as a small signed number."""
    return (number - base + 2**31) % 2**32 - 2**31


def payload_of(tcp: Packet) -> bytes:
    return b"" if isinstance(tcp.payload, NoPayload) else bytes(tcp.payload)


def option(tcp: TCP, name: str) -> Any:
    return next((value for key, value in tcp.options if key == name), None)


def parse(frame: bytes, *, checksums: bool = True, hops: int = 64) -> Packet:
    """A frame of the stack: well formed, and its sums right. ``hops``: what a packet to one host starts with."""
    packet = Ether(frame)
    assert packet.src == OUR_MAC, f"from {packet.src}"
    ip = packet.payload  # not packet[IP]: an ICMP error may quote the other family's header
    if isinstance(ip, IP):
        assert ip.len == len(frame) - 14, "the frame is as long as IP says"
        assert internet_checksum(frame[14 : 14 + ip.ihl * 4]) == 0, "IPv4 header checksum"
        if ip.proto == socket.IPPROTO_IGMP:  # RFC 3376 4: with a router alert, and for this link only
            assert (ip.ttl, ip.ihl, ip.tos, frame[34:38]) == (1, 6, 0xC0, b"\x94\4\0\0")
            assert internet_checksum(frame[38:]) == 0
            return packet
        assert (ip.ttl, ip.ihl) == (1 if 224 <= frame[30] < 240 else hops, 5)
        if ip.frag or ip.flags.MF:  # only whole datagrams have sums that can be looked at
            assert ip.flags == ("MF" if ip.flags.MF else 0)
            assert not ip.flags.MF or (ip.len - 20) % 8 == 0
            return packet
        assert ip.flags == ("DF" if ip.proto != socket.IPPROTO_ICMP else 0)
        pseudo = frame[26:34] + struct.pack("!HH", ip.proto, ip.len - 20)
        at, proto = 34, ip.proto
    elif isinstance(ip, IPv6):
        assert ip.plen == len(frame) - 54, "the frame is as long as IPv6 says"
        pseudo = frame[22:54] + struct.pack("!IHH", ip.plen, 0, ip.nh)
        at, proto = 54, ip.nh
        if proto == socket.IPPROTO_FRAGMENT:
            assert not packet[IPv6ExtHdrFragment].m or (ip.plen - 8) % 8 == 0
            return packet
    else:
        assert ARP in packet, packet.summary()
        assert len(frame) == 42
        return packet
    if proto == socket.IPPROTO_HOPOPTS:  # nothing but multicast listener reports has one (RFC 3810 5)
        assert (ip.hlim, frame[54:62]) == (1, b"\x3a\0\5\2\0\0\1\0")
        assert is_report(packet)
        pseudo = frame[22:54] + struct.pack("!IHH", ip.plen - 8, 0, socket.IPPROTO_ICMPV6)
        at, proto = 62, socket.IPPROTO_ICMPV6
    if checksums:
        bare = proto == socket.IPPROTO_ICMP
        assert internet_checksum((b"" if bare else pseudo) + frame[at:]) == 0, f"checksum of {packet.summary()}"
    if proto == socket.IPPROTO_UDP:
        assert packet[UDP].chksum != 0
    return packet


def is_report(packet: Packet) -> bool:
    """Does it tell routers of group membership: IGMP, MLD?"""
    if ARP in packet:
        return False
    ip = packet.payload
    if isinstance(ip, IP):
        return bool(ip.proto == socket.IPPROTO_IGMP)
    return isinstance(ip, IPv6) and bytes(ip)[6] == 0 and bytes(ip)[48] in (131, 132, 143)


def neighbour_answer(packet: Packet, silent: set[str]) -> bytes | None:
    """What the neighbour answers that is asked for. None: the packet asks for nobody, or for one in ``silent``."""
    if ARP in packet and packet[ARP].op == 1:
        arp = packet[ARP]
        if arp.pdst in silent:
            return None
        answer = ARP(op=2, hwsrc=PEER_MAC, psrc=arp.pdst, hwdst=arp.hwsrc, pdst=arp.psrc)
        return bytes(Ether(src=PEER_MAC, dst=arp.hwsrc) / answer)
    if ICMPv6ND_NS in packet:
        target = packet[ICMPv6ND_NS].tgt
        if target in silent:
            return None
        advert = ICMPv6ND_NA(tgt=target, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=PEER_MAC)
        return bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / IPv6(src=target, dst=packet[IPv6].src, hlim=255) / advert)
    return None


def quoted(packet: Packet) -> bytes:
    """The packet that an ICMP error quotes."""
    layer = packet[ICMP] if ICMP in packet else packet[IPv6].payload
    return bytes(layer)[8:]

"""The drive (net/drive.h): sockets by call, packets by hand, a clock that waits to be told. Scapy is the other side."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from libos.net.drive import Drive

from .harness import fails
from .packets import internet_checksum

MS = 1_000_000
OURS, THEIRS = {4: "192.0.2.2", 6: "2001:db8::2"}, {4: "198.51.100.1", 6: "2001:db8:1::1"}
BITS, AF = {4: "/24", 6: "/64"}, {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def drive(family: int) -> Iterator[Drive]:
    with Drive(address=OURS[family] + BITS[family]) as d:
        yield d


def ip(family: int, **fields: Any) -> Packet:
    return (IP if family == 4 else IPv6)(src=THEIRS[family], dst=OURS[family], **fields)


def left(d: Drive, family: int) -> list[tuple[int, Packet]]:
    """What left, each with its ms; the checksums are right."""
    packets = [(when / MS, raw, (IP if family == 4 else IPv6)(raw)) for when, raw in d.take()]
    for _, raw, packet in packets:
        assert family == 6 or internet_checksum(raw[:20]) == 0
        assert len(raw) == (packet.len if family == 4 else packet.plen + 40)
    return [(when, packet) for when, _, packet in packets]


def segment(family: int, flags: str, seq: int, ack: int = 0, data: bytes = b"", **fields: Any) -> bytes:
    return bytes(ip(family) / TCP(sport=4000, dport=80, flags=flags, seq=seq, ack=ack, **fields) / data)


def listening(d: Drive, family: int) -> int:
    fd = d.socket(AF[family])
    d.bind(fd, (OURS[family], 80))
    d.listen(fd)
    return fd


def established(d: Drive, family: int) -> tuple[int, int]:
    """An accepted connection, and the sequence number that it will send next."""
    listener = listening(d, family)
    d.inject(segment(family, "S", 0, options=[("MSS", 1000)]))
    [(_, answer)] = left(d, family)
    d.inject(segment(family, "A", 1, answer[TCP].seq + 1))
    fd, peer = d.accept(listener)
    assert peer[:2] == (THEIRS[family], 4000)
    return fd, answer[TCP].seq + 1


def test_a_conversation(drive, family):
    """Passive open, data both ways, a retransmission at its time, close."""
    listener = listening(drive, family)
    assert listener == 3
    with fails("EAGAIN"):
        drive.accept(listener)
    drive.inject(segment(family, "S", 0, options=[("MSS", 1000)]), at=100 * MS)
    [(when, answer)] = left(drive, family)
    assert (when, str(answer[TCP].flags), answer[TCP].ack) == (100, "SA", 1)
    assert drive.poll(listener) == 0
    iss = answer[TCP].seq
    drive.inject(segment(family, "A", 1, iss + 1), at=130 * MS)
    assert drive.poll(listener) == select.POLLIN
    fd, _ = drive.accept(listener)
    assert fd == 4
    assert drive.getsockname(fd)[:2] == (OURS[family], 80)
    assert drive.getpeername(fd)[:2] == (THEIRS[family], 4000)
    assert drive.poll(fd) == select.POLLOUT
    assert drive.send(fd, b"hello") == 5
    drive.advance(by=400 * MS)
    assert [(when, bytes(p[TCP].payload)) for when, p in left(drive, family)] == [(130, b"hello"), (330, b"hello")]
    drive.inject(segment(family, "PA", 1, iss + 6, b"bye"))
    assert drive.poll(fd) == select.POLLIN | select.POLLOUT
    assert drive.recv(fd, 2) == b"by"
    assert drive.recv(fd) == b"e"
    with fails("EAGAIN"):
        drive.recv(fd)
    drive.inject(segment(family, "FA", 4, iss + 6))
    assert drive.recv(fd) == b""
    drive.close(fd)
    assert [str(p[TCP].flags) for _, p in left(drive, family)][-1] == "FA"
    drive.inject(segment(family, "A", 5, iss + 7))
    drive.close(listener)
    assert drive.sockets() == []
    assert drive.memory()["buffers"] == 0
    assert drive.due is None
    assert drive.counters()["TcpRetransSegs"] == 1


def test_active_open_and_refusal(drive, family):
    """connect(2): EINPROGRESS, EALREADY, then SO_ERROR; nobody is asked where the peer is."""
    fd = drive.socket(AF[family])
    assert drive.connect_ex(fd, (THEIRS[family], 80)) == errno.EINPROGRESS
    assert drive.connect_ex(fd, (THEIRS[family], 80)) == errno.EALREADY
    [(when, syn)] = left(drive, family)
    assert (when, str(syn[TCP].flags)) == (0, "S")
    assert drive.poll(fd) == 0
    answer = TCP(sport=80, dport=syn[TCP].sport, flags="RA", seq=0, ack=syn[TCP].seq + 1)
    drive.inject(bytes(ip(family) / answer), at=5 * MS)
    assert drive.poll(fd) & select.POLLERR
    assert drive.getsockopt(fd, socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert drive.getsockopt(fd, socket.SOL_SOCKET, socket.SO_ERROR) == 0


def test_time_stops_where_something_happens(drive, family):
    """Each packet is stamped with the moment at which it left, however far the clock was told to go."""
    fd = drive.socket(AF[family])
    drive.connect_ex(fd, (THEIRS[family], 80))
    assert drive.due == 1000 * MS
    drive.advance(to=20_000 * MS)
    assert [when for when, _ in left(drive, family)] == [0, 1000, 3000, 7000, 15000]
    assert drive.now == 20_000 * MS
    with fails("EINVAL"):
        drive.advance(to=19_000 * MS)
    with fails("EINVAL"):
        drive.inject(segment(family, "S", 0), at=19_000 * MS)
    assert drive.now == 20_000 * MS


@pytest.mark.parametrize("packet", [b"", b"\0" * 20, b"\x50" + bytes(60)])
def test_what_is_no_packet(drive, packet):
    with fails("EINVAL"):
        drive.inject(packet)


def test_datagrams(drive, family):
    """sendto(2), recvfrom(2), connect(2) of a datagram socket"""
    fd = drive.socket(AF[family], socket.SOCK_DGRAM)
    drive.bind(fd, (OURS[family], 53))
    drive.inject(bytes(ip(family) / UDP(sport=9999, dport=53) / b"question"))
    assert drive.recvfrom(fd)[0] == b"question"
    drive.sendto(fd, b"answer", (THEIRS[family], 9999))
    [(_, packet)] = left(drive, family)
    assert (packet[UDP].sport, packet[UDP].dport, bytes(packet[UDP].payload)) == (53, 9999, b"answer")
    with fails("EDESTADDRREQ"):
        drive.send(fd, b"to whom?")
    drive.connect(fd, (THEIRS[family], 9999))
    assert drive.send(fd, b"again") == 5
    assert len(left(drive, family)) == 1


def test_half_of_it(drive, family):
    """shutdown(2): SHUT_RD makes reading end, SHUT_WR says FIN"""
    fd, nxt = established(drive, family)
    drive.shutdown(fd, socket.SHUT_RD)
    assert drive.recv(fd) == b""
    drive.inject(segment(family, "PA", 1, nxt, b"x"))
    assert drive.recv(fd) == b"x"
    drive.shutdown(fd, socket.SHUT_RDWR)
    assert "F" in str(left(drive, family)[-1][1][TCP].flags)
    with fails("EPIPE"):
        drive.send(fd, b"x")
    with fails("EINVAL"):
        drive.shutdown(fd, 7)
    with fails("ENOTCONN"):
        drive.shutdown(drive.socket(), socket.SHUT_RD)


def test_descriptors(drive):
    """The lowest that is free; those that are none say EBADF, whatever is asked of them."""
    a, b = drive.socket(), drive.socket()
    drive.close(a)
    assert drive.socket() == a
    drive.close(b)
    here = ("192.0.2.2", 1)
    calls: list[Callable[[int], object]] = [
        lambda fd: drive.bind(fd, here),
        lambda fd: drive.connect(fd, here),
        lambda fd: drive.sendto(fd, b"", here),
        lambda fd: drive.setsockopt(fd, 1, 2, 1),
        lambda fd: drive.getsockopt(fd, 1, 2),
        lambda fd: drive.shutdown(fd, 0),
        lambda fd: drive.send(fd, b""),
        drive.listen,
        drive.accept,
        drive.recv,
        drive.recvfrom,
        drive.getsockname,
        drive.getpeername,
        drive.poll,
        drive.close,
    ]
    for call in calls:
        for fd in (b, 0, 2, -1, 2**31 - 1):
            with fails("EBADF"):
                call(fd)


def test_no_more_descriptors_than_sockets():
    with Drive(sockets=20) as d:
        assert [d.socket() for _ in range(20)] == list(range(3, 23))
        with fails("EMFILE"):
            d.socket()
        d.close(10)
        assert d.socket() == 10


def test_what_a_socket_cannot_be(drive):
    with fails("EAFNOSUPPORT"):
        drive.socket(socket.AF_UNIX)
    with fails("ESOCKTNOSUPPORT"):
        drive.socket(type=socket.SOCK_RAW)
    with fails("EPROTONOSUPPORT"):
        drive.socket(proto=socket.IPPROTO_UDP)
    with fails("ENOTSUP"):  # EOPNOTSUPP has the same number
        drive.send(drive.socket(), b"x", 1 << 20)
    drive.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK, proto=socket.IPPROTO_TCP)
    with pytest.raises(ValueError, match="ethernet"):
        Drive(level="wire")
    with fails("EINVAL"):
        Drive(mtu=20)


def test_options(drive, family):
    fd, _ = established(drive, family)
    drive.setsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert drive.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert drive.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, 4) == b"\1\0\0\0"
    assert drive.getsockopt(fd, socket.IPPROTO_TCP, socket.TCP_MAXSEG) == 1000
    with fails("ENOPROTOOPT"):
        drive.getsockopt(fd, 77, 77)
    with fails("EINVAL"):
        drive.setsockopt(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, b"\1")


def test_ethernet():
    """Frames, with ARP to be answered by whoever drives; packets for others are not taken."""
    with Drive(address="192.0.2.2/24", level="ethernet") as d:
        d.route("0.0.0.0/0", "192.0.2.1")
        d.take()
        fd = d.socket(type=socket.SOCK_DGRAM)
        d.sendto(fd, b"x", ("198.51.100.1", 9))
        [(_, raw)] = d.take()
        asked = Ether(raw)
        assert (asked[ARP].op, asked[ARP].pdst) == (1, "192.0.2.1")
        mac = "02:00:00:00:00:09"
        d.inject(bytes(Ether(src=mac, dst=asked.src) / ARP(op=2, hwsrc=mac, psrc="192.0.2.1", hwdst=asked.src)))
        [(_, raw)] = d.take()
        assert (Ether(raw).dst, Ether(raw)[UDP].dport) == (mac, 9)
        d.inject(bytes(Ether(src=mac, dst="02:00:00:00:00:33") / IP(dst="192.0.2.2") / ICMP()))
        assert d.take() == []


def test_the_same_calls_give_the_same_packets(family):
    def run(seed: int) -> list[tuple[int, bytes]]:
        with Drive(seed=seed, address=OURS[family] + BITS[family]) as d:
            fd = d.socket(AF[family])
            d.connect_ex(fd, (THEIRS[family], 80))
            d.advance(to=10_000 * MS)
            return d.take()

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_a_full_queue_of_packets_drops(family):
    """Nobody takes what leaves: bounded."""
    with Drive(address=OURS[family] + BITS[family], memory=16 << 20) as d:
        fd = d.socket(AF[family], socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):  # ENOBUFS
            for _ in range(100_000):
                d.sendto(fd, b"x", (THEIRS[family], 9))
        assert 0 < len(d.take()) <= 65536
        d.close(fd)
        assert d.memory()["buffers"] == 0

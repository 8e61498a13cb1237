"""TCP over links that cut and join segments, or that fill in checksums."""

from __future__ import annotations

import random

from scapy.layers.inet import TCP

from libos.net.stack import Link

from .packets import internet_checksum, payload_of


def test_tso(harness, family):
    """A link that cuts gets one frame of many segments: whole ones, and not beyond 64 KiB."""
    h = harness(family, caps=Link.CSUM | Link.TSO)
    p, c = h.established(ws=4)
    h.send(c, b"x" * 9500)
    p.expect("PA", seq=1, length=9500, gso=1000)
    p.rx("A", win=65535)
    sent = 0
    for _ in range(6):
        p.rx("A", win=65535)
        h.send(c, b"x" * 200_000)
        for s in h.frames():
            n = len(payload_of(s.packet[TCP]))
            assert len(s.packet) <= 65535 + 14
            assert s.gso == (1000 if n > 1000 else 0)
            assert n % 1000 == 0
            sent = max(sent, n)
            p.seen += n
    assert sent == 63_000
    p.rx("R")


def test_partial_checksums(harness, family):
    """LINK_CSUM: the field holds the pseudo header's sum, and the link adds the rest (virtio 1.2, 5.1.6.2)."""
    h = harness(family, caps=Link.CSUM)
    p, c = h.established()
    h.send(c, b"data")
    packet = h.expect_packet()
    tcp = packet[TCP]
    whole = bytes(tcp)
    right = tcp.copy()
    del right.chksum
    wanted = (
        (packet.payload.__class__(src=h.ours, dst=h.their) / right)
        .__class__(bytes(packet.payload.__class__(src=h.ours, dst=h.their) / right))[TCP]
        .chksum
    )
    assert internet_checksum(whole) == wanted
    p.rx("A", ack=5)


def test_joined_segments_come_in_as_one(harness, family):
    """A frame of 64 KiB, as a link with LRO delivers it"""
    h = harness(family, caps=Link.ALL)
    p, c = h.established(ws=4)
    data = random.Random(1).randbytes(60_000)
    p.rx("A", data=data)
    p.expect("A", ack=60_001)
    assert h.recv(c) == data


def test_loopback(harness, family):
    """127.0.0.1 and ::1, through the stack's own link, segments of 64 KiB"""
    h = harness(family)
    listener = h.listen(80)
    a = h.connect(80, "127.0.0.1" if family == 4 else "::1")
    h.after("1ms")
    b = h.accept(listener)
    data, got = random.Random(2).randbytes(500_000), bytearray()
    assert h.send(a, data) == len(data)
    for _ in range(1000):
        h.after("1ms")
        try:
            got += h.recv(b)
        except BlockingIOError:
            continue
        if len(got) == len(data):
            break
    assert bytes(got) == data
    assert h.counted("TcpRetransSegs") == 0
    h.free(a)
    h.after("1ms")
    assert h.recv(b) == b""

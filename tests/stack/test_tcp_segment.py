"""A segment by itself (RFC 9293 3.1, 3.2, 3.4, 3.10.7.4): sums, options, numbers, and how many one ACK answers."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from scapy.layers.inet import TCP

from .harness import ERROR, Harness, fails
from .packets import internet_checksum, payload_of

MSS = b"\x02\x04\x03\xe8"  # 1000


def raw_options(packet):
    """The bytes behind the fixed header of a segment that left."""
    raw = bytes(packet[TCP])
    return raw[20 : (raw[12] >> 4) * 4]


def with_options(h, raw, *, flags="S", port=40000, seq=0, ack=0, data=b""):
    """A segment with these bytes for options arrives."""
    assert len(raw) % 4 == 0
    tcp = TCP(sport=port, dport=80, seq=seq, ack=ack, flags=flags, dataofs=5 + len(raw) // 4)
    h.inject(h.ip() / tcp / (raw + data))
    h._run()


def test_sums_are_made(h):
    """RFC 9293 3.1 (MUST-2): by the definition, over the pseudo header, the header and the data"""
    p, c = h.established()
    h.send(c, b"odd")
    tcp = p.expect("PA", data=b"odd")
    head = struct.pack("!IHBB" if h.family == 6 else "!xBH", *((23, 0, 0, 6) if h.family == 6 else (6, 23)))
    names = b"".join(map(_packed, (h.ours, h.their)))
    assert internet_checksum(names + head + bytes(tcp)) == 0
    assert tcp.chksum != 0
    p.rx("A")


def _packed(address):
    from libos.net.stack import pack_address

    raw = pack_address(address)
    return raw[12:] if "." in address else raw


def test_a_window_has_no_sign(h):
    """RFC 9293 3.1 (MUST-1): 0x8000 and more is much, not less than nothing"""
    p, c = h.established(win=0x8000)
    h.send(c, b"x" * 5000)
    assert sum(len(payload_of(s.packet[TCP])) for s in h.frames()) == 5000
    p.rx("A", ack=5001, win=0xFFFF)
    h.send(c, b"x" * 1000)
    p.expect("PA", length=1000)
    p.rx("A", ack=6001)


def test_a_window_is_wider_than_its_field(harness, family):
    """RFC 9293 3.1 (REC-1), RFC 7323 2.2: 65535 << 14 is a window of a gigabyte."""
    h = harness(family)
    p, c = h.established(ws=14, win=65535)
    p.rx("A", win=65535)
    h.send(c, b"x" * 5000)
    assert sum(len(payload_of(s.packet[TCP])) for s in h.frames()) == 5000
    p.rx("A", ack=5001)


@pytest.mark.parametrize(
    "raw",
    [
        MSS,
        b"\1\1\1\1" + MSS,
        b"\1" + MSS + b"\1\1\1",
        b"\1\1" + MSS + b"\1\1",
        b"\1\1\1" + MSS + b"\0",
        MSS + b"\0\0\0\0",
        MSS + b"\0\x02\x04\x07",
        b"\x03\x03\x07" + MSS + b"\0",
    ],
    ids=lambda raw: raw.hex(),
)
def test_options_wherever_they_begin(h, raw):
    """RFC 9293 3.1, 3.2 (MUST-4, MUST-64): no-operation, end of list, segment size, at any place"""
    listener = h.listen(80)
    p = h.peer(isn=0)
    with_options(h, raw)
    p.expect("SA", ack=1)
    p.rx("A", seq=1)
    assert h.info(h.accept(listener)).mss == 1000


def test_an_option_on_any_segment(h):
    """RFC 9293 3.1 (MUST-5): on data and on a FIN too; a segment size there changes nothing"""
    p, c = h.established()
    p.rx("PA", seq=1, data=b"abc", options=[("NOP", None), (253, b"what is this?")])
    p.rx("PA", seq=4, data=b"def", options=[("MSS", 100), ("WScale", 3)])
    p.rx("FA", seq=7, data=b"g", options=[("EOL", None)])
    h.frames()
    assert h.recv(c) == b"abcdefg"
    assert h.state(c) == "CLOSE-WAIT"
    assert h.info(c).mss == 1000


def test_a_reset_may_carry_data(h):
    """RFC 9293 3.5.3 (SHLD-2)"""
    p, c = h.established()
    p.rx("R", seq=1, data=b"why")
    assert h.error(c) == "ECONNRESET"
    with fails("EPIPE"):
        h.send(c, b"x")


@pytest.mark.parametrize("offered", [{"mss": 1000}, {"mss": 1000, "ws": 7, "ts": 5}], ids=["few", "all"])
def test_the_options_that_we_send(h, offered):
    """RFC 9293 3.1, 3.2 (MUST-65, MUST-68, MUST-69): each with its length, padded; segment size on SYNs only"""
    listener = h.listen(80)
    p = h.peer()
    p.rx("S", seq=0, options=[("SAckOK", b"")], **offered)
    segments = [h.expect_packet()]
    p.iss, p.seen = segments[0][TCP].seq, 1
    if "ts" in offered:
        p.ts_echo = dict(segments[0][TCP].options)["Timestamp"][0]
    p.rx("A", seq=1, ack=1)
    c = h.accept(listener)
    h.send(c, b"hello")
    p.rx("A", seq=4, data=b"out of order", ack=1)
    h.shutdown(c)
    segments += [s.packet for s in h.frames()]
    assert len(segments) >= 3
    for packet in segments:
        raw, kinds = raw_options(packet), []
        while raw and raw[0]:
            if raw[0] == 1:
                raw = raw[1:]
                continue
            assert 2 <= raw[1] <= len(raw)
            kinds.append(raw[0])
            raw = raw[raw[1] :]
        assert raw == bytes(len(raw)), "behind the end of the list there are zeros"
        assert (2 in kinds) == ("S" in str(packet[TCP].flags))
    h.frames()
    p.rx("R", seq=1, ack=1)


def test_sequence_numbers_follow_a_secret(family):
    """RFC 9293 3.4.1 (MUST-9): hosts that differ in their keys alone choose numbers with nothing in common"""
    numbers = []
    for seed in range(1, 9):
        with Harness(family, seed=seed) as h:
            h.listen(80)
            p = h.peer()
            p.rx("S", seq=0)
            numbers.append(p.expect("SA").seq)
    assert len({n >> 16 for n in numbers}) == 8
    steps = {(b - a) % 2**32 for a, b in pairwise(numbers)}
    assert len(steps) == 7


def test_one_acknowledgement_for_all_that_came(h):
    """RFC 9293 3.10.7.4 (MUST-58, MUST-59): segments that arrive together are processed together, and answered once"""
    p, c = h.established()
    for at in range(1, 8001, 1000):
        h.inject(p.segment("A", seq=at, data=b"x" * 1000))
    p.expect("A", ack=8001)
    h.expect_nothing()
    assert len(h.recv(c)) == 8000


def test_a_reset_counts_when_the_window_is_shut(harness, family):
    """RFC 9293 3.4 (MUST-66): RST is heard with a receive window of zero"""
    h = harness(family, rcvbuf=1000)
    p, c = h.established()
    p.rx("A", seq=1, data=b"x" * 1000)
    h.after("40ms")
    p.expect("A", ack=1001, win=0)
    p.rx("R", seq=1001)
    assert h.events()[c] & ERROR
    assert h.error(c) == "ECONNRESET"


def test_acknowledgements_count_when_the_window_is_shut(harness, family):
    """RFC 9293 3.4: who cannot receive can still send"""
    h = harness(family, rcvbuf=1000)
    p, c = h.established()
    p.rx("A", seq=1, data=b"x" * 1000)
    h.after("40ms")
    p.expect("A", ack=1001, win=0)
    h.send(c, b"hello")
    p.expect("PA", data=b"hello")
    p.rx("A", seq=1001, ack=6)
    assert h.info(c).tx_queue == 0

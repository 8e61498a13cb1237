"""What holds for whatever comes: hypothesis makes the packets, the order, the cuts, and the writes."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether

from libos._native import lib
from libos.net.stack import Link

from .harness import Harness
from .packets import OUR_MAC, OURS, PEER, PEER_MAC, internet_checksum, payload_of

# The same examples each time: a test that fails fails for everybody. The fuzzer is where new ones are looked for.
thorough = settings(
    derandomize=True, database=None, deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow]
)
MAC = bytes.fromhex(OUR_MAC.replace(":", ""))
families = st.sampled_from([4, 6])
STATES = ["listening", "syn-sent", "syn-received", "established", "close-wait", "fin-wait-1", "fin-wait-2", "time-wait"]


# --- packets of any kind ---


def put_sums_right(frame: bytearray) -> bytearray:
    """What a liar would do: his lengths may be wrong, his checksums are not."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= 34:
        size = (frame[14] & 15) * 4
        frame[24:26] = b"\0\0"
        frame[24:26] = internet_checksum(bytes(frame[14 : 14 + size])).to_bytes(2, "big")
        total = struct.unpack("!H", frame[16:18])[0]
        body, end, proto = 14 + size, 14 + total, frame[23]
        pseudo = bytes(frame[26:34]) + struct.pack("!HH", proto, max(total - size, 0) & 0xFFFF)
    elif kind == b"\x86\xdd" and len(frame) >= 54:
        plen = struct.unpack("!H", frame[18:20])[0]
        body, end, proto = 54, 54 + plen, frame[20]
        pseudo = bytes(frame[22:54]) + struct.pack("!IHH", plen, 0, proto)
    else:
        return frame
    at = body + {6: 16, 17: 6, 1: 2, 58: 2}.get(proto, 10**6)
    if at + 2 <= min(end, len(frame)):
        frame[at : at + 2] = b"\0\0"
        what = (b"" if proto == 1 else pseudo) + bytes(frame[body:end])
        frame[at : at + 2] = internet_checksum(what).to_bytes(2, "big")
    return frame


def templates(family: int) -> list[bytes]:
    """Good packets to begin with. The TCP ones are for the connection that the test has."""
    ip = IP(src=PEER[4], dst=OURS[4]) if family == 4 else IPv6(src=PEER[6], dst=OURS[6])
    inner = bytes((IP if family == 4 else IPv6)(src=ip.dst, dst=ip.src) / TCP(sport=80, dport=40000, seq=1))
    packets: list[Any] = [
        ip / UDP(sport=53, dport=7) / b"datagram",
        ip / UDP(sport=53, dport=9) / b"for nobody",
        ip
        / TCP(sport=41000, dport=80, flags="S", seq=9, options=[("MSS", 1000), ("WScale", 7), ("Timestamp", (1, 0))]),
    ]
    if family == 4:
        packets += [
            ip / ICMP() / b"ping",
            ip / ICMP(type=3, code=3) / inner,
            ip / ICMP(type=3, code=4, nexthopmtu=1000) / inner,
            IP(src=PEER[4], dst=OURS[4], options=[b"\x07\x07\x04\0\0\0\0", b"\0"]) / UDP(sport=1, dport=7) / b"options",
            ARP(op=1, hwsrc=PEER_MAC, psrc=PEER[4], pdst=OURS[4]),
            ARP(op=2, hwsrc=PEER_MAC, psrc=PEER[4], hwdst=OUR_MAC, pdst=OURS[4]),
        ]
    else:
        packets += [
            ip / ICMPv6EchoRequest(data=b"ping"),
            ip / ICMPv6DestUnreach(code=4) / inner,
            ip / ICMPv6PacketTooBig(mtu=1300) / inner,
            ip / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=7) / b"headers",
            IPv6(src=PEER[6], dst=OURS[6], hlim=255) / ICMPv6ND_NS(tgt=OURS[6]) / ICMPv6NDOptSrcLLAddr(lladdr=PEER_MAC),
            IPv6(src=PEER[6], dst=OURS[6], hlim=255) / ICMPv6ND_NA(tgt=PEER[6], S=1),
        ]
    return [bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / packet) for packet in packets]


TEMPLATES = {family: templates(family) for family in (4, 6)}

mutation = st.one_of(
    st.tuples(st.just("set"), st.integers(12, 120), st.integers(0, 255)),
    st.tuples(st.just("flip"), st.integers(12, 120), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.integers(0, 120), st.just(0)),
    st.tuples(st.just("grow"), st.integers(12, 120), st.integers(0, 1400)),
    st.tuples(st.just("double"), st.integers(14, 80), st.integers(1, 60)),
    st.tuples(st.just("word"), st.integers(12, 120), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF])),
)
hostile = st.tuples(st.integers(0, 30), st.lists(mutation, max_size=4), st.booleans(), st.integers(0, 3))


def mutate(frame: bytes, changes: list[tuple[str, int, int]]) -> bytearray:
    raw = bytearray(frame)
    for kind, at, value in changes:
        at = min(at, len(raw))
        if kind == "cut":
            del raw[at:]
        elif kind == "grow":
            raw[at:at] = bytes(value)
        elif kind == "double":
            raw[at:at] = raw[at : at + value]
        elif at < len(raw):
            if kind == "set":
                raw[at] = value
            elif kind == "flip":
                raw[at] ^= 1 << value
            else:
                raw[at : at + 2] = value.to_bytes(2, "big")
    return raw


def in_state(h: Harness, state: str) -> Any:
    """A connection in that state, as far as its peer has brought it; and somebody who listens, on both protocols."""
    listener = h.listen(80)
    u = h.open(2)
    h.bind(u, 7)
    if state == "syn-sent":
        h.connect(80, local_port=5000)
        p = h.peer(port=80, to=5000)
        p.expect("S")
        return p
    if state in ("listening", "syn-received"):
        p = h.peer()
        if state == "syn-received":
            p.rx("S", seq=0, mss=1000)
            p.expect("SA")
        return p
    p, c = h.established(listener)
    if state == "close-wait":
        p.rx("FA")
    elif state != "established":
        h.free(c)
        p.expect("FA")
        if state == "time-wait":
            p.rx("FA")
        elif state == "fin-wait-2":
            p.rx("A")
    h.frames()
    return p


def still_there(h: Harness) -> None:
    """Whatever came before: a ping is answered. The neighbour table may have been lied to, so the peer asks first."""
    h.frames()
    h.meet()
    data = b"still there?"
    echo = ICMP(type=8) / data if h.family == 4 else ICMPv6EchoRequest(data=data)
    h.inject(h.ip() / echo)
    packet = h.expect_packet()
    assert bytes(packet).endswith(data)


@given(families, st.sampled_from(STATES), st.lists(hostile, min_size=1, max_size=12))
@thorough
def test_no_packet_does_harm(family, state, script):
    with Harness(family) as h:
        p = in_state(h, state)
        base = TEMPLATES[family] + [
            bytes(Ether(src=PEER_MAC, dst=OUR_MAC) / p.segment(flags, data=data))
            for flags, data in [("A", b""), ("PA", b"data"), ("FA", b""), ("R", b""), ("SA", b""), ("A", b"x" * 900)]
        ]
        for which, changes, honest, wait in script:
            raw = mutate(base[which % len(base)], changes)
            if not honest:
                raw = put_sums_right(raw)
            before = h.stack.counters()
            h.inject(bytes(raw))
            if raw[:6] == bytes.fromhex(OUR_MAC.replace(":", "")) and raw[12:14] in (
                b"\x08\0",
                b"\x86\xdd",
                b"\x08\x06",
            ):
                after = h.stack.counters()
                assert raw[12:14] == b"\x08\x06" or after != before, "it is accounted for"
            h.after(["0ms", "1ms", "50ms", "3s"][wait])
            h.sent.clear()
            memory = h.stack.memory()
            assert memory["in_use"] <= memory["reserved"] <= memory["limit"]
        still_there(h)


@given(families, st.lists(st.binary(max_size=200), max_size=10))
@thorough
def test_no_bytes_do_harm(family, frames):
    with Harness(family) as h:
        in_state(h, "established")
        for raw in frames:
            h.inject(MAC + raw)
            h.frames()
        still_there(h)


# --- streams ---


@given(
    families,
    st.lists(st.tuples(st.integers(0, 1400), st.integers(1, 500), st.integers(0, 3)), max_size=25),
    st.randoms(use_true_random=False),
    st.booleans(),
)
@thorough
def test_any_cuts_in_any_order_are_the_stream(family, pieces, rnd, fin):
    """Overlaps, repetition, reordering: what is read is what was sent, once, and then the end."""
    data = random.Random(1).randbytes(1500)
    last = [(at, 100, 0) for at in range(0, 1500, 100)]
    rnd.shuffle(last)
    with Harness(family) as h:
        p, c = h.established(isn=2**32 - 700)
        got = bytearray()
        for at, size, read in pieces + last:
            end = min(at + size, 1500)
            flags = "FA" if fin and end == 1500 else "A"
            p.rx(flags, seq=1 + at, data=data[at:end])
            h.sent.clear()
            if read == 0:
                with contextlib.suppress(BlockingIOError):
                    got += h.recv(c, 1 + 97 * size)
        try:
            while piece := h.recv(c):
                got += piece
            assert fin
        except BlockingIOError:
            assert not fin
        assert bytes(got) == data
        h.after("40ms")
        h.sent.clear()


write = st.tuples(st.just("write"), st.integers(1, 6000))
ack = st.tuples(st.just("ack"), st.integers(0, 8000))
window = st.tuples(st.just("window"), st.sampled_from([0, 1, 100, 900, 1000, 5000, 65535]))
wait = st.tuples(st.just("wait"), st.sampled_from([1, 40, 200, 500, 3000, 20000]))
big = st.tuples(st.just("too big"), st.sampled_from([600, 1300, 1400]))


@given(
    families,
    st.sampled_from([0, Link.CSUM | Link.TSO]),
    st.booleans(),
    st.lists(st.one_of(write, ack, window, wait, big)),
)
@thorough
def test_every_byte_that_leaves_is_the_one_that_was_written_there(family, caps, nodelay, script):
    """Whatever is acknowledged, lost, squeezed: no segment carries anything but the stream at its number."""
    data = random.Random(2).randbytes(400_000)
    with Harness(family, caps=caps) as h:
        p, c = h.established(mss=1400, TCP_NODELAY=int(nodelay))
        written = acked = most = 0
        last = None

        def look() -> None:
            nonlocal most, last
            for s in h.frames():
                if TCP not in s.packet:
                    continue
                at = (s.packet[TCP].seq - p.iss - 1 + 2**31) % 2**32 - 2**31
                payload = payload_of(s.packet[TCP])
                assert payload == data[at : at + len(payload)] or not payload
                assert at + len(payload) <= written
                assert s.gso or len(payload) <= 1400
                most, last = max(most, at + len(payload)), bytes(s.packet.payload)

        for what, n in script:
            if h.state(c) == "CLOSED":
                break
            if what == "write":
                written += h.send(c, data[written : written + n])
            elif what == "ack":
                acked = min(acked + n, most)
                p.rx("A", ack=1 + acked)
            elif what == "window":
                p.rx("A", ack=1 + acked, win=n)
            elif what == "wait":
                h.after(f"{n}ms")
            elif last is not None:
                error = ICMP(type=3, code=4, nexthopmtu=n) if family == 4 else ICMPv6PacketTooBig(mtu=n)
                h.inject(h.ip() / error / last[:48])
            look()
        if h.state(c) == "CLOSED":
            return
        for _ in range(2000):
            p.rx("A", ack=1 + most, win=65535)
            look()
            if most == written and h.info(c).tx_queue == 0:
                break
            h.after("200ms")
            look()
        assert most == written
        h.sent.clear()


# --- sums ---


@given(st.binary(max_size=300) | st.integers(0, 70000).map(lambda n: random.Random(n).randbytes(n)))
@thorough
def test_the_checksum(data):
    assert lib.inet_checksum(data, len(data)) == internet_checksum(data)


@given(st.lists(st.sampled_from([0, 0xFF, 0x80, 1]), max_size=200))
@thorough
def test_the_checksum_of_extremes(data):
    raw = bytes(data)
    assert lib.inet_checksum(raw, len(raw)) == internet_checksum(raw)


@given(families, st.lists(st.integers(1, 3000), min_size=1, max_size=30))
@settings(thorough, max_examples=40)
def test_the_checksum_over_pieces(family, sizes):
    """Segments that are cut from many writes, at odd places: the harness checks each frame's sum."""
    with Harness(family, mtu=65535) as h:
        p, c = h.established(mss=60000)
        data, sent = random.Random(3).randbytes(sum(sizes)), b""
        for at, size in zip([sum(sizes[:i]) for i in range(len(sizes))], sizes, strict=True):
            h.send(c, data[at : at + size])
            if size % 3 == 0:
                for s in h.frames():
                    sent += payload_of(s.packet[TCP])
                p.rx("A", ack=1 + len(sent))
        while len(sent) < len(data):
            for s in h.frames():
                sent += payload_of(s.packet[TCP])
            p.rx("A", ack=1 + len(sent))
        assert sent == data

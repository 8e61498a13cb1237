"""Programs in the language of fuzz_tcp.c, of whole conversations: where the fuzzer begins.

``python tests/fuzz/seeds_tcp.py DIRECTORY`` writes one file for each.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

CALL, SEND, RECV, TIME, DELIVER, DROP, DUPLICATE, SWAP, FORGE, MANGLE, SETTLE = range(11)
SERVER, CLIENT = 0, 0x80  # the side, in a step's byte
BIG = 22  # added to SEND and RECV: (step & 31) % 11 is the same, and 0x10 is set
LISTENER, ACCEPTED = 0, 1  # of the server's descriptors; the client's is its first

# call(): the low bits of its first byte
LISTEN, CONNECT, CONNECT_BOTH, ACCEPT, SHUTDOWN, CLOSE, ABORT, NODELAY, KEEPALIVE, BUFFER, INFO = (
    0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11,
)  # fmt: skip
URGENT = 14
W0, W1MS, W10MS, W40MS, W200MS, W500MS, W1S, W3S, W10S, W60S, W130S = range(11)
# forge(): the low bits choose the flags; 0x10 moves seq, 0x20 moves ack, 0x40 acks nothing new, 0x80 names a window
ACK, PUSH, FIN, RST, SYN, SYN_ACK, NO_FLAGS, URG, ECE = 0, 3, 4, 5, 6, 7, 10, 12, 13


def step(op: int, side: int = CLIENT, which: int = 0) -> bytes:
    return bytes([op | side | which << 5])


def call(kind: int, side: int = CLIENT, more: int = 0, *rest: int, bit: bool = False, v4: bool = False) -> bytes:
    return step(CALL, side) + bytes([kind | bit << 4 | v4 << 7, more, *rest])


def send(size: int, side: int = CLIENT) -> bytes:
    """``size`` bytes, or more by up to 3."""
    which = ACCEPTED if side == SERVER else 0
    if size <= 256:
        return step(SEND, side, which) + bytes([size - 1])
    return step(SEND + BIG, side, which) + struct.pack("!H", size // 4)


def recv(side: int = SERVER) -> bytes:
    return step(RECV + BIG, side, ACCEPTED if side == SERVER else 0)


def wait(which: int) -> bytes:
    return step(TIME) + bytes([which])


def forge(kind: int, side: int = CLIENT, size: int = 0, options: int = 0, *blocks: int, seq: int | None = None,
          ack: int | None = None, win: int | None = None) -> bytes:  # fmt: skip
    """``blocks``: a byte for each SACK block, with ``options`` 0x40 to 0x43."""
    kind |= (seq is not None) << 4 | (ack is not None) << 5 | (win is not None) << 7
    raw = step(FORGE, side) + bytes([0, kind, size]) + (b"\0" if win is not None else b"")
    for offset in (seq, ack):
        if offset is not None:
            raw += bytes([0x80]) + struct.pack("!h", offset)
    if win is not None:
        raw += struct.pack("!H", win)
    return raw + (b"\0" if kind & 15 == URG else b"") + bytes([options, *blocks])


SETTLED = step(SETTLE)


def programs() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, family in (("v4", 0x80), ("v6", 0)):
        start = bytes([family, 0])
        small = bytes([family, 0b01010101])
        bulk = send(60_000) + SETTLED * 2 + recv()
        found |= {
            f"{name}-echo": start + (send(100) + SETTLED + recv() + send(100, SERVER) + SETTLED + recv(CLIENT)) * 3,
            f"{name}-bulk": start + bulk * 4 + call(CLOSE) + SETTLED,
            f"{name}-both-ways": start + (send(30_000) + send(30_000, SERVER) + SETTLED + recv() + recv(CLIENT)) * 3,
            f"{name}-losses": start + (send(30_000) + step(DROP) + step(DELIVER, CLIENT, 3) + SETTLED + recv()) * 4,
            f"{name}-lost-acks": start + (send(20_000) + step(DELIVER, CLIENT, 3) * 4 + step(DROP, SERVER) * 4) * 3,
            f"{name}-tail-loss": start + send(5000) + step(DROP) * 4 + (wait(W200MS) + SETTLED) * 3 + recv(),
            f"{name}-timeouts": start + send(5000) + (step(DROP) * 8 + wait(W3S)) * 5 + SETTLED + recv(),
            f"{name}-disorder": start + (send(20_000) + step(SWAP, CLIENT, 3) + step(SWAP, CLIENT, 1) + SETTLED) * 4,
            f"{name}-twice": start + (send(10_000) + step(DUPLICATE) * 3 + SETTLED + recv()) * 3,
            f"{name}-window-shut": small + send(60_000) + (SETTLED + wait(W1S)) * 4 + recv() + SETTLED,
            f"{name}-close-both": start + call(SHUTDOWN) + call(SHUTDOWN, SERVER, ACCEPTED) + SETTLED + wait(W60S),
            f"{name}-half-close": start + call(SHUTDOWN) + SETTLED + send(9000, SERVER) + SETTLED + recv(CLIENT),
            f"{name}-open-both": start
            + call(CONNECT_BOTH, v4=family > 0)
            + call(CONNECT_BOTH, SERVER, v4=family > 0)
            + SETTLED
            + wait(W1S)
            + SETTLED,
            f"{name}-lost-fin": start + send(100) + call(CLOSE) + step(DROP) * 2 + (wait(W500MS) + SETTLED) * 3,
            f"{name}-abort": start + send(5000) + step(DELIVER) + call(ABORT) + SETTLED,
            f"{name}-unread": start + send(5000) + SETTLED + call(CLOSE, SERVER, ACCEPTED) + SETTLED,
            f"{name}-many": start
            + (call(CONNECT, v4=family > 0) + SETTLED) * 5
            + call(ACCEPT, SERVER, LISTENER) * 5
            + (call(CLOSE) + SETTLED) * 3,
            f"{name}-listens-late": bytes([family | 0x40, 0]) + wait(W1S) + SETTLED + call(ACCEPT, SERVER) + bulk,
            f"{name}-nodelay": start + call(NODELAY, bit=True) + send(1) * 8 + SETTLED + recv(),
            f"{name}-keepalive": start
            + call(KEEPALIVE, CLIENT, 0, 1, bit=True)
            + (wait(W10S) + SETTLED) * 3
            + wait(W130S),
            f"{name}-urgent": start + call(URGENT, CLIENT, 0, 30) + send(5000) + SETTLED + recv() + call(INFO),
            f"{name}-buffers": start + call(BUFFER, CLIENT, 0, 0x10, 0, bit=True) + bulk,
            f"{name}-little-memory": bytes([family | 1, 0]) + (send(60_000) + send(60_000, SERVER) + SETTLED) * 5,
            f"{name}-forged-sack": start
            + send(20_000)
            + forge(ACK | 0x40, CLIENT, 0, 0x40, 0x0A)
            + forge(ACK | 0x40, CLIENT, 0, 0x43, 0x1A, 0x2C, 0x3B)
            + forge(ACK | 0x40, CLIENT, 0, 0x41, 0x09, 0x8F, 0x80)
            + SETTLED,
            f"{name}-forged-acks": start + send(20_000) + forge(ACK, ack=-3000) * 4 + forge(ACK, ack=1000) + SETTLED,
            f"{name}-forged-windows": start
            + send(20_000)
            + forge(ACK, win=0)
            + wait(W1S)
            + forge(ACK, win=9000)
            + SETTLED,
            f"{name}-forged-data": start
            + forge(PUSH, SERVER, 6, seq=2000)
            + forge(PUSH, SERVER, 6)
            + send(3000)
            + SETTLED,
            f"{name}-forged-ends": start + forge(FIN, SERVER, seq=100) + forge(RST, SERVER, seq=5) + forge(RST, SERVER),
            f"{name}-forged-syns": start + forge(SYN) + forge(SYN_ACK, seq=10) + forge(NO_FLAGS) + send(100) + SETTLED,
            f"{name}-forged-urgent": start + forge(URG, SERVER, 5) + recv() + forge(ECE) + send(3000) + SETTLED,
            f"{name}-mangled": start + (send(3000) + step(MANGLE) + bytes([13, 1]) + SETTLED) * 3 + recv(),
        }
    return found


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, program in programs().items():
        Path(directory, name).write_bytes(program)


if __name__ == "__main__":
    main(sys.argv[1])

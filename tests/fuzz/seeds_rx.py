"""Scripts of whole conversations in the language of fuzz_rx.c: where the fuzzer begins.

``python tests/fuzz/seeds_rx.py DIRECTORY`` writes one file for each.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

RAW, TIME, SEGMENT, SYN, DATAGRAM, ECHO, ERROR, NEIGHBOUR, CALL, EXTENSION = range(10)
NEAR_0 = bytes([8])  # fuzz_rx.c, near(): one byte, less 8
FINE = b"\0"  # arrive(): no damage

# segment(): the low bits choose the flags; 0x10 moves seq, 0x20 moves ack, 0x40 acks nothing new, 0x80 names a window
ACK, PUSH, FIN, RST, SYN_FLAG, SYN_ACK, RST_ACK = 0, 3, 4, 5, 6, 7, 9
# put_payload()
NONE, ONE, TEN, MSS, BIG = 0, 4, 7, 12, 14
# call()
SEND, SEND_MUCH, RECV, RECV_SOME, SHUTDOWN, FREE, ABORT, ACCEPT, ADMIT, REJECT = 0, 2, 3, 5, 6, 7, 8, 9, 12, 13
CONNECT, CONNECT_SELF, NODELAY, KEEPALIVE = 14, 15, 16, 17
LISTENER, DEFERRING, UDP, FIRST = 0, 1, 2, 3  # sockets, in the order in which they were opened
W10MS, W40MS, W200MS, W1S, W60S, W130S = 2, 3, 4, 6, 10, 11


def wait(which: int) -> bytes:
    return bytes([TIME, which])


def meet(v4: bool = True) -> bytes:
    return bytes([NEIGHBOUR, 1 if v4 else 0]) + (b"" if v4 else FINE)


def syn(v4: bool = True, port: int = 80, *, scale: int | None = 7, stamps: bool = False, source: int = 0) -> bytes:
    kind = v4 | {80: 2, 81: 4, 82: 0}[port] | source << 3
    how = (0x40 if stamps else 0x20) if scale is None else scale
    return bytes([SYN, kind]) + struct.pack("!HH", 0x1234, 65535) + bytes([how]) + FINE


def segment(
    kind: int,
    payload: int = NONE,
    *,
    nth: int = 0,
    seq: int | None = None,
    ack: int | None = None,
    win: int | None = None,
) -> bytes:
    raw = bytes([SEGMENT, nth, kind | (seq is not None) << 4 | (ack is not None) << 5 | (win is not None) << 7])
    for offset in (seq, ack):
        if offset is not None:
            raw += bytes([0x80]) + struct.pack("!h", offset)
    if win is not None:
        raw += struct.pack("!H", win)
    return raw + b"\x20" + bytes([payload]) + FINE


def stamped(kind: int, payload: int = NONE) -> bytes:
    """For a connection with timestamps: put_options() reads how far theirs moves on."""
    return bytes([SEGMENT, 0, kind, 0x20]) + NEAR_0 + bytes([payload]) + FINE


def call(what: int, socket: int = FIRST, *arguments: int, bits: int = 0) -> bytes:
    return bytes([CALL, socket, what | bits << 5, *arguments])


def scripts() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for v4 in (True, False):
        name = "v4" if v4 else "v6"
        config = b"\0\0"
        opened = meet(v4) + syn(v4) + segment(ACK) + call(ACCEPT, LISTENER)
        found |= {
            f"{name}-echo": config + opened + segment(PUSH, TEN) + call(RECV) + call(SEND, FIRST, 9) + segment(ACK),
            f"{name}-they-close": config + opened + segment(FIN, TEN) + call(RECV) + call(FREE) + segment(ACK),
            f"{name}-we-close": config
            + opened
            + call(SEND, FIRST, 3)
            + call(FREE)
            + segment(ACK)
            + segment(FIN)
            + segment(FIN, seq=-1)
            + wait(W60S),
            f"{name}-both-close": config + opened + call(FREE) + segment(FIN | 0x40) + segment(ACK) + wait(W60S),
            f"{name}-half-close": config + opened + call(SHUTDOWN) + segment(ACK) + segment(PUSH, MSS) + segment(FIN),
            f"{name}-reset": config + opened + segment(PUSH, TEN) + segment(RST, seq=9) + segment(RST),
            f"{name}-out-of-order": config
            + opened
            + b"".join(segment(ACK, TEN, seq=at) for at in (30, 10, 35, 5, 20, 0, 0))
            + call(RECV)
            + segment(FIN, seq=9)
            + segment(PUSH, TEN),
            f"{name}-lost": config
            + opened
            + call(SEND_MUCH, FIRST, 0x40, 0)
            + segment(ACK | 0x40) * 4
            + wait(W200MS)
            + segment(ACK, ack=-9000)
            + segment(ACK, ack=-3000)
            + wait(W1S) * 3
            + segment(ACK),
            f"{name}-gone": config + opened + call(SEND, FIRST, 1) + wait(W130S) * 12,
            f"{name}-shut-window": config
            + opened
            + segment(ACK, win=0)
            + call(SEND_MUCH, FIRST, 0x20, 0)
            + wait(W1S) * 3
            + segment(ACK, win=0)
            + wait(W60S)
            + segment(ACK, win=100)
            + wait(W1S)
            + segment(ACK, win=5000),
            f"{name}-our-window": b"\2"
            + opened
            + segment(ACK, MSS) * 3
            + call(RECV_SOME, FIRST, 50)
            + segment(ACK, ONE)
            + call(RECV)
            + segment(FIN, MSS),
            f"{name}-timestamps": config
            + meet(v4)
            + syn(v4, scale=None, stamps=True)
            + stamped(ACK)
            + call(ACCEPT, LISTENER)
            + stamped(PUSH, MSS) * 3
            + call(SEND_MUCH, FIRST, 0x30, 0)
            + stamped(ACK)
            + wait(W200MS)
            + stamped(ACK)
            + stamped(FIN),
            f"{name}-deferred": config
            + meet(v4)
            + syn(v4, 81)
            + call(ACCEPT, DEFERRING)
            + call(ADMIT)
            + segment(ACK)
            + call(SEND, FIRST, 4)
            + call(FREE)
            + segment(ACK)
            + segment(FIN),
            f"{name}-rejected": config + meet(v4) + syn(v4, 81) + call(ACCEPT, DEFERRING) + call(REJECT),
            f"{name}-answered-and-closed": config
            + meet(v4)
            + syn(v4, 81)
            + call(ACCEPT, DEFERRING)
            + call(ADMIT)
            + call(SEND, FIRST, 4)
            + call(FREE)
            + segment(ACK)
            + segment(FIN),
            f"{name}-connect": config
            + meet(v4)
            + call(CONNECT, bits=4 * v4)
            + segment(SYN_ACK)
            + call(SEND, FIRST, 5)
            + segment(PUSH, TEN)
            + segment(FIN),
            f"{name}-connect-refused": config + meet(v4) + call(CONNECT, bits=4 * v4) + segment(RST_ACK),
            f"{name}-connect-both": config
            + meet(v4)
            + call(CONNECT, bits=4 * v4)
            + segment(SYN_FLAG)
            + segment(ACK)
            + segment(PUSH, TEN),
            f"{name}-connect-nobody": config + call(CONNECT, bits=4 * v4) + wait(W1S) * 5,
            f"{name}-loopback": config
            + call(CONNECT_SELF, bits=4 * v4)
            + wait(W10MS)
            + call(ACCEPT, LISTENER)
            + call(SEND_MUCH, FIRST, 0xFF, 0xFF)
            + wait(W10MS)
            + call(RECV, FIRST + 1)
            + wait(W40MS)
            + call(FREE),
            f"{name}-tso": b"\x60\0"
            + opened
            + segment(ACK, BIG)
            + call(SEND_MUCH, FIRST, 0xFF, 0xFF)
            + segment(ACK) * 3,
            f"{name}-keepalive": config + opened + call(KEEPALIVE, FIRST, 3, bits=1) + wait(W60S) * 20,
            f"{name}-reopened": config + opened + call(FREE) + segment(FIN) + syn(v4) + segment(ACK),
            f"{name}-backlog": config + meet(v4) + b"".join(syn(v4, source=n) for n in range(12)) + wait(W130S),
            f"{name}-closed-port": config + meet(v4) + syn(v4, 82),
            f"{name}-aborted": config + opened + segment(PUSH, TEN) + call(ABORT),
            f"{name}-too-big": config
            + opened
            + call(SEND_MUCH, FIRST, 0x20, 0)
            + bytes([ERROR, 0, 1 | 4 << 2 if v4 else 1])
            + FINE
            + segment(ACK),
            f"{name}-unreachable": config
            + meet(v4)
            + call(CONNECT, bits=4 * v4)
            + bytes([ERROR, 0, 1 | 3 << 2])
            + FINE,
            f"{name}-udp": config
            + meet(v4)
            + bytes([DATAGRAM, 2 | v4, TEN])
            + FINE
            + call(21, UDP)
            + call(22, UDP, 0, 99)
            + bytes([DATAGRAM, v4, TEN])
            + FINE,
            f"{name}-ping": config + meet(v4) + bytes([ECHO, v4, TEN]) + FINE + bytes([ECHO, v4, MSS]) + FINE,
            f"{name}-neighbours": config
            + b"".join(bytes([NEIGHBOUR, v4 | k, 7, 9]) + FINE for k in (0, 2, 4, 8, 14, 0x72))
            + call(22, UDP, 0, 9, bits=4 * v4)
            + wait(W1S) * 4,
            f"{name}-little-memory": b"\1"
            + opened
            + segment(ACK, BIG) * 12
            + call(SEND_MUCH, FIRST, 0xFF, 0xFF) * 9
            + segment(ACK)
            + call(RECV) * 9,
        }
    found |= {f"{name}-badly": script[:1] + b"\1" + script[2:] for name, script in found.items()}
    found |= {f"{name}-cut-off": script[:1] + b"\x80" + script[2:] for name, script in found.items()}
    found["v6-extensions"] = b"\0\0" + meet(False) + bytes([EXTENSION, 2, 0, 0, 1, 1, 0, 0, 1, 4]) + FINE
    found["raw"] = b"\0\0" + bytes([RAW, 0, 60]) + bytes.fromhex("020000000002020000000001080045000028") + bytes(42)
    found["gateway"] = b"\x10\0" + meet() + syn(port=82) + call(ACCEPT, FIRST) + call(ADMIT, FIRST + 1) + segment(ACK)
    return found


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, script in scripts().items():
        Path(directory, name).write_bytes(script)


if __name__ == "__main__":
    main(sys.argv[1])

"""Programs in the language of fuzz_ip.c: where the fuzzer begins.

``python tests/fuzz/seeds_ip.py DIRECTORY`` writes one file for each.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

RAW, TIME, FRAGMENT, QUERY, REPORT, MEMBERSHIP, SEND, RECV, REDIRECT, OPTION, ADDRESS = range(11)
MORE, OPTIONS_FIRST, WRONG_LENGTH = 2, 4, 8  # fragment()
OLD, GENERAL, OLDEST = 2, 4, 8  # group_message()
JOIN, BLOCK, UNBLOCK, LEAVE, JOIN_SOURCE, LEAVE_SOURCE = range(6)
W0, W1MS, W100MS, W500MS, W1S, W5S, W10S, W31S, W61S, W130S, W300S = range(11)


def wait(which: int) -> bytes:
    return bytes([TIME, which])


def piece(v4: bool, place: int, size: int, *, more: bool, id: int = 0, who: int = 0, byte: int = 0) -> bytes:
    """``place`` and ``size`` in units of 8 bytes."""
    return bytes([FRAGMENT, v4 | MORE * more, who, id, place, size, byte])


def query(v4: bool, flags: int = 0, which: int = 1, n: int = 10) -> bytes:
    return bytes([QUERY, v4 | flags, which, n])


def member(v4: bool, what: int, which: int = 1, socket: int = 1) -> bytes:
    return bytes([MEMBERSHIP, v4 | socket << 1 | what << 3, which])


def send(v4: bool, size: int, *, group: bool = False, socket: int = 1) -> bytes:
    return bytes([SEND, v4 | group << 1 | 1 << 2 | socket << 4]) + struct.pack("!H", size)


def programs() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for v4 in (True, False):
        name, sock = ("v4", 1) if v4 else ("v6", 0)
        whole = [piece(v4, 0, 32, more=True), piece(v4, 32, 32, more=True), piece(v4, 64, 64, more=False)]
        found |= {
            f"{name}-in-order": b"\0" + b"".join(whole) + bytes([RECV, sock]),
            f"{name}-backwards": b"\0" + b"".join(reversed(whole)) + bytes([RECV, sock]),
            f"{name}-twice": b"\0" + b"".join(each * 2 for each in whole) + bytes([RECV, sock]),
            f"{name}-overlap": b"\0" + whole[0] + piece(v4, 16, 32, more=True, byte=1) + whole[2] + wait(W61S),
            f"{name}-never": b"\0" + whole[0] + wait(W31S) + wait(W61S),
            f"{name}-many": b"\1" + b"".join(piece(v4, 0, 0xE0, more=True, id=n, who=n) for n in range(4)) * 40,
            f"{name}-marked": b"\0" + b"".join(piece(v4, 64 * n, 63, more=n < 2, byte=n << 6) for n in range(3)),
            f"{name}-tagged": b"\0" + bytes([FRAGMENT, v4 | 0xC0, 0x80, 0, 0, 32, 0]),
            f"{name}-far": b"\0" + bytes([FRAGMENT, v4, 0, 0, 0xF0, 32, 0, 0x1F, 0xFF]),
            f"{name}-large": b"\0" + send(v4, 65507, socket=sock) + send(v4, 20000, socket=sock) + wait(W1S),
            f"{name}-join": b"\0"
            + member(v4, JOIN, socket=sock)
            + wait(W1S)
            + member(v4, LEAVE, socket=sock)
            + wait(W1S),
            f"{name}-sources": b"\0"
            + member(v4, JOIN_SOURCE, 0x09, sock)
            + member(v4, JOIN_SOURCE, 0x11, sock)
            + wait(W1S)
            + query(v4, n=0x12)
            + wait(W10S)
            + member(v4, LEAVE_SOURCE, 0x09, sock)
            + wait(W1S)
            + member(v4, LEAVE_SOURCE, 0x11, sock)
            + wait(W1S),
            f"{name}-excludes": b"\0"
            + member(v4, JOIN, socket=sock)
            + member(v4, BLOCK, 0x09, sock)
            + member(v4, JOIN_SOURCE, 0x09, sock + 2)
            + query(v4, GENERAL)
            + wait(W10S)
            + member(v4, UNBLOCK, 0x09, sock),
            f"{name}-older": b"\0"
            + member(v4, JOIN, socket=sock)
            + query(v4, OLD | GENERAL)
            + bytes([REPORT, v4, 1, 0])
            + wait(W10S)
            + query(v4, OLD | GENERAL | OLDEST)
            + member(v4, LEAVE, socket=sock)
            + wait(W300S)
            + query(v4, GENERAL)
            + wait(W10S),
            f"{name}-looped": b"\0"
            + member(v4, JOIN, socket=sock)
            + send(v4, 5000, group=True, socket=sock)
            + bytes([RECV, sock]),
            f"{name}-redirected": b"\0"
            + bytes([REDIRECT, v4 | 3 << 3, 7]) * 3
            + send(v4, 100, socket=sock)
            + wait(W5S),
            f"{name}-addresses": b"\0" + bytes([ADDRESS, v4 | 2, ADDRESS, v4 | 0x12, ADDRESS, v4]) + wait(W1S),
            f"{name}-options": b"\0"
            + b"".join(bytes([OPTION, v4 | sock << 1 | 8, option, 0, 1]) for option in (1, 2, 10, 16, 18, 23, 33, 49)),
        }
    return found


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, program in programs().items():
        Path(directory, name).write_bytes(program)


if __name__ == "__main__":
    main(sys.argv[1])

"""Programs in the language of fuzz_switch.c: where the fuzzer begins.

``python tests/fuzz/seeds_switch.py DIRECTORY`` writes one file for each.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

FRAME, RAW, TIME, UNPLUG, IMPAIR, BLOCK, CLOG, DOWN, FROM_WIRE = range(9)
V4, MARKED, LARGE, TAGGED = 1, 2, 4, 8
ALL, BRIDGES = 0xFC, 0xFD


def body(dst: int, src: int, size: int = 100, kind: int = V4, gso: int = 125) -> bytes:
    return bytes([kind, dst, src]) + struct.pack("!H", size) + bytes([gso, 0x33])


def frame(port: int, *args: int) -> bytes:
    return bytes([FRAME, port]) + body(*args)


def wired(*args: int) -> bytes:
    return bytes([FROM_WIRE]) + body(*args)


def impair(direction: int, *, shares: int = 0, delay: int = 0, jitter: int = 0, spread: int = 0) -> bytes:
    shares4 = bytes([shares] * 4)
    return (
        bytes([IMPAIR, 50, 0, 0, 0, 0]) + shares4 + struct.pack("!BHHHHBB", spread, delay, jitter, 0, 0, 0, direction)
    )


def programs() -> dict[str, bytes]:
    talk = frame(0, ALL, 1) + frame(1, 1, 2) + wired(1, 9) + frame(0, 9, 1) + frame(2, ALL, 3) + frame(3, 9, 4)
    large = b"".join(
        frame(3, dst, 4, 5000, kind | MARKED | LARGE) for dst in (1, ALL, 9) for kind in (0, V4, V4 | TAGGED)
    )
    return {
        "talk": talk,
        "large": talk + large,
        "ageing": talk + bytes([TIME, 0xFF, 0xFF]) + talk,
        "unplugged": talk + bytes([UNPLUG, 0, UNPLUG, 1]) + talk,
        "bridges": frame(0, BRIDGES, 1) + frame(1, 1, ALL),
        "raw": b"".join(bytes([RAW, n, n]) + bytes(n) for n in range(20)),
        "full": b"".join(frame(n % 4, ALL, n) for n in range(100)),
        "blocked": talk + bytes([BLOCK, 2, BLOCK, 3]) + talk + bytes([BLOCK, 0, BLOCK, 1]) + talk,
        "clogged": bytes([CLOG, 2, CLOG, 3]) + talk * 3 + bytes([CLOG, 4, CLOG, 1, 9, 9]) + talk,
        "down": impair(0, delay=9000) + talk + bytes([DOWN, 1]) + talk + bytes([DOWN, 0]) + talk,
        **{
            f"bad-{spread}": impair(0, shares=60, delay=900, jitter=500, spread=spread)
            + impair(1, shares=100, delay=900, jitter=5000, spread=spread)
            + (talk + bytes([TIME, 0, 20])) * 5
            for spread in range(3)
        },
    }


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, program in programs().items():
        Path(directory, name).write_bytes(program)


if __name__ == "__main__":
    main(sys.argv[1])

"""Programs in the language of fuzz_forward.c: where the fuzzer begins.

``python tests/fuzz/seeds_forward.py DIRECTORY`` writes one file for each.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

RAW, TIME, PACKET, NEIGHBOUR, ROUTE = range(5)
V4, TCP, OPTIONS, ICMP = 1, 2, 4, 8
PARTIAL, VERIFIED, LARGE = 1, 2, 4
DF, MF = 0x4000, 0x2000


def packet(
    kind: int, size: int, *, src: int = 9, dst: int = 9, to: int = 1, hops: int = 64, field: int = 0, offload: int = 0
) -> bytes:
    return bytes([PACKET, kind, 0, to, src, dst, hops]) + struct.pack("!HH", field, size) + bytes([offload, 0x5A])


def known(link: int, n: int = 9) -> bytes:
    return bytes([NEIGHBOUR, link, n])


def wait(which: int) -> bytes:
    return bytes([TIME, which])


def programs() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for v4 in (0, 1):
        name, start = ("v6", "v4")[v4], b"\0" + known(0) + known(1) + known(2)
        found |= {
            f"{name}-plain": start + packet(v4, 100),
            f"{name}-tcp": start + packet(v4 | TCP, 100, offload=PARTIAL),
            f"{name}-waits": b"\0" + packet(v4, 100) + packet(v4 | TCP, 100, offload=PARTIAL) + known(1),
            f"{name}-silent": b"\0" + packet(v4, 100) * 3 + wait(4) + wait(5),
            f"{name}-hops": start + packet(v4, 100, hops=1) + packet(v4 | ICMP, 100, hops=0),
            f"{name}-too-large": start + packet(v4, 1400, field=DF * v4) + packet(v4, 1400, to=2),
            f"{name}-large-cut": start + packet(v4 | TCP, 5000, offload=PARTIAL | LARGE),
            f"{name}-large-small-link": start + packet(v4 | TCP, 5000, to=2, offload=PARTIAL | LARGE),
            f"{name}-large-verified": start + packet(v4 | TCP, 5000, offload=VERIFIED | LARGE),
            f"{name}-large-bare": start + packet(v4 | TCP, 5000, offload=LARGE),
            f"{name}-options": start + b"".join(packet(v4 | OPTIONS | n << 4, 900, to=2) for n in range(16)),
            f"{name}-odd-places": start + b"".join(packet(v4, 64, src=0xF0 + n, dst=0xF7 - n) for n in range(8)),
            f"{name}-routes": start + bytes([ROUTE, v4 | 2 | 9 << 4, 1, 0xF7, 24]) + packet(v4, 90, dst=0xF7) * 2,
        }
    found["v4-fragments"] = b"\0" + known(2) + packet(V4, 1400, to=2, field=MF) + packet(V4, 1200, to=2, field=100)
    found["v4-too-far"] = b"\0" + known(2) + packet(V4, 1400, to=2, field=0x1FFE)
    return found


def main(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)
    for name, program in programs().items():
        Path(directory, name).write_bytes(program)


if __name__ == "__main__":
    main(sys.argv[1])

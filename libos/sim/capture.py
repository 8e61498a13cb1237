"""What the captures of a world show: which frame went from which machine to which, and which got nowhere.

A frame that arrives is the one with the same bytes that was sent last before it; so a copy that a wire made has the
same origin. Frames that were sent and arrived nowhere are lost; damaged ones are both lost and from nowhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Capture", "Frame", "frames_of"]

_RECORD = struct.Struct("=IIII")
_ETHERTYPES = MappingProxyType({0x0806: "ARP", 0x86DD: "IPv6"})
_PROTOCOLS = MappingProxyType({1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"})
_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x10, "ACK"))


class Capture(NamedTuple):
    """Of a wire's end at ``machine``, whose interface there has the address ``mac``."""

    file: Path
    machine: str
    mac: bytes


class Frame(NamedTuple):
    """``sent``, ``came``: virtual times; None: it was not seen there. ``what``: in a few words."""

    sender: str | None
    receiver: str | None
    sent: int | None
    came: int | None
    length: int
    what: str


def frames_of(captures: Iterable[Capture], epoch: int, most: int) -> list[Frame]:
    """Of all captures, in the order of their times; the first ``most``."""
    records = []
    for capture in captures:
        for when, data in _read(capture.file):
            records.append((when - epoch, data[6:12] != capture.mac, capture.machine, data))
    records.sort(key=lambda record: record[:2])  # of one instant: what is sent before what arrives
    origins: dict[bytes, tuple[str, int]] = {}
    unseen: dict[bytes, int] = {}
    found: list[Frame] = []
    for when, arrived, machine, data in records:
        if len(found) == most:
            break
        if not arrived:
            origins[data] = machine, when
            unseen[data] = len(found)
            found.append(Frame(machine, None, when, None, len(data), _describe(data)))
            continue
        sender, sent = origins.get(data, (None, None))
        frame = Frame(sender, machine, sent, when, len(data), _describe(data))
        if (index := unseen.pop(data, None)) is not None:
            found[index] = frame
        else:
            found.append(frame)
    return found


def _read(file: Path) -> Iterator[tuple[int, bytes]]:
    raw = file.read_bytes()
    at = 24
    while at + _RECORD.size <= len(raw):
        seconds, ns, kept, _ = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        yield seconds * 10**9 + ns, raw[at : at + kept]
        at += kept


def _describe(data: bytes) -> str:
    kind = int.from_bytes(data[12:14], "big")
    if kind == 0x0800 and len(data) >= 34:
        header = 4 * (data[14] & 15)
        return _upper(data[23], data[14 + header :], int.from_bytes(data[16:18], "big") - header)
    if kind == 0x86DD and len(data) >= 54:
        return _upper(data[20], data[54:], int.from_bytes(data[18:20], "big"))
    return _ETHERTYPES.get(kind, f"type {kind:04x}")


def _upper(protocol: int, data: bytes, length: int) -> str:
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    if protocol not in (6, 17) or len(data) < 8:
        return name
    source, target = struct.unpack_from("!HH", data)
    if protocol == 17 or len(data) < 20:
        return f"{name} {source} > {target}, {length - 8} bytes"
    flags = " ".join(flag for bit, flag in _FLAGS if data[13] & bit)
    return f"{name} {source} > {target} {flags}, {length - 4 * (data[12] >> 4)} bytes"

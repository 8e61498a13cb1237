"""What the messages of both DHCPs are made of: names as in DNS, identifiers of clients, what to say of bad input."""

from __future__ import annotations

import re

__all__ = ["BadMessage", "client_id", "decode_names", "duid_ll", "encode_name"]

_NAME_MAX = 253
_NAMES_MAX = 16
_LABEL = re.compile(rb"[A-Za-z0-9_-]{1,63}")


class BadMessage(ValueError):
    """Not a message that is for us, or not a message at all: dropped and counted, never an error."""


def encode_name(name: str) -> bytes:
    """RFC 1035, 3.1, without compression."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def decode_names(data: bytes) -> tuple[str, ...]:
    """A list of names (RFC 3397, RFC 8415, 10), the pointers of RFC 1035, 4.1.4 included. Only hosts' names: what is in
    them ends up in queries and logs. Raises BadMessage."""
    names: list[str] = []
    at = 0
    while at < len(data) and len(names) < _NAMES_MAX:
        name, at = _decode_name(data, at)
        if name:
            names.append(name)
    return tuple(names)


def _decode_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    end, limit, size = 0, at, 0  # pointers go back only, so that they end
    while True:
        if at >= len(data):
            raise BadMessage("a name goes on behind the end")
        length = data[at]
        if length == 0:
            return ".".join(labels), end or at + 1
        if length >= 0xC0:
            if at + 2 > len(data):
                raise BadMessage("half a pointer in a name")
            target = (length & 0x3F) << 8 | data[at + 1]
            if target >= limit:
                raise BadMessage("a pointer in a name that does not go back")
            end = end or at + 2
            at = limit = target
            continue
        label = data[at + 1 : at + 1 + length]
        size += length + 1
        if length > 63 or len(label) < length or size > _NAME_MAX + 1 or not _LABEL.fullmatch(label):
            raise BadMessage("not a host's name")
        labels.append(label.decode("ascii"))
        at += 1 + length


def duid_ll(mac: bytes) -> bytes:
    """A DUID based on the link address (RFC 8415, 11.4)."""
    return b"\0\3\0\1" + mac


def client_id(iaid: int, duid: bytes) -> bytes:
    """The DHCPv4 client identifier that goes with a DUID (RFC 4361, 6.1)."""
    return b"\xff" + iaid.to_bytes(4, "big") + duid

"""Virtual times as people write them: ``"60s"``, ``"1.5h"``, ``"250ms"``, or a number of seconds."""

from __future__ import annotations

import re
from types import MappingProxyType

__all__ = ["Duration", "show", "to_ns"]

Duration = str | int | float

_UNITS = MappingProxyType(
    {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
)


def to_ns(duration: Duration) -> int:
    """In ns. Raises ValueError if it is none, or negative."""
    if isinstance(duration, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", duration)
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{duration!r} is no time: a number with one of the units {', '.join(_UNITS)}")
        return round(float(match[1]) * _UNITS[match[2]])
    ns = round(duration * 10**9)
    if ns < 0:
        raise ValueError(f"{duration!r}: a time is not negative")
    return ns


def show(ns: int) -> str:
    """In seconds, to the microsecond."""
    return f"{ns / 1e9:.6f}"

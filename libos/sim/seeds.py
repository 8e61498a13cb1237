"""Seeds as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from libos.errors import ConfigError

__all__ = ["parse_seeds"]

SEED_MAX = 1 << 63


def parse_seeds(option: str, text: str) -> Sequence[int]:
    """``0..999``, ``7``, ``1,5,10..19``. One range stays one: it may be long."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
        if match is None:
            raise ConfigError(f"{option} {text}: allowed: numbers and ranges, as 0..999 or 1,5,10..19")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= SEED_MAX:
            raise ConfigError(f"{option} {text}: {part.strip()} is no range of seeds")
        ranges.append(range(first, last + 1))
    if len(ranges) == 1:
        return ranges[0]
    return list(dict.fromkeys(seed for each in ranges for seed in each))

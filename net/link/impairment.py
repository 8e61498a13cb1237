"""How bad a wire is: the value that ``impair.c`` makes true."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Impairment"]


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to frames in each direction: shares of them (0 to 1), times in ns."""

    loss: float = 0.0
    reorder: float = 0.0  # skip the delay, and so overtake
    duplicate: float = 0.0
    corrupt: float = 0.0  # one bit is flipped
    delay: int = 0
    jitter: int = 0
    rate: int = 0  # bits a second; 0: no limit
    queue: int = 10_000  # frames held at most
    seed: int | None = None  # None: the machine's randomness decides

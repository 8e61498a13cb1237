"""How bad a wire is: the value that ``line.c`` makes true."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Impairment"]


class Impairment(NamedTuple):
    """What happens to frames in each direction: shares of them (0 to 1), times in ns."""

    loss: float = 0.0
    burst: int = 0  # mean length of a run of losses, at the same share; 0: each frame on its own
    reorder: float = 0.0  # skip the delay, and so overtake
    duplicate: float = 0.0
    corrupt: float = 0.0  # one bit is flipped
    delay: int = 0
    jitter: int = 0
    distribution: Literal["uniform", "normal", "pareto"] = "uniform"  # of the jitter: see net/link/latency.c
    keep_order: bool = False  # jitter reorders nothing
    rate: int = 0  # bits a second; 0: no limit
    buffer: int = 0  # what may wait for its turn at that rate, in ns, the tail is dropped; 0: no limit
    bucket: int = 0  # how much unused time the rate may make good at once, in ns (a token bucket)
    queue: int = 10_000  # frames held at most, those under way included
    queue_bytes: int = 0  # and bytes of them; 0: no limit
    seed: int | None = None  # None: the machine's randomness decides

    @property
    def per_frame(self) -> bool:
        """Whether it chooses or counts frames, so that one of 64 KiB, standing for many, would be treated as one."""
        return bool(self.loss or self.reorder or self.duplicate or self.corrupt or self.rate)

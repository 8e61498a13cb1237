"""Where a machine gets its randomness: an object it was given, seeded by the host or by a number.

C never draws by itself; it is handed 128-bit seeds from here and keys its own generator with them.
"""

from __future__ import annotations

import os
import random

__all__ = ["Rng"]


class Rng:
    """A stream of random numbers.

    Without a seed it starts from the host's ``getrandom(2)``; with one, the same seed gives the same stream.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(int.from_bytes(os.urandom(32), "little") if seed is None else seed)

    def bits(self, n: int) -> int:
        """``n`` random bits as an unsigned int."""
        return self._random.getrandbits(n)

    def below(self, limit: int) -> int:
        """A number from 0 up to, and without, ``limit``."""
        return self._random.randrange(limit)

    def bytes(self, n: int) -> bytes:
        """``n`` random bytes."""
        return self._random.randbytes(n)

    def seed128(self) -> tuple[int, int]:
        """A seed for C: two unsigned 64-bit words."""
        return self.bits(64), self.bits(64)

    def fork(self) -> Rng:
        """A stream of its own for one part, so that its draws do not shift another's."""
        return Rng(self.bits(256))

"""Two links joined by a bad wire, in C: the cffi face of ``wire.c``.

A :class:`Wire` is driven like a stack: attached to a reactor, in real time and without Python per frame; or by hand
with :meth:`Wire.run`, on whatever clock its user has. It owns the links that it is given, and the frames under way.
"""

from __future__ import annotations

from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.link.impairment import Impairment
from libos.net.stack import Link, pack_impairment
from libos.rand import Rng

__all__ = ["MEMORY", "NEVER", "Wire"]

NEVER = (1 << 64) - 1
MEMORY = 1 << 30  # bytes of frames at most; only what was once used is resident

_COUNTERS = (
    *("in_packets", "in_bytes", "out_packets", "out_bytes", "lost", "duplicated", "corrupted", "reordered"),
    *("blocked", "down", "dropped", "buffer_full", "refused", "held", "held_bytes", "late_ns", "latest_ns", "digest"),
)


def _checked(direction: int) -> int:
    if direction not in (0, 1):
        raise ValueError(f"direction {direction}: 0 is a to b, 1 is b to a")
    return direction


class Wire:
    """``a`` and ``b`` joined. Without a seed in an impairment, ``rng`` decides."""

    def __init__(
        self, a: Link, b: Link, a_to_b: Impairment, b_to_a: Impairment, *, rng: Rng, memory: int = MEMORY
    ) -> None:
        out = ffi.new("struct wire **")
        there, back = pack_impairment(a_to_b, rng), pack_impairment(b_to_a, rng)
        check(lib.wire_new(out, a._handle, b._handle, there, back, memory), "a wire")
        a.take()
        b.take()
        self._handle: Any = out[0]
        self.poller: Any = lib.wire_poller(self._handle)
        rc = lib.wire_start(self._handle)
        if rc < 0:
            self.close()
            check(rc, "a wire's end")

    def replug(self, end: int, link: Link) -> None:
        """``link`` in place of the one at this end (0 is a, 1 is b), which is freed with the frames that wait in it."""
        handle = link._handle
        link.take()
        check(lib.wire_replug(self._handle, _checked(end), handle), "a wire's end")

    def run(self, now: int) -> int:
        """Move what is due. When it must run again at the latest (a reactor does this by itself)."""
        return int(lib.wire_run(self._handle, now))

    def stats(self) -> tuple[dict[str, int], dict[str, int]]:
        """Frames and bytes of each direction (a to b, b to a), and what happened to them; see ``struct line_stats``."""
        raw = ffi.new("struct line_stats[2]")
        for i in range(2):
            lib.wire_stats(self._handle, i, raw + i)
        there, back = ({name: int(getattr(each, name)) for name in _COUNTERS} for each in raw)
        return there, back

    # --- while it runs; `direction` 0 is a to b, 1 is b to a ---

    def impair(self, direction: int, how: Impairment) -> None:
        """From now on a direction is like this; frames under way keep their times. The seed stays the first one's."""
        lib.wire_impair(self._handle, _checked(direction), pack_impairment(how, None))

    def block(self, direction: int, blocked: bool = True) -> None:
        """A partition: what goes in is lost; what is under way arrives."""
        lib.wire_block(self._handle, _checked(direction), blocked)

    def clog(self, direction: int, until: int = NEVER) -> None:
        """Nothing comes out before ``until``; then all that is due. Not after the present: what is held is let go."""
        lib.wire_clog(self._handle, _checked(direction), until)

    def set_down(self, down: bool = True) -> None:
        """A pulled cable, or one put back: both ways nothing goes in, and what is under way is lost."""
        lib.wire_set_down(self._handle, down)

    def close(self) -> None:
        """Free it with its links. Detach it from its reactor before. May be called twice."""
        if self._handle is not None:
            lib.wire_free(self._handle)
            self._handle = None

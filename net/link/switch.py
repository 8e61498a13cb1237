"""A learning Ethernet switch in memory: the cffi face of ``switch.c``.

Nobody drives it: what a stack sends on its port is at once in the queues of those it is for. A port's link is given to
a stack (:meth:`~libos.net.stack.Stack.add_link`), or is a wire's end; when that frees it, the port is vacant.
"""

from __future__ import annotations

from typing import Any

from libos._native import ffi, lib
from libos.errors import check
from libos.net.stack import Link, random_mac
from libos.rand import Rng

__all__ = ["Switch"]

AGEING = 300 * 10**9  # ns: what IEEE 802.1D 7.9.2 recommends
_COUNTERS = ("in_packets", "in_bytes", "out_packets", "out_bytes", "flooded", "filtered", "dropped", "blocked")


class Switch:
    """``stations``: addresses known at most. ``ageing``: ns for which one is known."""

    def __init__(self, rng: Rng, ports: int, *, stations: int = 1024, ageing: int = AGEING) -> None:
        out = ffi.new("struct ether_switch **")
        check(lib.switch_new(out, ports, stations, ageing, ffi.new("uint64_t[2]", rng.seed128())), "a switch")
        self._handle: Any = out[0]
        self._rng = rng

    def plug(
        self, *, mtu: int = 1500, caps: int = Link.ALL, queue: int = 4096, mac: bytes | None = None
    ) -> tuple[int, Link]:
        """The first port that is vacant, and its link. ``queue``: frames that wait for whoever has it at most."""
        out, mac = ffi.new("struct link **"), mac or random_mac(self._rng)
        port = check(lib.switch_plug(self._handle, out, mtu, caps, mac, queue), "the ports of a switch")
        return port, Link(out[0], mac)

    def block(self, source: int, target: int, blocked: bool = True) -> None:
        """A partition: what comes in at port ``source`` does not go out at ``target``; what is in its queue does."""
        check(lib.switch_block(self._handle, source, target, blocked), f"ports {source} and {target}")

    def stats(self, port: int) -> dict[str, int]:
        """Frames and bytes of a port, as long as the switch lives; see ``struct switch_stats``."""
        raw = ffi.new("struct switch_stats *")
        check(lib.switch_port_stats(self._handle, port, raw), f"port {port}")
        return {name: int(getattr(raw, name)) for name in _COUNTERS}

    def port_of(self, mac: bytes, now: int) -> int | None:
        """Where a station was heard, not longer ago than the ageing time."""
        port = int(lib.switch_station(self._handle, mac, now))
        return None if port < 0 else port

    @property
    def evicted(self) -> int:
        """Stations that were forgotten before their time, for want of room."""
        return int(lib.switch_evicted(self._handle))

    def close(self) -> None:
        """Let go of it; ports that somebody has go on until they are freed. May be called twice."""
        if self._handle is not None:
            lib.switch_free(self._handle)
            self._handle = None

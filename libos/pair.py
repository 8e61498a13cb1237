"""Two machines joined by a wire in memory: world ``pair``.

The least network that there is, for tests and for programs that hold both ends. Who wants another wire makes its link
and gives it to a Machine himself (``Machine(config, link=…)`` with ``net="pair"``).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, TypeVar

from libos.config import Interface, MachineConfig
from libos.machine import PAIR_MTU, TAP_MTU, Machine
from libos.net.stack import Link
from libos.rand import Rng

__all__ = ["new_pair"]

MachineT = TypeVar("MachineT", bound=Machine)

ADDRESSES = ("10.0.4.{}/24", "fd00:6c69:626f:75::{}/64")


def new_pair(
    kind: type[MachineT], a: MachineConfig | None = None, b: MachineConfig | None = None, **options: Any
) -> tuple[MachineT, MachineT]:
    """For one thread: both attached to a loop, or one to the loop of the other.

    ``net`` is left out of the configurations. Without ``ip`` the machines are .1 and .2, of 10.0.4.0/24 and of
    fd00:6c69:626f:75::/64; they know each other by no name but those of ``hosts``. The smaller ``mtu`` is the wire's.
    ``options`` are the constructor's, for both. When one is closed the other stays, as on a pulled cable.
    """
    left, right = (_of(config or MachineConfig(), number) for number, config in enumerate((a, b), 1))
    whole = left.impair is None and right.impair is None  # a bad wire loses packets, not segments of 64 KiB
    mtu = min((config.mtu for config in (left, right) if config.mtu), default=PAIR_MTU if whole else TAP_MTU)
    rng = Rng(left.seed)
    near, far = Link.pair(rng, mtu=mtu) if whole else Link.pair(rng, mtu=mtu, caps=Link.CSUM)
    with ExitStack() as undo:
        undo.callback(far.close)
        first = kind(left, link=near, **options)
        undo.callback(first.close)
        second = kind(right, link=far, **options)
        undo.pop_all()
    return first, second


def _of(config: MachineConfig, number: int) -> MachineConfig:
    ip = config.ip or tuple(Interface(each.format(number)) for each in ADDRESSES)
    return config._replace(net="pair", ip=ip)

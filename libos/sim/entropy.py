"""Randomness by the machine that runs: ``random``, ``secrets``, ``os.urandom``, ``uuid``, names of temporary files.

Each machine has two streams, both forked from its Rng: what the functions of the module ``random`` share (a program
may seed it), and what stands for the kernel's entropy, which also seeds every ``random.Random()`` without a seed.
``secrets`` and ``random.SystemRandom`` ask ``os.urandom``, ``uuid.uuid4`` too.

OpenSSL draws for TLS by itself: lengths and times of a TLS connection repeat, its bytes do not.
"""

from __future__ import annotations

import os
import random
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Function, Original, Patches

__all__ = ["own"]


class Entropy:
    """What a machine has of it."""

    def __init__(self, owner: Owner) -> None:
        self.shared = random.Random(owner.rng.bits(256))
        self.kernel = owner.rng.fork()
        self.node = self.kernel.bits(48) | 1 << 40  # a random one has the multicast bit (RFC 9562 6.10)
        self.last_uuids: dict[str, int | None] = {}
        self.names: Iterator[str] | None = None


def own(patches: Patches, ownership: Ownership) -> None:
    _own_kernel(patches, ownership)
    _own_random(patches, ownership)
    _own_uuid(patches, ownership)
    _own_names(patches, ownership)


def _own_kernel(patches: Patches, ownership: Ownership) -> None:
    def draw(original: Original) -> Function:
        def urandom(size: int, /, *flags: int, **named: int) -> bytes:
            if (owner := ownership.running()) is None:
                return original(size, *flags, **named)  # type: ignore[no-any-return]
            if size < 0:
                raise ValueError("negative argument not allowed")
            ownership.draws += 1
            return ownership.of(owner, Entropy).kernel.bytes(size)

        return urandom

    patches.function(os, "urandom", draw)
    patches.function(os, "getrandom", draw)
    try:
        import ssl
    except ImportError:  # a Python without it
        return
    patches.function(ssl, "RAND_bytes", draw)


def _own_random(patches: Patches, ownership: Ownership) -> None:
    def shared(name: str) -> Any:
        def make(original: Original) -> Function:
            def draw(*args: Any, **kwargs: Any) -> Any:
                if (owner := ownership.running()) is None:
                    return original(*args, **kwargs)
                ownership.draws += 1
                return getattr(ownership.of(owner, Entropy).shared, name)(*args, **kwargs)

            return draw

        return make

    def seeded(original: Function) -> Function:
        def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None and (owner := ownership.running()) is not None:
                ownership.draws += 1
                a = ownership.of(owner, Entropy).kernel.bits(256)
            original(self, a, version)

        return seed

    # `random.random` and its like are methods of one object that the module holds.
    one = vars(random)["_inst"]
    for name in [name for name in vars(random) if name[0] != "_" and hasattr(one, name)]:
        patches.function(random, name, shared(name))
    patches.method(random.Random, "seed", seeded)


def _own_uuid(patches: Patches, ownership: Ownership) -> None:
    """Numbers by time are made from ``time.time_ns``, not by the C library, and each machine remembers its own last."""
    remembered = [name for name in vars(uuid) if name.startswith("_last_timestamp")]

    def node(original: Original) -> Function:
        def getnode() -> int:
            owner = ownership.running()
            return original() if owner is None else ownership.of(owner, Entropy).node

        return getnode

    def by_time(original: Original) -> Function:
        def make_uuid(*args: Any, **kwargs: Any) -> Any:
            if (owner := ownership.running()) is None:
                return original(*args, **kwargs)
            mine = ownership.of(owner, Entropy).last_uuids
            names = vars(uuid)
            before = {name: names[name] for name in (*remembered, "_generate_time_safe")}
            names.update({name: mine.get(name) for name in before})
            try:
                return original(*args, **kwargs)
            finally:
                mine.update({name: names[name] for name in remembered})
                names.update(before)

        return make_uuid

    patches.function(uuid, "getnode", node)
    for name in ("uuid1", "uuid6", "uuid7"):
        patches.function(uuid, name, by_time)


def _own_names(patches: Patches, ownership: Ownership) -> None:
    def make(original: Original) -> Function:
        def candidates() -> Iterator[str]:
            if (owner := ownership.running()) is None:
                return original()  # type: ignore[no-any-return]
            entropy = ownership.of(owner, Entropy)
            if entropy.names is None:
                entropy.names = vars(tempfile)["_RandomNameSequence"]()
            return entropy.names

        return candidates

    patches.function(tempfile, "_get_candidate_names", make)

"""While it lasts, a program sees only the machine that it runs on.

    with owned(current) as ownership:
        ...                             # `current()` says who runs, at any moment

What belongs to the machine that ``current`` names, and what is refused with EscapeError, stands in the modules beside:

    clocks      time, datetime                  threads     Thread, executors, locks: run inline, at seeded moments
    entropy     random, secrets, the kernel's,  identity    pid, host name, environment, signal handlers
                uuid, tempfile's names          sockets     socket: those of the machine's network
    refused     what would stop the time or leave the simulation: sleep, fork, select, signals …

Where ``current()`` is None, and in other threads, everything is as it was, and afterwards too. It nests, last in first
out. State lives in the Ownership; nothing is kept for another World.

What is not owned, because nobody can: ``id()`` and with it the order of a set of objects (of ``asyncio.all_tasks()``
too); ``hash`` of str and bytes, fixed by PYTHONHASHSEED alone; when the cyclic garbage collector runs; what OpenSSL
draws; ``threading.local`` and module variables, which machines of one process share. Files are the host's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from libos.sim import clocks, entropy, identity, refused, sockets, threads
from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Patches

__all__ = ["Owner", "Ownership", "owned"]


@contextlib.contextmanager
def owned(current: Callable[[], Owner | None]) -> Iterator[Ownership]:
    """Install all of it for this thread. ``current`` is asked with every call, so it should be quick."""
    ownership = Ownership(current)
    patches = Patches()
    try:
        for part in (clocks, entropy, threads, identity, sockets, refused):
            part.own(patches, ownership)
        patches.spread()
        ownership.begin()
        yield ownership
    finally:
        ownership.end()
        patches.remove()

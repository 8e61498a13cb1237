"""While it lasts, a program sees only the machine that it runs on.

    ownership = Ownership(current)      # `current()` says who runs, at any moment
    with owned(ownership):
        ...

What belongs to the machine that runs, and what is refused with EscapeError, stands in the modules beside this one:

    clocks      time, datetime                  threads     Thread, executors, locks: run inline, at seeded moments
    entropy     random, secrets, the kernel's,  identity    pid, host name, environment, signal handlers
                uuid, tempfile's names          sockets     socket: those of the machine's network
    refused     what would stop the time or leave the simulation: sleep, fork, select, signals …

Where ``current()`` is None, and in other threads, everything is as it was, and afterwards too. It nests, last in first
out. What belongs to a machine lives with it in the Ownership, which can be put in force again, and nowhere else.

What is not owned, because nobody can: ``id()`` and with it the order of a set of objects (of ``asyncio.all_tasks()``
too); ``hash`` of str and bytes, fixed by PYTHONHASHSEED alone; when the cyclic garbage collector runs; what OpenSSL
draws; ``threading.local`` and module variables, which machines of one process share. Files are the host's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from libos.sim import clocks, entropy, identity, refused, sockets, threads
from libos.sim.owner import Owner, Ownership
from libos.sim.patches import Patches

__all__ = ["Owner", "Ownership", "owned"]


@contextlib.contextmanager
def owned(ownership: Ownership) -> Iterator[None]:
    """Install all of it, for machines that run in this thread."""
    patches = Patches()
    try:
        for part in (clocks, entropy, threads, identity, sockets, refused):
            part.own(patches, ownership)
        patches.spread()
        ownership.begin()
        yield
    finally:
        ownership.end()
        patches.remove()

"""Layer 1: where a machine waits, and what runs when it wakes.

Owns the reactors (io_uring and epoll, in C), the asyncio event loop over them, and the interface that the loop asks
of a network. Imports only ``libos._native`` and the base modules (errors, clock, rand).
"""

assert __name__ == "libos.sched", "import it as libos.sched; `sched` alone is the standard library's"

"""One asyncio program, a server of one role, on whichever loop and world the command line names.

The same code (:mod:`libos.bench.roles`) runs on asyncio, uvloop and libos, so what differs between their rows is the
loop and the stack below it. It is started by :mod:`libos.bench.servers` as a process of its own and announces its port
as a line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket

from libos.bench.loops import LOOPS, new_loop
from libos.bench.roles import ROLES

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PORT = 7


async def serve(args: argparse.Namespace) -> None:
    if args.loop == "libos-tap":
        port = _PORT
        kept = await ROLES[args.role](args.size, host=args.interface.partition("/")[0], port=port)
    else:
        # With its protocol by name: asyncio switches Nagle's algorithm off for no other sockets.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.congestion.encode())
        listener.bind((args.address, 0))
        port = listener.getsockname()[1]
        kept = await ROLES[args.role](args.size, sock=listener)
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()  # until we are killed
    del kept


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m libos.bench.program", description=__doc__)
    parser.add_argument("--loop", choices=LOOPS, required=True)
    parser.add_argument("--cpu", type=int, required=True, help="run on this cpu only")
    parser.add_argument("--role", choices=sorted(ROLES), default="echo", help="what its connections do")
    parser.add_argument("--size", type=int, default=1, help="role streams: bytes of a message")
    parser.add_argument("--address", default="127.0.0.1", help="kernel sockets: where to listen")
    parser.add_argument("--congestion", default="cubic", help="kernel sockets: congestion control")
    parser.add_argument("--tap", help="libos-tap: the device to make")
    parser.add_argument("--interface", help="libos-tap: our ADDRESS/PREFIX on it")
    parser.add_argument("--gateway", help="libos-tap: the host's address on it")
    parser.add_argument("--spin-us", type=int, default=0, help="libos-tap: spin so long before blocking")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the harness gone, we have no business here
    os.sched_setaffinity(0, {args.cpu})
    # asyncio receives into fresh 256 KiB bytes objects. In a process that has never freed a block of that size, glibc
    # maps and unmaps each of them (mallopt(3), M_MMAP_THRESHOLD), which quadruples the cost of a small request. A
    # program with some life behind it is past that, so all peers are measured past it.
    bytes(1 << 20)
    settings: dict[str, object] = {}
    if args.loop == "libos-tap":
        settings = {"ip": args.interface, "gateway": args.gateway, "tap": args.tap, "spin_us": args.spin_us}
    with asyncio.Runner(loop_factory=lambda: new_loop(args.loop, **settings)) as runner:
        runner.run(serve(args))


if __name__ == "__main__":
    main()

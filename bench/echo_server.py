"""One asyncio program, a server of one role, on whichever loop and world the command line names.

The same Protocol runs on asyncio, uvloop and libos, so what differs between their rows is the loop and the stack below
it. It is started by :mod:`libos.bench.servers` as a process of its own and announces its port as a line of JSON on
standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

import libos

__all__ = ["ROLES", "main", "new_loop"]

_PR_SET_PDEATHSIG = 1
_PORT = 7


class Echo(asyncio.Protocol):
    """Every piece goes back as it came; while the peer does not read, we do not either."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Sink(asyncio.Protocol):
    """Takes what comes."""

    def data_received(self, data: bytes) -> None:
        pass


class Source(asyncio.Protocol):
    """Writes 64 KiB at a time, for as long as the transport takes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.loop = asyncio.get_running_loop()
        self.chunk = bytes(65536)
        self.paused = False
        self.loop.call_soon(self.write)

    def write(self) -> None:
        while not self.paused and not self.transport.is_closing():
            self.transport.write(self.chunk)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.write()

    def connection_lost(self, exc: Exception | None) -> None:
        self.paused = True


ROLES: Mapping[str, type[asyncio.Protocol]] = MappingProxyType({"echo": Echo, "sink": Sink, "source": Source})


def new_loop(name: str, **settings: object) -> asyncio.AbstractEventLoop:
    """The loop that a peer of this name runs on; ``settings`` are of libos's machine."""
    match name:
        case "asyncio":
            return asyncio.new_event_loop()
        case "uvloop":
            import uvloop

            return uvloop.new_event_loop()
        case "libos-host":
            return libos.new_event_loop("host", reactor="io_uring", **settings)
        case "libos-host-epoll":
            return libos.new_event_loop("host", reactor="epoll", **settings)
        case "libos-tap":
            return libos.new_event_loop("tap", **settings)
    raise ValueError(f"no loop {name!r}")


async def serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    protocol = ROLES[args.role]
    if args.loop == "libos-tap":
        server = await loop.create_server(protocol, args.interface.partition("/")[0], _PORT, backlog=1024)
        port = _PORT
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.congestion.encode())
        listener.bind((args.address, 0))
        server = await loop.create_server(protocol, sock=listener, backlog=1024)
        port = listener.getsockname()[1]
    print(json.dumps({"port": port}), flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m libos.bench.echo_server", description=__doc__)
    parser.add_argument(
        "--loop", choices=["asyncio", "uvloop", "libos-host", "libos-host-epoll", "libos-tap"], required=True
    )
    parser.add_argument("--cpu", type=int, required=True, help="run on this cpu only")
    parser.add_argument("--role", choices=sorted(ROLES), default="echo", help="what its connections do")
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

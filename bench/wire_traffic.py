"""One asyncio program, sender or receiver of a bulk stream, on the kernel's sockets or on a libos machine.

The same protocols run on both, so what differs between two rows of ``libos bench wire`` is the TCP below. It is started
by :mod:`libos.bench.wirebed` and says what it has to as lines of JSON on standard output: the receiver its port when it
listens; at the end, each what it has seen (:class:`Seen`).

The bytes are a pattern with a period that no segment size divides, and every one is compared on arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from libos.bench.loops import new_loop

__all__ = ["Receiver", "Seen", "Sender", "main"]

PORT = 5001
PERIOD = 1_000_003  # bytes: a prime
CHUNK = 64 << 10
STEP = 0.1  # seconds of each entry of `series`
CONNECT_LIMIT = 60.0
_PR_SET_PDEATHSIG = 1
_COUNTERS = (
    *("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPSpuriousRTOs", "TcpExtTCPFastRetrans"),
    *("TcpExtTCPSlowStartRetrans", "TcpExtTCPLostRetransmit", "TcpExtTCPDSACKRecv", "TcpInCsumErrors"),
)


@dataclass
class Seen:
    """Of a receiver: the stream's bytes in the measured seconds, per STEP, and the longest time without any (ms)."""

    bytes: int = 0
    seconds: float = 0.0
    longest_gap_ms: float = 0.0
    series: list[int] = field(default_factory=list)
    wrong: int = -1  # offset of the first byte that was not as sent
    ended: str = ""  # an end of the stream or an error before the time was up
    counters: dict[str, int] = field(default_factory=dict)


def pattern() -> memoryview:
    """Two periods, so that any CHUNK that starts in the first lies within."""
    one = random.Random(1).randbytes(PERIOD)
    return memoryview(one + one)


class Sender(asyncio.Protocol):
    """Writes as much as is taken, until it is stopped."""

    def __init__(self) -> None:
        self.pattern = pattern()
        self.sent, self.running = 0, False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.running = True
        asyncio.get_running_loop().call_soon(self.write)

    def write(self) -> None:
        while self.running:
            at = self.sent % PERIOD
            self.sent += CHUNK
            self.transport.write(self.pattern[at : at + CHUNK])

    def pause_writing(self) -> None:
        self.running = False

    def resume_writing(self) -> None:
        self.running = True
        self.write()

    def connection_lost(self, error: Exception | None) -> None:
        self.running = False
        if not self.lost.done():
            self.lost.set_result(None)


class Receiver(asyncio.Protocol):
    """Counts and compares for ``seconds`` from the connection on, then resets it."""

    def __init__(self, seconds: float) -> None:
        self.seen, self.seconds = Seen(), seconds
        self.pattern = pattern()
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Seen] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.begin = self.last = self.loop.time()
        self.seen.series = [0] * (int(self.seconds / STEP) + 1)
        self.loop.call_later(self.seconds, self.finish, "")

    def data_received(self, data: bytes) -> None:
        now = self.loop.time()
        self._note_gap(now)
        seen, at = self.seen, self.seen.bytes % PERIOD
        while data:
            part = data[: 2 * PERIOD - at]
            if seen.wrong < 0 and self.pattern[at : at + len(part)] != part:
                seen.wrong = seen.bytes
            seen.bytes += len(part)
            data, at = data[len(part) :], 0
            step = int((now - self.begin) / STEP)
            seen.series[min(step, len(seen.series) - 1)] += len(part)
            at = seen.bytes % PERIOD

    def _note_gap(self, now: float) -> None:
        self.seen.longest_gap_ms = max(self.seen.longest_gap_ms, round((now - self.last) * 1e3, 1))
        self.last = now

    def connection_lost(self, error: Exception | None) -> None:
        self.finish(repr(error) if error else "end of stream")

    def finish(self, why: str) -> None:
        if self.done.done():
            return
        now = self.loop.time()
        self._note_gap(now)
        self.seen.seconds, self.seen.ended = now - self.begin, why
        self.done.set_result(self.seen)
        self.transport.abort()


def counters(loop: asyncio.AbstractEventLoop) -> dict[str, int]:
    """nstat's, of the machine or of this network namespace."""
    machine: Any = getattr(loop, "machine", None)
    every: Mapping[str, int] = _kernel_counters() if machine is None else machine.stack.counters()
    return {name: every[name] for name in _COUNTERS if name in every}


def _kernel_counters() -> dict[str, int]:
    found = {}
    for file in ("snmp", "netstat"):
        with open(f"/proc/self/net/{file}", encoding="ascii") as lines:
            for names, values in zip(lines, lines, strict=True):
                group, *columns = names.split()
                pairs = zip(columns, values.split()[1:], strict=True)
                found.update({group.rstrip(":") + name: int(value) for name, value in pairs})
    return found


async def receive(args: argparse.Namespace) -> Seen:
    loop = asyncio.get_running_loop()
    receiver = Receiver(args.seconds)
    listener: dict[str, Any] = {"host": args.address, "port": PORT}
    if args.loop == "asyncio":
        listener = {"sock": kernel_socket(args)}
        listener["sock"].bind((args.address, PORT))
    server = await loop.create_server(lambda: receiver, **listener)
    print(json.dumps({"port": PORT}), flush=True)
    try:
        return await asyncio.wait_for(receiver.done, CONNECT_LIMIT + args.seconds)
    finally:
        server.close()


async def send(args: argparse.Namespace) -> Seen:
    """Until the receiver has had enough."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_LIMIT):
        if args.loop == "asyncio":
            sock = kernel_socket(args)
            await loop.sock_connect(sock, (args.address, PORT))
            _, sender = await loop.create_connection(Sender, sock=sock)
        else:
            _, sender = await loop.create_connection(Sender, args.address, PORT)
    with_grace = args.seconds + 2.0  # its reset may be lost
    await asyncio.wait([sender.lost], timeout=with_grace)
    seen = Seen(bytes=sender.sent, counters=counters(loop))
    sender.transport.abort()
    return seen


def kernel_socket(args: argparse.Namespace) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.congestion.encode())
    sock.setblocking(False)
    return sock


async def _run(args: argparse.Namespace) -> None:
    try:
        seen = await (receive(args) if args.role == "receive" else send(args))
    except (OSError, TimeoutError) as error:
        sys.exit(f"{args.role}: {type(error).__name__} {error}")
    if not seen.counters:
        seen.counters = counters(asyncio.get_running_loop())
    print(json.dumps(asdict(seen)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m libos.bench.wire_traffic", description=__doc__)
    parser.add_argument("role", choices=["send", "receive"])
    parser.add_argument("--loop", choices=["asyncio", "libos-tap"], required=True)
    parser.add_argument("--address", required=True, help="the receiver's")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--congestion", default="cubic", help="kernel sockets: congestion control")
    parser.add_argument("--tap", help="libos-tap: the device, which is there")
    parser.add_argument("--interface", help="libos-tap: our ADDRESS/PREFIX on it")
    parser.add_argument("--pcap", default="", help="libos-tap: write all packets there")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the harness gone, we have no business here
    # What else the host does would cost a stack that runs in its program its acknowledgements' timing, and the kernel's
    # nothing: so both programs run before everything but the wire.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    settings: dict[str, object] = {}
    if args.loop == "libos-tap":
        settings = {"ip": args.interface, "tap": args.tap}
        if args.pcap:
            settings["pcap"] = args.pcap
    with asyncio.Runner(loop_factory=lambda: new_loop(args.loop, **settings)) as runner:
        runner.run(_run(args))


if __name__ == "__main__":
    main()

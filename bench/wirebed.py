"""Two hosts on a bad wire: two network namespaces, a ``libos wire`` between them, and at each end a stack to measure.

Each end of the wire is a TAP device in its host's namespace. A kernel end has its address on that device. A libos end
is a machine on a TAP device of its own, and tc-mirred(8) redirects each of the two devices to the other: so both stacks
hand segments of up to 64 KiB to a TAP, the kernel cuts them to the MTU on the way into the wire's device, and every
frame crosses the same wire. The redirect costs some hundred nanoseconds a frame and is paid by libos.

Everything is new for each measurement, so no route, neighbour or TCP metric of the one before is remembered.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from libos.bench.servers import PeerError
from libos.errors import HostError
from libos.net.link.netns import Namespace
from libos.net.link.tap import open_tap

__all__ = ["Host", "Kind", "WireBed", "why_not"]

Kind = Literal["kernel", "libos"]

WIRE_TAP, LIBOS_TAP = "wire0", "libos0"
ADDRESSES, PREFIX = ("198.18.4.1", "198.18.4.2"), 24
QUEUE = 16384  # frames, as the wire's own
START_LIMIT = 15.0  # seconds
_TUNSETPERSIST = 0x400454CB
_ETH_P_ALL, _CLSACT_INGRESS, _NO_CLASS = 3, 0xFFFFFFF2, 0x10000


def why_not() -> str | None:
    """Why there can be no such bed here; None: there can, as far as can be told beforehand."""
    if os.geteuid() != 0:
        return "TAP devices and network namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "this kernel has no TAP devices (/dev/net/tun)"
    return None


@dataclass(frozen=True)
class Host:
    """One side: its namespace, its address, whose stack."""

    namespace: Namespace
    address: str
    kind: Kind

    def prepare(self) -> None:
        """Before the wire's device is there. No IPv6: nothing but what is measured is to cross the wire."""
        with self.namespace.entered():
            for scope in ("all", "default"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")

    def join(self) -> None:
        """The stack meets the wire's device."""
        from pyroute2 import IPRoute  # type: ignore[import-untyped]  # slow to import, and only root needs it

        with self.namespace.entered(), IPRoute() as ip:
            wire = socket.if_nametoindex(WIRE_TAP)
            if self.kind == "kernel":
                ip.addr("add", index=wire, address=self.address, prefixlen=PREFIX)
                return
            tap = open_tap(LIBOS_TAP, queue=QUEUE)
            try:
                fcntl.ioctl(tap.fd, _TUNSETPERSIST, 1)  # it goes with the namespace
            finally:
                os.close(tap.fd)
            own = socket.if_nametoindex(LIBOS_TAP)
            try:
                for source, sink in ((wire, own), (own, wire)):
                    _redirect(ip, source, sink)
            except Exception as error:  # pyroute2's NetlinkError, which is no OSError
                needs = "sch_ingress, cls_u32, act_mirred"
                raise HostError(f"no tc-mirred(8) redirect between devices ({needs}): {error}") from None

    def traffic(self, role: str, seconds: float, congestion: str, receiver: str, pcap: str = "") -> list[str]:
        """The command of one side of the stream."""
        command = [sys.executable, "-P", "-m", "libos.bench.wire_traffic", role, "--address", receiver]
        command += ["--seconds", str(seconds), "--congestion", congestion]
        if self.kind == "kernel":
            return [*command, "--loop", "asyncio"]
        command += ["--loop", "libos-tap", "--tap", LIBOS_TAP, "--interface", f"{self.address}/{PREFIX}"]
        return [*command, "--pcap", pcap] if pcap else command


def _redirect(ip: Any, source: int, sink: int) -> None:
    """All that the kernel receives from one device leaves by the other."""
    ip.tc("add", "clsact", source)
    action = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": sink}
    every = {"protocol": _ETH_P_ALL, "keys": ["0x0/0x0+0"], "target": _NO_CLASS}
    ip.tc("add-filter", "u32", source, parent=_CLSACT_INGRESS, action=action, **every)


class WireBed:
    """``impair``: what ``libos wire`` is told, as options. Frees all that it made when it is left."""

    def __init__(self, kinds: tuple[Kind, Kind], options: list[str]) -> None:
        with contextlib.ExitStack() as stack:
            names = [stack.enter_context(Namespace.new()) for _ in kinds]
            self.a, self.b = (Host(*each) for each in zip(names, ADDRESSES, kinds, strict=True))
            for host in (self.a, self.b):
                host.prepare()
            self._complaints = stack.enter_context(tempfile.TemporaryFile("w+"))
            self._wire = stack.enter_context(self._start_wire(options))
            for host in (self.a, self.b):
                host.join()
            self._stack = stack.pop_all()

    @contextlib.contextmanager
    def _start_wire(self, options: list[str]) -> Iterator[subprocess.Popen[str]]:
        ends = [f"{WIRE_TAP}@/proc/{os.getpid()}/fd/{host.namespace.fd}" for host in (self.a, self.b)]
        command = [sys.executable, "-P", "-m", "libos", "wire", "--a", ends[0], "--b", ends[1], "--json", "-", *options]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        try:
            ready = select.select([process.stderr], [], [], START_LIMIT)[0] and process.stderr.readline()
            if not ready or "wire between" not in ready:
                raise PeerError(f"the wire did not come up: {ready or 'no word'}")
            yield process
        finally:
            process.kill()
            process.communicate()

    def bulk(self, seconds: float, congestion: str, pcaps: tuple[str, str] = ("", "")) -> dict[str, Any]:
        """A stream from a to b for so long; what the receiver and the sender have seen. PeerError."""
        with self._started(self.b, "receive", seconds, congestion, pcaps[1]) as receiver:
            _line(receiver, START_LIMIT)
            with self._started(self.a, "send", seconds, congestion, pcaps[0]) as sender:
                limit = seconds + 65.0  # SYNs may be lost
                return {"receiver": _line(receiver, limit), "sender": _line(sender, limit)}

    @contextlib.contextmanager
    def _started(
        self, host: Host, role: str, seconds: float, congestion: str, pcap: str
    ) -> Iterator[subprocess.Popen[str]]:
        command = host.traffic(role, seconds, congestion, self.b.address, pcap)
        with host.namespace.entered():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        except PeerError as error:
            process.kill()
            said = process.communicate()[1].strip().splitlines()
            raise PeerError(f"{role} ({host.kind}): {error}" + (f" ({said[-1]})" if said else "")) from None
        finally:
            process.kill()
            process.communicate()

    def end_wire(self) -> dict[str, Any]:
        """End the wire; its report."""
        self._wire.terminate()
        said, complained = self._wire.communicate(timeout=START_LIMIT)
        if self._wire.returncode:
            raise PeerError(f"the wire ended with status {self._wire.returncode}: {complained.strip()}")
        report: dict[str, Any] = json.loads(said)
        return report

    def close(self) -> None:
        """End what runs; the namespaces go with all that is in them."""
        self._stack.close()

    def __enter__(self) -> WireBed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _line(process: subprocess.Popen[str], limit: float) -> dict[str, Any]:
    """The next line of JSON that it says."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], limit)[0]:
        raise PeerError(f"no word within {limit:.0f} s")
    line = process.stdout.readline()
    if not line:
        raise PeerError("ended without a word")
    said: dict[str, Any] = json.loads(line)
    return said

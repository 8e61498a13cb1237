"""The peers of the echo benchmark: their names, what each needs of the host, how one is started and ended."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Literal

from libos.bench.compile import build, compiler
from libos.bench.testbed import TAP, TAP_CLIENT, TAP_PREFIX, TAP_SERVER, Testbed
from libos.errors import HostError

__all__ = ["PEERS", "Peer", "PeerError", "Role", "Running", "why_not"]

_START_LIMIT = 15.0  # seconds until a server must have announced its port
_SYS_IO_URING_SETUP = 425  # the same number on every architecture
_IO_URING_PARAMS = 120  # sizeof(struct io_uring_params)
_PACKAGES = MappingProxyType({"aiohttp": ("aiohttp",), "uvicorn": ("uvicorn", "httptools")})  # by role
_SPIN_US = 1_000_000  # spinning peers: longer than any pause between requests


Role = Literal["echo", "sink", "source", "streams", "aiohttp", "uvicorn"]


class PeerError(Exception):
    """A peer did not do its part: what it measured is worth nothing."""


@dataclass(frozen=True)
class Peer:
    """One server program. ``wire``: kernel sockets on the testbed's wire, or a TAP device of its own."""

    name: str
    program: Literal["c", "python"]
    wire: Literal["kernel", "tap"]
    what: str  # program "c": its source; "python": its --loop
    spin: bool = False
    role: Role = "echo"
    size: int = 1  # role "streams": bytes of a message

    def command(self, bed: Testbed, congestion: str) -> list[str]:
        """How to start it: a program announces {"port": N} when connections are welcome."""
        cpu = str(bed.cpus[1])
        if self.program == "c" and self.wire == "tap":
            return [str(build(self.what)), TAP, cpu, "spin" if self.spin else "block", self.role]
        if self.program == "c" and self.role == "echo":
            return [str(build(self.what)), bed.address, cpu, congestion]
        if self.program == "c":
            return [str(build("stream_epoll")), bed.address, cpu, congestion, self.role]
        # -P: where this is started from is no place to import from.
        command = [sys.executable, "-P", "-m", "libos.bench.program", "--loop", self.what, "--cpu", cpu]
        command += ["--role", self.role, "--size", str(self.size)]
        if self.wire == "kernel":
            return [*command, "--address", bed.address, "--congestion", congestion]
        interface = f"{TAP_SERVER}/{TAP_PREFIX}"
        command += ["--tap", TAP, "--interface", interface, "--gateway", TAP_CLIENT]
        return [*command, "--spin-us", str(_SPIN_US)] if self.spin else command

    @contextlib.contextmanager
    def running(self, bed: Testbed, congestion: str) -> Iterator[Running]:
        """The server, from its announcement until the block ends. Raises PeerError when it does not come up, or has
        ended by itself before the block has."""
        place = bed.client if self.wire == "tap" else bed.kernel
        if self.wire == "tap":
            bed.wait_until_tap_is_gone()
        with tempfile.TemporaryFile("w+") as complaints:
            command = self.command(bed, congestion)
            with place.entered():
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, start_new_session=True
                )
            try:
                port = _announced_port(process)
                if self.program == "c" and self.wire == "tap":
                    bed.give_address_to_tap()
                yield Running(process.pid, TAP_SERVER if self.wire == "tap" else bed.address, port)
                if process.poll() is not None:
                    raise PeerError("the server ended too soon")
            except PeerError as error:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)  # a client may see the end of its server before we do
                    raise PeerError(f"{error} (server: {_last_words(process, complaints)})") from None
                raise
            finally:
                process.kill()  # nothing in it is worth keeping
                process.communicate()


@dataclass(frozen=True)
class Running:
    """A server that takes connections."""

    pid: int
    address: str
    port: int


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        peer.name: peer
        for peer in (
            Peer("c-epoll", "c", "kernel", "echo_epoll"),
            Peer("c-uring", "c", "kernel", "echo_uring"),
            Peer("asyncio", "python", "kernel", "asyncio"),
            Peer("uvloop", "python", "kernel", "uvloop"),
            Peer("libos-host", "python", "kernel", "libos-host"),
            Peer("libos-host-epoll", "python", "kernel", "libos-host-epoll"),
            Peer("libos-tap", "python", "tap", "libos-tap"),
            Peer("libos-tap-spin", "python", "tap", "libos-tap", spin=True),
            Peer("tap-floor", "c", "tap", "tap_floor"),
            Peer("tap-floor-spin", "c", "tap", "tap_floor", spin=True),
            Peer("asyncio-streams", "python", "kernel", "asyncio", role="streams"),
            Peer("uvloop-streams", "python", "kernel", "uvloop", role="streams"),
            Peer("libos-host-streams", "python", "kernel", "libos-host", role="streams"),
            Peer("libos-host-epoll-streams", "python", "kernel", "libos-host-epoll", role="streams"),
            Peer("libos-tap-streams", "python", "tap", "libos-tap", role="streams"),
        )
    }
)


def why_not(peer: Peer, bed: Testbed) -> str | None:
    """Why this host cannot run ``peer``; None: it can, as far as can be told beforehand."""
    if peer.wire == "tap" and not bed.namespaces:
        return "a TAP device needs root"
    if peer.wire == "tap" and not os.path.exists("/dev/net/tun"):
        return "this kernel has no TAP devices (/dev/net/tun)"
    if peer.program == "c":
        if compiler() is None:
            return "no C compiler: install gcc"
        try:
            build(peer.what)
        except HostError as error:
            return str(error)
    if peer.what in ("echo_uring", "libos-host") and (refused := _io_uring_refused()):
        return f"io_uring is refused here: {refused}"
    if peer.what == "uvloop" and importlib.util.find_spec("uvloop") is None:
        return "uvloop is not installed: pip install 'libos[uvloop]'"
    for package in _PACKAGES.get(peer.role, ()):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install {' '.join(_PACKAGES[peer.role])}"
    return None


def _io_uring_refused() -> str | None:
    """What io_uring_setup(2) says to a small ring."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(_SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(_IO_URING_PARAMS))
    if ring < 0:
        return os.strerror(ctypes.get_errno())
    os.close(ring)
    return None


def _announced_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _START_LIMIT)[0]:
        raise PeerError(f"the server was not ready within {_START_LIMIT:.0f} s")
    line = process.stdout.readline()
    if not line:
        raise PeerError("the server did not start")
    return int(json.loads(line)["port"])


def _last_words(process: subprocess.Popen[bytes], complaints: IO[str]) -> str:
    complaints.seek(0)
    lines = complaints.read().split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"status {process.returncode}")

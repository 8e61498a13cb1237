"""Network namespaces (network_namespaces(7)): a fresh one, one that exists, and working inside of one for a while.

Only the calling thread enters; what it opens there (a TAP device, a socket, a process) stays there after it has left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from libos.errors import HostError, os_error

__all__ = ["Namespace"]

_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"


class Namespace:
    """A network namespace, held by ``fd``; close() lets it go. With the last holder gone, its devices are gone."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def new(cls) -> Namespace:
        """A fresh one, without a name. OSError: EPERM without root."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _libc("unshare", _CLONE_NEWNET)
            try:
                return cls(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
            finally:
                _libc("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)

    @classmethod
    def find(cls, name: str) -> Namespace:
        """One that exists: by the name that ip-netns(8) gave it, by a process in it, or by a file. HostError."""
        path = name if "/" in name else f"/proc/{name}/ns/net" if name.isdecimal() else f"/run/netns/{name}"
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            advice = f": `ip netns add {name}` makes one" if path.startswith("/run") and not Path(path).exists() else ""
            raise HostError(f"no network namespace {name!r} ({path}): {error.strerror}{advice}") from None

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and the processes and sockets it makes, are inside until the block ends."""
        home = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _libc("setns", self.fd, _CLONE_NEWNET)
            try:
                yield
            finally:
                _libc("setns", home, _CLONE_NEWNET)
        finally:
            os.close(home)

    def close(self) -> None:
        """Let go of it. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _libc(name: str, *args: int) -> None:
    """unshare(2) and setns(2): ``os`` has them from Python 3.12 on."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args) < 0:
        raise os_error(ctypes.get_errno(), name)

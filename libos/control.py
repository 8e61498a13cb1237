"""The control socket of ``libos run``: what a machine tells about itself to ``libos ss`` and ``libos nstat``.

A UNIX socket ``<pid>.sock`` in :func:`directory`, for its owner alone: the folder and the socket say so by their modes,
and each caller's credentials are looked at besides (SO_PEERCRED). One JSON value a line, both ways::

    {"show": ["machine", "sockets"]}      ->      {"machine": {"pid": 4711, …}, "sockets": [{…}, …]}

It is driven by reactor events, as a gateway is, and needs neither the event loop nor a thread; a program that does not
turn its loop does not answer either. Callers, their requests and what waits to be sent are bounded.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import AF_UNIX, SO_PEERCRED, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET

# The class itself, now: the program sees another one at socket.socket.
from socket import socket as HostSocket
from typing import TYPE_CHECKING, Any

import msgspec

from libos.sched.reactor import EV_READ, EV_WRITE

if TYPE_CHECKING:
    from libos.machine import Machine

__all__ = ["VIEWS", "Control", "Request", "directory"]

CALLERS_MAX = 8
REQUEST_MAX = 4096
ROWS = 64  # of a table, made at once
VIEWS = ("machine", "sockets", "counters", "addresses", "routes", "neighbours", "resolver")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What to tell, by the names in :data:`VIEWS`."""

    show: tuple[str, ...]


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the control sockets of this user's machines are. Nobody else can make files there, or it is ours alone."""
    own = environment.get("XDG_RUNTIME_DIR")
    if own:
        return Path(own) / "libos"
    user = os.getuid()
    if os.access(f"/run/user/{user}", os.W_OK):
        return Path(f"/run/user/{user}/libos")
    return Path("/run/libos") if user == 0 else Path(f"/tmp/libos-{user}")


class Control:
    """Listens for callers of ``machine`` until :meth:`close`. ``program``: what it runs, as people know it.

    Raises OSError when the host has no place for the socket.
    """

    def __init__(self, machine: Machine, program: str, *, folder: Path | None = None) -> None:
        self._machine = machine
        self._program = program
        self._started = machine.clock.now()
        self._callers: set[_Caller] = set()
        self._pid = os.getpid()
        folder = folder or directory()
        _make_private(folder)
        self.path = folder / f"{self._pid}.sock"
        self._sock = HostSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK)
        try:
            self.path.unlink(missing_ok=True)  # of an earlier process with our number
            self._sock.bind(str(self.path))
            self.path.chmod(0o600)
            self._sock.listen(CALLERS_MAX)
            machine.reactor.watch(self._sock.fileno(), EV_READ, self._accept)
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        """What callers have not read is lost. The machine may be down already."""
        if self._sock.fileno() < 0:
            return
        for caller in list(self._callers):
            caller.close()
        self._machine.reactor.unwatch(self._sock.fileno())
        self._sock.close()
        if os.getpid() == self._pid:  # not a forked child's to remove
            self.path.unlink(missing_ok=True)

    def _accept(self, mask: int) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # none is left; or there is no descriptor for it
                return
            sock.setblocking(False)
            user = _CREDENTIALS.unpack(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, _CREDENTIALS.size))[1]
            if user not in (0, os.geteuid()) or len(self._callers) >= CALLERS_MAX:
                sock.close()
                continue
            self._callers.add(_Caller(self._machine.reactor, sock, self._answer, self._callers.discard))

    def _answer(self, line: bytes) -> Iterator[bytes]:
        """The answer to a request, in pieces that take about a millisecond each to make."""
        try:
            wanted = msgspec.json.decode(line, type=Request).show
        except msgspec.DecodeError as error:
            return iter([_json({"error": str(error)}) + b"\n"])
        unknown = [view for view in wanted if view not in VIEWS]
        if unknown:
            return iter([_json({"error": f"no view {unknown[0]!r}"}) + b"\n"])
        return self._pieces(wanted)

    def _pieces(self, views: tuple[str, ...]) -> Iterator[bytes]:
        before = b"{"
        for view in views:
            yield before + _json(view) + b":"
            before = b","
            if view == "sockets" and self._machine.network is not None:
                yield from _rows(self._machine.net.each_socket())
            else:
                yield _json(self._view(view))
        yield b"}\n" if views else b"{}\n"

    def _view(self, view: str) -> Any:
        machine = self._machine
        if view == "machine":
            return {
                "pid": self._pid,
                "program": self._program,
                "world": machine.config.net,
                "reactor": machine.reactor.kind,
                "addresses": _addresses(machine),
                "uptime_ns": machine.clock.now() - self._started,
            }
        if machine.network is None:
            return None  # world `host`: the kernel's
        if view == "resolver":
            resolver = machine.network.resolver
            return {"servers": resolver.servers, "search": resolver.search, **resolver.statistics()}
        return getattr(machine.net, view)()


class _Caller:
    """One connection: requests in, answers out. A piece of an answer is made when there is room for it, one in each
    turn of the reactor: a look at a hundred thousand sockets holds nobody up. Meanwhile no request is read."""

    __slots__ = ("_answer", "_ended", "_pieces", "_reactor", "_sock", "_unread", "_unsent")

    def __init__(
        self,
        reactor: Any,
        sock: HostSocket,
        answer: Callable[[bytes], Iterator[bytes]],
        ended: Callable[[_Caller], object],
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        self._answer = answer
        self._ended = ended
        self._unread = b""
        self._unsent = memoryview(b"")
        self._pieces: Iterator[bytes] = iter(())
        reactor.watch(sock.fileno(), EV_READ, self._read)

    def close(self) -> None:
        self._reactor.unwatch(self._sock.fileno())
        self._sock.close()
        self._ended(self)

    def _read(self, mask: int) -> None:
        try:
            data = self._sock.recv(REQUEST_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._unread += data
        if not data or (len(self._unread) > REQUEST_MAX and b"\n" not in self._unread):
            self.close()
        else:
            self._next()

    def _next(self) -> None:
        """Begin with the answer to the next request, if there is one."""
        line, newline, rest = self._unread.partition(b"\n")
        if newline:
            self._unread = rest
            self._pieces = self._answer(line)
            self._reactor.watch(self._sock.fileno(), EV_WRITE, self._send)

    def _send(self, mask: int) -> None:
        if not self._unsent:
            self._unsent = memoryview(next(self._pieces, b""))
        if not self._unsent:
            self._reactor.watch(self._sock.fileno(), EV_READ, self._read)
            self._next()
            return
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()


def _rows(rows: Iterator[Any]) -> Iterator[bytes]:
    before = b"["
    while batch := list(itertools.islice(rows, ROWS)):
        yield before + _json(batch)[1:-1]
        before = b","
    yield b"]" if before == b"," else b"[]"


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _addresses(machine: Machine) -> list[str]:
    """Those that others may know it by."""
    if machine.network is None:
        return []
    everywhere = (address for index, found in machine.net.addresses().items() if index > 1 for address in found)
    return [address.address for address in everywhere if address.usable and address.origin != "link-local"]


def _make_private(folder: Path) -> None:
    """Make it, for us alone; or see that it is so. PermissionError: it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder for this user alone")

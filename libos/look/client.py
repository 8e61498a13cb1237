"""Find the machines that run, and ask them.

All are asked at once and then waited for in turn, so that one whose program is busy delays nobody's question. A socket
that nobody listens on any more is what a machine left that was killed: it is removed.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from libos.control import Request, directory
from libos.errors import LibosError

__all__ = ["Found", "LookError", "ask", "look"]

PATIENCE = 2.0  # seconds, then we say what may be the matter
TIMEOUT = 10.0
ANSWER_MAX = 1 << 30


class LookError(LibosError):
    """There is no such machine, or it does not answer."""


class Found(NamedTuple):
    """A machine that listens, and what it is asked through."""

    pid: int
    sock: socket.socket


def directories() -> list[Path]:
    """Root sees everybody's machines."""
    folders = [directory()]
    if os.geteuid() == 0:
        folders += [*Path("/run/user").glob("*/libos"), Path("/run/libos"), *Path("/tmp").glob("libos-*")]
    return list(dict.fromkeys(folders))


def find(folders: Iterable[Path]) -> list[Found]:
    """Connected to each that listens, by pid."""
    found = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.sock"))):
        if not path.stem.isdecimal():
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(path))
        except ConnectionRefusedError:
            sock.close()
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:  # gone meanwhile; not ours to see
            sock.close()
        else:
            found.append(Found(int(path.stem), sock))
    return sorted(found)


def ask(found: Found, show: tuple[str, ...]) -> None:
    found.sock.sendall(msgspec.json.encode(Request(show)) + b"\n")


def answer(found: Found, slow: Callable[[int], object]) -> dict[str, Any]:
    """What the machine says. ``slow`` is told its pid when it keeps us waiting. Raises LookError."""
    received = bytearray()
    found.sock.settimeout(PATIENCE)
    patient = True
    while not received.endswith(b"\n"):
        try:
            more = found.sock.recv(1 << 20)
        except TimeoutError:
            if not patient:
                raise LookError(f"machine {found.pid} does not answer") from None
            patient = False
            slow(found.pid)
            found.sock.settimeout(TIMEOUT - PATIENCE)
            continue
        except OSError as error:
            raise LookError(f"machine {found.pid}: {error.strerror}") from None
        if not more or len(received) > ANSWER_MAX:
            raise LookError(f"machine {found.pid} ended before it answered")
        received += more
    try:
        said: dict[str, Any] = msgspec.json.decode(received)
    except msgspec.DecodeError as error:
        raise LookError(f"machine {found.pid} speaks another language: {error}") from None
    if "error" in said:
        raise LookError(f"machine {found.pid}: {said['error']}")
    return said


def look(
    which: str, show: tuple[str, ...], slow: Callable[[int], object], folders: Iterable[Path] | None = None
) -> list[dict[str, Any]]:
    """What ``show`` names, of every machine, or of the one that ``which`` means: a pid, or a part of its program's
    name. Each answer has ``"machine"`` too. Raises LookError when there is none.
    """
    looked = directories() if folders is None else list(folders)
    machines = find(looked)
    try:
        if which.isdecimal():
            wanted = [found for found in machines if found.pid == int(which)]
            if not wanted:
                raise LookError(f"no machine {which} runs here{_which_run(machines)}")
        else:
            wanted = machines
        for found in wanted:
            ask(found, ("machine", *show))
        answers = [answer(found, slow) for found in wanted]
    except BrokenPipeError:
        raise LookError("the machine ended before it answered") from None
    finally:
        for found in machines:
            found.sock.close()
    if which and not which.isdecimal():
        answers = [said for said in answers if which in said["machine"]["program"]]
        if not answers:
            raise LookError(f"no machine here runs a program called {which!r}{_which_run(machines)}")
    if not answers:
        places = " or ".join(map(str, looked))
        raise LookError(f"no machine runs here (looked in {places}): start one with libos run APP.py")
    return answers


def _which_run(machines: list[Found]) -> str:
    if not machines:
        return ": none does"
    return f": there {'are' if len(machines) > 1 else 'is'} {', '.join(str(found.pid) for found in machines)}"

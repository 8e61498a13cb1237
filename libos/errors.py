"""From ``-errno`` to exceptions, in one place.

C answers every call with 0, a count, an id, or ``-errno`` (never a message, never the thread's ``errno``).
:func:`check` turns a negative answer into the builtin exception that the errno stands for
(``ConnectionResetError``, ``TimeoutError``, ``PermissionError`` …). What is not an errno derives from
:class:`LibosError`, and says whose fault it was.
"""

from __future__ import annotations

import errno
import os

__all__ = [
    "AddressError",
    "ConfigError",
    "EscapeError",
    "ForkError",
    "HostError",
    "LibosError",
    "WorldError",
    "check",
    "os_error",
]


class LibosError(Exception):
    """Base of the errors that are libos's own."""


class ConfigError(LibosError):
    """The user's configuration is wrong: names the key, the value, and what is allowed."""


class HostError(LibosError):
    """The host refused something that the machine needs: names it, and says what to do."""


class AddressError(HostError):
    """Nobody gave the machine an address in time."""


class WorldError(LibosError, RuntimeError):
    """The program asked for something that its world cannot give."""


class EscapeError(WorldError):
    """The program called what would leave the simulation: names the call, and says what to use."""

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(call, instead)
        self.call = call
        self.instead = instead

    def __str__(self) -> str:
        return f"{self.call} would leave the simulation: {self.instead}"


class ForkError(LibosError, RuntimeError):
    """A forked process used the loop or the machine of the process that it was forked from."""

    def __init__(self) -> None:
        super().__init__(
            "this loop belongs to the process that this one was forked from: make a new one here (libos.run does)"
        )


def os_error(code: int, *detail: object) -> OSError:
    """The builtin exception for ``code`` (a positive errno); ``detail`` is appended to its message."""
    text = os.strerror(code)
    if detail:
        text = f"{text}: {' '.join(map(str, detail))}"
    return OSError(code, text)


def check(rc: int, *detail: object) -> int:
    """Pass a non-negative answer through; raise the exception that ``-rc`` stands for otherwise."""
    if rc >= 0:
        return rc
    if rc == -errno.EAGAIN:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if rc == -errno.ESTALE:  # what a reactor answers in a forked process, and nothing else here
        raise ForkError
    raise os_error(-rc, *detail)

"""How a simulation ends when it does not end well."""

from __future__ import annotations

from libos.errors import LibosError

__all__ = ["CheckFailed", "Deadlock", "LimitReached", "NotDeterministic", "ProgramFailed"]


class CheckFailed(LibosError, AssertionError):
    """Something that must always hold did not, or something that must come about did not in time."""


class Deadlock(LibosError):
    """Nothing is ready, no timer runs, and there are programs that have not ended. Says what each waits for."""


class LimitReached(LibosError):
    """The world had not come to its end at its limit of virtual or real time. Says what each program waits for."""


class ProgramFailed(LibosError):
    """A program exited with a status other than 0. (Other exceptions of programs are raised as they are.)"""


class NotDeterministic(LibosError):
    """Two runs of one seed did not do the same. Says where they parted."""

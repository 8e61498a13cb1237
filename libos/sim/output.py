"""What programs write to stdout and stderr: lines with the machine's name and the virtual time.

A program's text is kept until its line is whole. Outside of programs text goes where it went before.
"""

from __future__ import annotations

import io
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TextIO

from libos.sim.times import show

if TYPE_CHECKING:
    from libos.sim.world import World

__all__ = ["Line", "Log", "Output"]

LINES_MAX = 1_000_000
LINE_MAX = 1 << 16  # characters, before it is taken for a line


class Line(NamedTuple):
    """One line of a program. ``time``: virtual, ns."""

    time: int
    machine: str
    stream: str
    text: str

    def __str__(self) -> str:
        return f"{show(self.time)} {self.machine}: {self.text}"


class Log(deque[Line]):
    """The lines, in their order; of too many the oldest go, and are counted."""

    def __init__(self, most: int = LINES_MAX) -> None:
        super().__init__(maxlen=most)
        self.dropped = 0

    def append(self, line: Line) -> None:
        if len(self) == self.maxlen:
            self.dropped += 1
        super().append(line)

    def text(self, machine: str | None = None) -> str:
        """All of it, or one machine's, as a reader sees it."""
        return "".join(f"{line}\n" for line in self if machine in (None, line.machine))


class Output(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` while a world runs."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, world: World, stream: str, outside: TextIO) -> None:
        self._world = world
        self._stream = stream
        self._outside = outside

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        program = self._world.running
        if program is None:
            return self._outside.write(text)
        if program.killed:
            return len(text)  # nobody hears it
        pending = program.pending.get(self._stream, "") + text
        if "\n" in pending or len(pending) > LINE_MAX:
            *lines, pending = pending.split("\n")
            if len(pending) > LINE_MAX:
                lines.append(pending)
                pending = ""
            for line in lines:
                self._world.say(program.machine, self._stream, line)
        program.pending[self._stream] = pending
        return len(text)

    def flush(self) -> None:
        if self._world.running is None:
            self._outside.flush()

"""A picture of a run: one HTML file with nothing from elsewhere, that a browser shows.

Virtual time goes from left to right, each machine has a lane. Lines of output are marks on it; a frame is a thin line
from where and when it was sent to where and when it came, a red stub if it got nowhere. What the world did (faults) are
bands across all lanes. Whatever has more to say says it when pointed at. Where there are more frames than can be told
apart, each lane shows how dense they are instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import NamedTuple

from libos.sim.capture import Frame
from libos.sim.output import Line
from libos.sim.times import show

__all__ = ["Action", "Timeline"]

WIDTH, LEFT, RIGHT = 1400, 120, 24
LANE, TOP, FOOT = 76, 64, 40
LINES_MAX = 4000  # marks
FRAMES_MAX = 4000  # lines between lanes
BINS = 240
CHAR = 6.2  # of a label, on average
TICKS = 10

_STYLE = """
body { font: 13px system-ui, sans-serif; margin: 20px; color: #1f2430; background: #fff; }
h1 { font-size: 16px; margin: 0 0 4px; } p { margin: 2px 0; } .failed { color: #b3261e; font-weight: 600; }
svg { display: block; margin-top: 10px; max-width: 100%; height: auto; }
text { font: 12px system-ui, sans-serif; fill: #1f2430; } .tick { fill: #6b7280; font-size: 11px; }
.lane { stroke: #9aa3b2; stroke-width: 1.5; } .grid { stroke: #e5e7eb; }
.frame { stroke-width: 1; opacity: .55; }
.TCP { stroke: #3b6fb5; } .UDP { stroke: #2f8f5b; } .other { stroke: #b9bfca; }
.lost { stroke: #d43c2f; stroke-width: 1.5; } .density { fill: #3b6fb5; opacity: .45; }
.out { fill: #1f2430; } .err { fill: #d98200; } .band { fill: #f2b8b5; opacity: .45; }
.moment { stroke: #b3261e; stroke-dasharray: 4 3; } .what { fill: #b3261e; font-size: 11px; }
.end { stroke: #b3261e; stroke-width: 2; } .frame:hover, .lost:hover { stroke-width: 4; opacity: 1; }
table { border-collapse: collapse; margin-top: 14px; font: 12px ui-monospace, monospace; }
td { padding: 1px 10px 1px 0; vertical-align: top; white-space: pre-wrap; } td:first-child { color: #6b7280; }
"""

_KINDS = MappingProxyType({"TCP": "TCP", "UDP": "UDP"})


class Action(NamedTuple):
    """Something that the world did. ``end``: of what lasts; None: it was a moment."""

    time: int
    what: str
    end: int | None = None
    machines: Sequence[str] = ()  # whose lanes it concerns; none: all


@dataclass(frozen=True, slots=True)
class Timeline:
    """``end``: the last moment."""

    title: str
    failed: str
    machines: Sequence[str]
    end: int
    lines: Sequence[Line]
    frames: Sequence[Frame]
    actions: Sequence[Action] = ()

    def html(self) -> str:
        """The whole file."""
        failed = f'<p class="failed">{_text(self.failed)}</p>' if self.failed else ""
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(self.title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{_text(self.title)}</h1>{failed}\n"
            f"<p>{_text(self._legend())}</p>\n{self.svg()}\n{self._table()}</body></html>\n"
        )

    def svg(self) -> str:
        height = TOP + LANE * max(len(self.machines), 1) + FOOT
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}">\n'
            + "\n".join((*self._bands(height), *self._grid(height), *self._lanes(), *self._traffic(), *self._marks()))
            + "\n</svg>"
        )

    def _legend(self) -> str:
        shown = "blue: TCP, green: UDP, grey: other frames, red stubs: frames that got nowhere"
        if self._dense():
            shown = f"bars: frames sent, {len(self.frames)} in all"
        return f"{show(self.end)} s of virtual time; {shown}; dots: lines of output (orange: stderr)"

    def _dense(self) -> bool:
        return len(self.frames) > FRAMES_MAX

    # --- the parts ---------------------------------------------------------------------------------------------------

    def _x(self, time: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * min(max(time, 0), self.end) / max(self.end, 1), 1)

    def _y(self, machine: str) -> float:
        return TOP + LANE * (self.machines.index(machine) + 0.5)

    def _grid(self, height: int) -> Iterator[str]:
        bottom = height - FOOT
        step = _nice(max(self.end, 1) / TICKS)
        at = 0
        while at <= self.end:
            x = self._x(at)
            yield f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>'
            yield f'<text class="tick" x="{x}" y="{bottom + 16}" text-anchor="middle">{_short(at)}</text>'
            at += step
        if self.failed:
            x = self._x(self.end)
            yield f'<line class="end" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}">{_title(self.end, self.failed)}</line>'

    def _bands(self, height: int) -> Iterator[str]:
        """Labels of what follows closely go to rows of their own, as long as there are some."""
        free = [-1.0, -1.0, -1.0, -1.0]
        for action in sorted(self.actions, key=lambda action: action.time):
            x = self._x(action.time)
            says = _title(action.time, action.what)
            if action.end is None:
                yield f'<line class="moment" x1="{x}" y1="{TOP}" x2="{x}" y2="{height - FOOT}">{says}</line>'
            else:
                width = round(max(self._x(action.end) - x, 1.5), 1)
                for machine in action.machines or self.machines:
                    y = self._y(machine) - LANE / 2 + 3
                    yield f'<rect class="band" x="{x}" y="{y}" width="{width}" height="{LANE - 6}">{says}</rect>'
            row = next((row for row, taken in enumerate(free) if taken < x), None)
            if row is not None:
                wide = CHAR * len(action.what)
                free[row] = x + wide + 8
                x = max(min(x, WIDTH - wide), 0)  # or it would end beyond the edge
                yield f'<text class="what" x="{x:.1f}" y="{TOP - 6 - 13 * row}">{_text(action.what)}{says}</text>'

    def _lanes(self) -> Iterator[str]:
        for machine in self.machines:
            y = self._y(machine)
            yield f'<line class="lane" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
            yield f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{_text(machine)}</text>'

    def _traffic(self) -> Iterator[str]:
        if self._dense():
            yield from self._density()
            return
        for frame in self.frames:
            yield from self._frame(frame)

    def _frame(self, frame: Frame) -> Iterator[str]:
        kind = _KINDS.get(frame.what.partition(" ")[0], "other")
        whom = f"{frame.sender or '?'} to {frame.receiver or 'nowhere'}: {frame.what} ({frame.length} bytes)"
        if frame.sender is not None and frame.sent is not None:
            x, y = self._x(frame.sent), self._y(frame.sender)
            if frame.receiver is not None and frame.came is not None:
                there = f'x2="{self._x(frame.came)}" y2="{self._y(frame.receiver)}"'
                yield f'<line class="frame {kind}" x1="{x}" y1="{y}" {there}>{_title(frame.sent, whom)}</line>'
            else:
                says = _title(frame.sent, whom)
                yield f'<line class="lost" x1="{x}" y1="{y}" x2="{x + 4}" y2="{y + 14}">{says}</line>'
        elif frame.receiver is not None and frame.came is not None:
            x, y = self._x(frame.came), self._y(frame.receiver)
            says = _title(frame.came, f"damaged: {whom}")
            yield f'<line class="lost" x1="{x - 4}" y1="{y - 14}" x2="{x}" y2="{y}">{says}</line>'

    def _density(self) -> Iterator[str]:
        sent = Counter(
            (frame.sender, frame.sent * BINS // (self.end + 1))
            for frame in self.frames
            if frame.sender is not None and frame.sent is not None
        )
        most = max(sent.values(), default=1)
        width = round((WIDTH - LEFT - RIGHT) / BINS, 2)
        for (machine, at), count in sorted(sent.items()):
            tall = round((LANE / 2 - 10) * count / most, 1)
            x, y = LEFT + at * width, self._y(machine)
            says = _title(at * self.end // BINS, f"{machine} sent {count} frames")
            yield f'<rect class="density" x="{x:.1f}" y="{y - tall}" width="{width}" height="{tall}">{says}</rect>'

    def _marks(self) -> Iterator[str]:
        for line in self.lines[-LINES_MAX:]:
            if line.machine in self.machines:
                kind = "err" if line.stream == "stderr" else "out"
                says = _title(line.time, f"{line.machine}: {line.text}")
                x, y = self._x(line.time), self._y(line.machine)
                yield f'<circle class="{kind}" cx="{x}" cy="{y}" r="4">{says}</circle>'

    def _table(self) -> str:
        """The end of the log: what most readers look for."""
        rows = [(line.time, line.machine, line.text) for line in self.lines[-200:]]
        rows += [(action.time, "world", action.what) for action in self.actions[-200:]]
        cells = (
            f"<tr><td>{show(at)}</td><td>{_text(who)}</td><td>{_text(what)}</td></tr>" for at, who, what in sorted(rows)
        )
        return f"<table>{''.join(cells)}</table>"


def _text(text: str) -> str:
    return escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:400]))


def _title(time: int, text: str) -> str:
    return f"<title>{show(time)} s  {_text(text)}</title>"


def _nice(ns: float) -> int:
    """A round number of ns, not less."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if step * factor >= ns:
                return step * factor
        step *= 10


def _short(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns} ns" if ns else "0"

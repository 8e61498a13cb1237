"""What every ``libos bench NAME`` hands back: one shape, as JSON to keep and as a table to read.

A row's figures are medians over the repetitions, each figure on its own. A ratio is a row's figure divided by the
reference's in the same case: below 1, the peer needs less than the reference. Of requests and answers it is the median
of what each repetition says, for in that the two had their turns close to each other, whatever the machine did before
and after; so it is not quite the ratio of the medians.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["REFERENCES", "LeftOut", "Report", "Results", "Row", "Sample", "ratios_table", "rows_table"]

R = TypeVar("R", bound="DataclassInstance")

REFERENCES = ("uvloop", "c-epoll", "tap-floor")
# Peers that do something of their own are compared with a reference that does the same, where there is one.
_COUNTERPARTS = (("uvloop", "-streams"), ("tap-floor", "-spin"))


@dataclass(frozen=True)
class Sample:
    """One measured interval. CPU times in ns, of the whole process, kernel work in its name included."""

    requests: int
    seconds: float
    p50_ns: int
    p99_ns: int
    client_ns: int
    server_ns: int

    @property
    def cpu_us(self) -> float:
        return self.server_ns / self.requests / 1e3

    @property
    def total_cpu_us(self) -> float:
        return (self.server_ns + self.client_ns) / self.requests / 1e3


@dataclass(frozen=True)
class Row:
    """rate in requests a second; cpu_us of the server, total_cpu_us of server and client together, per request.
    ``samples`` are what the medians are of, in the order of the repetitions."""

    case: str
    peer: str
    conns: int
    size: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    total_cpu_us: float
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, case: str, peer: str, conns: int, size: int, samples: Sequence[Sample]) -> Row:
        """The medians of ``samples``."""

        def median(*values: float) -> float:
            return round(statistics.median(values), 3)

        return cls(
            case,
            peer,
            conns,
            size,
            rate=median(*(s.requests / s.seconds for s in samples)),
            p50_us=median(*(s.p50_ns / 1e3 for s in samples)),
            p99_us=median(*(s.p99_ns / 1e3 for s in samples)),
            cpu_us=median(*(s.cpu_us for s in samples)),
            total_cpu_us=median(*(s.total_cpu_us for s in samples)),
            samples=tuple(samples),
        )

    def to(self, other: Row, figure: Callable[[Sample], float]) -> float:
        """``figure`` of this peer divided by the other's: the median of the repetitions."""
        pairs = zip(self.samples, other.samples, strict=True)
        return round(statistics.median(figure(ours) / figure(theirs) for ours, theirs in pairs), 3)


@dataclass(frozen=True)
class LeftOut:
    """What did not run, or did and gave no figure, and why."""

    what: str
    why: str


@dataclass
class Results(Generic[R]):
    """``failures`` (also in left_out) are peers that ran and broke; what this host cannot run is in left_out only."""

    host: dict[str, object]
    rows: list[R] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    failures: int = 0

    def ratios(self) -> Mapping[str, object] | None:
        """case -> the figures beside a reference's; None for a benchmark that has no reference."""
        return None

    def setting(self) -> dict[str, object]:
        """What was measured where: the head of the JSON."""
        return {"host": self.host}

    def to_json(self) -> str:
        ratios = self.ratios()
        return json.dumps(
            {
                **self.setting(),
                "rows": [asdict(row) for row in self.rows],
                **({} if ratios is None else {"ratios": ratios}),
                "left_out": [asdict(item) for item in self.left_out],
            },
            indent=2,
        )


def counterpart(reference: str, peer: str) -> str:
    """Whom ``peer`` is compared with under the heading ``reference``: a program of streams with uvloop's streams."""
    return next((r + kind for r, kind in _COUNTERPARTS if r == reference and peer.endswith(kind)), reference)


class Report(Results[Row]):
    """Requests and answers: ``libos bench echo`` and its kin."""

    def ratios(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """case -> peer -> "server_cpu", "total_cpu" or "p50" -> reference (by its full name) -> the peer's figure
        divided by the reference's."""
        found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        for case, rows in self.cases().items():
            for row in rows.values():
                names = [name for name in (counterpart(r, row.peer) for r in REFERENCES) if name != row.peer]
                others = {name: rows[name] for name in names if name in rows}
                found.setdefault(case, {})[row.peer] = {
                    "server_cpu": {name: row.to(other, lambda s: s.cpu_us) for name, other in others.items()},
                    "total_cpu": {name: row.to(other, lambda s: s.total_cpu_us) for name, other in others.items()},
                    "p50": {name: row.to(other, lambda s: s.p50_ns) for name, other in others.items()},
                }
        return found

    def cases(self) -> Mapping[str, Mapping[str, Row]]:
        """case -> peer -> row, in the order measured."""
        found: dict[str, dict[str, Row]] = {}
        for row in self.rows:
            found.setdefault(row.case, {})[row.peer] = row
        return found


def rows_table(report: Report) -> Table:
    """The rows, a section for each case."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fits 80 columns
    table.add_column("case", no_wrap=True)
    table.add_column("peer", no_wrap=True)
    for heading in ("req/s", "p50 µs", "p99 µs", "CPU µs", "total"):
        table.add_column(heading, justify="right", no_wrap=True)
    for case, rows in report.cases().items():
        for i, row in enumerate(rows.values()):
            table.add_row(
                case if i == 0 else "",
                row.peer,
                f"{row.rate:,.0f}",
                f"{row.p50_us:.1f}",
                f"{row.p99_us:.1f}",
                f"{row.cpu_us:.2f}",
                f"{row.total_cpu_us:.2f}",
            )
        table.add_section()
    return table


def ratios_table(report: Report) -> Table | None:
    """Each peer's figures to each reference's; None when no reference was measured."""
    measured = {row.peer for row in report.rows}
    references = [name for name in REFERENCES if any(counterpart(name, peer) in measured for peer in measured)]
    if not references or len(measured) < 2:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # fits 80 columns
    table.add_column("case", no_wrap=True)
    table.add_column("peer", no_wrap=True)
    figures = dict.fromkeys(references, ("total_cpu", "p50")) | {"uvloop": ("server_cpu", "total_cpu", "p50")}
    for name in references:
        words = " ".join(figure.removesuffix("_cpu") for figure in figures[name])
        table.add_column(f"{name}\n{words}", justify="right", no_wrap=True)
    for case, peers in report.ratios().items():
        for i, (peer, found) in enumerate(peers.items()):
            cells = []
            for name in references:
                other = counterpart(name, peer)
                cells.append(" ".join(f"{found[f][other]:.2f}" for f in figures[name] if other in found[f]) or "-")
            table.add_row(case if i == 0 else "", peer, *cells)
        table.add_section()
    return table

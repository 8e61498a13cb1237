"""Rows for people: a rich table on a terminal; aligned text into a pipe, and where there are notes below rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["print_table"]


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), header: bool = True
) -> None:
    """``right``: the columns to align to the right. A row longer than ``columns`` carries a line of notes below it."""
    if sys.stdout.isatty() and all(len(row) == len(columns) for row in rows):
        _print_rich(columns, rows, right, header)
        return
    shown = [columns, *rows] if header else rows
    width = [max((len(row[at]) for row in shown), default=0) for at in range(len(columns))]
    for row in shown:
        cells = (
            cell.rjust(size) if name in right else cell.ljust(size)
            for cell, size, name in zip(row, width, columns, strict=False)
        )
        print("  ".join(cells).rstrip())
        for note in row[len(columns) :]:
            print(f"\t {note}")


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], header: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=header)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)

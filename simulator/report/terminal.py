"""Results in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simulator.report.block import Block, Verdict

WIDTH = 110
"""Columns where the output is no terminal (a file, a pipe)."""

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}


def console() -> Console:
    """Standard output; without a terminal, plain text of a fixed width."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=WIDTH)


def print_verdicts(out: Console, found: Iterable[Verdict], warnings: Iterable[str]) -> None:
    """Print sentences, good news in green, and warnings in yellow."""
    for verdict in found:
        mark, colour = _MARKS[verdict.good]
        out.print(f"[{colour}]{mark}[/] {escape(verdict.text)}", soft_wrap=not out.is_terminal)
    for warning in warnings:
        out.print(f"[yellow]![/] {escape(warning)}", soft_wrap=not out.is_terminal)


def table(block: Block) -> RenderableType:
    """A block as a rich table with its note below."""
    grid = Table(
        box=box.SIMPLE_HEAD,
        show_header=bool(block.header),
        show_edge=False,
        pad_edge=False,
    )
    width = max((len(row) for row in block.rows), default=0)
    for i in range(width):
        left = i == 0 or not block.header or (block.bars and i == width - 1)
        name = block.header[i] if block.header else ""
        grid.add_column(escape(name), justify="left" if left else "right", no_wrap=i == 0)
    for row in block.rows:
        grid.add_row(*(Text(cell, style="cyan" if "█" in cell else "") for cell in row))
    note = [Text(block.note, style="dim")] if block.note else []
    return Padding(Group(Text(block.title, style="bold"), grid, *note), (1, 0, 0, 0))

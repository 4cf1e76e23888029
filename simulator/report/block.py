"""Small tables and sentences in words, before anyone decides how to show them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """One table in words.

    Attributes:
        title: what it is about.
        header: names of its columns; empty for a list of facts.
        rows: its cells; the first of a row is its name.
        note: how to read it.
        bars: whether the last column holds a bar of block characters.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    bars: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence, and whether it is good news (None: neither)."""

    good: bool | None
    text: str

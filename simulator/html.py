"""Small HTML cards, as notebooks show them for results. Depends on nothing of this project.

Colours are the page's own (``currentColor`` and opacity), so that a card reads in light and in dark
themes; styles are inline, because notebooks strip style sheets. Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

MISSING = "–"

_TABLE = "border-collapse:collapse;margin:0.4em 0;font-variant-numeric:tabular-nums"
_CELL = "padding:0.1em 1.2em 0.1em 0;vertical-align:top;"
_FACT = _CELL + "text-align:left"
_DIM = _FACT + ";opacity:0.65;white-space:nowrap"
_RULE = ";border-bottom:1px solid;font-weight:600"
_MARKS = {True: "✓ ", False: "✗ ", None: ""}


def card(
    title: str,
    *,
    verdict: str = "",
    good: bool | None = None,
    facts: Mapping[str, str] | None = None,
    header: Sequence[str] = (),
    rows: Iterable[Sequence[str]] = (),
    notes: Iterable[str] = (),
) -> str:
    """A titled card.

    Args:
        title: in bold.
        verdict: a sentence below it.
        good: whether that is good news (a tick), bad (a cross) or neither (None).
        facts: two columns, name and value; empty values are left out.
        header: names of the columns of ``rows``.
        rows: a table, its first column names the row.
        notes: sentences below.
    """
    parts = [f"<div><strong>{escape(title)}</strong></div>"]
    if verdict:
        parts.append(f"<div>{_MARKS[good]}{escape(verdict)}</div>")
    known = {name: value for name, value in (facts or {}).items() if value}
    if known:
        lines = (
            f'<tr><td style="{_DIM}">{escape(name)}</td><td style="{_FACT}">{escape(value)}</td></tr>'
            for name, value in known.items()
        )
        parts.append(f'<table style="{_TABLE}"><tbody>{"".join(lines)}</tbody></table>')
    body = "".join(f"<tr>{_cells('td', row, '')}</tr>" for row in rows)
    if body:
        head = f"<thead><tr>{_cells('th', header, _RULE)}</tr></thead>" if header else ""
        parts.append(f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>')
    parts += [f'<div style="opacity:0.65">{escape(note)}</div>' for note in notes]
    return f'<div style="line-height:1.45;max-width:60em">{"".join(parts)}</div>'


def _cells(tag: str, row: Sequence[str], style: str) -> str:
    sides = ["left", *["right"] * (len(row) - 1)]
    return "".join(
        f'<{tag} style="{_CELL}text-align:{side}{style}">{escape(cell)}</{tag}>'
        for side, cell in zip(sides, row, strict=True)
    )


def figures(value: float | None, unit: str = "") -> str:
    """Three significant digits with thousands separators and a unit; a dash where unknown."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0.0:
        text = "0"
    else:
        rounded = float(f"{value:.3g}")
        decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
        text = f"{rounded:,.{min(decimals, 12)}f}"
    return f"{text} {unit}" if unit else text


def duration(value_s: float | None) -> str:
    """A time given in seconds: milliseconds below one second."""
    if value_s is None or not math.isfinite(value_s):
        return MISSING
    return figures(value_s * 1e3, "ms") if abs(value_s) < 0.9995 else figures(value_s, "s")


def share(value: float | None, digits: int = 1) -> str:
    """A share of 1 as a percentage, rounded down, so that 100 % means all."""
    if value is None or not math.isfinite(value):
        return MISSING
    scale = 10.0**digits
    return f"{math.floor(round(100.0 * value * scale, 6)) / scale:.{digits}f} %"


def dollars(value: float | None) -> str:
    """A sum of money [USD]."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"${value:,.2f}" if abs(value) >= 1.0 or value == 0.0 else f"${figures(value)}"


def settings(given: Mapping[str, Any]) -> str:
    """``lognormal, mean 512, cv 1``: a kind and its numbers, from a mapping with ``dist`` first."""
    return ", ".join(
        str(value)
        if name in ("dist", "name", "path")
        else f"{name.replace('_', ' ')} {_plain(value)}"
        for name, value in given.items()
        if value is not None
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

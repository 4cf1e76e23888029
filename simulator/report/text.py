"""Numbers as people read them: three significant digits, a unit, and a dash for what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "–"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def number(value: float | None, unit: str = "", digits: int = 3) -> str:
    """``value`` with ``digits`` significant digits and thousands separators, then its unit."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        text = "0"
    else:
        exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # after rounding: 0.9996 is 1.00
        decimals = max(0, digits - 1 - exponent)
        text = f"{value:,.{min(decimals, 12)}f}"
    return f"{text} {unit}" if unit else text


def seconds(value: float | None) -> str:
    """A duration given in seconds [s], in the unit that suits it: ns, µs, ms or s."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size == 0:
        return "0 s"
    if size < 0.9995e-6:
        return number(value * 1e9, "ns")
    if size < 0.9995e-3:
        return number(value * 1e6, "µs")
    if size < 0.9995:
        return number(value * 1e3, "ms")
    return number(value, "s")


def short_seconds(value: float, _position: object = None) -> str:
    """A duration [s] with no more digits than it has: ``"5 ms"``, ``"1.5 s"`` (and tick labels)."""
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.4g} {unit}"
    return "0" if value == 0 else f"{value:.3g} s"


def short_percent(value: float, _position: object = None) -> str:
    """A share 0..1 with no more digits than it has: ``"50 %"`` (and tick labels)."""
    return f"{100 * value:.3g} %"


def percent(value: float | None, digits: int = 1) -> str:
    """A share 0..1 as a percentage, never rounded up to 100 % or down to 0 %."""
    if value is None or not math.isfinite(value):
        return MISSING
    shown = 100 * value
    step = 10.0**-digits
    if 0 < shown < step / 2:
        return f"< {step:g} %"
    if 100 - step / 2 <= shown < 100:
        return f"> {100 - step:.{digits}f} %"
    return f"{shown:.{digits}f} %"


def usd(value: float | None) -> str:
    """A sum of money [USD] with two decimals, or three significant digits when below a dollar."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"${value:,.2f}" if abs(value) >= 1 else f"${number(value)}"


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{round(value):,}"


def byte_size(value: float | None) -> str:
    """A size [bytes] in SI units (GB is 1e9 bytes)."""
    if value is None or not math.isfinite(value):
        return MISSING
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if abs(value) >= 0.9995 * size:
            return number(value / size, unit)
    return number(value, "B")


def plural(n: int, noun: str) -> str:
    """``"1 request"``, ``"2,000 requests"``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listing(words: Iterable[str], last: str = "and") -> str:
    """``"a, b and c"``."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def bar(start: float, length: float, width: int) -> str:
    """A horizontal bar of block characters on a line ``width`` characters wide.

    Args:
        start: where the bar begins, as a share 0..1 of the width.
        length: its length, as a share of the width.
        width: characters available.
    """
    if not (math.isfinite(start) and math.isfinite(length)) or length <= 0:
        return ""
    first = max(0.0, min(start, 1.0)) * width
    end = min(first + length * width, float(width))
    left = int(first)
    eighths = round((end - left) * 8)
    if eighths < 8:
        return " " * left + _EIGHTHS[max(1, eighths)]
    full, rest = divmod(eighths, 8)
    return " " * left + "█" * full + (_EIGHTHS[rest] if rest else "")

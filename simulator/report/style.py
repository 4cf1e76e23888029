"""The look of every figure: one palette, one font size, no global plotting state.

Colours are those of Okabe and Ito, told apart by colour-blind readers and in grey print.

References: [1] M. Okabe, K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from simulator.report.text import short_seconds

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
YELLOW = "#F0E442"
GREY = "#7F7F7F"
INK = "#222222"
GRID = "#DDDDDD"

_TICKS = (
    (0.8, (1.0, 2.0, 3.0, 5.0, 7.0)),
    (1.8, (1.0, 2.0, 5.0)),
    (3.0, (1.0, 3.0)),
    (math.inf, (1.0,)),
)
"""Ticks within a decade of a logarithmic axis that spans fewer decades than this."""

CYCLE = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW, GREY)
DPI = 160


def figure(width_in: float, height_in: float, title: str) -> Figure:
    """An empty figure with a title at its top left."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    fig = Figure(figsize=(width_in, height_in), dpi=DPI, layout=layout, facecolor="white")
    FigureCanvasAgg(fig)
    fig.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return fig


def dress(ax: Axes, *, x: str = "", y: str = "", grid: str = "both", title: str = "") -> None:
    """Labels, light grid lines and no box around the axes.

    Args:
        ax: the axes.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        grid: which grid lines: ``"x"``, ``"y"`` or ``"both"``.
        title: what this panel shows.
    """
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GREY)
    ax.tick_params(labelsize=8, colors=INK, color=GREY)
    ax.set_axisbelow(True)
    kind: Any = grid
    ax.grid(True, axis=kind, color=GRID, linewidth=0.6)
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)
    if title:
        ax.set_title(title, fontsize=9, color=INK, loc="left")


def legend(ax: Axes, columns: int = 1, handles: Sequence[Any] | None = None) -> None:
    """A legend to the right of the axes, outside the data; none if nothing has a name."""
    shown = ax.get_legend_handles_labels()[0] if handles is None else list(handles)
    if not shown:
        return
    ax.legend(
        handles=shown,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=8,
        ncols=columns,
        labelcolor=INK,
    )


def time_axis(ax: Axes, low_s: float, high_s: float) -> None:
    """A horizontal axis for durations between two positive values [s].

    Logarithmic, with labelled ticks such as 20 ms within the decades; linear where the values
    differ by less than a factor of four, which a logarithmic axis cannot label well.
    """
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))
    if high_s < 4 * low_s:
        room = 0.08 * (high_s - low_s) or 0.1 * low_s
        ax.set_xlim(low_s - room, high_s + room)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return
    ax.set_xscale("log")
    decades = math.log10(high_s / low_s)
    subs = next(ticks for limit, ticks in _TICKS if decades < limit)
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))  # set_xscale replaced it
    ax.set_xlim(low_s / 1.15, high_s * 1.15)


def save_png(fig: Figure, path: Path) -> None:
    """Write the figure as PNG, without dates, so that the same data give the same bytes."""
    fig.savefig(path, format="png", metadata={"Software": None})


def png_bytes(fig: Figure) -> bytes:
    """The figure as PNG."""
    buffer = BytesIO()
    fig.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()

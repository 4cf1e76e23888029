"""Bands of a simulation as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.report import style
from simulator.report.text import percent, plural, short_seconds
from simulator.report.uncertainty import LABELS
from simulator.uncertainty import Bands

DRAWN = ("ttft_s.mean", "ttft_s.p99", "tpot_s.mean", "tpot_s.p99")
"""Metrics of the figure."""

_SHOWN_SOURCES = 5


def bands_figure(bands: Bands) -> Figure:
    """Distributions of latencies over the draws, and where their variance comes from."""
    shown = [m for m in DRAWN if not np.isnan(bands.values[m]).all()]
    title = f"How sure the model is of itself · {plural(bands.draws, 'draw')}"
    fig = style.figure(9.6, 0.9 + 1.25 * max(len(shown), 1), title)
    if not shown:
        return fig
    axes = fig.subplots(len(shown), 2, squeeze=False, width_ratios=(1.5, 1.0))
    for (left, right), metric in zip(axes, shown, strict=True):
        _spread(left, bands, metric)
        _sources(right, bands, metric)
    axes[-1][1].set_xlabel("share of its variance", fontsize=9)
    return fig


def _spread(ax: Axes, bands: Bands, metric: str) -> None:
    """Every draw as a point, the band as a bar, the median as a line."""
    style.dress(ax, grid="x", title=LABELS[metric])
    values = bands.values[metric]
    known = np.sort(values[~np.isnan(values)])
    band = bands.band(metric)
    assert band.lo is not None and band.hi is not None and band.median is not None  # noqa: PT018 - all or none
    ax.axvspan(band.lo, band.hi, color=style.SKY, alpha=0.35, linewidth=0)
    ax.axvline(band.median, color=style.BLUE, linewidth=1.5)
    heights = (np.arange(known.size) + 0.5) / known.size
    ax.plot(known, heights, ".", color=style.INK, markersize=3)
    ax.set_yticks([])
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))


def _sources(ax: Axes, bands: Bands, metric: str) -> None:
    """The factors that explain most of its variance."""
    style.dress(ax, grid="x")
    shares = sorted(bands.shares[metric].items(), key=lambda item: -item[1])[:_SHOWN_SOURCES]
    names = [name for name, _ in reversed(shares)]
    ax.barh(names, [share for _, share in reversed(shares)], color=style.BLUE, height=0.6)
    ax.tick_params(axis="y", labelsize=7)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: percent(v, 0)))

"""Figures of a calibration: an operator as measured against as predicted, and what is left over."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from calibration.fitted import Fitted
from simulator.report import style
from simulator.report.text import short_seconds

BAND = 0.10
"""Half-width of the shaded band."""


def operator_figure(fitted: Fitted, title: str) -> Figure:
    """Measured against predicted time, and relative residual against arithmetic intensity.

    Args:
        fitted: an operator with points.
        title: what the figure is about.
    """
    fig = style.figure(9.0, 3.6, title)
    left, right = fig.subplots(1, 2)
    _times(left, fitted)
    _residuals(right, fitted)
    return fig


def _times(ax: Axes, fitted: Fitted) -> None:
    measured = fitted.points["measured_s"].to_numpy()
    predicted = fitted.points["predicted_s"].to_numpy()
    ends = np.array([min(measured.min(), predicted.min()), max(measured.max(), predicted.max())])
    ends = ends * np.array([1 / 1.3, 1.3])
    ax.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color=style.GRID, linewidth=0)
    ax.plot(ends, ends, color=style.GREY, linewidth=0.8)
    ax.plot(measured, predicted, "o", color=style.BLUE, markersize=4, alpha=0.8, markeredgewidth=0)
    style.dress(ax, x="measured", y="predicted", title="Time of one call (band: ±10 %)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.axes.set_xscale("log") if axis is ax.xaxis else axis.axes.set_yscale("log")
        wide = ends[1] > 30 * ends[0]
        axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=9))
        axis.set_major_formatter(FuncFormatter(short_seconds))
        axis.set_minor_formatter(NullFormatter())
    ax.set_xlim(*ends)
    ax.set_ylim(*ends)


def _residuals(ax: Axes, fitted: Fitted) -> None:
    points = fitted.points
    residual = (points["predicted_s"] / points["measured_s"] - 1.0).to_numpy()
    intensity = points["intensity"].to_numpy()
    ax.axhspan(-BAND, BAND, color=style.GRID, linewidth=0)
    ax.axhline(0.0, color=style.GREY, linewidth=0.8)
    spread = bool((intensity > 0.0).all()) and intensity.max() > 1.5 * intensity.min()
    x = intensity if spread else points["measured_s"].to_numpy()
    ax.plot(x, residual, "o", color=style.VERMILION, markersize=4, alpha=0.8, markeredgewidth=0)
    ax.set_xscale("log")
    label = "arithmetic intensity [FLOP/byte]" if spread else "measured time"
    style.dress(ax, x=label, y="predicted / measured − 1", title="What is left over (band: ±10 %)")
    if spread:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    most = max(0.15, 1.1 * float(np.abs(residual).max()))
    ax.set_ylim(-most, most)

"""Figures of a workload: its rate over time, and the lengths of its requests."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from simulator.report import style
from simulator.report.text import number, short_percent, short_seconds
from simulator.workload import Requests
from simulator.workload.describe import window_counts

_BINS = 40
_NICE_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)


def rate_figure(requests: Requests, name: str) -> Figure:
    """Arrival rate over time in fine and coarse windows [1/s]."""
    span = float(requests.arrival_s[-1] - requests.arrival_s[0])
    fine = next((w for w in _NICE_S if span / w <= 700), span / 700)
    coarse = next((w for w in _NICE_S if span / w <= 60), span / 60)
    fig = style.figure(8.4, 3.2, f"Arrival rate over time · {name}")
    ax = fig.subplots()
    unit, scale = ("h", 3600.0) if span > 3 * 3600 else ("min", 60.0) if span > 600 else ("s", 1.0)
    looks = ((fine, style.SKY, 0.8), (coarse, style.BLUE, 1.8))
    for window, colour, width in looks:
        rate = window_counts(requests.arrival_s, window) / window
        edges = np.arange(rate.size + 1) * window / scale
        if rate.size:
            label = f"per {short_seconds(window)}"
            ax.stairs(rate, edges, baseline=None, color=colour, linewidth=width, label=label)
    mean = requests.rate_rps
    ax.axhline(mean, color=style.INK, linestyle="--", linewidth=1, label=f"mean {number(mean)}/s")
    style.dress(ax, x=f"time since the first arrival [{unit}]", y="requests per second")
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    style.legend(ax)
    return fig


def lengths_figure(requests: Requests, name: str) -> Figure:
    """Histograms of prompt and output lengths, and both together, on logarithmic axes."""
    fig = style.figure(10.2, 3.5, f"Prompt and output lengths · {name}")
    left, middle, right = fig.subplots(1, 3, width_ratios=(1, 1, 1.25))
    prompt, output = requests.prompt_tokens, requests.output_tokens
    _histogram(left, prompt, "prompt tokens", style.BLUE)
    _histogram(middle, output, "output tokens", style.ORANGE)
    left.set_ylabel("share of requests", fontsize=9)
    _joint(fig, right, prompt, output)
    return fig


def _edges(values: NDArray[np.int64]) -> NDArray[np.float64]:
    """Bins that are even on a logarithmic axis and no narrower than one token."""
    low, high = max(float(values.min()) - 0.5, 0.5), float(values.max()) + 0.5
    edges = np.geomspace(low, high, _BINS + 1)
    whole = np.unique(np.round(edges + 0.5) - 0.5)
    return whole if whole.size > 2 else np.array([low, high])


def _histogram(ax: Axes, values: NDArray[np.int64], label: str, colour: str) -> None:
    counts, edges = np.histogram(values, bins=_edges(values))
    ax.stairs(counts / values.size, edges, fill=True, color=colour, alpha=0.85)
    p50, p99 = np.quantile(values, [0.5, 0.99])
    for mark in (p50, p99):
        ax.axvline(float(mark), color=style.INK, linestyle="--", linewidth=0.9)
    style.dress(ax, x=label, title=f"p50 {p50:,.0f}, p99 {p99:,.0f} (dashed)")
    _token_axis(ax, float(edges[0]), float(edges[-1]))
    ax.yaxis.set_major_formatter(FuncFormatter(short_percent))


def _joint(fig: Figure, ax: Axes, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> None:
    x, y = _edges(prompt), _edges(output)
    count = np.histogram2d(prompt, output, bins=(x, y))[0].T
    shown = np.ma.masked_equal(count, 0.0)
    norm = LogNorm(vmin=1.0, vmax=max(float(count.max()), 2.0))
    mesh = ax.pcolormesh(x, y, shown, cmap="viridis", norm=norm)
    bar = fig.colorbar(mesh, ax=ax, pad=0.02)
    bar.set_label("requests", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    style.dress(ax, x="prompt tokens", y="output tokens", title="together")
    _token_axis(ax, float(x[0]), float(x[-1]))
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(_short_tokens))
    ax.set_ylim(float(y[0]), float(y[-1]))


def _token_axis(ax: Axes, low: float, high: float) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(_short_tokens))
    ax.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))
    ax.set_xlim(low, high)


def _short_tokens(value: float, _position: object = None) -> str:
    """A number of tokens as a tick label: ``20k``."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"

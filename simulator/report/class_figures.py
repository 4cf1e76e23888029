"""Figure of the request classes of a run: latencies of each against its own targets."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from simulator.metrics import attainment, by_class, run_limits, tpot, ttft
from simulator.metrics.latency import FloatArray
from simulator.report import style
from simulator.report.figures import line, thin
from simulator.report.names import layout_label
from simulator.report.text import percent, short_percent
from simulator.run import Run
from simulator.scenario import SLO

MOST = len(style.CYCLE)
"""Classes drawn at most, those with most requests first: one a colour."""


def class_figure(run: Run, slo: SLO | None) -> Figure:
    """Cumulative distributions of TTFT and TPOT of every class, targets in the class's colour."""
    title = f"Latency by request class · {run.deployment.name} · {layout_label(run.deployment)}"
    fig = style.figure(8.8, 3.9, title)
    left, right = fig.subplots(1, 2)
    parts = sorted(by_class(run), key=lambda part: -len(part[1].requests))[:MOST]
    ttft_s = {name: (ttft(part), _limit(part, slo, 0)) for name, part in parts}
    tpot_s = {name: (tpot(part), _limit(part, slo, 1)) for name, part in parts}
    _panel(left, ttft_s, "TTFT, time to first token")
    _panel(right, tpot_s, "TPOT, time per output token")
    left.set_ylabel("share of the class's requests", fontsize=9)
    keys = [
        line(_label(name, part, slo), colour)
        for colour, (name, part) in zip(style.CYCLE, parts, strict=False)
    ]
    style.legend(right, handles=keys)
    return fig


def _label(name: str, part: Run, slo: SLO | None) -> str:
    if slo is None or not len(part.requests):
        return name
    return f"{name}: {percent(attainment(part, slo))} meet both"


def _limit(part: Run, slo: SLO | None, which: int) -> float | None:
    if slo is None or not len(part.requests):
        return None
    found = float(run_limits(part, slo)[which][0])
    return found if np.isfinite(found) else None


def _panel(ax: Axes, series: dict[str, tuple[FloatArray, float | None]], label: str) -> None:
    style.dress(ax, x=label, title="dashed: the class's target")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(FuncFormatter(short_percent))
    shown: list[float] = []
    for colour, (values, target) in zip(style.CYCLE, series.values(), strict=False):
        known = np.sort(values[~np.isnan(values)])
        if known.size:
            keep = thin(known.size)
            share = np.arange(1, known.size + 1) / known.size
            ax.plot(known[keep], share[keep], color=colour, linewidth=1.6)
            shown += [float(known[0]), float(known[-1])]
        if target is not None:
            ax.axvline(target, color=colour, linestyle="--", linewidth=1.0, zorder=1)
            shown.append(target)
    if shown:
        style.time_axis(ax, max(min(shown), 1e-6), max(max(shown), 1e-6))

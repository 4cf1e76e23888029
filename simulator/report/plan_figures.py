"""Figures of a plan: what money buys, which (x, y) hold, and how the ratio follows the traffic.

Everything is read from the evidence of a finished plan; only the ratio of prefill to decode instances
is computed for the figure, in closed form (``plan_map``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from simulator.errors import InputError
from simulator.metrics.latency import FloatArray
from simulator.planner import Plan
from simulator.report import style
from simulator.report.plan_map import (
    HOLDS,
    attainment_figure,
    ratio_figure,
    say,
    shown_layout,
    title,
)
from simulator.report.plan_slide import slide_figure
from simulator.report.text import short_seconds, usd

MODE_LOOK = {"disaggregated": ("o", style.BLUE), "colocated": ("s", style.ORANGE)}
FACE_ALPHA = {"holds": 1.0, "winner": 1.0, "marginal": 0.4}


def write_plan_figures(plan: Plan, folder: Path) -> list[Path]:
    """Draw all figures of a plan as PNG files.

    Args:
        plan: the plan.
        folder: an existing folder.

    Returns:
        The files: ``slide.png``, ``pareto.png``, ``attainment.png`` and, if any disaggregated
        layout was considered, ``pd_ratio.png``.

    Raises:
        InputError: a file cannot be written.
    """
    drawn = {
        "slide.png": slide_figure(plan),
        "pareto.png": pareto_figure(plan),
        "attainment.png": attainment_figure(plan),
    }
    if shown_layout(plan, "disaggregated") is not None:
        drawn["pd_ratio.png"] = ratio_figure(plan)
    try:
        for name, fig in drawn.items():
            style.save_png(fig, folder / name)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}.") from None
    return [folder / name for name in drawn]


# --- what money buys ----------------------------------------------------------------------------


def pareto_figure(plan: Plan) -> Figure:
    """Price against the tails of TTFT and TPOT, and throughput of a GPU against speed of a user."""
    table = plan.evidence
    table = table[table["ttft_p99_s"].notna()]
    fig = style.figure(11.6, 4.1, title(plan, "What money buys"))
    first, second, third = fig.subplots(1, 3)
    _money(first, plan, table, "ttft_p99_s", "TTFT p99", plan.slo.ttft_s)
    _money(second, plan, table, "tpot_p99_s", "TPOT p99", plan.slo.tpot_s)
    _efficiency(third, plan, table)
    style.legend(third, handles=_keys(plan, table))
    return fig


def _money(
    ax: Axes, plan: Plan, table: pd.DataFrame, column: str, name: str, target: float | None
) -> None:
    """Price against a tail latency, with the target and the front."""
    style.dress(ax, x="price [USD/h]", title=f"Price and {name}")
    table = table[table[column].notna()]
    if table.empty:
        say(ax, "nothing was simulated")
        return
    x, y = _floats(table, "usd_per_hour"), _floats(table, column)
    _points(ax, table, x, y)
    ax.plot(*_front(x, y), color=style.GREY, linewidth=1, drawstyle="steps-post", zorder=1)
    low, high = float(y.min()), float(y.max())
    if target is not None:
        low, high = min(low, target), max(high, target)
        ax.axhline(target, color=style.INK, linestyle="--", linewidth=1, zorder=1)
    _tall_time_axis(ax, low, high)
    room = 0.12 * float(x.max() - x.min()) or 0.3 * float(x.max())
    ax.set_xlim(float(x.min()) - room, float(x.max()) + room)
    ax.xaxis.set_major_locator(MaxNLocator(6))


def _tall_time_axis(ax: Axes, low_s: float, high_s: float) -> None:
    """A vertical axis for durations: logarithmic where they differ a lot."""
    ax.set_ylim(0, 1.12 * high_s)
    if high_s >= 4 * low_s:
        ax.set_yscale("log")
        decades = np.log10(high_s / low_s)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(low_s / 1.3, high_s * 1.3)
    ax.yaxis.set_major_formatter(FuncFormatter(short_seconds))


def _efficiency(ax: Axes, plan: Plan, table: pd.DataFrame) -> None:
    """Output tokens a second of one GPU against those of one user."""
    style.dress(
        ax,
        x="output tokens/s of a user (1 / mean TPOT)",
        y="output tokens/s of a GPU",
        title="Throughput and speed",
    )
    table = table[table["tpot_s_mean"].notna() & table["usd_per_m_output_tokens"].notna()]
    if table.empty:
        say(ax, "nothing was simulated")
        return
    per_user = 1.0 / _floats(table, "tpot_s_mean")
    per_s = _floats(table, "usd_per_hour") / 3600.0 / _floats(table, "usd_per_m_output_tokens")
    per_gpu = 1e6 * per_s / _floats(table, "gpus")
    _points(ax, table, per_user, per_gpu)
    x, y = _front(-per_user, -per_gpu)
    ax.plot(-x, -y, color=style.GREY, linewidth=1, drawstyle="steps-post", zorder=1)
    if plan.slo.tpot_s is not None and 1.0 / plan.slo.tpot_s > 0.4 * float(per_user.min()):
        ax.axvline(1.0 / plan.slo.tpot_s, color=style.INK, linestyle="--", linewidth=1, zorder=1)
    ax.set_ylim(0, 1.12 * float(per_gpu.max()))
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(6))


def _floats(table: pd.DataFrame, column: str) -> FloatArray:
    return table[column].to_numpy(dtype=np.float64)


def _points(ax: Axes, table: pd.DataFrame, x: FloatArray, y: FloatArray) -> None:
    """A mark per layout: its shape and colour say the mode, its filling whether it holds."""
    kinds = list(zip(table["mode"], table["verdict"], strict=True))
    for mode, verdict in sorted(set(kinds)):
        at = [i for i, kind in enumerate(kinds) if kind == (mode, verdict)]
        marker, colour = MODE_LOOK[mode]
        alpha = FACE_ALPHA.get(verdict, 0.0)
        ax.scatter(
            x[at],
            y[at],
            s=34,
            marker=marker,
            facecolors=[(*_rgb(colour), alpha)],
            edgecolors=colour,
            linewidths=1.1,
            zorder=3 if alpha else 2,
        )
        if verdict == "winner":
            ax.scatter(x[at], y[at], s=150, marker="o", c="none", edgecolors=style.INK, zorder=4)


def _rgb(colour: str) -> tuple[float, float, float]:
    return (
        int(colour[1:3], 16) / 255.0,
        int(colour[3:5], 16) / 255.0,
        int(colour[5:7], 16) / 255.0,
    )


def _front(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points that no other beats in both, by ascending x; less is better."""
    order = np.lexsort((y, x))
    best = np.minimum.accumulate(y[order])
    keep = np.concatenate([[True], y[order][1:] < best[:-1]])
    return x[order][keep], y[order][keep]


def _keys(plan: Plan, table: pd.DataFrame) -> list[Line2D]:
    """The legend: modes, verdicts, winner, target and front, as far as they occur."""
    keys = [
        _mark(mode, *look, filled=True)
        for mode, look in MODE_LOOK.items()
        if (table["mode"] == mode).any()
    ]
    seen = set(table["verdict"])
    if seen & set(HOLDS):
        keys.append(_mark("holds the targets", "o", style.GREY, filled=True))
    if "marginal" in seen:
        marginal = _mark("too close to call", "o", style.GREY, filled=True)
        marginal.set_markerfacecolor((*_rgb(style.GREY), FACE_ALPHA["marginal"]))
        keys.append(marginal)
    if seen - {"marginal", *HOLDS}:
        keys.append(_mark("misses them", "o", style.GREY, filled=False))
    if plan.winner is not None:
        ring = Line2D([], [], ls="", marker="o", ms=11, mfc="none", mec=style.INK)
        price = f"{usd(plan.winner.usd_per_hour)}/h"
        ring.set_label(f"winner, {plan.winner.label.split()[0]} at {price}")
        keys.append(ring)
    keys.append(Line2D([], [], color=style.INK, ls="--", lw=1, label="target"))
    keys.append(Line2D([], [], color=style.GREY, lw=1, label="Pareto front"))
    return keys


def _mark(label: str, marker: str, colour: str, *, filled: bool) -> Line2D:
    face = colour if filled else "none"
    return Line2D([], [], ls="", marker=marker, ms=6, mfc=face, mec=colour, label=label)

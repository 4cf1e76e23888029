"""Figures of one run: where TTFT goes, how latencies are distributed, what happened when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simulator.metrics.latency import FloatArray, tpot, ttft, waterfall
from simulator.metrics.timelines import pool_timeline, request_timeline
from simulator.report import style
from simulator.report.names import PART_LABELS, layout_label
from simulator.report.text import number, percent, seconds, short_percent, short_seconds
from simulator.run import Run
from simulator.scenario import SLO, Deployment
from simulator.units import GB

PART_COLOURS = dict(
    zip(
        PART_LABELS,
        (
            style.GREY,
            style.VERMILION,
            style.BLUE,
            style.SKY,
            style.ORANGE,
            style.PURPLE,
            style.GREEN,
        ),
        strict=True,
    )
)
BANDS = {"around the median": (0.45, 0.55), "slowest 10 %": (0.9, 1.0), "slowest 1 %": (0.99, 1.0)}


def _title(run: Run, what: str) -> str:
    return f"{what} · {run.deployment.name} · {layout_label(run.deployment)}"


def _empty(ax: Axes, why: str) -> None:
    ax.set_xticks([])
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color=style.GREY)


# --- waterfall ----------------------------------------------------------------------------------


def waterfall_figure(run: Run, slo: SLO | None) -> Figure:
    """Mean TTFT part by part, and the same parts around the median and in the tail [s]."""
    parts = waterfall(run).dropna()
    if run.deployment.mode == "colocated":  # the rest is zero by definition
        parts = parts[["router", "prefill_queue", "prefill"]]
    total = parts.sum(axis=1).to_numpy()
    rows = parts.shape[1]
    fig = style.figure(8.0, 2.45 + 0.35 * rows, _title(run, "Where the time to first token goes"))
    top, bottom = fig.subplots(2, 1, height_ratios=(rows, 3.4))
    if not len(parts):
        _empty(top, "no request got a first token")
        return fig
    mean = parts.mean()
    _cascade(top, mean)
    target = None if slo is None or slo.classes else slo.ttft_s
    _bands(bottom, parts, total, target)
    return fig


def _cascade(ax: Axes, mean: pd.Series[float]) -> None:
    labels = [PART_LABELS[str(name)] for name in mean.index]
    start = np.concatenate([[0.0], np.cumsum(mean.to_numpy())[:-1]])
    colours = [PART_COLOURS[str(name)] for name in mean.index]
    rows = np.arange(len(labels))
    total = float(mean.sum())
    ax.barh(rows, mean.to_numpy(), left=start, color=colours, height=0.68)
    for row, (begin, length) in enumerate(zip(start, mean, strict=True)):
        text = f"{seconds(float(length))}  {percent(length / total, 0)}" if length > 0 else "0"
        beside(ax, begin + length, row, text, style.INK if length > 0 else style.GREY)
        if row:
            ax.plot([begin, begin], [row - 1, row], color=style.GREY, linewidth=0.7, zorder=1)
    ax.set_yticks(rows, labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.16 * total or 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))
    style.dress(ax, grid="x", title=f"Mean over all requests: {seconds(total)}")


def beside(ax: Axes, x: float, row: float, text: str, colour: str = style.INK) -> None:
    """A number to the right of the end of a horizontal bar."""
    ax.annotate(
        text,
        (x, row),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        color=colour,
    )


def _bands(ax: Axes, parts: pd.DataFrame, total: FloatArray, target: float | None) -> None:
    """Stacked bars of the mean parts of requests within bands of TTFT quantiles."""
    order = np.argsort(total, kind="stable")
    n = total.size
    rows = list(BANDS)
    means = []
    for low, high in BANDS.values():
        last = max(int(np.ceil(high * n)), 1)
        first = min(int(np.floor(low * n)), last - 1)
        means.append(parts.iloc[order[first:last]].mean())
    left = np.zeros(len(rows))
    for name in parts.columns:
        width = np.array([m[name] for m in means])
        ax.barh(rows, width, left=left, color=PART_COLOURS[name], height=0.62)
        left += width
    for row, length in enumerate(left):
        beside(ax, float(length), row, seconds(float(length)))
    ax.invert_yaxis()
    limit = 1.16 * float(left.max())
    title = "Mean over groups of requests, by TTFT (same colours)"
    if target is not None:
        title += f"; target {short_seconds(target)}"
        if target < 2.5 * limit:
            limit = max(limit, 1.1 * target)
            title += " dashed"
            ax.axvline(target, color=style.INK, linestyle="--", linewidth=1, zorder=3)
    ax.set_xlim(0, limit or 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))
    style.dress(ax, x="time since arrival", grid="x", title=title)


# --- distributions ------------------------------------------------------------------------------


def latency_figure(run: Run, slo: SLO | None) -> Figure:
    """Cumulative distributions of TTFT and TPOT over completed requests, with their targets."""
    fig = style.figure(8.4, 3.7, _title(run, "Latency distributions"))
    left, right = fig.subplots(1, 2)
    targets = (None, None) if slo is None or slo.classes else (slo.ttft_s, slo.tpot_s)
    name = layout_label(run.deployment)
    cdf(left, {name: ttft(run)}, targets[0], "TTFT, time to first token")
    cdf(right, {name: tpot(run)}, targets[1], "TPOT, time per output token")
    left.set_ylabel("share of requests", fontsize=9)
    style.legend(right, handles=[line(name, style.BLUE), *cdf_keys(any(targets))])
    return fig


def line(label: str, colour: str) -> Line2D:
    """Legend entry of a series."""
    return Line2D([], [], color=colour, linewidth=1.8, label=label)


def cdf_keys(target: bool) -> list[Line2D]:
    """Legend entries of the marks on a cumulative distribution."""
    marks = Line2D([], [], color=style.GREY, marker="o", ls="", ms=4, label="p50, p90, p99")
    dashes = Line2D([], [], color=style.INK, ls="--", lw=1, label="target")
    return [marks, dashes] if target else [marks]


def cdf(ax: Axes, series: dict[str, FloatArray], target: float | None, label: str) -> None:
    """Cumulative distribution of each series [s] on a logarithmic axis, and a target.

    Args:
        ax: where to draw.
        series: values by name; NaN values are left out.
        target: latency target [s], or None.
        label: name of the quantity.
    """
    known = {name: np.sort(v[~np.isnan(v)]) for name, v in series.items()}
    known = {name: v for name, v in known.items() if v.size}
    style.dress(ax, x=label)
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(FuncFormatter(short_percent))
    if not known:
        _empty(ax, "no value")
        return
    said = []
    for colour, (name, values) in zip(style.CYCLE, known.items(), strict=False):
        share = np.arange(1, values.size + 1) / values.size
        keep = thin(values.size)
        ax.plot(values[keep], share[keep], color=colour, linewidth=1.8)
        marks = np.array([0.5, 0.9, 0.99])
        ax.plot(np.quantile(values, marks), marks, "o", color=colour, markersize=4)
        said.append(_heard(values, target, "" if len(known) == 1 else f"{name}: "))
    ax.set_title("\n".join(said), fontsize=8, color=style.INK, loc="left")
    low = min(float(v[0]) for v in known.values())
    high = max(float(v[-1]) for v in known.values())
    if target is not None:
        low, high = min(low, target), max(high, target)
        ax.axvline(target, color=style.INK, linestyle="--", linewidth=1)
    style.time_axis(ax, max(low, 1e-6), max(high, 1e-6))


def _heard(values: FloatArray, target: float | None, name: str) -> str:
    """What a distribution says in words: percentiles, or the share within the target."""
    if target is not None:
        met = percent(float(np.mean(values <= target)))
        return f"{name}{met} within {short_seconds(target)}"
    p50, p99 = np.quantile(values, [0.5, 0.99])
    return f"{name}p50 {seconds(float(p50))}, p99 {seconds(float(p99))}"


def thin(n: int, most: int = 4000) -> slice | np.ndarray:
    """Positions to draw: all of few points, else evenly spaced ones and the whole tail."""
    if n <= most:
        return slice(None)
    tail = np.arange(n - most // 4, n)
    return np.unique(np.concatenate([np.linspace(0, n - 1, most).astype(int), tail]))


# --- timeline -----------------------------------------------------------------------------------

_QUEUES = {
    "queued_prefill": ("waiting for prefill", style.VERMILION),
    "kv_wait": ("waiting for room", style.SKY),
    "transferring": ("KV in transfer", style.ORANGE),
    "queued_decode": ("waiting for decode", style.PURPLE),
}


def timeline_figure(run: Run) -> Figure:
    """Queues, busy instances, batches, KV occupancy and the link over simulated time."""
    requests, pools = request_timeline(run), pool_timeline(run)
    panels = 4 if run.deployment.link is None else 5
    fig = style.figure(8.4, 0.9 + 1.45 * panels, _title(run, "What happened when"))
    axes = fig.subplots(panels, 1, sharex=True)
    unit, scale = _time_unit(run.end_s)
    t = requests["t_s"].to_numpy() / scale
    for column, (label, colour) in _QUEUES.items():
        value = requests[column].to_numpy()
        if column == "queued_prefill" or value.max(initial=0.0) > 0:
            axes[0].plot(t, value, color=colour, linewidth=1.1, label=label)
    style.dress(axes[0], y="requests", title="Requests that wait (mean per bin)")
    _pool_lines(axes[1:4], pools, {p.name: p.role for p in run.deployment.pools}, scale)
    if run.deployment.link is not None:
        sent = requests["link_bytes_per_s"].to_numpy() / GB
        axes[4].plot(t, sent, color=style.ORANGE, linewidth=1.1, label="all transfers")
        room = number(fabric_bytes_per_s(run.deployment) / GB, "GB/s")
        style.dress(axes[4], y="GB/s", title=f"KV on the link (all NICs carry up to {room})")
    for ax in axes:
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0)
    axes[1].set_ylim(0, 1.06)
    axes[1].set_yticks([0, 0.5, 1.0])
    for ax in axes:
        style.legend(ax)
    axes[-1].set_xlabel(f"simulated time [{unit}]", fontsize=9)
    fig.align_ylabels()
    return fig


def _pool_lines(
    axes: Sequence[Axes], pools: pd.DataFrame, roles: dict[str, str], scale: float
) -> None:
    """Three panels with a line per pool: busy share, decoding sequences, KV share."""
    busy, batch, kv = axes
    for colour, (name, table) in zip(style.CYCLE, pools.groupby("pool", sort=False), strict=False):
        at = table["t_s"].to_numpy() / scale
        look: dict[str, Any] = {"color": colour, "linewidth": 1.1, "label": str(name)}
        busy.plot(at, table["busy"].to_numpy(), **look)
        kv.plot(at, table["kv"].to_numpy(), **look)
        if roles[str(name)] != "prefill":
            batch.plot(at, table["batch"].to_numpy(), **look)
    style.dress(busy, y="share", title="Instances with a step running")
    style.dress(batch, y="sequences", title="Decoding sequences per instance")
    style.dress(kv, y="share", title="KV blocks used or promised")
    for ax in (busy, kv):
        ax.yaxis.set_major_formatter(FuncFormatter(short_percent))


def fabric_bytes_per_s(deployment: Deployment) -> float:
    """Most bytes per second all transfers together can move [bytes/s]; 0 when colocated."""
    link = deployment.link
    if link is None:
        return 0.0
    nics = (sum(p.nics * p.instances for p in deployment.role(r)) for r in ("prefill", "decode"))
    return min(min(nics) * link.nic_bytes_per_s, link.spine_bytes_per_s)


def _time_unit(span_s: float) -> tuple[str, float]:
    """Unit of a time axis this long, and its length in seconds."""
    return ("h", 3600.0) if span_s > 3 * 3600 else ("min", 60.0) if span_s > 600 else ("s", 1.0)

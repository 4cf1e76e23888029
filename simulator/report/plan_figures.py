"""Figures of a plan: what money buys, which (x, y) hold, and how the ratio follows the traffic.

Everything is read from the evidence of a finished plan; only the ratio of prefill to decode instances
is computed here, in closed form by ``analyze``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from simulator.analysis import analyze
from simulator.metrics.latency import FloatArray
from simulator.planner import Evaluated, Layout, Plan, Shape
from simulator.report import style
from simulator.report.text import short_percent, short_seconds, usd
from simulator.workload import Requests

HOLDS = ("holds", "winner")
MODE_LOOK = {"disaggregated": ("o", style.BLUE), "colocated": ("s", style.ORANGE)}
FACE_ALPHA = {"holds": 1.0, "winner": 1.0, "marginal": 0.4}
MIX_SPAN = 16.0
"""The prompt:output mix goes from the workload's own divided by this to its own times this."""
MIX_POINTS = 17
MIX_REQUESTS = 2000
NINES = LinearSegmentedColormap.from_list(
    "nines", ["#FBE3D6", "#F6EFD9", "#BFDDEB", style.SKY, style.BLUE]
)
MOST_NINES = 3.0
PALE = "#F4F4F4"


def write_plan_figures(plan: Plan, folder: Path) -> list[Path]:
    """Draw all figures of a plan as PNG files.

    Args:
        plan: the plan.
        folder: an existing folder.

    Returns:
        The files: ``pareto.png``, ``attainment.png`` and, if any disaggregated layout was
        considered, ``pd_ratio.png``.

    Raises:
        OSError: a file cannot be written.
    """
    drawn = {"pareto.png": pareto_figure(plan), "attainment.png": attainment_figure(plan)}
    if shown_layout(plan, "disaggregated") is not None:
        drawn["pd_ratio.png"] = ratio_figure(plan)
    for name, fig in drawn.items():
        style.save_png(fig, folder / name)
    return [folder / name for name in drawn]


def _title(plan: Plan, what: str) -> str:
    return f"{what} · {plan.scenario.name}"


def _say(ax: Axes, why: str) -> None:
    """Why there is nothing to see."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color=style.GREY)


# --- what money buys ----------------------------------------------------------------------------


def pareto_figure(plan: Plan) -> Figure:
    """Price against the tails of TTFT and TPOT, and throughput of a GPU against speed of a user."""
    table = plan.evidence
    table = table[table["ttft_p99_s"].notna()]
    fig = style.figure(11.6, 4.1, _title(plan, "What money buys"))
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
        _say(ax, "nothing was simulated")
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
        _say(ax, "nothing was simulated")
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
    for (mode, verdict), at in table.groupby(["mode", "verdict"]).indices.items():
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


# --- which (x, y) hold --------------------------------------------------------------------------


def shown_layout(plan: Plan, mode: str | None = None) -> Evaluated | None:
    """The layout whose GPU types a figure shows.

    Args:
        plan: the plan.
        mode: ``disaggregated`` or ``colocated``; None prefers disaggregated.

    Returns:
        The winner, else the best of the mode, else what came closest, else the first considered;
        None if the mode was not considered.
    """
    first = (plan.winner, plan.disaggregated_best, plan.colocated_best, plan.closest)
    known = [e for e in (*first, *_closest_first(plan.rows)) if e is not None]
    wanted = mode or "disaggregated"
    same = [e for e in known if e.layout.mode == wanted]
    return same[0] if same else (known[0] if known and mode is None else None)


def _closest_first(rows: Sequence[Evaluated]) -> list[Evaluated]:
    def key(e: Evaluated) -> tuple[float, float]:
        return (-e.attainment.mean if e.attainment else 1.0, e.usd_per_hour)

    return sorted(rows, key=key)


def _family(layout: Layout) -> tuple[object, ...]:
    """What all cells of one map share; a colocated map has a row for every TP degree."""
    if layout.colocated is not None:
        return (layout.mode, layout.colocated.gpu)
    return (layout.mode, layout.link, *((s.gpu, s.tp) for s in layout.shapes))


def _cell(layout: Layout) -> tuple[int, int]:
    """Place of a layout in its map: prefill and decode instances, or TP degree and instances."""
    if layout.colocated is not None:
        return layout.colocated.tp, layout.colocated.instances
    first, second = layout.shapes
    return first.instances, second.instances


def attainment_figure(plan: Plan) -> Figure:
    """Attainment over prefill × decode instances of the winner's GPU types and TP degrees."""
    shown = shown_layout(plan)
    fig = style.figure(7.8, 5.2, _title(plan, "Which layouts hold"))
    ax = fig.add_subplot()
    if shown is None:
        style.dress(ax)
        _say(ax, "no layout was considered")
        return fig
    cells: dict[tuple[int, int], list[Evaluated]] = {}
    for e in plan.rows:
        if _family(e.layout) == _family(shown.layout):
            cells.setdefault(_cell(e.layout), []).append(e)
    ys = sorted({y for y, _ in cells})
    rows = {y: i for i, y in enumerate(ys)}
    most = max(x for _, x in cells)
    for (y, x), same in cells.items():
        _draw_cell(ax, x, rows[y], _best(same), chosen=_is_in(plan.winner, same))
    _frame(ax, shown.layout, ys, most)
    _nines_bar(fig, ax, plan.slo.attainment)
    style.legend(ax, handles=_cell_keys(plan, inside=_is_in(plan.winner, sum(cells.values(), []))))
    ax.get_legend().set_bbox_to_anchor((0.0, -0.14))  # type: ignore[union-attr]  # just made
    return fig


def _best(same: Sequence[Evaluated]) -> Evaluated:
    """Of the batching limits of one cell: what holds, else most attaining, else not rejected."""

    def key(e: Evaluated) -> tuple[bool, float, bool]:
        met = e.attainment.mean if e.attainment else -1.0
        return (e.verdict not in HOLDS, -met, e.verdict == "rejected")

    return min(same, key=key)


def _is_in(winner: Evaluated | None, same: Sequence[Evaluated]) -> bool:
    return winner is not None and any(e is winner for e in same)


def _draw_cell(ax: Axes, x: int, row: int, e: Evaluated, *, chosen: bool) -> None:
    """A cell: attainment as colour and number, hatched if rejected, pale if not simulated."""
    met = None if e.attainment is None else e.attainment.mean
    face = PALE if met is None else NINES(_nines(met) / MOST_NINES)
    hatch = "////" if e.verdict == "rejected" else None
    ax.add_patch(
        Rectangle((x - 0.5, row - 0.5), 1, 1, fc=face, ec="#BBBBBB" if hatch else "white",
                  hatch=hatch, lw=0.0 if hatch else 1.0)
    )  # fmt: skip
    if met is not None:
        dark = _nines(met) / MOST_NINES > 0.85
        text = f"{100 * met:.3g}" if met < 0.9995 else ("100" if met == 1.0 else "> 99.9")
        weight = "bold" if e.verdict in HOLDS else "normal"
        ax.text(x, row, text, ha="center", va="center", fontsize=7.5, fontweight=weight,
                color="white" if dark else style.INK)  # fmt: skip
    if chosen:
        ax.add_patch(Rectangle((x - 0.46, row - 0.46), 0.92, 0.92, fill=False, ec=style.INK,
                               lw=2.2, zorder=4))  # fmt: skip


def _nines(share: float) -> float:
    """1 for 90 %, 2 for 99 %, and so on, at most ``MOST_NINES``."""
    return float(min(MOST_NINES, -np.log10(max(1.0 - share, 10.0**-MOST_NINES))))


def _frame(ax: Axes, layout: Layout, ys: Sequence[int], most: int) -> None:
    ax.set_xlim(0.5, most + 0.5)
    ax.set_ylim(-0.5, len(ys) - 0.5)
    step = -(-most // 16)
    ax.set_xticks(range(1, most + 1, step))
    every = -(-len(ys) // 16)
    ax.set_yticks(range(0, len(ys), every), [str(y) for y in ys[::every]])
    if layout.colocated is not None:
        x = f"colocated instances ({layout.colocated.gpu})"
        style.dress(ax, x=x, y="tensor-parallel degree")
    else:
        prefill, decode = layout.shapes
        style.dress(
            ax,
            x=f"decode instances ({decode.label})",
            y=f"prefill instances ({prefill.label})",
            title=f"Requests that meet every target [%], link {layout.link}",
        )
    ax.grid(visible=False)


def _nines_bar(fig: Figure, ax: Axes, target: float) -> None:
    """The colour scale, with the wanted attainment marked."""
    from matplotlib.cm import ScalarMappable

    scale = ScalarMappable(norm=Normalize(0.0, MOST_NINES), cmap=NINES)
    bar = fig.colorbar(scale, ax=ax, shrink=0.75, pad=0.02, aspect=28)
    shares = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999]
    bar.set_ticks([_nines(s) for s in shares], labels=["0 %", *map(short_percent, shares[1:])])
    bar.ax.tick_params(labelsize=8, colors=style.INK)
    bar.ax.axhline(_nines(target), color=style.INK, linestyle="--", linewidth=1.4)
    bar.ax.set_title(f"wanted\n{short_percent(target)}", fontsize=8, color=style.INK)
    bar.outline.set_visible(False)  # type: ignore[operator]  # stubs take it for a method


def _cell_keys(plan: Plan, *, inside: bool) -> list[Patch]:
    """The legend of the map; ``inside`` if the winner is on it."""
    why = ": dearer than what holds" if plan.complete and plan.winner else ""
    keys = [
        Patch(fc=PALE, ec="#BBBBBB", hatch="////", lw=0, label="rejected in closed form"),
        Patch(fc=PALE, ec="#DDDDDD", label=f"not simulated{why}"),
    ]
    if inside:
        keys.append(Patch(fc="none", ec=style.INK, lw=2, label="winner"))
    return keys


# --- how the ratio follows the traffic ----------------------------------------------------------


def ratio_figure(plan: Plan) -> Figure:
    """Prefill instances per decode instance that balance both pools, as the mix moves."""
    shown = shown_layout(plan, "disaggregated")
    if shown is None:
        raise ValueError("no disaggregated layout was considered")
    ratios = balance(plan, shown.layout)
    fig = style.figure(7.4, 4.2, _title(plan, "How the ratio follows the traffic"))
    ax = fig.add_subplot()
    x = ratios["prompt_per_output"].to_numpy()
    stable, held = (ratios[name].to_numpy(dtype=np.float64) for name in ("stable", "tpot"))
    label = "both pools at the same load"
    target = "" if plan.slo.tpot_s is None else f"TPOT ≤ {short_seconds(plan.slo.tpot_s)}"
    binds = not np.allclose(stable, held, rtol=0.01, equal_nan=False)
    if target and not binds:
        label += f"\n({target} never binds)"
    ax.plot(x, stable, color=style.BLUE, linewidth=1.8, label=label)
    if binds and np.isfinite(held).any():
        ax.plot(x, held, color=style.ORANGE, linewidth=1.8, label=f"the same within {target}")
    own = ratios.loc[ratios["own"], "prompt_per_output"].iloc[0]
    ax.axvline(own, color=style.INK, linestyle="--", linewidth=1, label="this workload")
    prefill, decode = shown.layout.shapes
    count = prefill.instances / decode.instances
    ax.plot([own], [count], "o", ms=9, mfc="none", mec=style.INK, mew=1.6,
            label=f"{prefill.instances}P{decode.instances}D, as planned")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(_ratio))
        axis.set_minor_locator(NullLocator())
    style.dress(
        ax,
        x="mean prompt tokens : mean output tokens (their sum kept)",
        y="prefill : decode instances",
        title=f"{prefill.label} prefills, {decode.label} decodes; fluid limits, no queueing",
    )
    style.legend(ax)
    return fig


def _ratio(value: float, _position: object = None) -> str:
    """``4:1`` or ``1:8``."""
    if value >= 1.0:
        return f"{value:.3g}:1"
    return f"1:{1.0 / value:.3g}" if value > 0 else ""


def balance(plan: Plan, layout: Layout) -> pd.DataFrame:
    """The ratio x/y that balances prefill and decode as the prompt:output mix moves.

    Lengths of a sample of the workload are scaled so that the mean prompt plus the mean output
    stays; each pool's largest rate with one instance is from ``analyze``.

    Args:
        plan: workload and targets.
        layout: a disaggregated layout; its instance numbers do not matter.

    Returns:
        Columns ``prompt_per_output`` (mean tokens), ``own`` (the workload's own mix), ``stable``
        (prefill per decode instance at equal load) and ``tpot`` (the same with decode held within
        the TPOT target; NaN without one, or where one sequence alone misses it).
    """
    single = replace(layout, prefill=_one(layout.prefill), decode=_one(layout.decode))
    deployment = single.scenario(plan.scenario, slo=plan.slo).deployment()
    sample = plan.scenario.requests().head(MIX_REQUESTS)
    factors = MIX_SPAN ** np.linspace(-1.0, 1.0, MIX_POINTS)
    rows = []
    for factor in factors:
        requests = _mixed(sample, float(factor))
        bounds = analyze(deployment, requests, slo=plan.slo)
        prefill, decode = bounds.pools
        held = decode.tpot_rate_max_rps
        rows.append(
            {
                "prompt_per_output": requests.prompt_tokens.mean() / requests.output_tokens.mean(),
                "own": bool(np.isclose(factor, 1.0)),
                "stable": decode.rate_max_rps / prefill.rate_max_rps,
                "tpot": held / prefill.rate_max_rps if held else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _one(shape: Shape | None) -> Shape | None:
    return None if shape is None else replace(shape, instances=1)


def _mixed(sample: Requests, factor: float) -> Requests:
    """The sample with ``factor`` times as many prompt tokens per output token, same sum of means."""
    if np.isclose(factor, 1.0):
        return sample
    prompt, output = float(sample.prompt_tokens.mean()), float(sample.output_tokens.mean())
    scale = (prompt + output) / (factor * prompt + output)

    def scaled(tokens: np.ndarray, by: float) -> np.ndarray:
        return np.maximum(1, np.rint(tokens * by)).astype(np.int64)

    return replace(
        sample,
        prompt_tokens=scaled(sample.prompt_tokens, factor * scale),
        output_tokens=scaled(sample.output_tokens, scale),
    )

"""Figures of a plan: which (x, y) hold, and how their ratio follows the traffic.

The map is read from the evidence; the ratio is in closed form, by ``analyze``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from simulator.analysis import analyze
from simulator.planner import Evaluated, Layout, Plan, Shape
from simulator.report import style
from simulator.report.text import short_percent, short_seconds
from simulator.workload import Requests

HOLDS = ("holds", "winner")
MIX_SPAN = 16.0
"""The prompt:output mix goes from the workload's own divided by this to its own times this."""

MIX_POINTS = 17
MIX_REQUESTS = 2000
NINES = LinearSegmentedColormap.from_list(
    "nines", ["#FBE3D6", "#F6EFD9", "#BFDDEB", style.SKY, style.BLUE]
)
MOST_NINES = 3.0
PALE = "#F4F4F4"
SHADE = "#BBBBBB"


def title(plan: Plan, what: str) -> str:
    """What a figure shows, and of which plan."""
    return f"{what} · {plan.scenario.name}"


def say(ax: Axes, why: str) -> None:
    """Why there is nothing to see."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color=style.GREY)


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
    return (layout.mode, layout.link, *(s.kind for s in layout.shapes))


def _cell(layout: Layout) -> tuple[int, int]:
    """Place of a layout in its map: prefill and decode instances, or TP degree and instances."""
    if layout.colocated is not None:
        return layout.colocated.tp, layout.colocated.instances
    first, second = layout.shapes
    return first.instances, second.instances


def attainment_figure(plan: Plan) -> Figure:
    """Attainment over prefill × decode instances of the winner's GPU types and TP degrees."""
    shown = shown_layout(plan)
    fig = style.figure(7.8, 5.2, title(plan, "Which layouts hold"))
    ax = fig.add_subplot()
    if shown is None:
        style.dress(ax)
        say(ax, "no layout was considered")
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
    keys = _cell_keys(plan, list(chain(*cells.values())))
    if keys:
        style.legend(ax, handles=keys)
        ax.get_legend().set_bbox_to_anchor((0.0, -0.14))  # type: ignore[union-attr]  # just made
    return fig


def _best(same: Sequence[Evaluated]) -> Evaluated:
    """Of the batching limits of one cell: what holds, else most attaining, else not rejected."""

    def key(e: Evaluated) -> tuple[bool, float, bool]:
        met = e.attainment.mean if e.attainment else -1.0
        return (e.verdict not in HOLDS, -met, e.verdict == "rejected")

    return min(same, key=key)


def _is_in(winner: Evaluated | None, same: Iterable[Evaluated]) -> bool:
    return winner is not None and any(e is winner for e in same)


def _draw_cell(ax: Axes, x: int, row: int, e: Evaluated, *, chosen: bool) -> None:
    """A cell: attainment as colour and number, hatched if rejected, pale if not simulated."""
    met = None if e.attainment is None else e.attainment.mean
    face = PALE if met is None else NINES(_nines(met) / MOST_NINES)
    hatch = "////" if e.verdict == "rejected" else None
    ax.add_patch(
        Rectangle((x - 0.5, row - 0.5), 1, 1, fc=face, ec=SHADE if hatch else "white",
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
    scale = ScalarMappable(norm=Normalize(0.0, MOST_NINES), cmap=NINES)
    bar = fig.colorbar(scale, ax=ax, shrink=0.75, pad=0.02, aspect=28)
    shares = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999]
    bar.set_ticks([_nines(s) for s in shares], labels=["0 %", *map(short_percent, shares[1:])])
    bar.ax.tick_params(labelsize=8, colors=style.INK)
    bar.ax.axhline(_nines(target), color=style.INK, linestyle="--", linewidth=1.4)
    bar.ax.set_title(f"wanted\n{short_percent(target)}", fontsize=8, color=style.INK)
    bar.outline.set_visible(False)


def _cell_keys(plan: Plan, drawn: Sequence[Evaluated]) -> list[Patch]:
    """The legend of the map, as far as its marks occur."""
    keys = []
    if any(e.verdict == "rejected" for e in drawn):
        keys.append(Patch(fc=PALE, ec=SHADE, hatch="////", lw=0, label="rejected in closed form"))
    if any(e.attainment is None and e.verdict != "rejected" for e in drawn):
        why = ": dearer than what holds" if plan.complete and plan.winner else ""
        keys.append(Patch(fc=PALE, ec="#DDDDDD", label=f"not simulated{why}"))
    if _is_in(plan.winner, drawn):
        keys.append(Patch(fc="none", ec=style.INK, lw=2, label="winner"))
    return keys


# --- how the ratio follows the traffic ----------------------------------------------------------


def ratio_figure(plan: Plan) -> Figure:
    """Prefill instances per decode instance that balance both pools, as the mix moves."""
    shown = shown_layout(plan, "disaggregated")
    if shown is None:
        raise ValueError("no disaggregated layout was considered")
    ratios = balance(plan, shown.layout)
    fig = style.figure(7.4, 4.2, title(plan, "How the ratio follows the traffic"))
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
    said = "the winner" if shown is plan.winner else "the best disaggregated layout"
    ax.plot([own], [count], "o", ms=9, mfc="none", mec=style.INK, mew=1.6,
            label=f"{prefill.instances}P{decode.instances}D, {said}")  # fmt: skip
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

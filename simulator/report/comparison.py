"""A comparison side by side: table, figure, page and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter
from rich.console import Console
from rich.text import Text

from simulator.comparison import Comparison, Side
from simulator.metrics import Summary, tpot, ttft
from simulator.report import figures, html, style
from simulator.report.block import Block, Verdict
from simulator.report.files import json_text, write_requests
from simulator.report.names import METRIC_LABELS, PART_LABELS, layout_label, link_label, pool_label
from simulator.report.results import footer
from simulator.report.settings import shared_settings_block
from simulator.report.terminal import print_verdicts, table
from simulator.report.text import (
    MISSING,
    count,
    listing,
    number,
    percent,
    plural,
    seconds,
    short_seconds,
    usd,
)

_SHOWN = {
    "ttft_s": ("mean", "p50", "p99"),
    "tpot_s": ("mean", "p99"),
    "itl_s": ("p99",),
    "e2e_s": ("mean", "p99"),
}


def title(comparison: Comparison) -> str:
    """Both layouts on one line."""
    ours, theirs = comparison.disaggregated.run, comparison.colocated.run
    return (
        f"{comparison.disaggregated.scenario.name} · {layout_label(ours.deployment)} disaggregated "
        f"against {layout_label(theirs.deployment)} · {plural(len(ours.requests), 'request')}"
    )


def print_comparison(out: Console, comparison: Comparison) -> None:
    """Print the side-by-side tables and the verdict."""
    out.print(Text(title(comparison), style="bold"))
    for block in blocks(comparison):
        out.print(table(block))
    print_verdicts(out, verdicts(comparison), warnings(comparison))


def blocks(comparison: Comparison) -> tuple[Block, ...]:
    """What was compared, the numbers side by side, and what was screened."""
    settings = {name: side.run.deployment.settings for name, side in _sides(comparison)}
    found = [_layouts(comparison), shared_settings_block(settings), _numbers(comparison)]
    if comparison.disaggregated.summary.classes:
        found.append(_classes(comparison))
    if comparison.screening:
        found.append(_screening(comparison))
    return tuple(found)


def verdicts(comparison: Comparison) -> tuple[Verdict, ...]:
    """The verdict; good news if the disaggregated side holds its targets and keeps up."""
    slo, ours = comparison.slo, comparison.disaggregated.summary
    holds = slo is None or (ours.slo_attainment or 0.0) >= slo.attainment
    return (Verdict(holds and ours.stable, comparison.verdict),)


def warnings(comparison: Comparison) -> list[str]:
    """Notes on the twin, then the warnings of both sides under their names."""
    found = list(comparison.notes)
    for name, side in _sides(comparison):
        found += [f"{name}: {text}" for text in side.summary.warnings]
    return found


def _sides(comparison: Comparison) -> tuple[tuple[str, Side], tuple[str, Side]]:
    return ("disaggregated", comparison.disaggregated), ("colocated", comparison.colocated)


def _layouts(comparison: Comparison) -> Block:
    rows = []
    for name, side in _sides(comparison):
        deployment = side.run.deployment
        pools = listing(
            pool_label(p) + ("" if p.role == "colocated" else f" ({p.role})")
            for p in deployment.pools
        )
        rows.append((name, pools))
    rows.append(("twin", comparison.how))
    rows.append(("link", link_label(comparison.disaggregated.run.deployment)))
    rows.append(("first token", comparison.disaggregated.summary.first_token))
    rows.append(("workload", comparison.disaggregated.run.workload.source))
    return Block("Compared", (), tuple(rows))


def _numbers(comparison: Comparison) -> Block:
    ours, theirs = comparison.disaggregated.summary, comparison.colocated.summary
    rows: list[tuple[str, ...]] = []
    for metric, statistics in _SHOWN.items():
        for s in statistics:
            a, b = getattr(ours, metric)[s], getattr(theirs, metric)[s]
            rows.append(_row(f"{METRIC_LABELS[metric]} {s}", seconds, a, b))
    if comparison.slo is not None:
        a, b = ours.slo_attainment, theirs.slo_attainment
        rows.append(("meets every target", percent(a), percent(b), _points(comparison)))
        per_second = _per_second(number)
        rows.append(_row("goodput", per_second, ours.goodput_rps, theirs.goodput_rps))
    rows += _work(ours, theirs)
    gpus = [side.run.deployment.gpus for _, side in _sides(comparison)]
    rows.append(_row("GPUs", count, *gpus))
    rows += [
        _row(label, usd, getattr(ours.cost, key), getattr(theirs.cost, key))
        for label, key in (
            ("price per hour", "usd_per_hour"),
            ("cost per million output tokens", "usd_per_m_output_tokens"),
        )
    ]
    rows += _energy(ours, theirs)
    rows.append(("keeps up", _yes(ours), _yes(theirs), ""))
    note = "Change: disaggregated against colocated."
    if comparison.gain is not None:
        note += f" Interval of the attainment: {comparison.gain.rule}."
    header = ("", "disaggregated", "colocated", "change")
    return Block("Side by side", header, tuple(rows), note)


def _classes(comparison: Comparison) -> Block:
    """Every request class side by side."""
    ours, theirs = comparison.disaggregated.summary, comparison.colocated.summary
    rows: list[tuple[str, ...]] = []
    for name, a in ours.classes.items():
        b = theirs.classes[name]
        if a.slo_attainment is not None and b.slo_attainment is not None:
            gain = f"{100 * (a.slo_attainment - b.slo_attainment):+.1f} points"
            met = percent(a.slo_attainment), percent(b.slo_attainment)
            rows.append((f"{name}: meets its targets", *met, gain))
        rows.append(_row(f"{name}: TTFT p99", seconds, a.ttft_s["p99"], b.ttft_s["p99"]))
        rows.append(_row(f"{name}: TPOT p99", seconds, a.tpot_s["p99"], b.tpot_s["p99"]))
    header = ("", "disaggregated", "colocated", "change")
    return Block("Request classes", header, tuple(rows))


def _work(ours: Summary, theirs: Summary) -> list[tuple[str, ...]]:
    key = "output_tokens_per_s_per_gpu"
    a, b = getattr(ours.throughput, key), getattr(theirs.throughput, key)
    return [_row("output tokens per GPU", _per_second(number), a, b)]


def _energy(ours: Summary, theirs: Summary) -> list[tuple[str, ...]]:
    a, b = ours.energy, theirs.energy
    rows = [
        _row(
            "energy per output token",
            lambda joules: number(joules, "J"),
            a.total.joules_per_output_token,
            b.total.joules_per_output_token,
        ),
        _row(
            "mean draw per GPU",
            lambda watts: number(watts, "W"),
            a.total.mean_w_per_gpu,
            b.total.mean_w_per_gpu,
        ),
    ]
    if a.grid_gco2_per_kwh is not None:
        rows.append(
            _row(
                "carbon per million output tokens",
                lambda grams: number(grams, "g CO2e"),
                a.gco2_per_m_output_tokens,
                b.gco2_per_m_output_tokens,
            )
        )
    return rows


def _per_second(shown: Callable[[float | None, str], str]) -> Callable[[float | None], str]:
    return lambda value: shown(value, "/s")


def _yes(summary: Summary) -> str:
    if not summary.stability.conclusive:
        return "not sure"
    return "yes" if summary.stable else "no"


def _row(
    name: str, shown: Callable[[float | None], str], ours: float | None, theirs: float | None
) -> tuple[str, ...]:
    return name, shown(ours), shown(theirs), _change(ours, theirs)


def _change(ours: float | None, theirs: float | None) -> str:
    """Relative change from the colocated to the disaggregated value."""
    if ours is None or not theirs:
        return MISSING
    change = ours / theirs - 1.0
    if change > 9:
        return f"× {ours / theirs:.3g}"
    return "=" if abs(change) < 5e-4 else f"{100 * change:+.1f} %"


def _points(comparison: Comparison) -> str:
    """Difference of the attainments in percentage points, with its interval."""
    gain = comparison.gain
    if gain is None:
        return MISSING
    low, high = 100 * gain.lo, 100 * gain.hi
    return f"{100 * gain.mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def _screening(comparison: Comparison) -> Block:
    rows = [
        (
            ("→ " if c.chosen else "  ") + c.layout,
            usd(c.usd_per_hour),
            MISSING if c.load is None else f"{c.load:.2f}",
            percent(c.slo_attainment),
            seconds(c.e2e_mean_s),
        )
        for c in comparison.screening
    ]
    header = ("layout", "per hour", "load", "meets targets", "mean E2E")
    note = "Load in closed form over the whole workload; the rest from short runs on its start."
    return Block("Screened for the twin", header, tuple(rows), note)


# --- figure -------------------------------------------------------------------------------------

COLOURS = (style.BLUE, style.ORANGE)


def comparison_figure(comparison: Comparison) -> Figure:
    """Distributions of TTFT and TPOT of both sides, and where their mean TTFT goes."""
    fig = style.figure(8.6, 5.6, title(comparison))
    grid = fig.add_gridspec(2, 2, height_ratios=(3.2, 1.3))
    left, right = fig.add_subplot(grid[0, 0]), fig.add_subplot(grid[0, 1])
    below = fig.add_subplot(grid[1, :])
    slo = comparison.slo
    targets = (None, None) if slo is None or slo.classes else (slo.ttft_s, slo.tpot_s)
    names = [name for name, _ in _sides(comparison)]
    runs = [side.run for _, side in _sides(comparison)]
    both = dict(zip(names, map(ttft, runs), strict=True))
    figures.cdf(left, both, targets[0], "TTFT, time to first token")
    both = dict(zip(names, map(tpot, runs), strict=True))
    figures.cdf(right, both, targets[1], "TPOT, time per output token")
    left.set_ylabel("share of requests", fontsize=9)
    lines = [figures.line(n, c) for n, c in zip(names, COLOURS, strict=True)]
    style.legend(right, handles=[*lines, *figures.cdf_keys(any(targets))])
    _parts(below, comparison)
    return fig


def _parts(ax: Axes, comparison: Comparison) -> None:
    """The parts of the mean TTFT of both sides as stacked bars."""
    names = [name for name, _ in _sides(comparison)]
    left = np.zeros(2)
    handles = []
    for part, label in PART_LABELS.items():
        width = np.array([side.summary.waterfall_s[part] or 0.0 for _, side in _sides(comparison)])
        colour = figures.PART_COLOURS[part]
        ax.barh(names, width, left=left, color=colour, height=0.6)
        if width.any():
            handles.append(Patch(color=colour, label=label))
        left += width
    for row, total in enumerate(left):
        figures.beside(ax, float(total), row, seconds(float(total)))
    ax.invert_yaxis()
    ax.set_xlim(0, 1.16 * float(left.max()) or 1.0)
    ax.xaxis.set_major_formatter(FuncFormatter(short_seconds))
    style.dress(ax, x="mean time since arrival", grid="x", title="Where the mean TTFT goes")
    style.legend(ax, handles=handles)


# --- files --------------------------------------------------------------------------------------


def write_comparison(folder: Path, comparison: Comparison) -> list[str]:
    """Write everything about a comparison into a folder.

    ``scenario.yaml`` and ``colocated.yaml`` (both resolved), ``compare.json``, ``compare.png``,
    the request tables of both sides and ``report.html``.

    Args:
        folder: an existing folder.
        comparison: what to write.

    Returns:
        Names of the files.

    Raises:
        OSError: a file cannot be written.
    """
    ours, theirs = comparison.disaggregated, comparison.colocated
    png = style.png_bytes(comparison_figure(comparison))
    page = html.page(
        title(comparison),
        verdicts=verdicts(comparison),
        warnings=warnings(comparison),
        sections=(
            *map(html.table, blocks(comparison)),
            html.image(png, "Both sides: latency distributions and TTFT parts"),
            html.source("Resolved scenario", ours.scenario.to_yaml()),
            html.source("Resolved colocated twin", theirs.scenario.to_yaml()),
        ),
        footer=footer(ours.summary),
    )
    texts = {
        "scenario.yaml": ours.scenario.to_yaml(),
        "colocated.yaml": theirs.scenario.to_yaml(),
        "compare.json": json_text(comparison.to_dict()),
        "report.html": page,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "compare.png").write_bytes(png)
    tables = {"requests_disaggregated.parquet": ours, "requests_colocated.parquet": theirs}
    for name, side in tables.items():
        write_requests(side.run.requests, folder / name)
    return [*texts, "compare.png", *tables]

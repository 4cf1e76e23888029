"""A plan on one slide: what to buy in five lines, and the prices beside them."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from simulator.planner import Evaluated, Plan
from simulator.report import style
from simulator.report.plan_map import HOLDS, say
from simulator.report.text import listing, number, percent, plural, seconds, short_seconds, usd

WIDTH = 62
"""Characters of a line of text on the slide."""

MOST_BARS = 7
COLOURS = {"winner": style.BLUE, "holds": style.SKY, "open": "#D0D0D0"}


def five_lines(plan: Plan) -> list[str]:
    """What to buy, what users get, whether to disaggregate, how much room, and how sure.

    Args:
        plan: the plan; without a winner the first lines say what came closest.
    """
    won = plan.winner
    if won is None:
        near = plan.closest
        tried = f"Closest: {near.layout.label}, {near.reason}." if near else "Nothing came close."
        return [
            "No layout within the limits holds the targets.",
            tried,
            _targets(plan),
            _sure(plan),
        ]
    million = won.usd_per_m_output_tokens
    price = f"{usd(won.usd_per_hour)}/h"
    if million is not None:
        price += f", {usd(million)} per million output tokens"
    return [
        f"Buy {won.label}: {plural(won.gpus, 'GPU')}, {price}.",
        f"{_users(won)} meet {_targets(plan)}; 99 % see their first token within "
        f"{seconds(won.ttft_p99_s)}.",
        plan.verdict,
        _room(plan),
        _sure(plan),
    ]


def _targets(plan: Plan) -> str:
    slo = plan.slo
    named = {"TTFT": slo.ttft_s, "TPOT": slo.tpot_s}
    if slo.classes:
        return "the targets of their class"
    return listing(f"{n} ≤ {short_seconds(s)}" for n, s in named.items() if s is not None)


def _users(won: Evaluated) -> str:
    met = won.attainment
    if met is None:
        return "Requests"
    if met.lo == met.hi:  # nobody missed a target
        return f"{percent(met.mean, 2)} of requests"
    ends = f"{percent(met.lo, 2)} to {percent(met.hi, 2)}"
    return f"{percent(met.mean, 2)} of requests (95 % interval {ends})"


def _room(plan: Plan) -> str:
    head = plan.headroom
    if head is None:
        return f"Binds first: {plan.binds}."
    if head.breaks_rps is None:
        return f"Room: no break seen up to {number(head.holds_rps)} requests/s."
    more = head.holds_rps / head.planned_rps - 1.0
    return (
        f"Room: holds {number(head.holds_rps)} requests/s, {percent(max(more, 0.0), 0)} more than "
        f"planned for; then {plan.binds.split(':')[0].split(' at ')[0]} breaks."
    )


def _sure(plan: Plan) -> str:
    close = len([e for e in plan.too_close if not _same_price(e, plan.winner)])
    what = (
        f"{plural(close, 'cheaper layout')} too close to call"
        if close
        else "no cheaper one is in doubt"
    )
    searched = "" if plan.complete else "; the search is not complete"
    return (
        f"Evidence: {plural(len(plan.rows), 'layout')} considered, "
        f"{plural(plan.requests_simulated, 'request')} simulated; {what}{searched}."
    )


def _same_price(e: Evaluated, other: Evaluated | None) -> bool:
    return other is not None and abs(e.usd_per_hour - other.usd_per_hour) < 1e-6


def slide_figure(plan: Plan) -> Figure:
    """Prices of the layouts that matter, and the five lines."""
    fig = style.figure(11.0, 4.0, f"{plan.scenario.name}: which GPUs to buy")
    left, right = fig.subplots(1, 2, width_ratios=(1.0, 1.15))
    _prices(left, plan)
    right.axis("off")
    y = 1.0
    for i, sentence in enumerate(five_lines(plan)):
        lines = textwrap.wrap(sentence, WIDTH)
        weight = "bold" if i == 0 else "normal"
        right.text(0.0, y, "\n".join(lines), fontsize=10, fontweight=weight, va="top",
                   color=style.INK, transform=right.transAxes, linespacing=1.3,
                   parse_math=False)  # fmt: skip
        y -= 0.075 * len(lines) + 0.055
    return fig


def _shown(plan: Plan) -> list[Evaluated]:
    """Layouts on the slide: the bests, then simulated ones around their prices, cheapest first."""
    bests = [e for e in (plan.disaggregated_best, plan.colocated_best, plan.closest) if e]
    others = [e for e in plan.rows if e.attainment is not None and e.replications]
    others.sort(key=lambda e: -e.attainment.mean if e.attainment else 0.0)
    unique = {e.layout: e for e in (*bests, *others)}
    return sorted(list(unique.values())[:MOST_BARS], key=lambda e: (e.usd_per_hour, e.label))


def _prices(ax: Axes, plan: Plan) -> None:
    """A bar per layout: its price, and the share of requests that meet the targets."""
    rows = _shown(plan)
    style.dress(ax, x="price [USD/h]", grid="x", title="Price, and requests within the targets")
    if not rows:
        say(ax, "nothing was simulated")
        return
    for i, e in enumerate(rows):
        kind = "winner" if e is plan.winner else "holds" if e.verdict in HOLDS else "open"
        ax.barh(i, e.usd_per_hour, color=COLOURS[kind], height=0.66)
        met = percent(e.attainment.mean, 1) if e.attainment else ""
        ax.annotate(f"{usd(e.usd_per_hour)}  {met}", (e.usd_per_hour, i), xytext=(4, 0),
                    textcoords="offset points", va="center", fontsize=8, color=style.INK,
                    fontweight="bold" if e is plan.winner else "normal", parse_math=False)  # fmt: skip
    ax.set_yticks(range(len(rows)), [_short(e) for e in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.42 * max(e.usd_per_hour for e in rows))
    names = {"winner": "winner", "holds": "holds", "open": "misses, or too close to call"}
    keys = [Patch(color=COLOURS[kind], label=name) for kind, name in names.items()]
    ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=3, frameon=False,
              fontsize=8, handlelength=1.2, columnspacing=1.2)  # fmt: skip


def _short(e: Evaluated) -> str:
    """The label over two lines where it is long."""
    counts, _, rest = e.label.partition(" ")
    pools = rest.rsplit(" ", 1)[0] if e.layout.link else rest
    return f"{counts}  {pools.replace(' / ', chr(10))}" if len(pools) > 22 else f"{counts}  {pools}"

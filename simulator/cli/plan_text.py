"""A plan in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from simulator.report.block import Block
from simulator.report.settings import settings_block
from simulator.report.terminal import table
from simulator.report.text import MISSING, count, number, percent, seconds, short_seconds, usd

if TYPE_CHECKING:
    from simulator.metrics import Interval
    from simulator.planner import Evaluated, Plan

ROWS = 15
"""Rows of the evidence table shown; all of them are in the files."""

_ORDER = ("winner", "holds", "marginal", "fails", "dominated", "rejected")


def print_plan(out: Console, plan: Plan, elapsed_s: float) -> None:
    """Print the answer, what it costs and rests on, and the evidence.

    Args:
        out: where to.
        plan: the plan.
        elapsed_s: how long it took [s].
    """
    out.print(Text(_headline(plan), style="bold"))
    for block in (_answer(plan), _settings(plan), _evidence(plan), _reasons(plan)):
        if block.rows:
            out.print(table(block))
    colour = {"yes": "green", "no": "green"}.get(plan.disaggregate, "yellow")
    lines = [f"[{colour}]{escape(plan.verdict)}[/]", f"Binds first: {escape(plan.binds)}."]
    lines += [_headroom(plan)] if plan.headroom else []
    lines += [_too_close(plan)] if plan.too_close else []
    lines += [f"[yellow]![/] {escape(note)}" for note in plan.notes]
    share = plan.requests_simulated / max(plan.brute_force_requests, 1)
    lines.append(
        f"{len(plan.rows):,} layouts, {plan.requests_simulated:,} requests simulated "
        f"({percent(share, 2)} of five runs of 10,000 for each), {elapsed_s:.0f} s."
    )
    out.print()
    for line in lines:
        out.print(line, soft_wrap=not out.is_terminal)


def _headline(plan: Plan) -> str:
    slo = plan.slo
    targets = [
        f"{name} ≤ {short_seconds(value)}"
        for name, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s))
        if value is not None
    ]
    if slo.classes:
        targets = ["targets of each class"]
    wanted = f"{' and '.join(targets)} for {100 * slo.attainment:g} % of requests"
    best = plan.winner.label if plan.winner else "no layout holds"
    return f"{plan.scenario.name}: {best}  ({wanted})"


def _answer(plan: Plan) -> Block:
    """The winner, and the best of the other mode beside it."""
    shown = {
        "winner": plan.winner,
        "closest": plan.closest,
        "best colocated": plan.colocated_best,
        "best disaggregated": plan.disaggregated_best,
    }
    sides: dict[str, Evaluated] = {}
    for name, found in shown.items():
        if found is not None and found not in sides.values():
            sides[name] = found
    if not sides:
        return Block("", (), ())
    rows = [
        ("layout", [e.label for e in sides.values()]),
        ("batch limit", [f"{e.layout.max_num_seqs} sequences" for e in sides.values()]),
        (
            "token budget",
            [f"{e.layout.max_num_batched_tokens:,} tokens" for e in sides.values()],
        ),
        ("GPUs", [count(e.gpus) for e in sides.values()]),
        ("price", [f"{usd(e.usd_per_hour)} per hour" for e in sides.values()]),
        ("output tokens", [_per_million(e) for e in sides.values()]),
        ("attainment", [_share(e.attainment) for e in sides.values()]),
        ("TTFT, mean", [_time(e.ttft_s) for e in sides.values()]),
        ("TTFT, p99", [seconds(e.ttft_p99_s) for e in sides.values()]),
        ("TPOT, mean", [_time(e.tpot_s) for e in sides.values()]),
        ("TPOT, p99", [seconds(e.tpot_p99_s) for e in sides.values()]),
        ("load", [_load(e) for e in sides.values()]),
    ]
    if plan.confidence is not None:
        rows.append(("holds in draws", [percent(e.holds_in_draws, 0) for e in sides.values()]))
    return Block(
        "Answer",
        ("", *sides),
        tuple((name, *cells) for name, cells in rows),
        "Intervals are of 95 %.",
    )


def _settings(plan: Plan) -> Block:
    """Engine settings of the winner, or of what came closest."""
    shown = plan.winner or plan.closest
    if shown is None or shown.settings is None:
        return Block("", (), ())
    return settings_block(shown.settings, shown.label)


def _per_million(e: Evaluated) -> str:
    return f"{usd(e.usd_per_m_output_tokens)} per million"


def _share(found: Interval | None) -> str:
    if found is None:
        return MISSING
    return f"{percent(found.mean, 2)} ({100 * found.lo:.2f} to {100 * found.hi:.2f})"


def _short_share(found: Interval | None) -> str:
    if found is None:
        return MISSING
    return f"{100 * found.lo:.1f}–{100 * found.hi:.1f}"


def _time(found: Interval | None) -> str:
    if found is None:
        return MISSING
    if found.lo != found.lo:  # NaN: a single run has no interval
        return seconds(found.mean)
    return f"{seconds(found.mean)} ({seconds(found.lo)} to {seconds(found.hi)})"


def _load(e: Evaluated) -> str:
    return MISSING if e.load is None else f"{e.load:.2f} {e.bottleneck}"


def _evidence(plan: Plan) -> Block:
    """The layouts that were simulated: those that hold, then those that came closest."""
    seen = [e for e in plan.rows if e.attainment is not None]

    def rank(e: Evaluated) -> tuple[int, float]:
        assert e.attainment is not None
        return _ORDER.index(e.verdict), -e.attainment.mean

    rows = tuple(
        (
            e.label,
            f"{e.layout.max_num_seqs}/{e.layout.max_num_batched_tokens}",
            usd(e.usd_per_hour),
            _short_share(e.attainment),
            seconds(e.ttft_p99_s),
            seconds(e.tpot_p99_s),
            e.verdict,
        )
        for e in sorted(seen, key=rank)[:ROWS]
    )
    header = (
        "layout",
        "seqs",
        "tokens",
        "USD/h",
        "attainment %",
        "TTFT p99",
        "TPOT p99",
        "verdict",
    )
    note = f"{min(ROWS, len(seen))} of {len(seen):,} layouts simulated; all are in evidence.csv."
    return Block("Evidence", header, rows, note)


def _reasons(plan: Plan) -> Block:
    """How many layouts met which end, with the reason of the cheapest of each."""
    rows = []
    for verdict in _ORDER[2:]:
        same = [e for e in plan.rows if e.verdict == verdict]
        if same:
            rows.append((verdict, count(len(same)), same[0].label, same[0].reason))
    return Block("Why the others lost", ("verdict", "layouts", "cheapest", "reason"), tuple(rows))


def _headroom(plan: Plan) -> str:
    head = plan.headroom
    assert head is not None
    if head.breaks_rps is None:
        return f"Head-room: holds at {number(head.holds_rps)} requests/s, the highest rate tried."
    more = head.rps / head.planned_rps - 1.0
    return (
        f"Head-room: breaks at {number(head.rps)} requests/s "
        f"(holds at {number(head.holds_rps)}, not at {number(head.breaks_rps)}), "
        f"{percent(more, 0)} above the {number(head.planned_rps)} planned for."
    )


def _too_close(plan: Plan) -> str:
    listed = "; ".join(
        f"{e.layout.full_label} at {usd(e.usd_per_hour)}/h, {_share(e.attainment)}"
        for e in plan.too_close[:3]
    )
    more = len(plan.too_close) - 3
    tail = f"; and {more} more" if more > 0 else ""
    return f"Too close to rank against the winner, and no dearer: {escape(listed)}{tail}."

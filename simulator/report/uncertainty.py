"""Bands of a simulation in words."""

from __future__ import annotations

from typing import Any

from simulator.metrics import Summary
from simulator.report.block import Block, Verdict
from simulator.report.text import number, percent, plural, seconds, usd
from simulator.uncertainty import Bands
from simulator.uncertainty.bands import FEW_DRAWS, METRICS

LABELS = {
    "ttft_s.mean": "TTFT, mean",
    "ttft_s.p50": "TTFT, p50",
    "ttft_s.p99": "TTFT, p99",
    "tpot_s.mean": "TPOT, mean",
    "tpot_s.p50": "TPOT, p50",
    "tpot_s.p99": "TPOT, p99",
    "slo_attainment": "attainment",
    "goodput_rps": "goodput",
    "usd_per_m_output_tokens": "cost per million output tokens",
}
"""How the metrics with a band are called."""


def run_json(summary: Summary, bands: Bands | None = None) -> dict[str, Any]:
    """The JSON contract of a run; the key ``uncertainty`` is there where bands were asked for."""
    found = summary.to_dict()
    return found if bands is None else found | {"uncertainty": bands.to_dict()}


def bands_block(bands: Bands) -> Block:
    """Every metric that is defined, with its band and what it mostly comes from."""
    rows = []
    for metric in METRICS:
        found = bands.band(metric)
        if found.median is not None:
            cells = (_cell(metric, v) for v in (found.lo, found.median, found.hi))
            rows.append((LABELS[metric], *cells, _driver(bands, metric)))
    note = (
        f"{plural(bands.draws, 'draw')} of kernel times, overheads and transfers, seed {bands.seed}, "
        "the same requests in each; what an operator may be off is its held-out error."
    )
    if bands.draws < FEW_DRAWS:
        note += f" Fewer than {FEW_DRAWS} draws: the ends are the outermost draws."
    return Block(
        "How sure the model is of itself",
        ("", "5 %", "median", "95 %", "mostly from"),
        tuple(rows),
        note,
    )


def bands_verdict(bands: Bands) -> Verdict:
    """In how many draws the deployment keeps up and the targets hold, in a sentence."""
    keeps = f"keeps up in {percent(bands.keeps_up, 0)} of the draws"
    if bands.holds is None:
        good = True if bands.keeps_up >= 0.95 else None
        return Verdict(good if bands.keeps_up >= 0.5 else False, f"With uncertainty: {keeps}.")
    holds = f"targets hold in {percent(bands.holds, 0)} of {plural(bands.draws, 'draw')}"
    good = True if bands.holds >= 0.95 else None if bands.holds > 0.05 else False
    return Verdict(good, f"With uncertainty: {holds}; it {keeps}.")


def _cell(metric: str, value: float | None) -> str:
    if metric == "slo_attainment":
        return percent(value, 2)
    if metric == "goodput_rps":
        return number(value, "1/s")
    return usd(value) if metric.startswith("usd") else seconds(value)


def _driver(bands: Bands, metric: str) -> str:
    found = bands.driver(metric)
    return "" if found is None else f"{found[0]} ({percent(found[1], 0)})"

"""Bands of a simulation in words."""

from __future__ import annotations

from simulator.report.block import Block
from simulator.report.text import number, percent, seconds, usd
from simulator.uncertainty import Bands

_NAMES = {
    "ttft_s.mean": "TTFT, mean",
    "ttft_s.p99": "TTFT, p99",
    "tpot_s.mean": "TPOT, mean",
    "tpot_s.p99": "TPOT, p99",
    "e2e_s.p50": "latency, median",
    "slo_attainment": "attainment",
    "output_tokens_per_s_per_gpu": "output tokens/s and GPU",
    "usd_per_m_output_tokens": "cost of 1M output tokens",
}


def bands_block(bands: Bands) -> Block:
    """The bands as a table; the targets' chance to hold below it."""
    rows = tuple(
        (_NAMES[name], *(_shown(name, v) for v in (b.value, b.low, b.median, b.high)))
        for name, b in bands.metrics.items()
    )
    note = "draws of kernel parameters, held-out errors of operators and engine costs; no bands of "
    note += "the workload's chance"
    if bands.holds is not None:
        note = f"The targets hold in {percent(bands.holds, 0)} of the draws; " + note
    return Block(
        title=f"Uncertainty, {bands.draws} draws, seed {bands.seed}",
        header=("", "as calibrated", "5 %", "median", "95 %"),
        rows=rows,
        note=note,
    )


def _shown(name: str, value: float) -> str:
    if name.split(".")[0].endswith("_s"):
        return seconds(value)
    if name == "slo_attainment":
        return percent(value)
    return usd(value) if name.startswith("usd") else number(value)

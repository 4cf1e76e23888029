"""A layout with what was found about it, and the table of all of them: the evidence of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from simulator.analysis.bounds import finite
from simulator.analysis.measured import Measured
from simulator.metrics import Interval
from simulator.planner.candidate import Candidate, Stage, Verdict
from simulator.planner.layout import Layout, Shape
from simulator.scenario.settings import Settings

COLUMNS = (
    "label",
    "mode",
    "prefill_gpu",
    "prefill_tp",
    "prefill_instances",
    "decode_gpu",
    "decode_tp",
    "decode_instances",
    "colocated_gpu",
    "colocated_tp",
    "colocated_instances",
    "link",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpus",
    "usd_per_hour",
    "usd_per_m_output_tokens",
    "stage",
    "verdict",
    "reason",
    "load",
    "bottleneck",
    "attainment",
    "attainment_lo",
    "attainment_hi",
    "ttft_s_mean",
    "ttft_s_lo",
    "ttft_s_hi",
    "ttft_p99_s",
    "tpot_s_mean",
    "tpot_s_lo",
    "tpot_s_hi",
    "tpot_p99_s",
    "replications",
    "requests_simulated",
    "holds_in_draws",
)
"""Columns of the evidence table; seconds, USD, shares of 1."""

_WHOLE = ("_tp", "_instances", "max_num_seqs", "max_num_batched_tokens", "gpus", "replications")
_TEXTS = ("label", "mode", "link", "stage", "verdict", "reason", "bottleneck")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A layout with what was found about it; intervals are of 95 %.

    Attributes:
        layout: the layout.
        usd_per_hour: price of all its GPUs [USD/h].
        usd_per_m_output_tokens: at the planned rate [USD]; None if unknown.
        stage: how far it got.
        verdict: what is known.
        reason: why, in a sentence.
        load: highest closed-form load of a pool or link.
        bottleneck: what has it.
        attainment: share of requests that meet every target.
        ttft_s: mean time to first token [s].
        ttft_p99_s: its 99th percentile [s].
        tpot_s: mean time per output token [s].
        tpot_p99_s: its 99th percentile [s].
        replications: long runs made.
        requests_simulated: requests of all its runs.
        holds_in_draws: probability that it holds though the model may be off; None if not asked.
        measured: what of its time is not of measured kernels; None for layouts a plan does not name.
        settings: its engine settings and where they come from; None for the same layouts.
    """

    layout: Layout
    usd_per_hour: float
    usd_per_m_output_tokens: float | None
    stage: Stage
    verdict: Verdict
    reason: str
    load: float | None
    bottleneck: str | None
    attainment: Interval | None
    ttft_s: Interval | None
    ttft_p99_s: float | None
    tpot_s: Interval | None
    tpot_p99_s: float | None
    replications: int
    requests_simulated: int
    holds_in_draws: float | None = None
    measured: Measured | None = None
    settings: Settings | None = None

    @property
    def label(self) -> str:
        """The layout's label, batching limits apart."""
        return self.layout.label

    @property
    def gpus(self) -> int:
        """GPUs of the layout."""
        return self.layout.gpus

    @classmethod
    def of(cls, c: Candidate, output_tokens_per_s: float | None) -> Evaluated:
        """From a candidate.

        Args:
            c: the candidate.
            output_tokens_per_s: output tokens asked for, where no run tells [1/s].
        """
        tokens = c.output_tokens_per_s or (output_tokens_per_s if c.verdict != "rejected" else None)
        per_million = c.usd_per_hour / 3600.0 / tokens * 1e6 if tokens else None
        return cls(
            layout=c.layout,
            usd_per_hour=c.usd_per_hour,
            usd_per_m_output_tokens=per_million,
            stage=c.stage,
            verdict=c.verdict,
            reason=c.reason,
            load=c.load,
            bottleneck=c.bottleneck,
            attainment=c.attainment(),
            ttft_s=c.mean("ttft"),
            ttft_p99_s=c.p99("ttft"),
            tpot_s=c.mean("tpot"),
            tpot_p99_s=c.p99("tpot"),
            replications=len(c.reps),
            requests_simulated=c.simulated,
        )

    def to_dict(self) -> dict[str, Any]:
        """LAYOUT of the JSON contract; a missing value is None."""
        return {
            "label": self.label,
            "mode": self.layout.mode,
            "prefill": _shape(self.layout.prefill),
            "decode": _shape(self.layout.decode),
            "colocated": _shape(self.layout.colocated),
            "link": self.layout.link,
            "max_num_seqs": self.layout.max_num_seqs,
            "max_num_batched_tokens": self.layout.max_num_batched_tokens,
            "gpus": self.gpus,
            "usd_per_hour": self.usd_per_hour,
            "usd_per_m_output_tokens": self.usd_per_m_output_tokens,
            "stage": self.stage,
            "verdict": self.verdict,
            "reason": self.reason,
            "load": finite(self.load),
            "bottleneck": self.bottleneck,
            "attainment": _interval(self.attainment),
            "ttft_s": _interval(self.ttft_s),
            "ttft_p99_s": self.ttft_p99_s,
            "tpot_s": _interval(self.tpot_s),
            "tpot_p99_s": self.tpot_p99_s,
            "replications": self.replications,
            "requests_simulated": self.requests_simulated,
            "holds_in_draws": self.holds_in_draws,
            "not_measured": None if self.measured is None else self.measured.to_list(),
            "settings": None if self.settings is None else self.settings.to_dict(),
        }

    def row(self) -> dict[str, Any]:
        """A row of the evidence table."""
        out: dict[str, Any] = {"label": self.label, "mode": self.layout.mode}
        for role in ("prefill", "decode", "colocated"):
            shape: Shape | None = getattr(self.layout, role)
            for name in ("gpu", "tp", "instances"):
                out[f"{role}_{name}"] = None if shape is None else getattr(shape, name)
        out.update({key: getattr(self.layout, key) for key in ("link", "max_num_seqs")})
        out["max_num_batched_tokens"] = self.layout.max_num_batched_tokens
        for name, column in (("attainment", ""), ("ttft_s", "_mean"), ("tpot_s", "_mean")):
            found: Interval | None = getattr(self, name)
            out[name + column] = found.mean if found else None
            out[f"{name}_lo"] = found.lo if found else None
            out[f"{name}_hi"] = found.hi if found else None
        for name in COLUMNS:
            if name not in out:
                out[name] = getattr(self, name)
        return out


def _shape(shape: Shape | None) -> dict[str, Any] | None:
    if shape is None:
        return None
    return shape.to_dict()


def _interval(found: Interval | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {"mean": finite(found.mean), "lo": finite(found.lo), "hi": finite(found.hi)}


def evidence_table(rows: list[Evaluated]) -> pd.DataFrame:
    """One row a layout; missing numbers are NaN (whole ones ``<NA>``), missing texts None."""
    table = pd.DataFrame([r.row() for r in rows], columns=list(COLUMNS))
    for name in COLUMNS:
        if name.endswith(_WHOLE) or name == "requests_simulated":
            table[name] = table[name].astype("Int64")
        elif name in _TEXTS or name.endswith("_gpu"):
            table[name] = table[name].astype(object).where(table[name].notna(), None)
        else:
            table[name] = table[name].astype(float)
    return table

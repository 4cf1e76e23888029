"""``summarize``: one run as the numbers people ask for, and as the JSON contract of ``simulate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from simulator.analysis import Bounds, analyze
from simulator.analysis.bounds import finite
from simulator.analysis.measured import Measured, measured
from simulator.html import card, dollars, duration, figures, share
from simulator.metrics.attainment import Targets, attainment, goodput
from simulator.metrics.cautions import cautions
from simulator.metrics.classes import ClassSummary, class_summaries, counts, mean_parts
from simulator.metrics.energy import Energy, energy
from simulator.metrics.latency import (
    QUANTILES,
    completed,
    e2e,
    statistics,
    tpot,
    ttft,
)
from simulator.metrics.stability import Stability, stability
from simulator.metrics.usage import (
    Cost,
    PoolUse,
    Throughput,
    cost,
    operating,
    pool_use,
    throughput,
)
from simulator.metrics.warmup import mser5
from simulator.run import Run
from simulator.scenario.settings import Settings
from simulator.version import VERSION

SCHEMA = 1
"""Version of the JSON contract (docs/json.md)."""

Statistics = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Summary:
    """Metrics of one run; definitions are in docs/semantics.md. None where undefined.

    Attributes:
        scenario: name of the deployment.
        mode: ``disaggregated`` or ``colocated``.
        first_token: who emits token 1 (``prefill`` when colocated).
        requests: how many ``arrived`` and ended ``completed``, ``rejected``, ``cancelled``,
            ``failed``.
        ttft_s: time to first token, over completed requests [s].
        tpot_s: time per output token, over completed requests with two tokens or more [s].
        itl_s: inter-token latency, over all gaps between tokens [s].
        e2e_s: end-to-end latency, over completed requests [s].
        waterfall_s: mean parts of TTFT, over completed requests [s].
        goodput_rps: requests that met every target, per second of the arrival window [1/s].
        slo_attainment: share of all arrived requests that met every target.
        throughput: over the makespan.
        pools: use of each pool.
        cost: at the simulated load.
        energy: what the GPUs drew over the makespan.
        stability: the test behind ``stable``.
        warnings: sentences to read before the numbers.
        meta: ``seed, events, events_per_request, strides, cpu_s, version``.
        bounds: the closed form the loads come from.
        warmup_s: what was left out at the start, from the first arrival on [s]; 0 by default.
        classes: metrics of every request class; empty for a workload without classes.
        measured: what of the simulated time is not of kernels measured at these sizes.
        settings: engine settings and where they come from.
    """

    scenario: str
    mode: str
    first_token: str
    requests: Mapping[str, int]
    ttft_s: Statistics
    tpot_s: Statistics
    itl_s: Statistics
    e2e_s: Statistics
    waterfall_s: Statistics
    goodput_rps: float | None
    slo_attainment: float | None
    throughput: Throughput
    pools: Mapping[str, PoolUse]
    cost: Cost
    energy: Energy
    stability: Stability
    warnings: tuple[str, ...]
    meta: Mapping[str, int | float | str | None]
    bounds: Bounds
    warmup_s: float = 0.0
    classes: Mapping[str, ClassSummary] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    settings: Settings = field(default_factory=Settings)

    @property
    def stable(self) -> bool:
        """Whether the deployment keeps up with the workload."""
        return self.stability.stable

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of ``simulate --json``, schema 1: these keys, no NaN, null if missing."""
        out: dict[str, Any] = {
            "schema": SCHEMA,
            "scenario": self.scenario,
            "mode": self.mode,
            "first_token": self.first_token,
            "requests": dict(self.requests),
            "ttft_s": self.ttft_s,
            "tpot_s": self.tpot_s,
            "itl_s": self.itl_s,
            "e2e_s": self.e2e_s,
            "waterfall_s": self.waterfall_s,
            "goodput_rps": self.goodput_rps,
            "slo_attainment": self.slo_attainment,
            "throughput": asdict(self.throughput),
            "pools": {name: asdict(use) for name, use in self.pools.items()},
            "cost": {
                "usd_per_hour": self.cost.usd_per_hour,
                "usd_per_m_output_tokens": self.cost.usd_per_m_output_tokens,
                "usd_per_m_total_tokens": self.cost.usd_per_m_total_tokens,
            },
            "energy": {
                **asdict(self.energy.total),
                "grid_gco2_per_kwh": self.energy.grid_gco2_per_kwh,
                "pue": self.energy.pue,
                "gco2_per_m_output_tokens": self.energy.gco2_per_m_output_tokens,
                "pools": {name: asdict(use) for name, use in self.energy.pools.items()},
            },
            "classes": {name: asdict(found) for name, found in self.classes.items()},
            "stable": self.stable,
            "warnings": list(self.warnings),
            "not_measured": self.measured.to_list(),
            "settings": self.settings.to_dict(),
            "meta": dict(self.meta),
        }
        return {key: _plain(value) for key, value in out.items()}

    def _repr_html_(self) -> str:
        names = {"TTFT": self.ttft_s, "TPOT": self.tpot_s, "ITL": self.itl_s, "E2E": self.e2e_s}
        columns = ("mean", *QUANTILES)
        ended = [f"{n:,} {end}" for end, n in self.requests.items() if n or end == "completed"]
        facts = {
            "requests": ", ".join(ended),
            "attainment": share(self.slo_attainment) if self.slo_attainment is not None else "",
            "goodput": figures(self.goodput_rps, "requests/s") if self.goodput_rps else "",
            "cost": f"{dollars(self.cost.usd_per_hour)}/h, "
            f"{dollars(self.cost.usd_per_m_output_tokens)} per million output tokens",
        }
        if self.energy.total.joules_per_output_token is not None:
            facts["energy"] = (
                f"{figures(self.energy.total.joules_per_output_token, 'J')} per output token, "
                f"{figures(self.energy.total.mean_w_per_gpu, 'W')} per GPU on average"
            )
        for name, pool in self.pools.items():
            facts[f"{name} pool"] = f"load {figures(pool.load)}, busy {share(pool.busy, 0)}"
        return card(
            f"{self.scenario} · {self.mode}",
            verdict=self.stability.reason,
            good=self.stable,
            facts=facts,
            header=("", *columns),
            rows=[(name, *(duration(s[c]) for c in columns)) for name, s in names.items()],
            notes=self.warnings,
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return finite(value) if isinstance(value, float) else value


def summarize(
    run: Run,
    slo: Targets | None = None,
    *,
    warmup_s: float | None = None,
    steady: bool = False,
) -> Summary:
    """All metrics of a run.

    Args:
        run: a finished simulation.
        slo: latency targets; without them goodput and attainment are None.
        warmup_s: leave out requests that arrive within this time of the first one [s]. Counts,
            latencies, attainment and goodput are then those of the rest; ITL, throughput, pools,
            cost and stability always cover the whole run.
        steady: find ``warmup_s`` by MSER-5 on the TTFT of requests in order of arrival.
    """
    if steady and warmup_s is not None:
        raise ValueError("give warmup_s, or steady=True to have it found, not both")
    bounds = analyze(run.deployment, run.workload, slo=slo)
    found = stability(run, bounds)
    rests = measured(run.deployment, run.workload, operating(run))
    warnings = cautions(run, bounds, found, rests)
    kept, cut_s = _after_warmup(run, _mser_s(run) if steady else warmup_s or 0.0)
    if cut_s > 0.0:
        left_out = len(run.requests) - len(kept.requests)
        rule = "MSER-5" if steady else "as asked"
        warnings.append(f"The first {cut_s:.3g} s ({left_out} requests) are left out ({rule}).")
    done = completed(kept)
    use = pool_use(run, bounds)
    return Summary(
        scenario=run.deployment.name,
        mode=run.deployment.mode,
        first_token=run.deployment.first_token if run.deployment.link else "prefill",
        requests=counts(kept),
        ttft_s=statistics(ttft(kept)[done]),
        tpot_s=statistics(tpot(kept)[done]),
        itl_s=_itl(run),
        e2e_s=statistics(e2e(kept)[done]),
        waterfall_s=mean_parts(kept),
        goodput_rps=goodput(kept, slo) if slo else None,
        slo_attainment=attainment(kept, slo) if slo else None,
        throughput=throughput(run),
        pools=use,
        cost=cost(run),
        energy=energy(run, use),
        stability=found,
        warnings=tuple(warnings),
        meta=_meta(run),
        bounds=bounds,
        warmup_s=cut_s,
        classes=class_summaries(kept, slo),
        measured=rests,
        settings=run.deployment.settings,
    )


def _itl(run: Run) -> Statistics:
    if run.itl.n <= 0.0:
        return dict.fromkeys(("mean", *QUANTILES))
    out: Statistics = {"mean": run.itl.mean_s()}
    out.update({name: run.itl.quantile_s(q) for name, q in QUANTILES.items()})
    return out


def _mser_s(run: Run) -> float:
    """Warm-up found by MSER-5: arrival of the first request kept, from the first arrival [s]."""
    order = np.argsort(run.requests["arrival_s"].to_numpy(), kind="stable")
    arrival = run.requests["arrival_s"].to_numpy()[order]
    seen = ttft(run)[order]
    known = ~np.isnan(seen)
    if not known.any():
        return 0.0
    first = mser5(seen[known])
    return float(arrival[known][first] - arrival[0])


def _after_warmup(run: Run, warmup_s: float) -> tuple[Run, float]:
    if warmup_s <= 0.0 or not len(run.requests):
        return run, 0.0
    arrival = run.requests["arrival_s"].to_numpy()
    keep = arrival >= arrival.min() + warmup_s
    return replace(run, requests=run.requests[keep]), warmup_s


def _meta(run: Run) -> dict[str, int | float | str | None]:
    events = run.meta.get("events")
    n = len(run.requests)
    strides = run.meta.get("strides")
    return {
        "seed": run.seed,
        "events": None if events is None else int(events),
        "events_per_request": events / n if events is not None and n else None,
        "strides": None if strides is None else int(strides),
        "cpu_s": run.meta.get("cpu_s"),
        "version": VERSION,
    }

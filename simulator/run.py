"""``Run``: everything one simulation leaves behind, before any metric is taken."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from simulator.html import card, duration
from simulator.records import (
    REQUEST_COLUMNS,
    STRIDE_COLUMNS,
    FloatArray,
    ItlSketch,
    Timeline,
)
from simulator.request import State
from simulator.scenario.deployment import Deployment
from simulator.workload import Requests

_INTEGER = {
    "id": np.int64,
    "prompt_tokens": np.int64,
    "output_tokens": np.int64,
    "state": np.int8,
    "prefill_instance": np.int32,
    "decode_instance": np.int32,
    "preemptions": np.int32,
}


def request_table(rows: FloatArray, workload: Requests | None = None) -> pd.DataFrame:
    """Typed request table from raw rows, ordered by request id; instants never reached are NaN.

    Args:
        rows: shape (requests, ``len(REQUEST_COLUMNS)``), in order of completion.
        workload: the requests offered; where they have classes, the table gets a column ``class``
            (categorical).
    """
    order = np.argsort(rows[:, 0], kind="stable")
    columns: dict[str, np.ndarray] = {}
    for i, name in enumerate(REQUEST_COLUMNS):
        v = rows[order, i]
        if name in _INTEGER:
            columns[name] = v.astype(_INTEGER[name])
        else:
            v[v < 0.0] = np.nan
            columns[name] = v
    table = pd.DataFrame(columns, copy=False)
    if workload is not None and workload.classes:
        codes = workload.class_index[table["id"].to_numpy()]
        names: pd.Index[str] = pd.Index(list(workload.classes))
        table["class"] = pd.Categorical.from_codes(codes, categories=names)
    return table


def stride_table(rows: FloatArray) -> pd.DataFrame:
    """Stride rows as a table (see ``records.STRIDE_COLUMNS``), ordered by start time."""
    table = pd.DataFrame({name: rows[:, i] for i, name in enumerate(STRIDE_COLUMNS)})
    whole = [c for c in STRIDE_COLUMNS if not c.endswith("_s") and c != "pairs"]
    table = table.astype(dict.fromkeys(whole, np.int64))
    return table.sort_values(["t_start_s", "instance"], kind="stable", ignore_index=True)


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One finished simulation.

    Attributes:
        deployment: what was simulated.
        workload: the requests offered (for a closed loop, before the engine set arrivals).
        seed: seed of every random stream.
        requests: one row a request, ordered by id (``records.REQUEST_COLUMNS``, and ``class`` where
            the workload has classes).
        instances: one row an instance: ``instance, pool, role, gpus, capacity_blocks`` and the
            sums of ``records.TOTALS``.
        itl: histogram of inter-token latencies.
        timeline: time-weighted ``busy`` (0..1), ``batch`` and ``blocks`` per instance.
        strides: every stride, when kept; else None.
        meta: counters: ``events`` handled, ``strides``, ``cpu_s``.
    """

    deployment: Deployment
    workload: Requests
    seed: int
    requests: pd.DataFrame
    instances: pd.DataFrame
    itl: ItlSketch
    timeline: Timeline
    strides: pd.DataFrame | None
    meta: dict[str, float] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        """Instant of the last token of the run [s]."""
        return float(np.nanmax(self.requests["last_token_s"].to_numpy(), initial=0.0))

    def __repr__(self) -> str:
        return (
            f"Run({self.deployment.name!r}, {len(self.requests)} requests, "
            f"{self.end_s:.1f} s simulated)"
        )

    def _repr_html_(self) -> str:
        ended = self.requests["state"].value_counts()
        ends = [f"{n:,} {State(s).name.lower()}" for s, n in zip(ended.index, ended, strict=True)]
        facts = {
            "model": self.deployment.model.name,
            "workload": self.workload.source,
            "requests": ", ".join(ends),
            "simulated": f"{duration(self.end_s)}, seed {self.seed}",
        }
        for pool in self.deployment.pools:
            facts[f"{pool.name} pool"] = f"{pool.instances} × {pool.gpu.name} {pool.parallel.label}"
        facts["link"] = self.deployment.link.name if self.deployment.link else ""
        return card(f"Run of {self.deployment.name} · {self.deployment.mode}", facts=facts)

"""Runs worked by hand: a request table from dictionaries, around round-numbered hardware."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from simulator.records import REQUEST_COLUMNS, TOTALS, ItlSketch, Timeline
from simulator.request import State
from simulator.run import Run, request_table
from tests.engine_kit import deployment, link, pool, requests

STEP = SimpleNamespace(
    flops=lambda tokens, pairs, rows: np.asarray(100.0 * tokens + 2.0 * pairs + 5.0 * rows),
    read_bytes=lambda kv, tokens: np.asarray(1000.0 + 10.0 * kv),
    kv_read_bytes=lambda kv: np.asarray(10.0 * kv),
    notes=(),
    peak_flops_per_s=1e6,
    peak_bytes_per_s=1e5,
    compute="bf16",
)
"""Stands for a StepModel: 100 FLOP a token, 1000 bytes of weights, 10 bytes of KV a token."""


def disaggregated(**kw):
    pools = (
        pool("prefill", step=STEP, **kw.pop("prefill", {})),
        pool("decode", step=STEP, **kw.pop("decode", {})),
    )
    return deployment(*pools, link=link(nic_bytes_per_s=1e6), **kw)


def colocated(**kw):
    return deployment(pool("colocated", step=STEP, **kw))


def by_hand(rows, d=None, concurrency=None, totals=()):
    """A run from dictionaries of the request table; what is not given never happened."""
    d = d or disaggregated()
    table = np.full((len(rows), len(REQUEST_COLUMNS)), -1.0)
    for i, row in enumerate(rows):
        full = {
            "id": i,
            "arrival_s": 0.0,
            "prompt_tokens": 100,
            "output_tokens": 11,
            "state": State.DONE,
            "queued_s": row.get("arrival_s", 0.0),
            "preemptions": 0,
        } | row
        for name, value in full.items():
            table[i, REQUEST_COLUMNS.index(name)] = value
    instances = pd.DataFrame(
        [
            {"instance": i, "pool": p.name, "role": p.role, "gpus": p.tp, "capacity_blocks": 100}
            for i, p in enumerate(p for p in d.pools for _ in range(p.instances))
        ]
    )
    for key in TOTALS:
        instances[key] = 0.0
    for i, values in enumerate(totals):
        for key, value in values.items():
            instances.loc[i, key] = float(value)
    arrivals = sorted(row.get("arrival_s", 0.0) for row in rows)
    return Run(
        deployment=d,
        workload=requests(
            [0.0] * len(rows) if concurrency else arrivals,
            [row.get("prompt_tokens", 100) for row in rows],
            [row.get("output_tokens", 11) for row in rows],
            concurrency,
        ),
        seed=7,
        requests=request_table(table),
        instances=instances,
        itl=ItlSketch(),
        timeline=Timeline(len(instances), 1.0, ("busy", "batch", "blocks")),
        strides=None,
        meta={"events": 12.0, "strides": 5.0, "cpu_s": 0.25},
    )


SERVED = {
    "arrival_s": 1.0,
    "queued_s": 1.5,
    "prefill_start_s": 2.0,
    "prefill_end_s": 3.0,
    "transfer_start_s": 3.25,
    "landed_s": 4.0,
    "decode_start_s": 4.125,
    "first_token_s": 4.25,
    "last_token_s": 5.25,
}
"""A disaggregated request whose every instant is a binary fraction."""

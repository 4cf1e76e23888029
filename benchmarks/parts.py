"""What each part of the simulation of measured runs is worth: leave one out, or set it wrong.

Measured runs of the documented client are predicted as they were, and again with one part changed.
What a change does to the errors says how much that part matters, and whether the constants of the
others hide that it is wrong: a change that makes nothing worse was not needed.

    python benchmarks/parts.py [FILE] [--most N] [--jobs N] [--write]

FILE is a table of measured runs (``xpyd validate --serving``); default: the bundled ones. N is the
most requests in flight (default 64).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # no stubs are published

from simulator.engine import simulate_deployment
from simulator.engine_profiles import load_engine
from simulator.errors import InputError
from simulator.validation.serving.clients import client_of
from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.mapping import Unpredictable, engine_of, scenario_of
from simulator.validation.serving.predict import measured
from simulator.validation.serving.runs import MeasuredRun, read_runs
from simulator.validation.serving.scores import score

REPORT = Path(__file__).with_suffix(".md")

HEAD = """# What the parts are worth

Written by `python benchmarks/parts.py --write`: measured runs of the documented benchmark client,
predicted as they were and with one part changed; median / mean absolute relative error [%], by engine.
Constants are not refitted after a change, as they would be by somebody who left a part out; so this is
what the part does, not what its absence would cost at best.

"""


@dataclass(frozen=True)
class Part:
    """One change.

    Attributes:
        name: in the table.
        client: what the client does otherwise.
        overrides: scenario keys that are set otherwise, as ``--set`` takes them.
    """

    name: str
    client: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


POOL = "pools.colocated."

PARTS = (
    Part("as simulated"),
    Part("client: lengths fixed", {"ratio": 1.0}),
    Part("client: opening burst not counted", {"warmed_up": True}),
    Part("client: five prompts a slot, not ten", {"prompts_per_slot": 5}),
    Part("front end: no latency", overrides=("routing.latency_s=0",)),
    Part("steps: no overhead (c0, c1)", overrides=("engine.c0_s=0", "engine.c1_s=0")),
    Part("host: no overlap with the GPU", overrides=("engine.overlap=false",)),
    Part("graphs: batches not padded", overrides=(f"engine.graph_sizes={list(range(1, 513))}",)),
    Part("long steps: GEMMs as benchmarked", overrides=("engine.sustained=1",)),
    Part("long steps: experts as benchmarked", overrides=("engine.sustained_experts=1",)),
    Part("experts: evenly popular", overrides=("expert_skew=0",)),
    Part("KV cache in bf16", overrides=("precision.kv=bf16",)),
    Part("KV cache: half the memory", overrides=(f"{POOL}memory_fraction=0.6",)),
    Part("token budget 2,048", overrides=(f"{POOL}max_num_batched_tokens=2048",)),
    Part("order of service of vLLM", overrides=(f"{POOL}scheduler=vllm_v1",)),
)


def errors(run: MeasuredRun, part: Part) -> tuple[float, float]:
    """Relative errors of mean TTFT and TPOT; NaN where the change cannot be made to this run."""
    client = replace(client_of(run), **part.client)
    try:
        engine = load_engine(engine_of(run)).of_version(run.version)
        scenario = scenario_of(run, client, engine)
        if part.overrides:
            scenario = scenario.with_overrides(list(part.overrides))
        done = simulate_deployment(scenario.deployment(), scenario.requests(), seed=1)
    except (InputError, Unpredictable):
        return math.nan, math.nan
    found = measured(run, done, client=client)
    return found.ttft_ms / run.ttft_ms - 1.0, found.tpot_ms / run.tpot_ms - 1.0


def lines(
    runs: Sequence[MeasuredRun], found: Mapping[tuple[int, str], tuple[float, float]]
) -> list[str]:
    """The table as Markdown.

    Args:
        runs: what was predicted.
        found: errors by row and part.
    """
    engines = sorted({run.engine for run in runs})
    head = [f"{name} {metric}" for name in engines for metric in ("TTFT", "TPOT")]
    out = [f"| | {' | '.join(head)} |", f"|---|{'---:|' * len(head)}"]
    for part in PARTS:
        cells = []
        for engine in engines:
            pairs = [found[run.row, part.name] for run in runs if run.engine == engine]
            for metric in (0, 1):
                kept = [pair[metric] for pair in pairs if not math.isnan(pair[metric])]
                one = score(_series(kept))
                cells.append(f"{100 * one.median:.0f} / {100 * one.mean:.0f}" if kept else "–")
        out.append(f"| {part.name} | {' | '.join(cells)} |")
    counts = ", ".join(f"{sum(r.engine == e for r in runs)} of {e}" for e in engines)
    return [*out, "", f"Runs: {counts}."]


def _series(values: Sequence[float]) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=float)


def chosen(runs: Sequence[MeasuredRun], most: int) -> list[MeasuredRun]:
    """Aggregated runs of the documented client with at most so many requests in flight."""
    return [
        run
        for run in runs
        if run.usable
        and run.relevant
        and run.documented
        and not run.queue_dominated
        and run.prefill is None
        and run.concurrency <= most
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What each part of a prediction is worth.")
    parser.add_argument("file", nargs="?", type=Path, help="measured runs; default: the bundled")
    parser.add_argument("--most", type=int, default=64, help="most requests in flight")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", action="store_true", help="also write parts.md")
    asked = parser.parse_args(arguments)
    try:
        runs = chosen(read_runs(asked.file or bundled_runs()), asked.most)
    except InputError as error:
        print(f"parts: {error}", file=sys.stderr)
        return 2
    keys = [(run, part) for run in runs for part in PARTS]
    pool = joblib.Parallel(n_jobs=asked.jobs)
    each = pool(joblib.delayed(errors)(run, part) for run, part in keys)
    text = "\n".join(
        lines(runs, {(run.row, part.name): e for (run, part), e in zip(keys, each, strict=True)})
    )
    print(text)
    if asked.write:
        REPORT.write_text(f"{HEAD}{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

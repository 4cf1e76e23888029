"""End-to-end validation in words: scores by group, runs without a prediction, worst runs."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from simulator.report.block import Block
from simulator.report.text import percent
from simulator.validation.serving.doubts import REPEAT_NOISE
from simulator.validation.serving.scores import METRICS, Score, barred, score, worst

_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "latency": "latency", "throughput": "tokens/s"}


def serving_blocks(table: pd.DataFrame) -> list[Block]:
    """Tables of a validation, for the terminal and docs/accuracy.md.

    Args:
        table: ``simulator.validation.serving.scores.joined``.
    """
    kept = barred(table)
    blocks = [_bars(kept), _groups(kept), _reasons(table)]
    blocks += [_worst(kept, metric) for metric in ("ttft", "tpot")]
    return [block for block in blocks if block.rows]


def _bars(kept: pd.DataFrame) -> Block:
    documented = kept[kept["documented"]]
    sets = [
        ("documented client, vLLM", documented[documented["engine"] == "vllm"]),
        ("documented client, others", documented[documented["engine"] != "vllm"]),
        ("undocumented client", kept[~kept["documented"]]),
        ("disaggregated", kept[kept["mode"] == "disagg"]),
        ("all", kept),
    ]
    rows = []
    for name, part in sets:
        for label, which in (("never fitted", part[~part["fitted"]]), ("all rows", part)):
            if len(which):
                rows.append((f"{name}, {label}", *_cells(which, ("ttft", "tpot", "latency"))))
    return Block(
        title="Runs on H100 and H200 that are usable, relevant and not dominated by queueing",
        header=("", "runs", "predicted", *_headers(("ttft", "tpot", "latency"))),
        rows=tuple(rows),
        note="Median / mean absolute relative error, median relative error [%]; +: predicted slower. "
        + REPEAT_NOISE
        + " The best public estimator (aiconfigurator) on other runs of the same source: TTFT 46 / 52, "
        "TPOT 12 / 27, latency 12 / 26.",
    )


def _groups(kept: pd.DataFrame) -> Block:
    keys = ["model", "engine", "mode", "gpu", "layout", "fitted"]
    rows = []
    for key, part in kept.groupby(keys, sort=True):
        model, engine, mode, gpu, layout = map(str, list(key)[:5])
        name = f"{model} {engine} {mode} {gpu.removesuffix('_sxm').upper()} {layout}"
        mark = " (fitted)" if bool(key[5]) else ""
        rows.append((name + mark, *_cells(part, METRICS, short=True)))
    return Block(
        title="By deployment",
        header=("", "runs", "predicted", *_headers(METRICS)),
        rows=tuple(rows),
        note="median absolute relative error and median relative error [%]; tokens/s: output "
        "tokens per second and GPU of the closed loop, from latency",
    )


def _reasons(table: pd.DataFrame) -> Block:
    missing = table[table["usable"] & (table["reason"] != "")]
    counts = missing["reason"].value_counts()
    return Block(
        title="Usable runs without a prediction",
        header=("reason", "runs"),
        rows=tuple((str(reason), f"{n}") for reason, n in counts.items()),
    )


def _worst(kept: pd.DataFrame, metric: str) -> Block:
    rows = [
        (
            f"{r['row']}: {r['model']} {r['engine']} {r['layout']}",
            f"{r['isl']}/{r['osl']} c{r['concurrency']}",
            f"{r[metric]:,.1f}",
            f"{r[f'{metric}_predicted']:,.1f}",
            percent(r[f"{metric}_error"], 0),
            str(r["doubt"]),
        )
        for _, r in worst(kept, metric).iterrows()
    ]
    return Block(
        title=f"Ten worst runs, {_TITLES[metric]}",
        header=("row", "lengths, in flight", "measured ms", "predicted ms", "error", "diagnosis"),
        rows=tuple(rows),
    )


def _headers(metrics: Iterable[str]) -> tuple[str, ...]:
    return tuple(_TITLES[m] for m in metrics)


def _cells(part: pd.DataFrame, metrics: Iterable[str], *, short: bool = False) -> tuple[str, ...]:
    scores = [score(part[f"{m}_error"]) for m in metrics]
    predicted = int((part["reason"] == "").sum())
    return (f"{len(part)}", f"{predicted}", *(_cell(s, short) for s in scores))


def _cell(s: Score, short: bool) -> str:
    if not s.rows:
        return "–"
    if short:
        return f"{100 * s.median:.0f} {100 * s.bias:+.0f}"
    return f"{100 * s.median:.1f} / {100 * s.mean:.1f}, {100 * s.bias:+.1f}"

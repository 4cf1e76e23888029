"""Whole-step validation in words."""

from __future__ import annotations

import pandas as pd

from simulator.report.block import Block

_PHASES = ("decode", "prefill")


def step_blocks(summed: pd.DataFrame, eager: pd.DataFrame) -> list[Block]:
    """Tables of whole steps, for the terminal and docs/accuracy.md.

    Args:
        summed: ``simulator.validation.steps.summed.validate_summed``.
        eager: ``simulator.validation.steps.eager.validate_eager``.
    """
    return [_summed(summed), _eager(eager)]


def _summed(found: pd.DataFrame) -> Block:
    rows = []
    for gpu, on_gpu in found.groupby("gpu", sort=True):
        for phase in _PHASES:
            part = on_gpu[on_gpu["phase"] == phase]
            if len(part):
                rows.append((f"{gpu} {phase}", f"{len(part)}", *_cells(part["error"])))
    return Block(
        title="Whole steps, against sums of measured kernels",
        header=("", "steps", "mean", "median", "bias", "P90"),
        rows=tuple(rows),
        note="Relative error [%]. Llama-3.1-8B and 70B and Qwen3-32B in bf16 at TP 1 to 8: GEMMs, "
        "attention and all-reduces of all layers, each looked up in the measured tables.",
    )


def _eager(found: pd.DataFrame) -> Block:
    rows = []
    tested = found[found["tested"]]
    for (gpu, tp), part in tested.groupby(["gpu", "tp"], sort=True):
        rows.append(
            (
                f"{gpu} TP{tp}",
                f"{len(part)}",
                f"{1e3 * part['host_s'].iloc[0]:.0f}",
                *(
                    f"{100 * (part[mine] / part[theirs] - 1.0).abs().mean():.0f}"
                    for mine, theirs in (
                        ("decode_model_s", "decode_s"),
                        ("decode_host_s", "decode_s"),
                        ("prefill_model_s", "prefill_s"),
                    )
                ),
            )
        )
    return Block(
        title="Whole steps of an eager engine of 2023 (Llama-2-70B, splitwise-sim)",
        header=("", "steps", "host ms", "decode", "with host bound", "prefill"),
        rows=tuple(rows),
        note="Mean error [%] at batch 2 and more. The engine launched every kernel from Python: a "
        "decode step costs the host the time of column 3 (read off batch 1) whatever the GPU does.",
    )


def _cells(error: pd.Series) -> tuple[str, ...]:
    size = error.abs()
    return (
        f"{100 * size.mean():.1f}",
        f"{100 * size.median():.1f}",
        f"{100 * error.median():+.1f}",
        f"{100 * size.quantile(0.9):.1f}",
    )

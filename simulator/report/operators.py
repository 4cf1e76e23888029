"""Operator validation in words: errors by GPU, operator and type."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from simulator.report.block import Block
from simulator.validation.operators.scores import scores

_NAMES = {
    "gemm": "GEMM",
    "attn_decode": "decode attention",
    "attn_prefill": "prefill attention",
    "comm": "all-reduce",
    "moe": "MoE grouped GEMM",
    "mla_decode": "MLA decode",
    "mla_prefill": "MLA prefill",
}
_TYPES = {"bfloat16": "bf16", "all_reduce": "bf16", "all_reduce_large": "over 8 MB"}

NOTE = (
    "Relative error [%] over the region serving meets: tensors larger than 1.5 L2 caches (decode: or "
    "too small to matter), weights of 1,000 to 60,000 columns and rows, up to 8,192 tokens; "
    "grouped-query attention with heads of 128; all-reduce of 8 KB and more, to 8 MB by engines' own "
    "kernels. Roofline: mean error of the data sheet's peaks. +: predicted slower than measured."
)


def operator_blocks(found: pd.DataFrame) -> list[Block]:
    """Tables of an operator validation, for the terminal and docs/accuracy.md.

    Args:
        found: ``simulator.validation.operators.scores.validate_tables``.
    """
    table = scores(found)
    blocks = []
    for fitted, title in (
        (False, "Operators, shapes never fitted"),
        (True, "Operators, shapes that were fitted"),
    ):
        rows = [
            (_name(key), *_cells(score.tolist()))
            for key, score in zip(table.index, table.to_numpy(), strict=True)
            if bool(key[4]) == fitted
        ]
        if rows:
            blocks.append(Block(title, _HEADER, tuple(rows), NOTE))
    blocks.append(_unpredicted(found))
    return [block for block in blocks if block.rows]


_HEADER = ("", "rows", "mean", "median", "bias", "P90", "roofline")


def _name(key: Sequence[object]) -> str:
    gpu, operator, framework, dtype = map(str, key[:4])
    return f"{gpu} {_NAMES.get(operator, operator)} {_TYPES.get(dtype, dtype)} ({framework})"


def _cells(score: Sequence[float]) -> tuple[str, ...]:
    rows, mape, median, bias, p90, naive = score
    return (
        f"{rows:,.0f}",
        f"{100 * mape:.1f}",
        f"{100 * median:.1f}",
        f"{100 * bias:+.1f}",
        f"{100 * p90:.1f}",
        f"{100 * naive:.0f}",
    )


def _unpredicted(found: pd.DataFrame) -> Block:
    missing = found[found["predicted_us"].isna()]
    counts = missing["note"].value_counts()
    rows = tuple((str(note), f"{n:,}") for note, n in counts.items())
    return Block("Measured rows without a prediction", ("reason", "rows"), rows)

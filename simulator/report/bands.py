"""How often measured runs lie inside their bands, in words."""

from __future__ import annotations

import pandas as pd

from simulator.report.block import Block
from simulator.report.text import percent
from simulator.uncertainty import LEVEL
from simulator.validation.serving.bands import METRICS, coverage
from simulator.validation.serving.scores import barred


def coverage_block(table: pd.DataFrame) -> Block:
    """Coverage of the bands and their width, by group of runs.

    Args:
        table: ``simulator.validation.serving.bands.with_bands``.
    """
    kept = barred(table)
    sets = [
        ("documented client", kept[kept["documented"]]),
        ("undocumented client", kept[~kept["documented"]]),
        ("disaggregated", kept[kept["mode"] == "disagg"]),
        ("all", kept),
    ]
    rows = []
    for name, part in sets:
        for label, which in (
            ("never fitted", part[~part["fitted"]]),
            ("fitted", part[part["fitted"]]),
        ):
            known = which[which["tpot_lo"].notna()]
            if len(known):
                rows.append((f"{name}, {label}", f"{len(known)}", *_cells(known)))
    return Block(
        title=f"Measurements inside the {100 * LEVEL:.0f} % band",
        header=("", "runs", "TTFT", "hi / lo", "TPOT", "hi / lo"),
        rows=tuple(rows),
        note="share of runs inside, and the median ratio of the band's ends; "
        "the spreads were chosen on fitted runs only (docs/uncertainty.md)",
    )


def _cells(known: pd.DataFrame) -> tuple[str, ...]:
    inside = coverage(known)
    cells = []
    for metric in METRICS:
        width = (known[f"{metric}_hi"] / known[f"{metric}_lo"]).median()
        cells += [percent(inside[metric], 0), f"{width:.2f}"]
    return tuple(cells)

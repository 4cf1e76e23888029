"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScenarioName = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A bundled scenario (xpyd scenarios) or a file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the scenario, such as pools.decode.instances=6; repeatable.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, max=2**63 - 1, help="Replace the scenario's seed."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write results, figures and an HTML page here."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No tables and no progress.")]


def with_seed(overrides: list[str] | None, seed: int | None) -> list[str]:
    """The overrides, the seed among them, so that the resolved scenario records it."""
    return [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]

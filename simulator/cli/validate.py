"""``xpyd validate``: predictions against measurements."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import AsJson, Quiet
from simulator.cli.progress import LateProgress
from simulator.errors import InputError


def validate(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="Measured runs; default: the bundled ones."),
    ] = None,
    serving: Annotated[
        bool, typer.Option("--serving", help="Simulate measured end-to-end serving runs.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write measured beside predicted here, as Parquet."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with measurements."""
    if not serving:
        raise InputError("validate: nothing asked for; allowed: --serving.")
    _serving(file, rows, jobs, as_json, quiet)


def _serving(file: Path | None, out: Path | None, jobs: int, as_json: bool, quiet: bool) -> None:
    from simulator.report.files import json_text, output_file
    from simulator.validation.rows import rows_table
    from simulator.validation.serving.data import bundled_runs
    from simulator.validation.serving.predict import predict_all
    from simulator.validation.serving.runs import read_runs
    from simulator.validation.serving.scores import joined, output_rows

    path = file or bundled_runs()
    runs = read_runs(path)
    with ExitStack() as stack:
        target = None if out is None else stack.enter_context(output_file(out, "--rows"))
        with LateProgress(quiet=quiet) as bar:
            found = predict_all(
                runs, jobs=jobs, progress=lambda done, all_: bar("simulating", done, all_)
            )
        if target is not None:
            rows_table(output_rows(path.stem, runs, found)).to_parquet(target, index=False)
    table = joined(runs, found)
    if as_json:
        typer.echo(json_text({"schema": 1, "runs": table.to_dict("records")}), nl=False)
    elif not quiet:
        from simulator.report.serving import serving_blocks
        from simulator.report.terminal import console
        from simulator.report.terminal import table as grid

        screen = console()
        for block in serving_blocks(table):
            screen.print(grid(block))
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)

"""``xpyd validate``: predictions against measurements."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import AsJson, Quiet
from simulator.cli.progress import LateProgress
from simulator.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from simulator.report.block import Block


def validate(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="With --serving: measured runs; default: the bundled ones."
        ),
    ] = None,
    serving: Annotated[
        bool, typer.Option("--serving", help="Simulate measured end-to-end serving runs.")
    ] = False,
    operators: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Tables of measured kernels; default: the bundled ones."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write measured beside predicted here, as Parquet."),
    ] = None,
    uncertainty: Annotated[
        int | None,
        typer.Option(
            "--uncertainty",
            metavar="DRAWS",
            help="With --serving: bands from so many draws a run (12 is a good number), and how "
            "often measurements lie inside.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare predictions with measurements: of kernels, or with --serving of whole runs."""
    if serving and operators is not None:
        raise InputError("--operators has no effect with --serving; allowed: one of the two.")
    if serving:
        _serving(file, rows, uncertainty, jobs, as_json, quiet)
        return
    if uncertainty is not None:
        raise InputError("--uncertainty has no effect without --serving.")
    if file is not None:
        raise InputError(f"'{file}' has no effect without --serving; did you mean --operators?")
    _operators(operators, rows, as_json, quiet)


def _operators(folder: Path | None, out: Path | None, as_json: bool, quiet: bool) -> None:
    from simulator.report.files import json_text, output_file
    from simulator.report.operators import operator_blocks
    from simulator.report.steps import step_blocks
    from simulator.validation.operators.scores import output_rows, scores, validate_tables
    from simulator.validation.operators.tables import bundled_tables, read_tables
    from simulator.validation.steps.summed import bundled_steps, validate_summed

    with ExitStack() as stack:
        target = None if out is None else stack.enter_context(output_file(out, "--rows"))
        tables = bundled_tables() if folder is None else read_tables(folder)
        with LateProgress(quiet=quiet) as bar:
            found = validate_tables(tables, lambda done, all_: bar("predicting", done, all_))
        if target is not None:
            output_rows(found).to_parquet(target, index=False)
    steps = None if folder is not None else (validate_summed(bundled_steps()), _eager())
    if as_json:
        contract: dict[str, object] = {
            "schema": 1,
            "operators": scores(found).reset_index().to_dict("records"),
        }
        if steps is not None:
            contract["steps"] = steps[0].to_dict("records")
            contract["eager_steps"] = steps[1].to_dict("records")
        typer.echo(json_text(contract), nl=False)
    elif not quiet:
        _show(operator_blocks(found))
        if steps is not None:
            _show(step_blocks(*steps))
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)


def _eager() -> pd.DataFrame:
    from simulator.validation.steps.eager import bundled_eager, validate_eager

    return validate_eager(bundled_eager())


def _show(blocks: Iterable[Block]) -> None:
    from simulator.report.terminal import console, table

    screen = console()
    for block in blocks:
        screen.print(table(block))


def _serving(
    file: Path | None, out: Path | None, draws: int | None, jobs: int, as_json: bool, quiet: bool
) -> None:
    from simulator.report.bands import coverage_block
    from simulator.report.files import json_text, output_file
    from simulator.uncertainty import check_draws
    from simulator.validation.rows import rows_table
    from simulator.validation.serving.bands import rows_with_bands, run_bands, with_bands
    from simulator.validation.serving.data import bundled_runs
    from simulator.validation.serving.predict import predict_all
    from simulator.validation.serving.runs import read_runs
    from simulator.validation.serving.scores import joined, output_rows

    if draws is not None:
        check_draws(draws, "--uncertainty")
    path = file or bundled_runs()
    runs = read_runs(path)
    bands = None
    with ExitStack() as stack:
        target = None if out is None else stack.enter_context(output_file(out, "--rows"))
        with LateProgress(quiet=quiet) as bar:
            found = predict_all(
                runs, jobs=jobs, progress=lambda done, all_: bar("simulating", done, all_)
            )
            if draws is not None:
                bands = run_bands(
                    runs,
                    found,
                    draws=draws,
                    jobs=jobs,
                    progress=lambda done, all_: bar("drawing", done, all_),
                )
        if target is not None:
            lines = rows_table(output_rows(path.stem, runs, found))
            lines = lines if bands is None else rows_with_bands(lines, bands)
            lines.to_parquet(target, index=False)
    table = joined(runs, found)
    if bands is not None:
        table = with_bands(table, bands)
    if as_json:
        typer.echo(json_text({"schema": 1, "runs": table.to_dict("records")}), nl=False)
    elif not quiet:
        from simulator.report.serving import serving_blocks

        _show(
            serving_blocks(table)
            if bands is None
            else [*serving_blocks(table), coverage_block(table)]
        )
    if out is not None:
        typer.echo(f"Wrote {out}", err=True)

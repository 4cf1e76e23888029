"""``xpyd simulate`` and ``xpyd compare``."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simulator.cli.options import AsJson, Out, Overrides, Quiet, ScenarioName, Seed, with_seed
from simulator.cli.progress import LateProgress
from simulator.errors import InputError


def simulate(
    scenario: ScenarioName,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
    out: Out = None,
    trace_out: Annotated[
        Path | None,
        typer.Option(
            "--trace-out",
            metavar="FILE",
            help="Write a timeline to open in ui.perfetto.dev; compressed if it ends in .gz.",
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Step by step instead of by strides: slow, to check."),
    ] = False,
    uncertainty: Annotated[
        int | None,
        typer.Option(
            "--uncertainty",
            metavar="DRAWS",
            help="Simulate it again in so many draws of what the model may be off by, and show "
            "5-95 % bands (40 is a good number).",
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(help="Worker processes of --uncertainty; -1: one a core. Same answer."),
    ] = 1,
    quiet: Quiet = False,
) -> None:
    """Simulate a scenario: latencies, where TTFT goes, load of the pools, cost."""
    from simulator.engine import simulate as run_scenario
    from simulator.metrics import summarize
    from simulator.report.files import json_text, output_file, output_folder
    from simulator.scenario import Scenario
    from simulator.uncertainty import check_draws
    from simulator.uncertainty import uncertainty as draw_bands

    if uncertainty is not None:
        check_draws(uncertainty, "--uncertainty")
        if reference:
            raise InputError("--reference checks one run; allowed: one of it and --uncertainty.")
    found = Scenario.load(scenario, with_seed(overrides, seed))
    bands = None
    with ExitStack() as stack:
        # refused before the work, not after it
        folder = None if out is None else stack.enter_context(output_folder(out))
        trace = None
        if trace_out is not None:
            trace = stack.enter_context(output_file(trace_out, "--trace-out"))
        with LateProgress(quiet=quiet) as bar:
            run = run_scenario(
                found, reference=reference, keep_strides=trace is not None, progress=bar.simulating
            )
        summary = summarize(run, found.slo)
        if uncertainty is not None:
            with LateProgress(quiet=quiet) as bar:
                bands = draw_bands(found, draws=uncertainty, jobs=jobs, progress=bar.drawing)
        if folder is not None:
            from simulator.report.results import write_results

            write_results(folder, found, run, summary, bands)
        if trace is not None:
            from simulator.report.perfetto import write_trace_to

            write_trace_to(run, trace, compress=str(trace_out).endswith(".gz"))
    if as_json:
        from simulator.report.uncertainty import run_json

        typer.echo(json_text(run_json(summary, bands)), nl=False)
    elif not quiet:
        from simulator.report.summary import print_summary
        from simulator.report.terminal import console

        print_summary(console(), run, summary, found.slo, bands)
        _written(out, trace_out)


class TwinName(StrEnum):
    """How the colocated twin is defined."""

    inventory = "inventory"
    cost = "cost"


def compare(
    scenario: ScenarioName,
    twin: Annotated[
        TwinName,
        typer.Option(
            help="inventory: the same GPUs, colocated; cost: the best colocated layout for the "
            "same money."
        ),
    ] = TwinName.inventory,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Compare a disaggregated scenario with its colocated twin on the same requests."""
    from simulator.comparison import compare as compare_scenario
    from simulator.report.files import json_text, output_folder
    from simulator.scenario import Scenario

    found = Scenario.load(scenario, with_seed(overrides, seed))
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(output_folder(out))
        with LateProgress(quiet=quiet) as bar:
            result = compare_scenario(found, twin=twin.value, progress=bar)
        if folder is not None:
            from simulator.report.comparison import write_comparison

            write_comparison(folder, result)
    if as_json:
        typer.echo(json_text(result.to_dict()), nl=False)
    elif not quiet:
        from simulator.report.comparison import print_comparison
        from simulator.report.terminal import console

        print_comparison(console(), result)
        _written(out)


def _written(*places: Path | None) -> None:
    """Say where the results are."""
    for place in places:
        if place is not None:
            typer.echo(f"Wrote {place}", err=True)

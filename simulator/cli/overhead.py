"""``xpyd calibrate overhead``: an engine's constants from one's own benchmark files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import AsJson, Overrides, Quiet
from simulator.cli.progress import LateProgress
from simulator.errors import InputError

if TYPE_CHECKING:
    from calibration.overhead.fit import Overhead


def overhead(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...",
            help="Results of vllm bench serve, sglang.bench_serving, AIPerf, genai-perf or "
            "inference-perf, all of one deployment.",
        ),
    ],
    profile: Annotated[
        str | None, typer.Option(metavar="GPU", help="GPU: a name (xpyd hardware) or a file.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="vllm, sglang, trtllm or a file of a profile: the prior."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Model or config.json; default: what the files say."),
    ] = None,
    tp: Annotated[int | None, typer.Option(min=1, help="Tensor parallelism (default: 1).")] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Format of the weights (default: the model's own)."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(metavar="SCENARIO", help="A scenario that says the deployment instead."),
    ] = None,
    overrides: Overrides = None,
    concurrency: Annotated[
        str | None,
        typer.Option(metavar="N[,N]", help="Requests in flight, where files do not say it."),
    ] = None,
    request_rate: Annotated[
        str | None,
        typer.Option(metavar="R[,R]", help="Requests per second, where files do not say it."),
    ] = None,
    range_ratio: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Lengths are uniform from this share of the longest, where files list none.",
        ),
    ] = None,
    constants: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Constants to fit (default: all but host_s)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write the engine profile here, as YAML."),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write measured beside predicted here, as Parquet."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Seed of lengths.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 2,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Refit an engine's overheads to measured runs, with its profile as the prior."""
    from calibration.overhead.engine_yaml import checked_text
    from calibration.overhead.fit import Clients
    from calibration.overhead.fit import overhead as run_overhead
    from calibration.overhead.page import output_rows, to_dict
    from calibration.overhead.setup import Options
    from simulator.report.files import json_text, output_file

    if out is not None and out.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {out}: found '{out.suffix}'; allowed: a name that ends in .yaml.")
    options = Options(profile, engine, model, tp, precision, scenario, tuple(overrides or ()))
    clients = Clients(
        tuple(map(int, _numbers("--concurrency", concurrency, whole=True))),
        _numbers("--request-rate", request_rate),
        range_ratio,
    )
    names = None if constants is None else [name.strip() for name in constants.split(",")]
    with ExitStack() as stack:  # refused before the work, not after it
        target = None if out is None else stack.enter_context(output_file(out, "--out"))
        table = None if rows is None else stack.enter_context(output_file(rows, "--rows"))
        with LateProgress(quiet=quiet) as bar:
            found = run_overhead(
                results,
                options,
                clients,
                name="my_engine" if out is None else out.stem,
                constants=names,
                seed=seed,
                jobs=jobs,
                progress=bar,
            )
        if target is not None:
            target.write(checked_text(found.engine).encode())
        if table is not None:
            output_rows(found).to_parquet(table, index=False)
    if as_json:
        typer.echo(json_text(to_dict(found)), nl=False)
    elif not quiet:
        _show(found)
    if quiet:
        return
    for place in (out, rows):
        if place is not None:
            typer.echo(f"Wrote {place}", err=True)
    if out is not None:
        typer.echo(f"Use it: --set engine.name={out}", err=True)


def _show(found: Overhead) -> None:
    from calibration.overhead.page import blocks, notes, verdicts
    from simulator.report.terminal import console, print_verdicts, table

    screen = console()
    for block in blocks(found):
        screen.print(table(block))
    screen.print()
    print_verdicts(screen, verdicts(found), notes(found))


def _numbers(option: str, text: str | None, *, whole: bool = False) -> tuple[float, ...]:
    """Positive numbers separated by commas."""
    if text is None:
        return ()
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (0.0,)
    good = all(value > 0.0 and (not whole or value == int(value)) for value in values)
    if not good:
        kind = "whole numbers from 1 on" if whole else "numbers above 0"
        raise InputError(f"{option}: found '{text}'; allowed: {kind}, separated by commas.")
    return values

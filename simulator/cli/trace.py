"""``xpyd trace``: what a workload file holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from simulator.cli.options import AsJson, Out, Quiet
from simulator.errors import InputError, suggest


def trace(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A bundled trace or a file: Azure, BurstGPT, Mooncake, AIPerf, a result of the vLLM "
            "or SGLang client, plain CSV or Parquet.",
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", help="Insist on a format instead of telling it.")
    ] = "auto",
    as_json: AsJson = False,
    out: Out = None,
    convert: Annotated[
        Path | None,
        typer.Option(
            "--convert",
            metavar="FILE",
            help="Write the plain form (arrival_s, prompt_tokens, output_tokens, block ids): "
            ".parquet or .csv.",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Describe a trace: rate, lengths, burstiness, shared prefixes; convert it to the plain form."""
    from simulator.report.files import json_text, output_file, output_folder
    from simulator.report.trace import plain_form, trace_report, write_trace_report
    from simulator.workload import TraceFormat

    formats = get_args(TraceFormat)
    if format not in formats:
        raise InputError(f"--format: found {format!r}; {suggest(format, formats)}")
    report = trace_report(file, cast(TraceFormat, format))
    left_out = ""
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(output_folder(out))
        if convert is not None:
            content, left_out = plain_form(report, convert.suffix.lower())
            stack.enter_context(output_file(convert, "--convert")).write(content)
        if folder is not None:
            write_trace_report(folder, report)
    if as_json:
        typer.echo(json_text(report.to_dict()), nl=False)
    elif not quiet:
        from simulator.report.terminal import console
        from simulator.report.trace import print_trace

        print_trace(console(), report)
    if not quiet:
        if left_out:
            typer.echo(left_out, err=True)
        for place in (out, convert):
            if place is not None:
                typer.echo(f"Wrote {place}", err=True)

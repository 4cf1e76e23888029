"""``xpyd calibrate``: measure this machine's operators, and fit a hardware profile to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simulator.cli.options import Quiet
from simulator.cli.overhead import overhead
from simulator.cli.progress import LateProgress

if TYPE_CHECKING:
    from calibration.bench import Bench

INTERRUPTED = 130
"""Exit code after Ctrl-C, as for every command."""

calibrate = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Measure this machine's operators with torch and fit a hardware profile to them, or refit an "
    "engine's overheads to benchmark results.",
)
calibrate.command()(overhead)


@calibrate.command()
def bench(
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Parquet file of rows. FILE.journal beside it holds what is measured so far: the "
            "same command goes on after an interrupt.",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="cuda, cuda:N or cpu (default: the first CUDA GPU)."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A third of the shapes, in shorter blocks.")
    ] = False,
    operators: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these, such as gemm,attn_decode (default: all)."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.0, help="Start no further shape after so long (default: no limit)."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure operators on this machine's GPU (or processor): about two minutes of one GPU."""
    from calibration.bench import bench as run_bench
    from calibration.plan import chosen_operators

    with LateProgress(quiet=quiet) as bar:
        try:
            found = run_bench(
                out,
                device=device,
                quick=quick,
                operators=None if operators is None else chosen_operators(operators),
                minutes=minutes,
                progress=bar,
            )
        except KeyboardInterrupt:
            typer.echo(
                f"xpyd: interrupted; what was measured is in {out}.journal, and the same command "
                "goes on from there",
                err=True,
            )
            raise typer.Exit(INTERRUPTED) from None
    if not quiet:
        _tell(found)


def _tell(found: Bench) -> None:
    """What was measured and what was not, in a few lines."""
    typer.echo(
        f"{found.rows} rows of {found.gpu} in {found.out}, {found.measured} of them new in "
        f"{found.seconds:.0f} s"
    )
    for case, reason in found.skipped.items():
        typer.echo(f"left out: {case}: {reason}")
    if found.left:
        typer.echo(f"{found.left} cases are left; the same command goes on with them")


@calibrate.command()
def tables(
    rows: Annotated[
        Path, typer.Argument(metavar="FILE", help="Rows that xpyd calibrate bench wrote.")
    ],
    gpu: Annotated[
        str, typer.Option("--gpu", metavar="GPU", help="The profile that should predict them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the tables.")],
) -> None:
    """Write the rows as operator tables, for xpyd validate --operators DIR."""
    from calibration.rows import read_rows, write_tables
    from hwprofiles import load_gpu
    from simulator.report.files import output_folder

    data, name = read_rows(rows), load_gpu(gpu).name
    with output_folder(out) as staging:
        files = write_tables(data, name, staging)
    for file in files:
        typer.echo(f"Wrote {out / file}", err=True)


@calibrate.command()
def fit(
    rows: Annotated[
        Path, typer.Argument(metavar="FILE", help="Rows that xpyd calibrate bench wrote.")
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Name of the profile, such as my_h100.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="GPU",
            help="A profile (a name or a file) whose data sheet holds for this GPU; default: the "
            "highest rates measured.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder for the files (default: this one)."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fit a hardware profile: values, standard errors, held-out errors, figures and a page."""
    from calibration.fit import fitted_files

    found, files = fitted_files(rows, name, out, base)
    if quiet:
        return
    from simulator.report.terminal import console, print_verdicts, table

    screen = console()
    for block in found.page.blocks()[:3]:
        screen.print(table(block))
    screen.print()
    print_verdicts(screen, found.page.verdicts(), found.page.notes)
    for file in files[:3]:
        typer.echo(f"Wrote {file}", err=True)
    typer.echo(f"Use it: xpyd hardware {files[0]}, or --set pools.NAME.gpu={files[0]}", err=True)

"""The ``xpyd`` command: its subcommands, and what becomes of errors.

Every error a user can cause ends as one sentence on standard error and exit code 2, an interrupt
as exit code 130. Commands import what they need when they run, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simulator.cli.calibrate import calibrate
from simulator.cli.catalogue import models, presets, scenarios
from simulator.cli.hardware import hardware
from simulator.cli.plan import plan
from simulator.cli.runs import compare, simulate
from simulator.cli.trace import trace
from simulator.cli.validate import validate
from simulator.errors import InputError

INPUT_ERROR = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """The group of subcommands; turns errors into exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand.

        Raises:
            typer.Exit: after an error of the user's, with code 2, or an interrupt, with 130.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            sentence = " ".join(str(error).split())
            typer.echo(f"xpyd: {sentence}", err=True)
            raise typer.Exit(INPUT_ERROR) from None
        except KeyboardInterrupt:
            typer.echo("xpyd: interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(simulate)
app.command()(compare)
app.command()(plan)
app.command()(validate)
app.command()(trace)
app.command()(hardware)
app.command()(scenarios)
app.command()(presets)
app.command()(models)
app.add_typer(calibrate, name="calibrate")


def _version(asked: bool) -> None:
    if asked:
        from simulator.version import VERSION

        typer.echo(f"xpyd {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Simulate disaggregated prefill/decode LLM serving and plan its capacity."""


def main() -> None:
    """Entry point of the ``xpyd`` command."""
    try:
        app(prog_name="xpyd")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

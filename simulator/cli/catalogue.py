"""``xpyd models`` and ``xpyd scenarios``: what there is, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import AsJson

if TYPE_CHECKING:
    from simulator.report.block import Block


def scenarios(as_json: AsJson = False) -> None:
    """List the bundled scenarios and the question each of them asks."""
    from simulator.report.catalogue import scenario_list, scenarios_block

    found = scenario_list()
    if as_json:
        _json(found)
    else:
        _tables(scenarios_block(found))


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A bundled model or a config.json; none: list all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the bundled models; or one: parameters, weight bytes, KV bytes per token."""
    from simulator.report import catalogue

    if name is None:
        found = catalogue.model_list()
        block = catalogue.models_block(found)
    else:
        one = catalogue.model_facts(name)
        block = catalogue.model_block(one)
    if as_json:
        _json(found if name is None else one)
    else:
        _tables(block)


def _json(value: Any) -> None:
    from simulator.report.files import json_text

    typer.echo(json_text(value), nl=False)


def _tables(*blocks: Block) -> None:
    from simulator.report.terminal import console, table

    out = console()
    for block in blocks:
        out.print(table(block))

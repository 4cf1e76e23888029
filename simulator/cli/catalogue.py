"""``xpyd hardware``, ``xpyd models`` and ``xpyd scenarios``: what there is, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import AsJson
from simulator.errors import InputError

if TYPE_CHECKING:
    from simulator.report.block import Block


def hardware(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A GPU profile or a file; none: list all."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Show memory and step times with this model.")
    ] = None,
    tp: Annotated[
        int | None, typer.Option(min=1, help="Tensor-parallel degree (default 1).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Sequences of the decode step (default 32).")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="KV tokens each of them reads (default 2048).")
    ] = None,
    prompt: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the prompt prefilled (default 2048).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show GPUs, links and prices; or one GPU, and where its step time goes with a model."""
    sizes = {"tp": tp, "batch": batch, "context": context, "prompt": prompt}
    given: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    if name is None:
        for option in ("model", *given):
            if option in given or model is not None:
                raise InputError(f"--{option} has no effect without the NAME of a GPU.")
        _hardware_list(as_json)
        return
    if model is None and given:
        raise InputError(f"--{next(iter(given))} has no effect without --model.")
    from simulator.report.hardware import hardware_report, hardware_view

    report = hardware_report(name, model, **given)
    if as_json:
        _json(report)
    else:
        from simulator.report.terminal import console

        console().print(hardware_view(report))


def _hardware_list(as_json: bool) -> None:
    from simulator.report.catalogue import hardware_blocks, hardware_list

    found = hardware_list()
    if as_json:
        _json(found)
    else:
        _tables(*hardware_blocks(found))


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

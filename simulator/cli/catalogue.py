"""``xpyd models`` and ``xpyd scenarios``: what there is, and what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import AsJson
from simulator.errors import InputError

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


def presets(as_json: AsJson = False) -> None:
    """List the kinds of requests that a scenario's classes can start from."""
    from simulator.report.catalogue import preset_list, presets_block

    found = preset_list()
    if as_json:
        _json(found)
    else:
        _tables(presets_block(found))


def models(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A bundled model or a config.json; none: list all."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Format of the weights instead of the file's, such as fp8.")
    ] = None,
    experts: Annotated[
        str | None, typer.Option(help="Format of the routed experts, such as mxfp4.")
    ] = None,
    kv: Annotated[str | None, typer.Option(help="Format of the KV cache: bf16 or fp8.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Every layout on this GPU, instead of all GPUs in short.")
    ] = None,
    memory_fraction: Annotated[
        float | None, typer.Option(help="Share of the GPU memory an engine may use (default 0.9).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the bundled models; or one: parameters, layers, weights, KV cache, and what fits where."""
    options = {"weights": weights, "experts": experts, "kv": kv, "gpu": gpu,
               "memory_fraction": memory_fraction}  # fmt: skip
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    from simulator.report.model_tables import model_blocks, models_block
    from simulator.report.models import model_list, model_report

    if name is not None:
        one = model_report(name, **given)
        if as_json:
            _json(one)
        else:
            _tables(*model_blocks(one))
        return
    if given:
        option = next(iter(given)).replace("_", "-")
        raise InputError(f"--{option} has no effect without the NAME of a model.")
    found = model_list()
    if as_json:
        _json(found)
    else:
        _tables(models_block(found))


def _json(value: Any) -> None:
    from simulator.report.files import json_text

    typer.echo(json_text(value), nl=False)


def _tables(*blocks: Block) -> None:
    from simulator.report.terminal import console, table

    out = console()
    for block in blocks:
        out.print(table(block))

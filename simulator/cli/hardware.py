"""``xpyd hardware``: GPUs, links and prices; one of them; or two compared."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from simulator.cli.options import AsJson
from simulator.errors import InputError

DIFF = "diff"


def hardware(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME | diff A B",
            help="A GPU or a link, bundled or a file; or two to compare; none: list all.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Show memory and step times with this model.")
    ] = None,
    tp: Annotated[
        int | None, typer.Option(min=1, help="Tensor-parallel degree (default 1).")
    ] = None,
    pp: Annotated[int | None, typer.Option(min=1, help="Pipeline stages (default 1).")] = None,
    ep: Annotated[
        int | None, typer.Option(min=1, help="Groups routed experts are spread over (default 1).")
    ] = None,
    attention_dp: Annotated[
        int | None, typer.Option(min=1, help="Attention ranks in lock-step (default 1).")
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
    everything: Annotated[
        bool, typer.Option("--all", help="With diff: show equal parameters too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show GPUs, links and prices; one of them, and with a model where its time goes; or compare two."""
    given = names or []
    sizes = {
        "tp": tp,
        "pp": pp,
        "ep": ep,
        "attention_dp": attention_dp,
        "batch": batch,
        "context": context,
        "prompt": prompt,
    }
    options: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    what = "diff" if given[:1] == [DIFF] else "one" if given else "list"
    _check_options(what, model, options, everything)
    if what == "diff":
        _diff(given[1:], everything, as_json)
    elif what == "list":
        _list(as_json)
    elif len(given) > 1:
        raise InputError(
            f"hardware: found {len(given)} names; allowed: one, or 'diff' and two of them."
        )
    else:
        _one(given[0], model, options, as_json)


def _check_options(what: str, model: str | None, options: dict[str, Any], everything: bool) -> None:
    """Refuse what would have no effect."""
    if everything and what != "diff":
        raise InputError("--all has no effect without diff.")
    first = ["model"] if model is not None else []
    for option in (*first, *options):
        if what == "list":
            raise InputError(f"--{_flag(option)} has no effect without the NAME of a GPU.")
        if what == "diff":
            raise InputError(f"--{_flag(option)} has no effect with diff.")
        if model is None:
            raise InputError(f"--{_flag(option)} has no effect without --model.")


def _flag(option: str) -> str:
    return option.replace("_", "-")


def _one(name: str, model: str | None, options: dict[str, Any], as_json: bool) -> None:
    from simulator.report.hardware_diff import known_name

    if known_name(name) == "link":
        from simulator.report.hardware_sheet import link_report, link_view

        if model is not None:
            raise InputError(f"--model has no effect with a link, and {name} is one.")
        _print(link_report(name), link_view, as_json)
        return
    from simulator.report.hardware import hardware_report, hardware_view

    _print(hardware_report(name, model, **options), hardware_view, as_json)


def _diff(names: list[str], everything: bool, as_json: bool) -> None:
    from simulator.report.hardware_diff import diff_view, hardware_diff

    if len(names) != 2:
        raise InputError(f"hardware diff: found {len(names)} names; allowed: two.")
    found = hardware_diff(*names)
    _print(found, lambda report: diff_view(report, everything=everything), as_json)


def _list(as_json: bool) -> None:
    from simulator.report.hardware_list import hardware_blocks, hardware_list

    found = hardware_list()
    if as_json:
        _json(found)
        return
    from simulator.report.terminal import console, table

    out = console()
    for block in hardware_blocks(found):
        out.print(table(block))


def _print(report: dict[str, Any], view: Any, as_json: bool) -> None:
    if as_json:
        _json(report)
        return
    from simulator.report.terminal import console

    console().print(view(report))


def _json(value: Any) -> None:
    from simulator.report.files import json_text

    typer.echo(json_text(value), nl=False)

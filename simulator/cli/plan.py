"""``xpyd plan``: the cheapest layout that holds latency targets, and how that is known."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulator.cli.options import AsJson, Overrides, Quiet, Seed, with_seed
from simulator.cli.progress import LateProgress
from simulator.errors import InputError, ScenarioError

if TYPE_CHECKING:
    from simulator.planner import Plan
    from simulator.scenario import SLO, Scenario

INTERRUPTED = 130
"""Exit code after Ctrl-C, as for every command."""


class ObjectiveName(StrEnum):
    """What is minimised."""

    cost = "cost"
    gpus = "gpus"


def plan(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]",
            help="A bundled scenario (xpyd scenarios) or a file; none with --resume.",
        ),
    ] = None,
    ttft: Annotated[
        str | None, typer.Option(metavar="TIME", help="Target for TTFT, such as 500ms.")
    ] = None,
    tpot: Annotated[
        str | None, typer.Option(metavar="TIME", help="Target for TPOT, such as 50ms.")
    ] = None,
    attainment: Annotated[
        float | None,
        typer.Option(help="Share of requests that must meet the targets (default 0.99)."),
    ] = None,
    max_gpus: Annotated[
        int | None,
        typer.Option("--max-gpus", min=1, help="GPUs of a layout at most (default 64)."),
    ] = None,
    inventory: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="GPU types, counts, prices and links to choose from: a file, or 'example'; "
            "default: the scenario's GPU types.",
        ),
    ] = None,
    objective: Annotated[
        ObjectiveName | None, typer.Option(help="What to minimise (default cost).")
    ] = None,
    jobs: Annotated[
        int, typer.Option(help="Worker processes; -1: one a core. Does not change the answer.")
    ] = 1,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Requests to simulate at most, over all runs.")
    ] = None,
    uncertainty: Annotated[
        int | None,
        typer.Option(
            "--uncertainty",
            metavar="DRAWS",
            help="Simulate the winner and the best of each mode again in so many draws of what the "
            "model may be off by: the probability that they hold.",
        ),
    ] = None,
    overrides: Overrides = None,
    seed: Seed = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Keep the plan here, to resume, and its results."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="DIR", help="Go on with the plan kept in DIR."),
    ] = None,
    save_scenarios: Annotated[
        Path | None,
        typer.Option(
            "--save-scenarios",
            metavar="DIR",
            help="Write every layout considered as a scenario file.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the cheapest layout that holds latency targets, disaggregated or colocated."""
    from simulator.planner import Inventory
    from simulator.planner import plan as make_plan
    from simulator.planner import save_scenarios as write_scenarios
    from simulator.uncertainty import check_draws

    if uncertainty is not None:
        check_draws(uncertainty, "--uncertainty")
    asked: dict[str, Any] = {
        "SCENARIO": scenario,
        "--ttft": ttft,
        "--tpot": tpot,
        "--attainment": attainment,
        "--max-gpus": max_gpus,
        "--inventory": inventory,
        "--objective": objective,
        "--budget": budget,
        "--set": overrides or None,
        "--seed": seed,
        "--out": out,
    }
    watch = _Watch(quiet=quiet)
    with watch:
        if resume is not None:
            _only_resume(asked)
            found = make_plan(resume=resume, jobs=jobs, progress=watch, uncertainty=uncertainty)
        else:
            base = _scenario(scenario, overrides, seed)
            found = make_plan(
                base,
                _targets(base, ttft, tpot, attainment),
                max_gpus=max_gpus,
                inventory=None if inventory is None else Inventory.load(inventory),
                objective=(objective or ObjectiveName.cost).value,
                jobs=jobs,
                out=out,
                budget_requests=budget,
                progress=watch,
                uncertainty=uncertainty,
            )
    if (folder := out or resume) is not None:
        from simulator.report.plan_figures import write_plan_figures

        write_plan_figures(found, folder)
    if save_scenarios is not None:
        write_scenarios(save_scenarios, found)
    _show(found, as_json, quiet, watch.seconds)
    for place in (out, resume, save_scenarios):
        if place is not None and not quiet:
            typer.echo(f"Wrote {place}", err=True)
    if found.interrupted:
        if folder is not None:
            typer.echo(f"xpyd: interrupted; go on with --resume {folder}", err=True)
        raise typer.Exit(INTERRUPTED)


class _Watch(LateProgress):
    """Progress with the rate of simulation in its text."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start [s]."""
        return time.monotonic() - self._began

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` requests of at most ``total`` have been simulated."""
        if what == "drawing":  # counts runs
            super().__call__(what, done, total)
            return
        rate = done / max(self.seconds, 1e-3)
        super().__call__(f"{what}, {rate:,.0f} requests/s, at most", done, total)


def _only_resume(asked: dict[str, Any]) -> None:
    for name, value in asked.items():
        if value is not None:
            raise InputError(
                f"{name} has no effect with --resume, which goes on with the plan as it was asked."
            )


def _scenario(name: str | None, overrides: list[str] | None, seed: int | None) -> Scenario:
    from simulator.scenario import Scenario

    if name is None:
        raise InputError("plan needs a SCENARIO, or --resume DIR.")
    return Scenario.load(name, with_seed(overrides, seed))


def _targets(
    base: Scenario, ttft: str | None, tpot: str | None, attainment: float | None
) -> SLO | None:
    """The targets of the options; what they leave out is the scenario's.

    Those of request classes hold unless --ttft or --tpot is given, which hold for all requests.
    """
    from simulator.scenario import SLO

    own = base.slo
    if own is not None and own.classes and not ttft and not tpot:
        return own if attainment is None else replace(own, attainment=attainment)
    found = {
        "ttft_s": _time("--ttft", ttft) if ttft else own.ttft_s if own else None,
        "tpot_s": _time("--tpot", tpot) if tpot else own.tpot_s if own else None,
    }
    share = attainment if attainment is not None else own.attainment if own else 0.99
    if all(value is None for value in found.values()):
        raise ScenarioError(
            f"{base.name} has no latency targets; give --ttft, --tpot or both (such as 500ms)."
        )
    return SLO(ttft_s=found["ttft_s"], tpot_s=found["tpot_s"], attainment=share)


def _time(option: str, text: str) -> float:
    """A duration in seconds or with a unit [s]."""
    from pydantic_core import PydanticCustomError

    from simulator.scenario.values import duration

    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(duration(text))
    except PydanticCustomError as error:
        raise ScenarioError(f"{option}: {(error.context or {}).get('problem')}") from None


def _show(found: Plan, as_json: bool, quiet: bool, seconds: float) -> None:
    if as_json:
        from simulator.report.files import json_text

        typer.echo(json_text(found.to_dict()), nl=False)
    elif not quiet:
        from simulator.cli.plan_text import print_plan
        from simulator.report.terminal import console

        print_plan(console(), found, seconds)

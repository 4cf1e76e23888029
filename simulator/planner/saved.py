"""A plan's folder: the question, from which it can be resumed, and the results.

``scenario.yaml`` and ``request.json`` (targets, inventory, options), ``ledger.jsonl`` (one line a
finished run), and at the end ``plan.json``, ``evidence.csv``, ``evidence.parquet`` and
``winner.yaml``, a runnable scenario.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.planner.evidence import Evaluated
from simulator.planner.inventory import Inventory
from simulator.planner.ledger import SCENARIO, read_request, replace_text, write_request
from simulator.planner.result import Plan
from simulator.planner.space import Space
from simulator.planner.trial import Question
from simulator.scenario import SLO, ClassSLO, Scenario

if TYPE_CHECKING:
    from simulator.planner.planning import Asked

FORMAT = 1
"""Version of the folder; another one cannot be resumed."""


def store_asked(folder: Path, asked: Asked) -> None:
    """Write the question into a new folder.

    Raises:
        InputError: the folder cannot be written, or holds another plan.
    """
    request = {
        "format": FORMAT,
        "slo": asdict(asked.slo),
        "inventory": asked.inventory.model_dump(mode="json", exclude_none=True),
        "max_gpus": asked.max_gpus,
        "objective": asked.objective,
        "budget_requests": asked.budget_requests,
        "seed": asked.seed,
        "space": asdict(asked.space),
        "workload": _fingerprint(asked.scenario, asked.slo, asked.seed),
    }
    write_request(folder, request, asked.scenario.to_yaml())


def load_asked(folder: Path) -> Asked:
    """The question of a folder.

    Raises:
        InputError: it holds no plan, one of another version, or its trace has changed since.
    """
    from simulator.planner.planning import Asked

    raw = read_request(folder)
    if raw.get("format") != FORMAT:
        raise InputError(
            f"{folder}: found a plan of format {raw.get('format')}; allowed: {FORMAT}."
        )
    scenario = Scenario.load(folder / SCENARIO)
    try:
        space: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in raw["space"].items()
        }
        asked = Asked(
            scenario=scenario,
            slo=_slo(raw["slo"]),
            inventory=Inventory.from_dict(raw["inventory"], source=str(folder)),
            max_gpus=raw["max_gpus"],
            objective=raw["objective"],
            budget_requests=raw["budget_requests"],
            seed=raw["seed"],
            space=Space(**space),
        )
        was = raw["workload"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: its request.json is damaged ({error!r}).") from None
    if was != _fingerprint(scenario, asked.slo, asked.seed):
        raise InputError(
            f"{folder}: its workload has changed since the plan was started (another trace file, or "
            "another version of NumPy); start the plan again."
        )
    return asked


def _slo(raw: dict[str, Any]) -> SLO:
    """Targets as stored; those of request classes are missing from older plans."""
    classes = {name: ClassSLO(**own) for name, own in raw.get("classes", {}).items()}
    return SLO(**{**raw, "classes": classes})


def _fingerprint(scenario: Scenario, slo: SLO, seed: int) -> str:
    """Of the first requests of the workload: outcomes of two workloads must not be mixed."""
    requests = Question(scenario, slo, {}).requests(seed, 1000)
    found = hashlib.sha256()
    for array in (requests.arrival_s, requests.prompt_tokens, requests.output_tokens):
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def write_results(folder: Path, plan: Plan) -> list[str]:
    """Write the answer into the plan's folder.

    Returns:
        Names of the files.

    Raises:
        InputError: a file cannot be written.
    """
    names = ["plan.json", "evidence.csv", "evidence.parquet"]
    try:
        text = json.dumps(plan.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
        replace_text(folder / "plan.json", text + "\n")
        evidence = plan.evidence
        replace_text(folder / "evidence.csv", evidence.to_csv(index=False))
        staged = folder / ".evidence.parquet.part"
        evidence.to_parquet(staged, index=False)
        os.replace(staged, folder / "evidence.parquet")
        if plan.winner is not None:
            names.append("winner.yaml")
            replace_text(folder / "winner.yaml", plan.scenario_of(plan.winner).to_yaml())
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}.") from None
    return names


def save_scenarios(folder: Path, plan: Plan) -> int:
    """Write every evidence row as a runnable scenario file, named after the layout.

    Returns:
        How many.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in plan.rows:
            _write_scenario(folder, plan, row)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}.") from None
    return len(plan.rows)


def _write_scenario(folder: Path, plan: Plan, row: Evaluated) -> None:
    said: list[Any] = [f"# {row.layout.full_label}: {row.verdict}", f"# {row.reason}"]
    text = "\n".join(said) + "\n" + plan.scenario_of(row).to_yaml()
    (folder / f"{row.layout.slug}.yaml").write_text(text, encoding="utf-8")

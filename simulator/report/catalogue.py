"""The bundled scenarios and kinds of requests, as data and as tables."""

from __future__ import annotations

import scenarios
from simulator.report.block import Block
from simulator.workload.presets import PRESETS


def question(text: str) -> str:
    """The first sentence of the comment a scenario file begins with; empty without one."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    comment = " ".join(lines)
    ends = [i for i, c in enumerate(comment) if c in "?." and comment[i + 1 : i + 2] in ("", " ")]
    return comment[: ends[0] + 1] if ends else comment


def scenario_list() -> list[dict[str, str]]:
    """Name and question of every bundled scenario."""
    return [
        {
            "name": name,
            "question": question(scenarios.scenario_path(name).read_text(encoding="utf-8")),
        }
        for name in scenarios.scenario_names()
    ]


def scenarios_block(found: list[dict[str, str]]) -> Block:
    """Bundled scenarios as a table."""
    rows = tuple((s["name"], s["question"]) for s in found)
    return Block("Bundled scenarios", (), rows, "xpyd simulate NAME")


def preset_list() -> list[dict[str, str]]:
    """Name, meaning and source of every kind of request a class can start from."""
    return [{"name": n, "about": p.about, "source": p.source} for n, p in PRESETS.items()]


def presets_block(found: list[dict[str, str]]) -> Block:
    """Kinds of requests as a table."""
    rows = tuple((p["name"], f"{p['about']} ({p['source']})") for p in found)
    return Block("Kinds of requests", (), rows, "In a scenario: workload: {classes: {MINE: NAME}}")

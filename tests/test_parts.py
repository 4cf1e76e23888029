"""The table of what parts are worth: the runs it takes, a change made, errors by engine."""

from __future__ import annotations

import math

import parts

from simulator.validation.serving.data import bundled_runs
from simulator.validation.serving.runs import read_runs


def test_runs_of_the_documented_client_only() -> None:
    runs = read_runs(bundled_runs())
    found = parts.chosen(runs, 16)
    assert found
    assert all(r.documented and r.prefill is None and r.concurrency <= 16 for r in found)
    assert len(found) < len(parts.chosen(runs, 64))


def test_a_part_left_out_moves_what_it_stands_for() -> None:
    run = min(parts.chosen(read_runs(bundled_runs()), 8), key=lambda r: r.osl * r.concurrency)
    by_name = {part.name: part for part in parts.PARTS}
    ttft, tpot = parts.errors(run, by_name["as simulated"])
    no_front = parts.errors(run, by_name["front end: no latency"])
    assert no_front[0] < ttft
    assert abs(no_front[1] - tpot) < 0.05
    assert parts.errors(run, by_name["steps: no overhead (c0, c1)"])[1] < tpot
    impossible = parts.Part("none", overrides=("pools.colocated.tp=3",))
    assert all(math.isnan(e) for e in parts.errors(run, impossible))


def test_errors_stand_by_engine_and_part() -> None:
    runs = parts.chosen(read_runs(bundled_runs()), 8)
    found = {(run.row, part.name): (0.1, -0.2) for run in runs for part in parts.PARTS}
    found |= {(run.row, parts.PARTS[1].name): (math.nan, math.nan) for run in runs}
    text = parts.lines(runs, found)
    assert text[2].startswith("| as simulated | 10 / 10 | 20 / 20 |")
    assert "–" in text[3]
    assert len(text) == len(parts.PARTS) + 4

"""The timeline trace: valid Chrome Trace Events that say what the run did."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.engine import simulate, simulate_deployment
from simulator.report.perfetto import (
    PID_POOLS,
    PID_REQUESTS,
    PID_TRANSFERS,
    trace_events,
    write_trace,
)
from simulator.run import Run
from simulator.scenario import Scenario
from tests import engine_kit as kit

Event = dict[str, Any]


def _scenario(*overrides: str) -> Run:
    scenario = Scenario.load("quick_8b", ["workload.requests=120", *overrides])
    return simulate(scenario, keep_strides=True)


def _preempting() -> Run:
    """Sixteen requests on an instance whose KV cache holds two of them."""
    pool = kit.pool("colocated", capacity_blocks=12)
    return simulate_deployment(
        kit.deployment(pool), kit.requests([0.0] * 16, 40, 60), keep_strides=True
    )


def _incast() -> Run:
    """Four prefill instances that send into one decode instance at once, over a slow link."""
    plan = kit.deployment(kit.pool("prefill", instances=4), kit.pool("decode"))
    return simulate_deployment(plan, kit.requests([0.0] * 12, 500, 3), keep_strides=True)


RUNS = {
    "disaggregated": lambda: _scenario(),
    "step by step": lambda: simulate(
        Scenario.load("quick_8b", ["workload.requests=20"]), keep_strides=True, reference=True
    ),
    "layer by layer": lambda: _scenario("transfer=layerwise", "reserve=before_prefill"),
    "prefill emits": lambda: _scenario("first_token=prefill"),
    "hand-off": lambda: _scenario("first_token=handoff"),
    "one token": lambda: _scenario("workload.output_tokens={dist: fixed, tokens: 1}"),
    "colocated": lambda: simulate(
        Scenario.load("colocated_70b_h100", ["workload.requests=120"]), keep_strides=True
    ),
    "closed loop": lambda: simulate(
        Scenario.load("bench_70b_closed_loop", ["workload.closed_loop.requests=80"]),
        keep_strides=True,
    ),
    "incast": _incast,
    "preempting": _preempting,
}


@pytest.fixture(scope="module", params=list(RUNS))
def traced(request: pytest.FixtureRequest) -> tuple[Run, list[Event]]:
    run = RUNS[request.param]()
    return run, [json.loads(line) for line in trace_events(run)]


def _ns(event: Event, key: str = "ts") -> int:
    return round(event[key] * 1000)


def _slices(events: list[Event]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Begin and end of every complete event by track, in file order [ns]."""
    tracks = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            tracks[e["pid"], e["tid"]].append((_ns(e), _ns(e) + _ns(e, "dur")))
    return tracks


def test_every_event_has_the_fields_of_its_kind(traced: tuple[Run, list[Event]]) -> None:
    _, events = traced
    needed = {
        "M": {"args"},
        "X": {"ts", "dur", "args", "cat"},
        "C": {"ts", "args"},
        "b": {"ts", "id", "cat"},
        "e": {"ts", "id", "cat"},
        "n": {"ts", "id", "cat"},
        "s": {"ts", "id", "cat"},
        "t": {"ts", "id", "cat"},
        "f": {"ts", "id", "cat", "bp"},
    }
    for e in events:
        assert {"ph", "pid", "tid", "name"} | needed[e["ph"]] <= set(e), e


def test_slices_of_a_track_never_overlap(traced: tuple[Run, list[Event]]) -> None:
    _, events = traced
    for track, slices in _slices(events).items():
        for (_, end), (begin, _) in itertools.pairwise(slices):
            assert begin >= end, track


def test_all_times_lie_within_the_run(traced: tuple[Run, list[Event]]) -> None:
    run, events = traced
    last = max(run.end_s, run.requests["landed_s"].max(skipna=True) or 0.0)
    latest = round(float(np.nanmax([last, run.strides["t_end_s"].max()])) * 1e9)
    for e in events:
        if e["ph"] != "M":
            assert 0 <= _ns(e) <= latest, e


def test_async_spans_nest_and_close(traced: tuple[Run, list[Event]]) -> None:
    run, events = traced
    open_: dict[int, list[tuple[str, int]]] = defaultdict(list)
    closed = 0
    for e in events:
        if e["ph"] == "b":
            assert not open_[e["id"]] or _ns(e) >= open_[e["id"]][-1][1]
            open_[e["id"]].append((e["name"], _ns(e)))
        elif e["ph"] == "e":
            name, begin = open_[e["id"]].pop()
            assert name == e["name"]
            assert _ns(e) >= begin
            closed += 1
    assert not any(open_.values())
    assert closed >= len(run.requests)


def test_flows_bind_to_slices_and_go_forward(traced: tuple[Run, list[Event]]) -> None:
    run, events = traced
    tracks = _slices(events)
    flows: dict[int, list[Event]] = defaultdict(list)
    for e in events:
        if e["ph"] in "stf":
            flows[e["id"]].append(e)
            assert any(
                begin <= _ns(e) < end or begin == _ns(e) == end
                for begin, end in tracks[e["pid"], e["tid"]]
            ), e
    for steps in flows.values():
        assert [e["ph"] for e in steps] in (["s", "f"], ["s", "t", "f"])
        assert [_ns(e) for e in steps] == sorted(_ns(e) for e in steps)
    reached = run.requests["decode_start_s"].notna() & run.requests["prefill_end_s"].notna()
    assert len(flows) == int(reached.sum())


def test_one_slice_per_stride_with_its_numbers(traced: tuple[Run, list[Event]]) -> None:
    run, events = traced
    assert run.strides is not None
    found = [e for e in events if e["ph"] == "X" and e["cat"] == "stride"]
    assert len(found) == len(run.strides)
    for key in ("steps", "batch", "kv_tokens", "new_tokens", "blocks", "prefills"):
        assert sum(e["args"][key] for e in found) == run.strides[key].sum()
    total_s = sum(e["dur"] for e in found) / 1e6
    assert total_s == pytest.approx(run.instances["busy_s"].sum(), rel=1e-6)


def test_every_track_and_process_has_a_name(traced: tuple[Run, list[Event]]) -> None:
    _, events = traced
    processes = {e["pid"] for e in events if e["name"] == "process_name"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {e["pid"] for e in events} == processes
    assert set(_slices(events)) <= threads


def test_counters_return_to_zero(traced: tuple[Run, list[Event]]) -> None:
    _, events = traced
    last: dict[str, int] = {}
    for e in events:
        if e["ph"] == "C":
            (value,) = e["args"].values()
            assert value >= 0
            last[e["name"]] = value
    assert any(name.startswith("batch") for name in last)
    assert not any(value for name, value in last.items() if not name.startswith("KV blocks"))


def test_transfers_that_share_an_endpoint_get_lanes() -> None:
    run = _incast()
    events = [json.loads(line) for line in trace_events(run)]
    lanes = {e["tid"] for e in events if e["pid"] == PID_TRANSFERS and e["ph"] == "X"}
    start, end = (run.requests[c].to_numpy() for c in ("transfer_start_s", "landed_s"))
    in_flight = max(int(((start <= t) & (t < end)).sum()) for t in start)
    assert in_flight > 4
    assert len(lanes) == in_flight  # as few as possible
    sources = {e["name"] for e in events if e["pid"] == PID_TRANSFERS and e["ph"] == "X"}
    assert sources == {f"from prefill {i}" for i in range(4)}


def test_a_trace_worked_by_hand() -> None:
    """One request: prefill, a transfer, two decode steps; each slice where the run says."""
    plan = kit.deployment(kit.pool("prefill"), kit.pool("decode"), first_token="prefill")
    run = simulate_deployment(plan, kit.requests([0.5], 100, 3), keep_strides=True)
    row = run.requests.iloc[0]
    events = [json.loads(line) for line in trace_events(run)]
    slices = [(e["pid"], e["name"], e["ts"], e["ts"] + e["dur"]) for e in events if e["ph"] == "X"]
    us = 1e6
    expected = [
        (PID_POOLS, "prefill", 0.5 * us, row["prefill_end_s"] * us),
        (PID_POOLS + 1, "decode", row["decode_start_s"] * us, row["last_token_s"] * us),
        (PID_TRANSFERS, "from prefill 0", row["transfer_start_s"] * us, row["landed_s"] * us),
    ]
    assert [s[:2] for s in slices] == [e[:2] for e in expected]
    for found, wanted in zip(slices, expected, strict=True):
        assert found[2:] == pytest.approx(wanted[2:], abs=1e-3)
    names = [e["name"] for e in events if e["pid"] == PID_REQUESTS and e["ph"] == "b"]
    assert names == ["request", "prefill", "KV transfer", "decode"]


def test_the_file_is_one_json_object_also_compressed(tmp_path: Path) -> None:
    run = _scenario()
    plain, packed = tmp_path / "t.json", tmp_path / "t.json.gz"
    n = write_trace(run, plain)
    assert write_trace(run, packed) == n
    text = plain.read_text(encoding="utf-8")
    assert gzip.decompress(packed.read_bytes()).decode("utf-8") == text
    loaded = json.loads(text)
    assert len(loaded["traceEvents"]) == n
    assert loaded["otherData"] == {"scenario": "quick_8b", "seed": 1, "requests": 120}
    first = packed.read_bytes()
    write_trace(run, packed)
    assert packed.read_bytes() == first


def test_a_run_without_strides_is_refused(tmp_path: Path) -> None:
    run = replace(_incast(), strides=None)
    with pytest.raises(ValueError, match="keep_strides=True"):
        write_trace(run, tmp_path / "t.json")


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    scenario = Scenario.load("quick_8b", ["workload.requests=1000"])
    run = simulate(scenario, keep_strides=True)
    path = tmp_path / "t.json"
    tracemalloc.start()
    try:
        write_trace(run, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size  # parsed as objects, it would be many times the file

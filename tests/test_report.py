"""Reports: numbers in words, tables, figures, the HTML page, and files that are whole or absent."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console

from simulator.engine import simulate, simulate_deployment
from simulator.errors import InputError
from simulator.metrics import Summary, summarize
from simulator.report import catalogue, figures, models, names, style, text
from simulator.report import summary as blocks
from simulator.report.files import (
    json_text,
    jsonable,
    output_file,
    output_folder,
    write_requests,
)
from simulator.report.results import FIGURES, report_page, write_results
from simulator.report.summary import print_summary
from simulator.run import Run
from simulator.scenario import SLO, Scenario
from tests import engine_kit as kit

Made = tuple[Scenario, Run, Summary]


def _made(name: str, *overrides: str) -> Made:
    scenario = Scenario.load(name, overrides)
    run = simulate(scenario)
    return scenario, run, summarize(run, scenario.slo)


@pytest.fixture(scope="module")
def quick() -> Made:
    return _made("quick_8b", "workload.requests=300")


@pytest.fixture(scope="module")
def colocated() -> Made:
    return _made("bench_70b_closed_loop", "workload.closed_loop.requests=80")


def _printed(made: Made, width: int = 120) -> str:
    scenario, run, summary = made
    out = Console(width=width, record=True, file=StringIO(), highlight=False, force_terminal=True)
    print_summary(out, run, summary, scenario.slo)
    return out.export_text()


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0 s"),
        (1e-7, "100 ns"),
        (8.4e-4, "840 µs"),
        (0.0123, "12.3 ms"),
        (0.99951, "1.00 s"),
        (1.239, "1.24 s"),
        (86.04, "86.0 s"),
        (1204.0, "1,204 s"),
        (-0.25, "-250 ms"),
    ],
)
def test_seconds(value: float | None, expected: str) -> None:
    assert text.seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.99996, "> 99.9 %"),
        (0.9994, "99.9 %"),
        (0.0002, "< 0.1 %"),
        (0.123, "12.3 %"),
    ],
)
def test_percent_is_never_rounded_to_all_or_nothing(value: float | None, expected: str) -> None:
    assert text.percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.05, "50 ms"), (2.0, "2 s"), (0.0, "0"), (1e-6, "1 µs")]
)
def test_short_seconds(value: float, expected: str) -> None:
    assert text.short_seconds(value) == expected


def test_other_numbers() -> None:
    assert text.number(1234.5) == "1,234"
    assert text.number(0.001234, "B") == "0.00123 B"
    assert text.usd(67.2) == "$67.20"
    assert text.usd(0.0683) == "$0.0683"
    assert text.byte_size(327_680) == "328 KB"
    assert text.byte_size(141.1e9) == "141 GB"
    assert text.plural(1, "GPU") == "1 GPU"
    assert text.listing(["a", "b", "c"]) == "a, b and c"


def test_bars_lie_end_to_end() -> None:
    shares = [0.1, 0.25, 0.4, 0.25]
    start = 0.0
    before = 0
    for share in shares:
        drawn = text.bar(start, share, 40)
        assert len(drawn) - len(drawn.lstrip()) <= before <= len(drawn)
        before = len(drawn)
        start += share
    assert before <= 40
    assert text.bar(0.5, 0.0, 40) == ""


# --- tables -------------------------------------------------------------------------------------


def test_a_report_names_everything_that_was_simulated(quick: Made) -> None:
    shown = _printed(quick)
    for part in (
        "quick_8b · 1P1D disaggregated · 2 GPUs · 300 requests",
        "llama-3.1-8b",
        "1 × h100_sxm TP1",
        "ib_ndr",
        "decode (decode recomputes the last prompt token)",
        "≤ 200 ms",
        "first decode step",
        "KV peak",
        "per million",
        "Percentiles over completed requests; targets over all that arrived.",
    ):
        assert part in shown, part


def test_a_colocated_report_has_no_link_and_three_parts(colocated: Made) -> None:
    shown = _printed(colocated)
    assert "link " not in shown
    assert "exposed transfer" not in shown
    assert "target" not in shown.split("Latency")[1].split("Where")[0]
    assert "1 colocated · 4 GPUs" in shown


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_fit_any_terminal(quick: Made, width: int) -> None:
    assert max(map(len, _printed(quick, width).splitlines())) <= width


def test_waterfall_shows_the_mean_ttft(quick: Made) -> None:
    _, _, summary = quick
    block = blocks.waterfall(summary)
    assert block.rows[-1][:2] == ("TTFT", text.seconds(summary.ttft_s["mean"]))
    shares = [row[2] for row in block.rows[:-1]]
    assert sum(float(s.removeprefix("< ").split()[0]) for s in shares) == pytest.approx(100, abs=4)


def test_every_part_and_metric_has_a_name(quick: Made) -> None:
    _, _, summary = quick
    assert list(names.PART_LABELS) == list(summary.waterfall_s)
    assert set(figures.PART_COLOURS) == set(summary.waterfall_s)


@pytest.mark.parametrize(
    ("attainment", "good", "start"), [(0.9, True, "Targets hold"), (1.0, False, "Targets are")]
)
def test_the_verdict_follows_the_target(
    quick: Made, attainment: float, good: bool, start: str
) -> None:
    _, _, summary = quick
    some = replace(summary, slo_attainment=0.95)
    found = blocks.verdicts(some, SLO(ttft_s=0.2, attainment=attainment))[0]
    assert (found.good, found.text.startswith(start)) == (good, True)


@pytest.mark.parametrize(
    ("stable", "conclusive", "good"),
    [(True, True, True), (False, True, False), (True, False, None), (False, False, None)],
)
def test_unsure_is_neither_good_nor_bad(
    quick: Made, stable: bool, conclusive: bool, good: bool | None
) -> None:
    _, _, summary = quick
    found = replace(summary.stability, stable=stable, conclusive=conclusive, reason="Because.")
    some = replace(summary, stability=found, warnings=("Because.", "Other."))
    assert blocks.verdicts(some, None)[0].good is good
    assert blocks.remarks(some) == ("Other.",)


# --- figures ------------------------------------------------------------------------------------


def _labels(fig: Figure) -> list[str]:
    return [label for ax in fig.axes for label in (ax.get_xlabel(), ax.get_ylabel()) if label]


def test_figures_have_labels_targets_and_no_pyplot(quick: Made, colocated: Made) -> None:
    import sys

    for scenario, run, _ in (quick, colocated):
        for fig in (
            figures.waterfall_figure(run, scenario.slo),
            figures.latency_figure(run, scenario.slo),
            figures.timeline_figure(run),
        ):
            assert _labels(fig)
            if scenario is colocated[0]:  # the others are drawn below
                fig.draw_without_rendering()  # lays out; a warning would be an error
    assert "matplotlib.pyplot" not in sys.modules


def test_targets_are_drawn_where_they_are(quick: Made) -> None:
    scenario, run, _ = quick
    left, right = figures.latency_figure(run, scenario.slo).axes[:2]
    assert scenario.slo is not None
    for ax, target in ((left, scenario.slo.ttft_s), (right, scenario.slo.tpot_s)):
        dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
        assert [list(line.get_xdata()) for line in dashed] == [[target, target]]


def test_cascade_ends_at_the_mean_ttft(quick: Made) -> None:
    scenario, run, summary = quick
    top = figures.waterfall_figure(run, scenario.slo).axes[0]
    last = top.patches[-1]
    assert last.get_x() + last.get_width() == pytest.approx(summary.ttft_s["mean"])


def test_the_same_run_draws_the_same_bytes(quick: Made) -> None:
    _, run, _ = quick
    first, second = (style.png_bytes(figures.latency_figure(run, None)) for _ in range(2))
    assert first == second
    picture = imread(BytesIO(first))
    assert picture.shape[1] >= 1200
    assert 0.5 < picture[..., :3].mean() < 1.0  # something on white


@pytest.mark.parametrize(("low", "high"), [(1e-3, 1.1e-3), (0.02, 0.1), (1e-3, 2.0), (1e-6, 1e3)])
def test_time_axes_have_a_few_readable_ticks(low: float, high: float) -> None:
    fig = style.figure(4, 3, "x")
    ax = fig.subplots()
    style.time_axis(ax, low, high)
    ticks = [t for t in ax.get_xticks() if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
    assert 2 <= len(ticks) <= 10


# --- a run without any token ----------------------------------------------------------------------


def test_a_run_that_served_nobody_is_reported_all_the_same() -> None:
    scenario = Scenario.load("quick_8b", ["workload.requests=20"])
    run = simulate(scenario)
    lost = run.requests.copy()
    never = [c for c in lost if c.endswith("_s") and c not in ("arrival_s", "queued_s")]
    lost[never] = np.nan
    lost["state"] = np.int8(9)
    empty = replace(run, requests=lost)
    summary = summarize(empty, scenario.slo)
    shown = _printed((scenario, empty, summary))
    assert "20 arrived, 0 completed and 20 rejected" in shown
    assert "no request got a first token" in shown
    figures.waterfall_figure(empty, scenario.slo).draw_without_rendering()
    figures.latency_figure(empty, scenario.slo).draw_without_rendering()
    figures.timeline_figure(empty)
    _check_page(report_page(scenario, empty, summary, dict.fromkeys(FIGURES, b"png")))
    json.loads(json_text(summary.to_dict()))


def test_hand_made_deployments_are_named() -> None:
    plan = kit.deployment(kit.pool("prefill", instances=3), kit.pool("decode", tp=2))
    run = simulate_deployment(plan, kit.requests([0.0, 0.1], 50, 5))
    assert blocks.headline(run) == "test · 3P1D disaggregated · 5 GPUs · 2 requests"
    assert figures.fabric_bytes_per_s(plan) == 1e6  # one NIC receives


# --- HTML and files -----------------------------------------------------------------------------


class _Page(HTMLParser):
    """Checks that elements close in order, and collects what the page refers to."""

    VOID = frozenset({"meta", "img", "br", "link", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("src", "href")]
        self.tables += tag == "table"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_results_folder(quick: Made, tmp_path: Path) -> None:
    scenario, run, summary = quick
    written = write_results(tmp_path, scenario, run, summary)
    assert sorted(written) == sorted(p.name for p in tmp_path.iterdir())
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == summary.to_dict()
    assert Scenario.load(tmp_path / "scenario.yaml") == scenario
    table = pd.read_parquet(tmp_path / "requests.parquet")
    pd.testing.assert_frame_equal(table, run.requests)
    _check_page((tmp_path / "report.html").read_text(encoding="utf-8"))


def _check_page(html: str) -> None:
    page = _Page()
    page.feed(html)
    assert page.open == []
    assert page.tables == 6
    assert len(page.references) == 3
    assert all(ref.startswith("data:image/png;base64,") for ref in page.references)
    assert "$" not in html.split("<footer>")[1]


def test_names_cannot_break_the_page(quick: Made) -> None:
    scenario, run, summary = quick
    evil = "<script>alert('&')</script>"
    named = replace(run, deployment=replace(run.deployment, name=evil))
    html = report_page(scenario, named, summary, dict.fromkeys(FIGURES, b"png"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_request_files_are_deterministic(quick: Made, tmp_path: Path) -> None:
    scenario, run, _ = quick
    write_requests(run.requests, tmp_path / "a")
    write_requests(simulate(scenario).requests, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_has_no_nan() -> None:
    value: Any = {"a": math.nan, "b": [math.inf, 1.5], "c": np.float64("nan"), "d": np.int64(3)}
    assert jsonable(value) == {"a": None, "b": [None, 1.5], "c": None, "d": 3}
    assert json.loads(json_text(value)) == {"a": None, "b": [None, 1.5], "c": None, "d": 3}
    with pytest.raises(TypeError, match="object is not a JSON value"):
        jsonable(object())


def _fail(output: AbstractContextManager[Path | IO[bytes]]) -> None:
    """Break off in the middle of writing."""

    def work() -> None:
        with output as place:
            if isinstance(place, Path):
                (place / "x").write_text("half")
            else:
                place.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()


def test_an_output_folder_is_made_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    _fail(output_folder(target))
    assert list(tmp_path.iterdir()) == []
    with output_folder(target) as staging:
        (staging / "x").write_text("whole")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["x"]
    assert [p.name for p in target.parent.iterdir()] == ["b"]


def test_an_output_folder_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "x").write_text("old")
    _fail(output_folder(tmp_path))
    assert (tmp_path / "x").read_text() == "old"
    with output_folder(tmp_path) as staging:
        (staging / "x").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"mine": "mine", "x": "new"}


def test_an_output_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "t.json"
    _fail(output_file(target, "--trace-out"))
    assert list(tmp_path.iterdir()) == []
    with output_file(target, "--trace-out") as file:
        file.write(b"whole")
    assert target.read_bytes() == b"whole"
    with pytest.raises(InputError, match="it is a folder"), output_file(tmp_path, "--trace-out"):
        pass


# --- catalogue ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("# How fast?\n# More.\nname: x", "How fast?"),
        ("# Llama-3.1 on\n# two GPUs. More.\nname: x", "Llama-3.1 on two GPUs."),
        ("# no end\nname: x", "no end"),
        ("name: x\n# late", ""),
    ],
)
def test_the_question_of_a_scenario(comment: str, expected: str) -> None:
    assert catalogue.question(comment) == expected


def test_every_bundled_scenario_asks_something() -> None:
    found = catalogue.scenario_list()
    assert all(s["question"].endswith("?") for s in found), found


def test_llama_70b_by_hand() -> None:
    m = models.model_facts("llama-3.1-70b")
    assert m["kv_bytes_per_token"]["bf16"] == 2 * 80 * 8 * 128 * 2  # K and V, GQA with 8 heads
    assert m["parameters"] == pytest.approx(70.55e9, rel=1e-3)
    assert m["weight_bytes"]["bf16"] == pytest.approx(2 * m["parameters"], rel=1e-3)

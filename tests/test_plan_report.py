"""What people see of a plan besides its text: figures, the slide, and the HTML cards of notebooks."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from simulator import html
from simulator.engine import simulate
from simulator.errors import InputError
from simulator.metrics import summarize
from simulator.planner import Evaluated, Plan, Space, plan
from simulator.report.plan_figures import pareto_figure, write_plan_figures
from simulator.report.plan_map import attainment_figure, balance, ratio_figure, shown_layout
from simulator.report.plan_slide import five_lines, slide_figure
from simulator.report.style import png_bytes
from simulator.scenario import Scenario

DRAWN = ["slide.png", "pareto.png", "attainment.png", "pd_ratio.png"]


@pytest.fixture(scope="module")
def made() -> Plan:
    """A small plan: 90 requests a second do not fit one GPU."""
    scenario = Scenario.load("quick_8b", ["workload.rate_rps=90", "workload.output_tokens.mean=32"])
    space = Space(max_num_seqs=(128,), max_num_batched_tokens=(8192,), tps=(1,))
    return plan(scenario, max_gpus=4, space=space)


def _texts(fig: Figure) -> str:
    fig.canvas.draw()
    found = [t.get_text() for ax in fig.axes for t in ax.texts]
    for ax in fig.axes:
        legend = ax.get_legend()
        found += [t.get_text() for t in legend.get_texts()] if legend else []
        found += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
        found += [t.get_text() for t in ax.get_yticklabels()]
    return "\n".join(found)


def _without_winner(made: Plan) -> Plan:
    rows = tuple(replace(e, verdict="fails") for e in made.rows)
    return replace(
        made,
        winner=None,
        disaggregated_best=None,
        colocated_best=None,
        closest=rows[0],
        headroom=None,
        disaggregate="neither",
        too_close=(),
        rows=rows,
    )


def _unseen(e: Evaluated) -> Evaluated:
    gone = dict.fromkeys(("attainment", "ttft_s", "ttft_p99_s", "tpot_s", "tpot_p99_s"))
    return replace(e, replications=0, verdict="rejected", **gone)


# --- figures ------------------------------------------------------------------------------------


def test_files_are_written(made: Plan, tmp_path: Path) -> None:
    paths = write_plan_figures(made, tmp_path)
    assert [p.name for p in paths] == DRAWN
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[1] > 800
        assert pixels.std() > 0.02
    again = png_bytes(attainment_figure(made))
    assert (tmp_path / "attainment.png").read_bytes() == again


def test_an_unusable_folder_is_one_sentence(made: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write to"):
        write_plan_figures(made, tmp_path / "nowhere")


def test_pareto_shows_modes_winner_and_targets(made: Plan) -> None:
    assert made.winner is not None
    text = _texts(pareto_figure(made))
    for word in ("disaggregated", "colocated", "winner", "target", "price [USD/h]"):
        assert word in text
    assert f"${made.winner.usd_per_hour:.2f}/h" in text


def test_the_map_marks_what_was_not_simulated(made: Plan) -> None:
    fig = attainment_figure(made)
    text = _texts(fig)
    assert "prefill instances (h100_sxm:TP1)" in text
    ax = fig.axes[0]
    shown = shown_layout(made)
    assert shown is not None
    cells = [e for e in made.rows if e.layout.mode == shown.layout.mode]
    hatched = [p for p in ax.patches if p.get_hatch()]
    assert len(hatched) == sum(e.verdict == "rejected" for e in cells)
    simulated = [e for e in cells if e.attainment is not None]
    assert len(ax.texts) == len(simulated)


def test_the_map_of_colocated_layouts(made: Plan) -> None:
    only = replace(made, rows=tuple(e for e in made.rows if e.layout.mode == "colocated"))
    only = replace(only, winner=made.colocated_best, disaggregated_best=None)
    assert "colocated instances (h100_sxm)" in _texts(attainment_figure(only))
    with pytest.raises(ValueError, match="no disaggregated layout"):
        ratio_figure(only)


def test_a_map_without_marks_has_no_legend(made: Plan) -> None:
    seen = tuple(e for e in made.rows if e.attainment is not None and e is not made.winner)
    fig = attainment_figure(replace(_without_winner(made), rows=seen, closest=seen[0]))
    assert fig.axes[0].get_legend() is None


def test_balance_follows_the_mix(made: Plan) -> None:
    layout = next(e.layout for e in made.rows if e.layout.mode == "disaggregated")
    ratios = balance(made, layout)
    assert ratios["own"].sum() == 1
    assert (np.diff(ratios["prompt_per_output"]) > 0).all()
    assert (np.diff(ratios["stable"]) > 0).all()  # more prompt, more prefill
    assert (ratios["tpot"].dropna() <= ratios["stable"][ratios["tpot"].notna()] * 1.0001).all()


@pytest.mark.parametrize("draw", [slide_figure, pareto_figure, attainment_figure])
def test_without_a_winner_or_any_simulation(made: Plan, draw: object) -> None:
    assert callable(draw)
    none = _without_winner(made)
    draw(none).canvas.draw()
    draw(replace(none, rows=tuple(_unseen(e) for e in none.rows), closest=None)).canvas.draw()
    draw(replace(none, rows=(), closest=None)).canvas.draw()


def test_five_lines(made: Plan) -> None:
    assert made.winner is not None
    lines = five_lines(made)
    assert len(lines) == 5
    assert lines[0].startswith(f"Buy {made.winner.label}: ")
    assert "TTFT ≤ 200 ms and TPOT ≤ 20 ms" in lines[1]
    assert lines[2] == made.verdict
    assert f"{len(made.rows)} layouts" in lines[4]
    assert "No layout within the limits" in five_lines(_without_winner(made))[0]
    slide = _texts(slide_figure(made))
    assert all(line.split()[0] in slide for line in lines)


# --- cards --------------------------------------------------------------------------------------


class _Balanced(HTMLParser):
    """Fails on tags that do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _plain(text: str) -> str:
    parser = _Balanced()
    parser.feed(text)
    assert parser.open == []
    assert len(text) < 12_000
    assert "color:#" not in text
    assert "background" not in text  # the page's own colours, dark or light
    return re.sub(r"<[^>]+>", " ", text)


def test_card_of_a_plan(made: Plan) -> None:
    assert made.winner is not None
    text = _plain(made._repr_html_())
    assert made.winner.label in text
    assert "✓" in text
    assert "head-room" in text
    assert "✗" in _plain(_without_winner(made)._repr_html_())


def test_cards_of_scenario_run_and_summary() -> None:
    scenario = Scenario.load("quick_8b", ["workload.requests=60"])
    text = _plain(scenario._repr_html_())
    assert "poisson, 40 requests/s, 60 requests" in text
    assert "TTFT ≤ 200 ms and TPOT ≤ 20.0 ms for 99 % of requests" in text
    run = simulate(scenario)
    assert "60 done" in _plain(run._repr_html_())
    found = _plain(summarize(run, scenario.slo)._repr_html_())
    assert "TPOT" in found
    assert "$5.60/h" in found
    _plain(summarize(run)._repr_html_())
    for name in ("azure_conv_70b", "bench_70b_closed_loop"):
        assert "llama-3.1-70b" in _plain(Scenario.load(name)._repr_html_())


def test_everything_is_escaped() -> None:
    bad = "<script>alert('x')</script>"
    card = html.card(
        bad, verdict=bad, facts={bad: bad}, header=(bad, bad), rows=[(bad, bad)], notes=[bad]
    )
    assert "<script" not in card
    assert card.count("&lt;script&gt;") == 9
    assert html.card("t", facts={"empty": ""}).count("<table") == 0


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (float("nan"), "–"), (0.0, "0 ms"), (0.0123, "12.3 ms"), (0.99951, "1.00 s"),
     (9.996e-4, "1.00 ms"), (86.04, "86.0 s"), (1234.0, "1,230 s")],
)  # fmt: skip
def test_durations(value: float | None, said: str) -> None:
    assert html.duration(value) == said


def test_shares_and_money() -> None:
    assert html.share(0.99999) == "99.9 %"  # never rounded up to all
    assert html.share(1.0) == "100.0 %"
    assert html.share(0.29, 0) == "29 %"
    assert html.share(None) == html.dollars(None) == html.figures(None) == "–"
    assert html.dollars(1234.5) == "$1,234.50"
    assert html.dollars(0.0123) == "$0.0123"
    assert html.figures(0.0) == "0"

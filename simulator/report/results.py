"""The files of ``--out``: resolved scenario, numbers, requests, figures and one page with it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from simulator.metrics import Summary
from simulator.report import figures, html, style
from simulator.report.class_figures import class_figure
from simulator.report.files import json_text, write_requests
from simulator.report.summary import headline, remarks, summary_blocks, verdicts
from simulator.report.uncertainty import bands_block, bands_verdict, run_json
from simulator.report.uncertainty_figure import bands_figure
from simulator.run import Run
from simulator.scenario import Scenario
from simulator.uncertainty import Bands

FIGURES = {
    "waterfall.png": "Where the time to first token goes",
    "latency_cdf.png": "Distributions of TTFT and TPOT",
    "classes.png": "Distributions of TTFT and TPOT by request class",
    "timeline.png": "Queues, batches, KV and link over time",
    "uncertainty.png": "Bands of TTFT and TPOT, and where they come from",
}


def write_results(
    folder: Path, scenario: Scenario, run: Run, summary: Summary, bands: Bands | None = None
) -> list[str]:
    """Write everything about a run into a folder.

    ``scenario.yaml`` (resolved: simulating it again gives the same requests), ``run.json`` (the
    JSON contract), ``requests.parquet``, ``waterfall.png``, ``latency_cdf.png``, ``timeline.png``,
    ``classes.png`` where the workload has classes, ``uncertainty.png`` where there are bands, and
    ``report.html``.

    Args:
        folder: an existing folder.
        scenario: what was simulated.
        run: the run.
        summary: its metrics.
        bands: how sure the model is, where that was asked.

    Returns:
        Names of the files.

    Raises:
        OSError: a file cannot be written.
    """
    slo = scenario.slo
    drawn = {
        "waterfall.png": style.png_bytes(figures.waterfall_figure(run, slo)),
        "latency_cdf.png": style.png_bytes(figures.latency_figure(run, slo)),
        "timeline.png": style.png_bytes(figures.timeline_figure(run)),
    }
    if summary.classes:
        drawn["classes.png"] = style.png_bytes(class_figure(run, slo))
    if bands is not None:
        drawn["uncertainty.png"] = style.png_bytes(bands_figure(bands))
    for name, png in drawn.items():
        (folder / name).write_bytes(png)
    (folder / "scenario.yaml").write_text(scenario.to_yaml(), encoding="utf-8")
    (folder / "run.json").write_text(json_text(run_json(summary, bands)), encoding="utf-8")
    write_requests(run.requests, folder / "requests.parquet")
    page = report_page(scenario, run, summary, drawn, bands)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return ["scenario.yaml", "run.json", "requests.parquet", *drawn, "report.html"]


def report_page(
    scenario: Scenario,
    run: Run,
    summary: Summary,
    drawn: Mapping[str, bytes],
    bands: Bands | None = None,
) -> str:
    """The HTML page of a run.

    Args:
        scenario: what was simulated.
        run: the run.
        summary: its metrics.
        drawn: the figures as PNG, by the names in ``FIGURES``.
        bands: how sure the model is, where that was asked.
    """
    facts, settings, latency, *classes, waterfall, pools, money = (
        html.table(block) for block in summary_blocks(run, summary, scenario.slo)
    )
    pictures = {
        name: html.image(drawn[name], alt) for name, alt in FIGURES.items() if name in drawn
    }
    if classes:
        classes.append(pictures["classes.png"])
    sure = []
    if bands is not None:
        sure = [html.table(bands_block(bands)), pictures["uncertainty.png"]]
    found = verdicts(summary, scenario.slo)
    return html.page(
        headline(run),
        verdicts=found if bands is None else (*found, bands_verdict(bands)),
        warnings=remarks(summary),
        sections=(
            facts,
            settings,
            latency,
            pictures["latency_cdf.png"],
            *sure,
            *classes,
            waterfall,
            pictures["waterfall.png"],
            pools,
            pictures["timeline.png"],
            money,
            html.source("Resolved scenario", scenario.to_yaml()),
        ),
        footer=footer(summary),
    )


def footer(summary: Summary) -> str:
    """Who made the page."""
    version = summary.meta["version"]
    return f"xpyd {version or '(not installed)'}, seed {summary.meta['seed']}"

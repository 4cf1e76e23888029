"""A summary in words: the tables and sentences that the terminal and the HTML page both show."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.text import Text

from simulator.metrics import Summary, completed, run_limits, tpot, ttft
from simulator.metrics.attainment import attainment
from simulator.report.block import Block, Verdict
from simulator.report.names import (
    FIRST_TOKEN,
    METRIC_LABELS,
    PART_LABELS,
    layout_label,
    link_label,
    pool_label,
)
from simulator.report.settings import settings_block
from simulator.report.terminal import print_verdicts, table
from simulator.report.text import (
    MISSING,
    bar,
    count,
    listing,
    number,
    percent,
    plural,
    seconds,
    short_seconds,
    usd,
)
from simulator.report.uncertainty import bands_block, bands_verdict
from simulator.run import Run
from simulator.scenario import SLO
from simulator.uncertainty import Bands

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
BAR_WIDTH = 32


def headline(run: Run) -> str:
    """Name, layout and size of what was simulated, on one line."""
    deployment = run.deployment
    mode = " disaggregated" if deployment.mode == "disaggregated" else ""
    return (
        f"{deployment.name} · {layout_label(deployment)}{mode} · "
        f"{plural(deployment.gpus, 'GPU')} · {plural(len(run.requests), 'request')}"
    )


def facts(run: Run, summary: Summary) -> Block:
    """What was simulated: everything a reader needs to know before the numbers."""
    deployment = run.deployment
    rows = [("model", deployment.model.name)]
    rows += [(f"{p.role} pool" + _named(p.name, p.role), pool_label(p)) for p in deployment.pools]
    if deployment.link is not None:
        rows.append(("link", link_label(deployment)))
        rows.append(("first token", FIRST_TOKEN[deployment.first_token]))
    else:
        rows.append(("first token", "when the prompt's last chunk is prefilled"))
    rows.append(("workload", _workload(run)))
    rows.append(("requests", _ends(summary)))
    rows += _measured(summary)
    rows.append(("simulated time", f"{seconds(run.end_s)}, seed {run.seed}"))
    return Block("Simulated", (), tuple(rows))


def _measured(summary: Summary) -> list[tuple[str, str]]:
    """How much of the time is of kernels that were measured on this GPU, at these sizes."""
    shares = [f"{percent(share, 0)} of {phase}" for phase, share in summary.measured.shares.items()]
    return [("kernels measured", f"{listing(shares)} time, at the sizes used")] if shares else []


def _named(name: str, role: str) -> str:
    return "" if name == role else f" {name}"


def _workload(run: Run) -> str:
    workload = run.workload
    rate = workload.rate_rps
    text = workload.source
    if rate == rate and "/s" not in text:  # not NaN
        text += f", {number(rate)} requests/s on average"
    return text


def _ends(summary: Summary) -> str:
    ends = [f"{count(summary.requests[k])} {k}" for k in ("arrived", "completed")]
    bad = ("rejected", "cancelled", "failed")
    ends += [f"{count(summary.requests[k])} {k}" for k in bad if summary.requests[k]]
    return listing(ends)


def latency(run: Run, summary: Summary, slo: SLO | None) -> Block:
    """TTFT, TPOT, ITL and E2E with their percentiles, and the targets where there are any."""
    header: tuple[str, ...] = ("latency", *STATISTICS)
    rows: list[tuple[str, ...]] = []
    for name, label in METRIC_LABELS.items():
        found = getattr(summary, name)
        row: tuple[str, ...] = (label, *(seconds(found[s]) for s in STATISTICS))
        rows.append(row if slo is None else (*row, *_target(run, name, slo)))
    note = "Over completed requests."
    if slo is not None:
        header = (*header, "target", "met by")
        note = "Percentiles over completed requests; targets over all that arrived."
    return Block("Latency", header, tuple(rows), note)


def _target(run: Run, name: str, slo: SLO) -> tuple[str, str]:
    """A target and the share of requests that meet it on its own."""
    if slo.classes:
        return ("by class", percent(_met_alone(run, name, slo))) if name in _TARGETS else ("", "")
    if name == "ttft_s" and slo.ttft_s is not None:
        met = attainment(run, SLO(ttft_s=slo.ttft_s))
        return f"≤ {short_seconds(slo.ttft_s)}", percent(met)
    if name == "tpot_s" and slo.tpot_s is not None:
        met = attainment(run, SLO(tpot_s=slo.tpot_s))
        return f"≤ {short_seconds(slo.tpot_s)}", percent(met)
    return "", ""


_TARGETS = ("ttft_s", "tpot_s")


def _met_alone(run: Run, name: str, slo: SLO) -> float:
    """Share of all requests that meet one kind of target, each its class's own."""
    first, each = run_limits(run, slo)
    found, limit = (ttft(run), first) if name == "ttft_s" else (tpot(run), each)
    free = np.isinf(limit) | (np.isnan(found) if name == "tpot_s" else False)
    return float((completed(run) & (free | (found <= limit))).mean())


def classes(summary: Summary) -> Block:
    """Latencies of every request class beside its own targets."""
    rows = []
    total = sum(found.requests["arrived"] for found in summary.classes.values())
    for name, found in summary.classes.items():
        arrived = found.requests["arrived"]
        rows.append(
            (
                name,
                percent(arrived / total, 0),
                *_against(found.ttft_s["p50"], found.ttft_s["p99"], found.slo["ttft_s"]),
                *_against(found.tpot_s["p50"], found.tpot_s["p99"], found.slo["tpot_s"]),
                MISSING if found.slo_attainment is None else percent(found.slo_attainment),
                number(found.goodput_rps, "/s"),
            )
        )
    columns = ("p50", "p99", "target")
    named = (f"{metric} {c}" if c == "p50" else c for metric in ("TTFT", "TPOT") for c in columns)
    header = ("class", "share", *named, "meets both", "goodput")
    note = "Each class against its own targets; those without are held to the scenario's."
    return Block("Request classes", header, tuple(rows), note)


def _against(p50: float | None, p99: float | None, target: float | None) -> tuple[str, str, str]:
    limit = MISSING if target is None else f"≤ {short_seconds(target)}"
    return seconds(p50), seconds(p99), limit


def waterfall(summary: Summary) -> Block:
    """The parts of the mean TTFT one after another."""
    if summary.waterfall_s["router"] is None:
        return Block("Where the mean TTFT goes", (), (("no request got a first token",),))
    parts = {name: summary.waterfall_s[name] or 0.0 for name in PART_LABELS}
    if summary.mode == "colocated":
        parts = {k: v for k, v in parts.items() if k in ("router", "prefill_queue", "prefill")}
    total = sum(parts.values())
    rows = []
    start = 0.0
    for name, length in parts.items():
        share = length / total if total else 0.0
        rows.append(
            (
                PART_LABELS[name],
                seconds(length),
                percent(share, 0),
                bar(start, share, BAR_WIDTH) if share >= 0.001 else "",
            )
        )
        start += share
    rows.append(("TTFT", seconds(total), "", ""))
    return Block("Where the mean TTFT goes", ("part", "time", "share", ""), tuple(rows), bars=True)


def pools(run: Run, summary: Summary) -> Block:
    """How hard each pool worked."""
    rows = []
    for pool in run.deployment.pools:
        use = summary.pools[pool.name]
        rows.append(
            (
                pool.name,
                pool_label(pool),
                count(use.gpus),
                percent(use.busy, 0),
                MISSING if use.load is None else f"{use.load:.2f}",
                percent(use.mfu),
                percent(use.mbu),
                percent(use.kv_peak),
            )
        )
    header = ("pool", "instances", "GPUs", "busy", "load", "MFU", "MBU", "KV peak")
    note = (
        "busy: time with a step running; load: demand over capacity; MFU and MBU: shares of the "
        "data sheet's FLOP/s and memory bandwidth; KV peak: of the fullest instance."
    )
    return Block("Pools", header, tuple(rows), note)


def throughput(summary: Summary) -> Block:
    """Rates and cost at the simulated load."""
    rates, cost = summary.throughput, summary.cost
    rows = [
        ("requests completed", number(rates.requests_per_s, "/s")),
        ("output tokens", number(rates.output_tokens_per_s, "/s")),
        ("output tokens per GPU", number(rates.output_tokens_per_s_per_gpu, "/s")),
    ]
    if summary.goodput_rps is not None:
        goodput = f"{number(summary.goodput_rps, '/s')} of the arrival window"
        rows.insert(0, ("goodput (requests that met every target)", goodput))
    rows += [
        ("price", f"{usd(cost.usd_per_hour)} per hour"),
        ("cost of output tokens", f"{usd(cost.usd_per_m_output_tokens)} per million"),
        ("cost of all tokens", f"{usd(cost.usd_per_m_total_tokens)} per million"),
    ]
    if cost.usd_per_m_input_tokens_prefill is not None:
        rows.append(
            (
                "by pool",
                f"{usd(cost.usd_per_m_input_tokens_prefill)} per million prompt tokens (prefill), "
                f"{usd(cost.usd_per_m_output_tokens_decode)} per million output tokens (decode)",
            )
        )
    rows += _energy(summary)
    note = "Rates over the whole run, from the first arrival to the last token."
    return Block("Throughput, cost and energy", (), tuple(rows), note)


def _energy(summary: Summary) -> list[tuple[str, str]]:
    """What the GPUs drew, on one line, and its carbon where the grid is known."""
    total, grid = summary.energy.total, summary.energy.grid_gco2_per_kwh
    if total.joules is None:
        return [("energy of the GPUs", "unknown: a profile gives no power figures")]
    rows = [
        (
            "energy of the GPUs",
            f"{number(total.joules_per_output_token, 'J')} per output token "
            f"({number(total.wh_per_m_output_tokens, 'Wh')} per million), "
            f"{number(total.mean_w_per_gpu, 'W')} per GPU on average",
        )
    ]
    if grid is not None:
        carbon = number(summary.energy.gco2_per_m_output_tokens, "g CO2e")
        supply = f"{number(grid)} g/kWh, PUE {summary.energy.pue:g}"
        rows.append(("carbon", f"{carbon} per million output tokens ({supply})"))
    return rows


def verdicts(summary: Summary, slo: SLO | None) -> tuple[Verdict, ...]:
    """Whether the targets hold and whether the deployment keeps up."""
    found = []
    if slo is not None and summary.slo_attainment is not None:
        met = summary.slo_attainment >= slo.attainment
        found.append(
            Verdict(
                met,
                f"{'Targets hold' if met else 'Targets are missed'}: {percent(summary.slo_attainment)} "
                f"of all requests meet every target, {percent(slo.attainment)} wanted{_worst(summary)}.",
            )
        )
    found.append(_keeps_up(summary))
    closed = summary.bounds.verdict
    if closed != summary.stability.reason and closed not in summary.warnings:
        good = summary.bounds.stable if summary.bounds.load is not None else None
        found.append(Verdict(good, f"In closed form: {_lowered(closed.removeprefix('Stable: '))}"))
    return tuple(found)


def _worst(summary: Summary) -> str:
    """The class that meets its targets least often, where there are several."""
    known = {
        n: c.slo_attainment for n, c in summary.classes.items() if c.slo_attainment is not None
    }
    if len(known) < 2:
        return ""
    name = min(known, key=lambda n: known[n])
    if known[name] == 1.0:
        return ""
    return f"; least of all {name}, with {percent(known[name])}"


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _keeps_up(summary: Summary) -> Verdict:
    """The stability test in a sentence; neither good nor bad where it could not tell."""
    stability = summary.stability
    if not stability.conclusive:
        return Verdict(None, _after("Too close to call", stability.reason))
    word = "Stable" if stability.stable else "Unstable"
    return Verdict(stability.stable, _after(word, stability.reason))


def remarks(summary: Summary) -> tuple[str, ...]:
    """The warnings that no verdict has said already."""
    return tuple(text for text in summary.warnings if text != summary.stability.reason)


def _after(word: str, reason: str) -> str:
    """``word: reason``, unless the reason begins with the word."""
    return reason if reason.startswith(word) else f"{word}: {reason}"


def summary_blocks(run: Run, summary: Summary, slo: SLO | None) -> tuple[Block, ...]:
    """All tables of a run, in reading order."""
    return (
        facts(run, summary),
        settings_block(run.deployment.settings),
        latency(run, summary, slo),
        *((classes(summary),) if summary.classes else ()),
        waterfall(summary),
        pools(run, summary),
        throughput(summary),
    )


def print_summary(
    out: Console, run: Run, summary: Summary, slo: SLO | None, bands: Bands | None = None
) -> None:
    """Print all tables of a run, then what they amount to.

    Args:
        out: where to.
        run: the run.
        summary: its metrics.
        slo: the targets, or None.
        bands: how sure the model is, where that was asked.
    """
    out.print(Text(headline(run), style="bold"))
    for block in summary_blocks(run, summary, slo):
        out.print(table(block))
    found = verdicts(summary, slo)
    if bands is not None:
        out.print(table(bands_block(bands)))
        found = (*found, bands_verdict(bands))
    print_verdicts(out, found, remarks(summary))

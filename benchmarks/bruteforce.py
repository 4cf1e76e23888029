"""Is the planner's answer the one that trying everything gives?

    python benchmarks/bruteforce.py [--jobs 2] [--only NAME] [--fresh] [--write]

Every layout of four small families is simulated by five independent runs that count 10,000 requests
each, and judged; then ``plan`` is asked the same question with other seeds. It must

1. find a winner that costs no more than the cheapest layout judged to *hold*, and that is not judged
   to *fail*;
2. list every cheaper layout judged *marginal* among those too close to call;
3. simulate at most 15 % of the requests brute force takes.

**Judging.** Requests that arrive while the empty system fills and its queues approach their steady
length are not counted, nor those of the last mean decode time, around which it drains: the planner's
stated rule (``simulator.planner.sizes.cut``, docs/planning.md), so that both ask about the same steady
state. With the five attainments ``a``, a layout

- *holds* if all of ``a`` are at least the one wanted, or the lower end of their 95 % Student interval
  is;
- *fails* if the upper end is below it, or most runs show a growing backlog (the named stability test);
- is *marginal* otherwise.

Finished runs are kept in ``out/bruteforce.jsonl`` (git-ignored), so that an interrupted benchmark goes
on where it stopped; the file does not know about changes of the engine: ``--fresh`` starts again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from families import FAMILIES, Family

from simulator import Scenario, analyze, simulate
from simulator.metrics import attains, replication_interval, stability
from simulator.planner import Plan, plan
from simulator.planner.bounds import FamilyBound, family_bound
from simulator.planner.sizes import cut

RUNS = 5
COUNTED = 10_000
FIRST_SEED = 1001
SAMPLE = 10_000
MOST_SHARE = 0.15
CACHE = Path(__file__).parent.parent / "out" / "bruteforce.jsonl"
TABLE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Judged:
    """A layout and what five runs say about it."""

    label: str
    usd_per_hour: float
    verdict: str
    mean: float
    lo: float
    hi: float


@dataclass(frozen=True)
class Checked:
    """A family: every layout judged, the plan, and what is wrong with it."""

    family: Family
    judged: dict[str, Judged]
    plan: Plan
    wrong: list[str]

    @property
    def cheapest(self) -> Judged | None:
        """The cheapest layout that holds."""
        holds = [j for j in self.judged.values() if j.verdict == "holds"]
        return min(holds, key=lambda j: j.usd_per_hour, default=None)

    @property
    def share(self) -> float:
        """Requests the planner simulated over those of brute force."""
        return self.plan.requests_simulated / self.plan.brute_force_requests


def one_run(
    scenario: Scenario, seed: int, skip: int, counted: int, tail: int
) -> tuple[float, bool]:
    """Attainment of the counted requests of one run, and whether a backlog grows."""
    run = simulate(
        scenario.with_overrides([f"workload.requests={skip + counted + tail}"]), seed=seed
    )
    order = np.argsort(run.requests["arrival_s"].to_numpy(), kind="stable")
    met = attains(run, scenario.slo)[order][skip : skip + counted]
    found = stability(run, analyze(run.deployment, run.workload, slo=scenario.slo))
    return float(met.mean()), found.conclusive and not found.stable


def judge(
    values: Sequence[float], grows: Sequence[bool], target: float
) -> tuple[str, float, float]:
    """Verdict, and the ends of the interval."""
    interval = replication_interval(values)
    if sum(grows) > len(grows) / 2 or interval.hi < target:
        return "fails", interval.lo, interval.hi
    if min(values) >= target or interval.lo >= target:
        return "holds", interval.lo, interval.hi
    return "marginal", interval.lo, interval.hi


@dataclass(frozen=True)
class Task:
    """Five runs of one layout to be made."""

    label: str
    scenario: Scenario
    skip: int
    counted: int
    tail: int

    @property
    def key(self) -> str:
        """Its name in the cache."""
        sizes = (self.skip, self.counted, self.tail, RUNS, FIRST_SEED)
        return hashlib.sha256(f"{self.scenario.to_yaml()} {sizes}".encode()).hexdigest()[:16]

    def run(self) -> tuple[str, list[float], list[bool]]:
        """Its key, the attainments, and whether backlogs grow."""
        sizes = (self.skip, self.counted, self.tail)
        runs = [one_run(self.scenario, FIRST_SEED + i, *sizes) for i in range(RUNS)]
        return self.key, [a for a, _ in runs], [g for _, g in runs]


def tasks(made: Plan, counted: int) -> list[Task]:
    """One for every layout of a plan, in its order."""
    rate = made.scenario.config.workload.rate_rps
    sample = made.scenario.with_overrides([f"workload.requests={SAMPLE}"]).requests()
    bounds: dict[tuple[object, ...], FamilyBound] = {}
    out = []
    for row in made.rows:
        family = row.layout.family
        if family not in bounds:
            bounds[family] = family_bound(row.layout, made.scenario, sample, made.slo, rate)
        # with a load of 1 or more there is no steady state to approach
        load = row.load if row.load is not None and row.load < 1.0 else None
        skip, tail = cut(bounds[family], row.layout.shapes[-1].instances, rate, load)
        scenario = made.scenario_of(row)
        out.append(Task(row.layout.full_label, scenario, skip, counted, tail))
    return out


class Cache:
    """Finished layouts, one JSON line each; a torn last line is dropped."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, list[list[float]]] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[row["key"]] = [row["attainment"], row["grows"]]

    def add(self, key: str, values: list[float], grows: list[bool]) -> None:
        """Remember the runs of one layout."""
        self.known[key] = [values, grows]
        if self.path is not None:
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "attainment": values, "grows": grows}) + "\n")


def brute_force(made: Plan, *, counted: int, jobs: int, cache: Cache) -> dict[str, Judged]:
    """Every layout of a plan judged, by its full label."""
    every = tasks(made, counted)
    missing = [task for task in every if task.key not in cache.known]
    work = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    done = work(joblib.delayed(task.run)() for task in missing)
    for n, (key, values, grows) in enumerate(done, start=1):
        cache.add(key, values, grows)
        print(f"\r  {made.scenario.name}: {n} of {len(missing)} layouts", end="", flush=True)
    print()
    prices = {row.layout.full_label: row.usd_per_hour for row in made.rows}
    out = {}
    for task in every:
        values, grows = cache.known[task.key]
        verdict, lo, hi = judge(values, [bool(g) for g in grows], made.slo.attainment)
        mean = float(np.mean(values))
        out[task.label] = Judged(task.label, prices[task.label], verdict, mean, lo, hi)
    return out


def faults(made: Plan, judged: dict[str, Judged]) -> list[str]:
    """What is wrong with a plan, a sentence each; empty if nothing is."""
    wrong = []
    holds = [j for j in judged.values() if j.verdict == "holds"]
    least = min((j.usd_per_hour for j in holds), default=float("inf"))
    price = made.winner.usd_per_hour if made.winner else float("inf")
    if price > least:
        wrong.append(f"the winner costs ${price:.2f}/h, the cheapest that holds ${least:.2f}/h")
    if made.winner and judged[made.winner.layout.full_label].verdict == "fails":
        wrong.append(f"the winner {made.winner.layout.full_label} fails")
    listed = {e.layout.full_label for e in made.too_close}
    wrong += [
        f"{j.label} is marginal, cheaper than the winner, and not listed as too close"
        for j in judged.values()
        if j.verdict == "marginal" and j.usd_per_hour < price and j.label not in listed
    ]
    if made.requests_simulated > MOST_SHARE * made.brute_force_requests:
        share = made.requests_simulated / made.brute_force_requests
        wrong.append(f"the plan simulated {100 * share:.1f} % of brute force")
    return wrong


def check(
    family: Family, *, counted: int = COUNTED, jobs: int = 1, cache: Path | None = None
) -> Checked:
    """Plan a family, judge all of its layouts, and compare."""
    made = plan(
        family.scenario(), inventory=family.stock(), max_gpus=family.max_gpus, space=family.space
    )
    judged = brute_force(made, counted=counted, jobs=jobs, cache=Cache(cache))
    return Checked(family, judged, made, faults(made, judged))


def report(found: Sequence[Checked]) -> str:
    """The committed table."""
    lines = [
        "# The planner against brute force",
        "",
        "Written by `python benchmarks/bruteforce.py --write`; how layouts are judged is at the top of "
        "that file.",
        "",
        "| family | layouts | hold / marginal / fail | cheapest that holds | winner | it is judged | "
        "disaggregate | too close, cheaper | requests, of brute force | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(c) for c in found]
    for c in found:
        lines += ["", f"## {c.family.name}", "", c.family.about, "", *_details(c)]
        lines += [f"- **wrong**: {text}" for text in c.wrong]
    return "\n".join(lines) + "\n"


def _row(c: Checked) -> str:
    counts = Counter(j.verdict for j in c.judged.values())
    best, won = c.cheapest, c.plan.winner
    price = won.usd_per_hour if won else float("inf")
    close = [e for e in c.plan.too_close if e.usd_per_hour < price]
    cells = [
        c.family.name,
        str(len(c.judged)),
        f"{counts['holds']} / {counts['marginal']} / {counts['fails']}",
        f"{best.label.split(' (')[0]}, ${best.usd_per_hour:.2f}/h" if best else "none",
        f"{won.label}, ${won.usd_per_hour:.2f}/h" if won else "none",
        c.judged[won.layout.full_label].verdict if won else "–",
        c.plan.disaggregate,
        str(len(close)),
        f"{c.plan.requests_simulated:,}, {100 * c.share:.1f} %",
        "ok" if not c.wrong else "**wrong**",
    ]
    return "| " + " | ".join(cells) + " |"


def _details(c: Checked) -> list[str]:
    """Layouts up to the price of the cheapest that holds, least attaining ones left out."""
    most = c.cheapest.usd_per_hour if c.cheapest else float("inf")
    rows = {e.layout.full_label: e for e in c.plan.rows}
    near = [j for j in c.judged.values() if j.usd_per_hour <= most and j.mean > 0.5]
    lines = ["| layout | $/h | five runs | judged | the plan's verdict |", "|---|---|---|---|---|"]
    for j in sorted(near, key=lambda j: (j.usd_per_hour, -j.mean)):
        interval = f"{j.mean:.4f} ({j.lo:.4f} to {j.hi:.4f})"
        said = rows[j.label].verdict
        lines.append(f"| {j.label} | {j.usd_per_hour:.2f} | {interval} | {j.verdict} | {said} |")
    return lines


def main() -> None:
    """Check the families and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--only", choices=[f.name for f in FAMILIES], help="one family")
    parser.add_argument("--fresh", action="store_true", help="forget finished runs")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    args = parser.parse_args()
    if args.fresh:
        CACHE.unlink(missing_ok=True)
    chosen = [f for f in FAMILIES if args.only in (None, f.name)]
    found = [check(f, jobs=args.jobs, cache=CACHE) for f in chosen]
    text = report(found)
    print(text)
    if args.write and args.only is None:
        TABLE.write_text(text, encoding="utf-8")
    if any(c.wrong for c in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

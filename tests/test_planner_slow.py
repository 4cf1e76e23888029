"""Plans against brute force, intervals against the long run, bounds against simulation (slow)."""

import numpy as np
import pytest

from simulator.engine import simulate_deployment
from simulator.metrics import Interval, attainment, attains, ttft
from simulator.planner import Evaluated, Inventory, Plan, Space, plan
from simulator.planner.bounds import family_bound
from simulator.planner.intervals import expected_cluster, mean_interval, share_interval
from simulator.planner.sizes import COUNTED, cut
from simulator.planner.space import families
from simulator.planner.trial import Question, Trial, run_trial
from simulator.scenario import SLO, Scenario
from tests.planner_kit import SPACE, tiny, two_types

pytestmark = pytest.mark.slow

RUNS, REQUESTS = 5, 10_000
OTHER_SEEDS = 7_000


def _judged(found: Plan, row: Evaluated, runs: int = RUNS) -> Interval:
    """Attainment of a layout by independent runs of 10,000 requests on seeds no plan uses."""
    question = Question(found.scenario, found.slo, found.prices)
    trials = [Trial(row.layout, OTHER_SEEDS + i, REQUESTS, skip=500) for i in range(runs)]
    seen = [run_trial(question, trial) for trial in trials]
    if any(outcome.overloaded for outcome in seen):
        return Interval(0.0, 0.0, 0.0, 0.95, "a backlog grows")
    if runs == 1:
        return share_interval(seen[0].batch_hits, seen[0].batch_sizes)
    return share_interval([o.hits for o in seen], [o.counted for o in seen])


FAMILIES = {
    # decode steps of 8 sequences: batch limits and queues for a decode slot decide
    "slots": (
        lambda: tiny(62.0),
        SLO(ttft_s=0.12, attainment=0.95),
        Space(max_num_seqs=(8,), max_num_batched_tokens=(4096,), tps=(1,), most_instances=4),
        8,
        None,
    ),
    # two GPU types and a TPOT target: prices, not counts, decide
    "types": (
        lambda: tiny(70.0),
        SLO(ttft_s=0.2, tpot_s=0.016, attainment=0.9),
        SPACE,
        4,
        two_types(),
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_winner_is_what_brute_force_finds(name: str) -> None:
    base, slo, space, gpus, inventory = FAMILIES[name]
    found = plan(base(), slo, max_gpus=gpus, space=space, inventory=inventory)
    assert found.winner is not None
    assert 8 <= len(found.rows) <= 120
    assert found.requests_simulated <= 0.15 * RUNS * REQUESTS * len(found.rows)
    assert _judged(found, found.winner).hi >= slo.attainment
    listed = {row.layout for row in found.too_close}
    for row in found.rows:
        if row.usd_per_hour >= found.winner.usd_per_hour:
            continue
        judged = _judged(found, row, 1 if row.verdict == "rejected" else RUNS)
        assert judged.lo < slo.attainment, f"{row.label} is cheaper and holds: {judged}"
        if judged.hi >= slo.attainment and row.verdict != "rejected":
            assert row.layout in listed, f"{row.label} is cheaper and may hold: {judged}"


@pytest.mark.parametrize("rate_rps", [30.0, 80.0])
def test_bounds_never_reject_what_a_long_run_accepts(rate_rps: float) -> None:
    """Targets just at the bounds: whatever is rejected fails 10,000 requests."""
    inventory = two_types()
    for slo in (SLO(ttft_s=0.03, attainment=0.9), SLO(ttft_s=60.0, tpot_s=0.0075, attainment=0.9)):
        space = Space(
            max_num_seqs=(4, 16), max_num_batched_tokens=(4096,), tps=(1,), most_instances=2
        )
        found = plan(
            tiny(rate_rps), slo, max_gpus=2, space=space, inventory=inventory, budget_requests=1
        )
        rejected = [row for row in found.rows if row.verdict == "rejected"]
        # the nearest to holding: the lowest loads
        for row in sorted(rejected, key=lambda r: r.load or 0.0)[:4]:
            assert _judged(found, row, 1).lo < slo.attainment, row


@pytest.mark.parametrize(("load", "ttft_s"), [(0.6, 0.04), (0.8, 0.06), (0.9, 0.12)])
def test_intervals_cover_the_long_run(load: float, ttft_s: float) -> None:
    """200 repetitions of five replications, cut by the planner's own rule, against all of them."""
    slo = SLO(ttft_s=ttft_s, attainment=0.9)
    space = Space(
        max_num_seqs=(8,), max_num_batched_tokens=(4096,), tps=(1,), modes=("disaggregated",)
    )
    base = tiny()
    kind = families(base, Inventory.of_scenario(base), space)[0][0]
    sample = Question(base, slo, {}).requests(1, 5000)
    capacity = 60.0 / family_bound(kind, base, sample, slo, 60.0).bottleneck((1, 1))[0]  # type: ignore[operator]  # the rate is known
    base = tiny(load * capacity)
    bound = family_bound(kind, base, sample, slo, load * capacity)
    skip, tail = cut(bound, 1, load * capacity, load)
    deployment = kind.scenario(base, slo=slo).deployment()

    # a pool of independent runs of the planner's own size; a repetition draws five of them
    question = Question(base, slo, {})
    hits, firsts = [], []
    for seed in range(80):
        run = simulate_deployment(deployment, question.requests(1000 + seed, skip + COUNTED + tail))
        kept = slice(skip, skip + COUNTED)
        hits.append(int(attains(run, slo)[kept].sum()))
        firsts.append(float(ttft(run)[kept].mean()))
    share, mean = sum(hits) / (COUNTED * len(hits)), float(np.mean(firsts))
    assert 0.5 < share < 0.9999
    rng = np.random.default_rng(1)
    shares, means = [], []
    for _ in range(200):
        drawn = rng.choice(len(hits), 5, replace=False)
        found = share_interval(
            [hits[i] for i in drawn], [COUNTED] * 5, cluster=expected_cluster(load)
        )
        shares.append(found.lo <= share <= found.hi)
        interval = mean_interval([firsts[i] for i in drawn])
        assert interval is not None
        means.append(interval.lo <= mean <= interval.hi)
    assert 0.90 <= np.mean(shares) <= 0.99, (np.mean(shares), share)
    assert 0.90 <= np.mean(means) <= 0.99, (np.mean(means), mean)


def test_a_plan_made_on_half_a_trace_holds_on_the_other_half() -> None:
    base = Scenario.load("azure_conv_70b")
    half_s = float(base.requests().arrival_s[-1])  # at twice the recorded rate: half of its time
    first = base.with_overrides([f"workload.trace.end_s={half_s}"])
    second = base.with_overrides([f"workload.trace.start_s={half_s}"])
    space = Space(max_num_seqs=(256,), max_num_batched_tokens=(8192,), tps=(4,))
    found = plan(first, max_gpus=40, space=space)
    assert found.winner is not None
    deployment = found.winner.layout.scenario(second, slo=found.slo).deployment()
    run = simulate_deployment(deployment, second.requests())
    assert attainment(run, found.slo) >= found.slo.attainment


def test_the_space_of_the_bundled_chat_scenario_is_large() -> None:
    found = plan(Scenario.load("chat_70b_h100"), max_gpus=64, budget_requests=1)
    assert len(found.rows) >= 500

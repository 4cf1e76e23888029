"""Work grows with requests, not with tokens: the two bars of ``benchmarks/events.py``, in small."""

from __future__ import annotations

import numpy as np

from simulator import Scenario, analyze
from simulator.engine import simulate_deployment
from simulator.run import Run

BASE = [
    "workload.trace=null",
    "workload.arrivals=poisson",
    "workload.requests=2500",
    "pools.prefill.max_num_seqs=1",
    "pools.decode.max_num_seqs=64",
    "slo=null",
]


def at_load(load: float, outputs: int) -> Scenario:
    """quick_8b with a decode pool at this load and outputs of this mean."""
    rate = 10.0
    for _ in range(4):
        scenario = Scenario.load(
            "quick_8b",
            [
                *BASE,
                f"workload.rate_rps={rate!r}",
                f"workload.output_tokens={{dist: lognormal, mean: {outputs}, cv: 1.0}}",
                "workload.prompt_tokens={dist: lognormal, mean: 512, cv: 1.0, max: 4096}",
            ],
        )
        now = analyze(scenario).pool("decode").load
        assert now is not None
        rate *= load / now
    return scenario


def run(scenario: Scenario, reference: bool = False) -> Run:
    return simulate_deployment(
        scenario.deployment(), scenario.requests(), seed=1, reference=reference
    )


def decode_events(r: Run) -> float:
    return float(r.instances.loc[r.instances.role == "decode", "strides"].sum())


def test_events_per_request_hardly_rise_with_eight_times_longer_outputs() -> None:
    # at higher loads so many requests share the few steps of the short outputs' run that it saves
    # boundaries: the rise is then against a smaller number
    short, long = run(at_load(0.6, 128)), run(at_load(0.6, 1024))
    assert short.requests.preemptions.sum() == long.requests.preemptions.sum() == 0
    tokens = [float(r.workload.output_tokens.sum()) for r in (short, long)]
    assert tokens[1] > 7 * tokens[0]
    assert long.meta["events"] <= 1.10 * short.meta["events"]


def test_at_light_load_strides_need_ten_times_fewer_decode_events() -> None:
    scenario = at_load(0.07, 256)
    strides, steps = run(scenario), run(scenario, reference=True)
    assert decode_events(steps) >= 10 * decode_events(strides)
    np.testing.assert_allclose(
        strides.requests.last_token_s, steps.requests.last_token_s, rtol=1e-9
    )

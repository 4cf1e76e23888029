"""The main job: the whole Azure 2023 conversation trace through 2 prefill and 4 decode instances."""

from __future__ import annotations

import pytest

from simulator import Scenario, simulate, summarize
from simulator.request import State


@pytest.mark.parametrize("rate_scale", [1, 2])
def test_the_whole_trace_is_served(rate_scale: int) -> None:
    scenario = Scenario.load("azure_conv_70b", [f"workload.trace.rate_scale={rate_scale}"])
    run = simulate(scenario)
    table = run.requests
    assert len(table) == 19_366
    assert (table.state == State.DONE).all()
    d = run.deployment
    assert [(p.gpu.name, p.tp, p.instances) for p in d.pools] == [
        ("h100_sxm", 4, 2),
        ("a100_sxm_80gb", 4, 4),
    ]
    # every output token after the first closes one gap; decode emits the first as well
    assert run.itl.n == (table.output_tokens - 1).sum()
    decode = run.instances[run.instances.role == "decode"]
    assert decode["rows"].sum() == table.output_tokens.sum()
    prefill = run.instances[run.instances.role == "prefill"]
    assert prefill["tokens"].sum() == table.prompt_tokens.sum()
    answer = summarize(run, scenario.slo).to_dict()
    assert answer["stable"]
    assert answer["slo_attainment"] > 0.99

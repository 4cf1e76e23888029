"""The stride path against the step-by-step path: the same ids, the same instants to 1e-9."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.engine import simulate_deployment
from simulator.run import Run
from simulator.scenario.deployment import Balance, Deployment, PoolPlan
from simulator.workload import Requests
from tests.engine_kit import INF, KINDS, deployment, grouped, link, pool, requests, table

EXACT = (
    "id",
    "prompt_tokens",
    "output_tokens",
    "state",
    "prefill_instance",
    "decode_instance",
    "preemptions",
)


def assert_same(fast: Run, slow: Run) -> None:
    for name in fast.requests:
        x = fast.requests[name].to_numpy()
        y = slow.requests[name].to_numpy()
        if name in EXACT:
            np.testing.assert_array_equal(x, y, err_msg=name)
        else:
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9, err_msg=name)
    for name in ("busy_s", "steps", "tokens", "pairs", "rows", "kv_token_steps", "kv_peak_blocks"):
        np.testing.assert_allclose(
            fast.instances[name], slow.instances[name], rtol=1e-9, atol=1e-9, err_msg=name
        )
    assert list(fast.instances) == list(slow.instances)
    for name in (c for c in fast.instances if "_g" in c):  # by attention group
        np.testing.assert_allclose(fast.instances[name], slow.instances[name], rtol=1e-9)
    assert fast.itl.n == pytest.approx(slow.itl.n)
    assert fast.itl.mean_s() == pytest.approx(slow.itl.mean_s(), rel=1e-9, nan_ok=True)


def both(d: Deployment, w: Requests) -> tuple[Run, Run]:
    return simulate_deployment(d, w, seed=3), simulate_deployment(d, w, seed=3, reference=True)


@st.composite
def workloads(draw: st.DrawFn, longest: int = 200) -> Requests:
    n = draw(st.integers(1, 40))
    gaps = draw(
        st.lists(st.sampled_from([0.0, 0.0, 0.003, 0.01, 0.0214, 0.2, 1.5]), min_size=n, max_size=n)
    )
    fixed = draw(st.booleans())
    lengths = st.just(draw(st.integers(1, longest))) if fixed else st.integers(1, longest)
    prompt = draw(st.lists(lengths, min_size=n, max_size=n))
    output = draw(st.lists(st.integers(1, 90), min_size=n, max_size=n))
    concurrency = draw(st.none() | st.integers(1, 12))
    if concurrency is not None:
        gaps = [0.0] * n
    return requests(np.cumsum(gaps).tolist(), prompt, output, concurrency)


Knobs = dict[str, Any]

ORDERS: list[Knobs] = [
    {"scheduler": "vllm_v1"},
    {"scheduler": "sglang"},
    {"scheduler": "sglang", "mixed": True, "conservativeness": 0.2},
    {"scheduler": "trtllm", "reserve_output": True},
    {"scheduler": "trtllm", "reserve_output": True, "chunked": True},
    {"scheduler": "trtllm", "reserve_output": False},
]

SERVER = st.fixed_dictionaries(
    {
        "max_seqs": st.sampled_from([1, 2, 5, 16]),
        "host_s": st.sampled_from([0.0, 0.0, 0.0115, 0.5]),
        "per_kv": st.sampled_from([0.0, 1e-6, 2e-5]),
        "budget": st.sampled_from([16, 64, 512]),
        "instances": st.integers(1, 3),
        "block": st.sampled_from([1, 4, 16]),
        "capacity_tokens": st.sampled_from([300, 400, 5000]),
        "ranks": st.sampled_from([1, 1, 2, 3, 4]),
        "order": st.sampled_from(ORDERS),
        "overlap": st.booleans(),
        "balance": st.sampled_from([None, Balance(1, 0), Balance(7, 0), Balance(30, 3)]),
    }
)


def server(role: str, k: Knobs, kind: str = "plain") -> PoolPlan:
    plain = table(host_s=k["host_s"], max_seqs=k["max_seqs"], per_kv=k["per_kv"])
    steps = grouped(plain, kind, k["ranks"])
    units = max(g.units for g in steps.groups)
    balances = role == "colocated" and k["ranks"] > 1 and k["order"].get("reserve_output")
    return pool(
        role,
        table=steps,
        max_num_seqs=k["max_seqs"],
        max_num_batched_tokens=k["budget"],
        instances=k["instances"],
        overlap=k["overlap"],
        balance=k["balance"] if balances else None,
        **k["order"],
        block_tokens=k["block"],
        capacity_blocks=-(-k["capacity_tokens"] // k["block"]) * units,
    )


ROUTERS = st.sampled_from(["round_robin", "random", "least_outstanding_tokens"])

FABRIC = st.fixed_dictionaries(
    {
        "prefills": st.integers(1, 3),
        "prefill_seqs": st.sampled_from([1, 4]),
        "max_wait_s": st.sampled_from([0.0, 0.02]),
        "prefill_tokens": st.sampled_from([300, 5000]),
        "first_token": st.sampled_from(["prefill", "handoff", "decode"]),
        "order": st.sampled_from(
            [
                ("after_prefill", "after_prefill"),
                ("before_prefill", "after_prefill"),
                ("before_prefill", "layerwise"),
            ]
        ),
        "nic": st.sampled_from([(2e4, 0.0), (2e4, 1e-5), (1e6, 0.0), (INF, 0.0)]),
        "latency_s": st.sampled_from([0.0, 1e-3]),
        "spine": st.sampled_from([INF, 3e4]),
        "prefill_ranks": st.sampled_from([1, 1, 2]),
        "stages": st.sampled_from([1, 1, 2, 4]),
        "prefill_router": ROUTERS,
        "decode_router": ROUTERS,
    }
)


def disaggregated(f: Knobs, k: Knobs, kind: str = "plain") -> Deployment:
    prefill = pool(
        "prefill",
        table=grouped(table(), kind, f["prefill_ranks"], f["stages"]),
        instances=f["prefills"],
        max_num_seqs=f["prefill_seqs"],
        max_wait_s=f["max_wait_s"],
        capacity_blocks=-(-f["prefill_tokens"] // 16),
    )
    return deployment(
        prefill,
        server("decode", k, kind),
        first_token=f["first_token"],
        reserve=f["order"][0],
        transfer=f["order"][1],
        link=link(
            nic_bytes_per_s=f["nic"][0],
            message_s=f["nic"][1],
            base_latency_s=f["latency_s"],
            spine_bytes_per_s=f["spine"],
        ),
        prefill_router=f["prefill_router"],
        decode_router=f["decode_router"],
    )


COMMON = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@pytest.mark.parametrize("kind", KINDS)
@COMMON
@given(f=FABRIC, k=SERVER, w=workloads())
def test_disaggregated_strides_equal_steps(kind: str, f: Knobs, k: Knobs, w: Requests) -> None:
    assert_same(*both(disaggregated(f, k, kind), w))


@pytest.mark.parametrize("kind", KINDS)
@COMMON
@given(k=SERVER, w=workloads(), router=ROUTERS, latency_s=st.sampled_from([0.0, 0.003]))
def test_colocated_strides_equal_steps(
    kind: str, k: Knobs, w: Requests, router: str, latency_s: float
) -> None:
    d = deployment(server("colocated", k, kind), prefill_router=router, router_latency_s=latency_s)
    assert_same(*both(d, w))


@settings(COMMON, max_examples=20)
@given(
    k=SERVER,
    w=workloads(longest=60),
    ranks=st.sampled_from([2, 3]),
    balance=st.sampled_from([Balance(1, 0), Balance(7, 0), Balance(30, 3)]),
    chunked=st.booleans(),
)
def test_balanced_ranks_are_the_same_by_strides_and_by_steps(
    k: Knobs, w: Requests, ranks: int, balance: Balance, chunked: bool
) -> None:
    order = {"scheduler": "trtllm", "reserve_output": True, "chunked": chunked}
    k = k | {"ranks": ranks, "balance": balance, "order": order}
    assert_same(*both(deployment(server("colocated", k)), w))


@settings(max_examples=35, deadline=None, derandomize=True)
@given(
    st.sampled_from(KINDS),
    SERVER,
    workloads(longest=60),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0.0, 3e-16, -3e-16, 1e-10, -1e-10])),
             min_size=1, max_size=5),
)  # fmt: skip
def test_arrivals_on_step_boundaries_join_there(
    kind: str, k: Knobs, w: Requests, joins: list[tuple[int, float]]
) -> None:
    """Newcomers placed, one after another, on a boundary of the run so far, or a hair beside it."""
    d = deployment(server("colocated", k, kind))
    if w.closed_loop is not None:
        w = requests(w.arrival_s.tolist(), w.prompt_tokens.tolist(), w.output_tokens.tolist())
    for which, offset in joins:
        run = simulate_deployment(d, w, reference=True, keep_strides=True)
        assert run.strides is not None
        ends = run.strides["t_end_s"].to_numpy()
        later = ends[ends > w.arrival_s[-1]]
        if later.size == 0:
            break
        t = max(float(w.arrival_s[-1]), float(later[which % later.size]) * (1.0 + offset))
        w = requests(
            [*w.arrival_s.tolist(), t],
            [*w.prompt_tokens.tolist(), 7 + which],
            [*w.output_tokens.tolist(), 5 + which],
        )
        assert_same(*both(d, w))

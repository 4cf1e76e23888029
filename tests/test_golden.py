"""Three traces worked by hand. A step over m new tokens takes 10 + m milliseconds, nothing else."""

from __future__ import annotations

import pytest

from simulator.engine import simulate_deployment
from simulator.perf.table import AttentionGroupPlan, AttentionPiece
from simulator.run import Run
from simulator.scenario.deployment import Deployment
from tests.engine_kit import deployment, link, plain_table, pool, requests

ROUND = plain_table(
    a=[0.0, *(0.010 + 0.001 * b for b in range(1, 65))],
    b=[0.0] * 65,
    token_s=[0.010 + 0.001 * m for m in range(2000)],
    head_s=[0.0] * 65,
    seq_s=0.0,
    attention=AttentionGroupPlan((AttentionPiece([0.0] * 65, 0.0),), 0.0, 0.0, 0.0, 0.0),
)

both_paths = pytest.mark.parametrize("reference", [False, True], ids=["strides", "steps"])


def ms(run: Run, column: str) -> list[float]:
    return [round(float(x) * 1e3, 6) for x in run.requests[column]]


def cluster(first_token: str) -> Deployment:
    """One prompt at a time; a NIC of 1 MB/s, 1,000 B of KV a token: 1 ms a token, then 1 ms."""
    return deployment(
        pool("prefill", table=ROUND, max_num_seqs=1),
        pool("decode", table=ROUND),
        link=link(nic_bytes_per_s=1e6, base_latency_s=1e-3),
        kv_wire_bytes_per_token=1000.0,
        first_token=first_token,
    )


@both_paths
def test_disaggregated(reference: bool) -> None:
    """Prompts 20, 10, 30; outputs 3, 2, 1.

    prefill   r0   0– 30   r1  30– 50   r2 100–140
    transfer  r0  30– 50   r1  50– 60   r2 140–170   landed 1 ms later
    decode    r0 alone 51–62 (11 ms); r1, landed at 61, joins at 62: 62–74, 74–86 (12 ms each);
              r2 alone 171–182
    """
    run = simulate_deployment(
        cluster("decode"), requests([0.0, 0.005, 0.1], [20, 10, 30], [3, 2, 1]), reference=reference
    )
    assert ms(run, "prefill_start_s") == [0.0, 30.0, 100.0]
    assert ms(run, "prefill_end_s") == [30.0, 50.0, 140.0]
    assert ms(run, "landed_s") == [51.0, 61.0, 171.0]
    assert ms(run, "decode_start_s") == [51.0, 62.0, 171.0]
    assert ms(run, "first_token_s") == [62.0, 74.0, 182.0]
    assert ms(run, "last_token_s") == [86.0, 86.0, 182.0]
    # gaps: r0 74-62, 86-74; r1 86-74
    assert run.itl.n == 3
    assert run.itl.mean_s() == pytest.approx(0.012)


@both_paths
def test_who_emits_the_first_token(reference: bool) -> None:
    """The same three requests; decode has one step less to do.

    prefill:  r0 shows token 1 at 30, r1 at 50, r2 at 140 (and needs no decode at all).
              decode: r0 alone 51–62; r1 joins at 62: 62–74, where both have their last token.
    handoff:  token 1 is shown when decode admits: 51, 62, 171 (r2 ends there).
    """
    w = requests([0.0, 0.005, 0.1], [20, 10, 30], [3, 2, 1])
    run = simulate_deployment(cluster("prefill"), w, reference=reference)
    assert ms(run, "first_token_s") == [30.0, 50.0, 140.0]
    assert ms(run, "last_token_s") == [74.0, 74.0, 140.0]
    # gaps: r0 62-30, 74-62; r1 74-50
    assert run.itl.mean_s() == pytest.approx((0.032 + 0.012 + 0.024) / 3)
    run = simulate_deployment(cluster("handoff"), w, reference=reference)
    assert ms(run, "first_token_s") == [51.0, 62.0, 171.0]
    assert ms(run, "last_token_s") == [74.0, 74.0, 171.0]
    assert run.itl.mean_s() == pytest.approx((0.011 + 0.012 + 0.012) / 3)


@both_paths
def test_colocated_chunks(reference: bool) -> None:
    """Budget 16 tokens a step. Prompts 20 and 4, outputs 3 and 2.

    0–26    r0's first 16 tokens
    26–44   r0's last 4 and r1's 4 (8 tokens): token 1 of both
    44–56   both decode (12 ms): r1 has its last
    56–67   r0 alone (11 ms)
    """
    d = deployment(pool("colocated", table=ROUND, max_num_seqs=8, max_num_batched_tokens=16))
    run = simulate_deployment(d, requests([0.0, 0.010], [20, 4], [3, 2]), reference=reference)
    assert ms(run, "prefill_start_s") == [0.0, 26.0]
    assert ms(run, "first_token_s") == [44.0, 44.0]
    assert ms(run, "last_token_s") == [67.0, 56.0]


@both_paths
def test_eviction_and_recompute(reference: bool) -> None:
    """Four blocks of 4 tokens. Two requests, prompt 4, output 8.

    0–18     both prompts (8 tokens): token 1 of both, context 5, two blocks each: full
    18–66    four steps of two (12 ms): contexts 5 6 7 8, tokens 2–5
    66       context 9 needs three blocks each: r1, admitted last, is evicted with 5 tokens out
    66–99    r0 alone (11 ms): tokens 6 7 8. Its three blocks leave one; r1 needs three for 4 + 5
    99–118   r1 recomputes 9 tokens (19 ms): token 6
    118–140  r1 alone: tokens 7 and 8
    """
    d = deployment(pool("colocated", table=ROUND, block_tokens=4, capacity_blocks=4))
    run = simulate_deployment(d, requests([0.0, 0.0], 4, 8), reference=reference)
    assert run.requests.preemptions.tolist() == [0, 1]
    assert ms(run, "first_token_s") == [18.0, 18.0]
    assert ms(run, "last_token_s") == [99.0, 140.0]
    # r0: four gaps of 12, three of 11; r1: four of 12, 118-66, two of 11
    assert run.itl.mean_s() == pytest.approx((0.048 + 0.033 + 0.048 + 0.052 + 0.022) / 14)

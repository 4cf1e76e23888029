"""Three traces worked by hand. A step over m new tokens takes 10 + m milliseconds, nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simulator.engine import simulate_deployment
from simulator.perf.table import AttentionGroupPlan, AttentionPiece, StepPiece, StepTable
from simulator.run import Run
from simulator.scenario.deployment import Balance, Deployment
from tests.engine_kit import deployment, link, plain_table, pool, requests

ROUND = plain_table(
    a=[0.0, *(0.010 + 0.001 * b for b in range(1, 65))],
    b=[0.0] * 65,
    token_s=[0.010 + 0.001 * m for m in range(2000)],
    head_s=[0.0] * 65,
    seq_s=0.0,
    attention=AttentionGroupPlan((AttentionPiece([0.0] * 65, [0.0] * 65),), 0.0, 0.0, 0.0, 0.0),
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


def round_table(**kw: Any) -> StepTable:
    """``ROUND`` with some of its parts replaced."""
    return replace(ROUND, **kw)


@both_paths
def test_window_edges(reference: bool) -> None:
    """A decode step takes 10 + S ms, S the KV tokens read; window 6, blocks of 2, capacity 3.

    0–13     r0's prompt of 3: token 1, context 4
    13–27    reads 4 (14 ms); 27–42 reads 5 (15); 42–58 reads 6 (16): context 7, the window is full
    58–106   three more steps that read 6 (16 ms each): tokens 5, 6, 7
    r1 arrives at 50 with a prompt of 3: r0 holds ceil(min(7, 6)/2) = 3 blocks for ever, so r1 waits
    106–119  r1's prompt; one output token
    """
    n = 65
    group = AttentionGroupPlan(
        (AttentionPiece([0.0] * n, [0.001] * n),), 0.0, 0.0, 0.0, 0.0, window=6
    )
    steps = round_table(
        groups=(group,),
        pieces=(StepPiece([0.0, *[0.010] * (n - 1)], ([0.001] * n,)),),
    )
    d = deployment(pool("colocated", table=steps, block_tokens=2, capacity_blocks=3))
    run = simulate_deployment(d, requests([0.0, 0.050], 3, [7, 1]), reference=reference)
    assert ms(run, "first_token_s") == [13.0, 119.0]
    assert ms(run, "last_token_s") == [106.0, 119.0]
    assert run.instances["kv_token_steps_g0"].tolist() == [3 + 4 + 5 + 6 * 4 + 3]


@both_paths
def test_lock_step_ranks(reference: bool) -> None:
    """Two ranks; a rank's step over m tokens takes 10 + m ms, and all together 1 ms a token.

    r0 goes to rank 0, r1 (fewer tokens there: none) to rank 1, both at 0.
    0–44     prompts 20 and 4: max(30, 14) + 24·1 → 54 ms: token 1 of both at 54
    54–67    one token each: 11 + 2 = 13 ms: r1 has its last at 67
    r2 arrives at 60 with a prompt of 6: rank 0 holds 21 tokens, rank 1 holds 5: it goes to rank 1
    67–90    r0 decodes (11 ms) beside r2's prompt (16 ms): 16 + 7 = 23 ms; both end at 90
    """
    steps = round_table(ranks=2, joint_s=[0.001 * m for m in range(4000)])
    d = deployment(pool("colocated", table=steps))
    run = simulate_deployment(
        d, requests([0.0, 0.0, 0.060], [20, 4, 6], [3, 2, 1]), reference=reference
    )
    assert ms(run, "first_token_s") == [54.0, 54.0, 90.0]
    assert ms(run, "last_token_s") == [90.0, 67.0, 90.0]
    assert run.instances["busy_s"].tolist() == pytest.approx([0.090])


@both_paths
def test_overlapped_scheduling(reference: bool) -> None:
    """A step over m tokens takes 10 + m ms, and is scheduled when the one before it begins.

    0–30     r0's prompt (20): nothing ran before it, so it is scheduled at once
    r1 (prompt 8) arrives at 12: the step from 30 on is scheduled already
    30–41    r0 decodes; 41–60: r0 beside r1's prompt, 10 + 1 + 8; token 1 of r1 at 60
    r2 (prompt 5) arrives at 60, at the boundary where 60–72 begins, and joins the step after: 72–89,
             10 + 2 + 5
    89–102   r0, r1 and r2 decode: the last of all three
    r3 (prompt 10) arrives at 95, while that step runs; nobody is left at 102: it begins there
    """
    d = deployment(pool("colocated", table=ROUND, overlap=True))
    arrivals = [0.0, 0.012, 0.060, 0.095]
    run = simulate_deployment(
        d, requests(arrivals, [20, 8, 5, 10], [6, 4, 2, 1]), reference=reference
    )
    assert ms(run, "prefill_start_s") == [0.0, 41.0, 72.0, 102.0]
    assert ms(run, "first_token_s") == [30.0, 60.0, 89.0, 122.0]
    assert ms(run, "last_token_s") == [102.0, 102.0, 102.0, 122.0]


def test_pipelined_prefill() -> None:
    """Two stages of equal length; prompts run one at a time.

    r0 (30 tokens, 40 ms) enters at 0, leaves the first stage at 20 and ends at 40
    r1 (10 tokens, 20 ms) enters at 20: alone it would end at 40, but its second stage waits for
       r0 to leave it at 40: 40 + 10 = 50
    r2 (50 tokens, 60 ms) enters at 30, when r1 has left the first stage, and ends at 90
    """
    d = deployment(
        pool("prefill", table=round_table(stages=2), max_num_seqs=1),
        pool("decode", table=ROUND),
        first_token="prefill",
    )
    run = simulate_deployment(d, requests([0.0] * 3, [30, 10, 50], 1))
    assert ms(run, "prefill_start_s") == [0.0, 20.0, 30.0]
    assert ms(run, "first_token_s") == [40.0, 50.0, 90.0]
    assert run.instances["busy_s"][0] == pytest.approx(0.060)


def test_lock_step_prefill() -> None:
    """Two ranks, each with its own queue: 10 + m ms on the slower rank, 1 ms a token of both.

    0–54     r0 (20 tokens) on rank 0 and r1 (4) on rank 1: max(30, 14) + 24
    r2 (6) and r3 (7) arrive at 10: rank 1 has fewer tokens both times (4, then 10, of rank 0's 20)
    54–90    r2 and r3 on rank 1: 10 + 13 + 13
    """
    steps = round_table(ranks=2, joint_s=[0.001 * m for m in range(4000)])
    d = deployment(pool("prefill", table=steps), pool("decode", table=ROUND), first_token="prefill")
    run = simulate_deployment(d, requests([0.0, 0.0, 0.01, 0.01], [20, 4, 6, 7], 1))
    assert ms(run, "first_token_s") == [54.0, 54.0, 90.0, 90.0]


@both_paths
def test_only_the_window_of_a_prompt_is_sent(reference: bool) -> None:
    """100 tokens: 60 B a token of layers that read all, 40 B of layers that read 25 tokens."""
    d = deployment(
        pool("prefill", table=ROUND),
        pool("decode", table=ROUND),
        link=link(nic_bytes_per_s=1e6, base_latency_s=0.0),
        kv_wire_bytes_per_token=100.0,
        kv_wire_windows=((25, 40.0),),
    )
    run = simulate_deployment(d, requests([0.0], 100, 2), reference=reference).requests.iloc[0]
    assert run.landed_s - run.prefill_end_s == pytest.approx((100 * 60 + 25 * 40) / 1e6)


@both_paths
def test_prefill_first(reference: bool) -> None:
    """SGLang's order: a prompt stops the decoding of everybody else. Chunks of 16 tokens.

    0–14      r0's prompt of 4: token 1
    14–25     r0 decodes (11 ms): token 2
    r1 (20 tokens) arrives at 20
    25–51     r1's first 16 tokens, alone in the step; r0 waits
    51–65     its last 4: token 1 of r1
    65–77     both decode (12 ms): r0's last, after 77 - 25 = 52 ms; r1's token 2
    77–88     r1 alone: its last
    """
    d = deployment(
        pool(
            "colocated", table=ROUND, scheduler="sglang", max_num_batched_tokens=16, max_num_seqs=8
        )
    )
    run = simulate_deployment(d, requests([0.0, 0.020], [4, 20], [3, 3]), reference=reference)
    assert ms(run, "first_token_s") == [14.0, 65.0]
    assert ms(run, "last_token_s") == [77.0, 88.0]
    assert run.itl.n == 4
    assert run.itl.mean_s() == pytest.approx((0.011 + 0.052 + 0.012 + 0.011) / 4)


@both_paths
def test_prefill_first_mixed(reference: bool) -> None:
    """The same, mixed: r0 decodes beside the prompt, whose chunks have 15 tokens then.

    25–51   r0's last token beside 15 of r1's: 16 tokens
    51–66   the other 5
    """
    order = pool("colocated", table=ROUND, scheduler="sglang", mixed=True,
                 max_num_batched_tokens=16, max_num_seqs=8)  # fmt: skip
    run = simulate_deployment(
        deployment(order), requests([0.0, 0.020], [4, 20], [3, 3]), reference=reference
    )
    assert ms(run, "first_token_s") == [14.0, 66.0]
    assert ms(run, "last_token_s") == [51.0, 88.0]


@both_paths
def test_admission_expects_a_share_of_the_output(reference: bool) -> None:
    """26 blocks of one token. r0 (prompt 4) and r1 (prompt 5) both want 12 tokens; r1 arrives at 20.

    0–14     r0's prompt; 14–25 its token 2, context 6
    25       r1 asks. Of r0's last 10 tokens 0.7 are expected, less the trifle one decode step has
             taken off: 6. 6 + 6 for r0 and 5 + 12 for r1 are 29, more than 26
    25–135   so r0 goes on alone, 10 steps of 11 ms, and r1 after it: 15 + 11·11 ms
    With 40 blocks r1 is admitted at 25.
    """

    def run(blocks: int) -> Run:
        d = deployment(
            pool("colocated", table=ROUND, scheduler="sglang", block_tokens=1,
                 capacity_blocks=blocks, max_num_seqs=8)
        )  # fmt: skip
        return simulate_deployment(d, requests([0.0, 0.020], [4, 5], 12), reference=reference)

    assert ms(run(26), "last_token_s") == [135.0, 271.0]
    assert ms(run(40), "prefill_start_s") == [0.0, 25.0]


@both_paths
def test_retracted_requests_queue_again(reference: bool) -> None:
    """30 blocks of one token; four requests of prompt 2, output 10, one after another.

    The estimate takes a newcomer's whole output and 0.7 of the others' rest, so that all four are in
    before any has finished; together they would hold 48. The one with the fewest tokens is retracted.
    """
    d = deployment(
        pool("colocated", table=ROUND, scheduler="sglang", conservativeness=0.1, block_tokens=1,
             capacity_blocks=30, max_num_seqs=8)
    )  # fmt: skip
    run = simulate_deployment(d, requests([0.0, 0.02, 0.04, 0.06], 2, 10), reference=reference)
    assert run.requests.preemptions.sum() > 0
    assert run.requests.preemptions[0] == 0  # the oldest has the most tokens
    assert run.requests.preemptions[3] > 0


@both_paths
def test_no_evict_keeps_room_for_the_whole_output(reference: bool) -> None:
    """TensorRT-LLM: four blocks of 4 tokens hold one request of 4 + 8 tokens, and not two.

    0–14     r0's prompt; then 7 steps of 11 ms: its last at 91
    91–105   r1's prompt, and its last at 182. Nobody is evicted
    """
    d = deployment(
        pool("colocated", table=ROUND, scheduler="trtllm", block_tokens=4, capacity_blocks=4)
    )
    run = simulate_deployment(d, requests([0.0, 0.0], 4, 8), reference=reference)
    assert run.requests.preemptions.tolist() == [0, 0]
    assert ms(run, "last_token_s") == [91.0, 182.0]


@pytest.mark.parametrize("chunked", [False, True])
@both_paths
def test_whole_contexts(reference: bool, chunked: bool) -> None:
    """TensorRT-LLM, budget 16 tokens a step. Prompts 12 and 10.

    whole    0–22 r0's prompt; 4 tokens are left, r1's prompt of 10 waits
             22–43 r1's prompt beside r0 (11 tokens)
    chunked  0–26 r0's prompt and 4 tokens of r1's; 26–43 the other 6 beside r0
    """
    order = pool("colocated", table=ROUND, scheduler="trtllm", chunked=chunked,
                 max_num_batched_tokens=16, max_num_seqs=8)  # fmt: skip
    run = simulate_deployment(
        deployment(order), requests([0.0, 0.0], [12, 10], 6), reference=reference
    )
    assert ms(run, "first_token_s") == [26.0 if chunked else 22.0, 43.0]


def test_a_whole_context_longer_than_a_step_is_rejected() -> None:
    whole, cut = (
        pool("colocated", table=ROUND, scheduler="trtllm", chunked=chunked,
             max_num_batched_tokens=16, max_num_seqs=8)
        for chunked in (False, True)
    )  # fmt: skip
    w = requests([0.0, 0.0], [17, 16], 2)
    assert simulate_deployment(deployment(whole), w).requests.state.tolist() == [9, 8]
    assert simulate_deployment(deployment(cut), w).requests.state.tolist() == [8, 8]


@both_paths
def test_room_that_appears_while_it_is_asked_for(reference: bool) -> None:
    """Room is promised before prefill; 5 blocks of 4 tokens.

    r0  16 tokens, 4 blocks: prefill 0–26, three steps of 11 ms to 59. r1 waits for its 2 blocks
    r2  arrives at 59, a hair before r0's last step ends: its prefill instance asks again for r1, the
        decode instance takes the boundary it owes, and what that frees is given to r1, once
    r1  prefill 59–77, decodes 77–88, 88–99, and with r2 99–111
    r2  prefill 77–95, joins at 99: 99–111, then alone to 133
    """
    d = deployment(
        pool("prefill", table=ROUND, max_num_seqs=1),
        pool("decode", table=ROUND, block_tokens=4, capacity_blocks=5),
        reserve="before_prefill",
        link=link(nic_bytes_per_s=float("inf"), base_latency_s=0.0),
        decode_router="least_outstanding_tokens",
    )
    run = simulate_deployment(
        d, requests([0.0, 0.005, 0.059 - 1e-12], [16, 8, 8], 3), reference=reference
    )
    assert ms(run, "prefill_start_s") == [0.0, 59.0, 77.0]
    assert ms(run, "last_token_s") == [59.0, 111.0, 133.0]


@both_paths
def test_prompts_wait_until_every_rank_has_one(reference: bool) -> None:
    """Two ranks, 10 + m ms on the slower one, balanced: a wait ends after three steps.

    0–30     r0 (20) on rank 0 and r1 (15) on rank 1 start at once: nobody decodes
    r2 (30) arrives at 12; both ranks hold one request, rank 1 the fewer tokens: it goes there
    30–41, 41–52, and at 52 the third boundary at which rank 0 has no prompt: 52–93 (11 beside 41)
    r3 (25) arrives at 60, goes to rank 0, which holds one request; rank 1 has no prompt at 93
    93–105–117 two decode on rank 1 (10 + 2): r3 waits at two boundaries and starts at the third
    """
    plan = pool(
        "colocated",
        table=round_table(ranks=2, joint_s=[0.0] * 4000),
        scheduler="trtllm",
        balance=Balance(3, 0),
    )
    run = simulate_deployment(
        deployment(plan),
        requests([0.0, 0.0, 0.012, 0.060], [20, 15, 30, 25], 20),
        reference=reference,
    )
    assert ms(run, "prefill_start_s") == [0.0, 0.0, 52.0, 117.0]

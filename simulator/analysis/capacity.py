"""The largest rate one instance sustains, and what stops it: fluid limits of a saturated instance.

References:
    [1] J. G. Dai, On positive Harris recurrence of multiclass queueing networks: a unified approach
        via fluid limit models, Ann. Appl. Probab. 5(1), 1995: a work-conserving station is stable
        if it drains faster than it is fed whenever it is saturated. Hence every rate here is taken
        at the batch an instance runs *when work is always waiting*, not at its best batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulator.analysis.demand import Demand, IntArray
from simulator.analysis.steps import FloatArray, StepTimes
from simulator.analysis.windows import prompt_pairs
from simulator.scenario.deployment import PoolPlan


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one instance sustains, all its attention ranks together.

    Attributes:
        rate_rps: largest sustainable request rate [1/s]; ``inf`` if it has nothing to do.
        limit: what stops it: ``compute``, ``batch limit``, ``token budget`` or ``KV capacity``.
        batch: mean number in its batch at that rate: prompts (prefill) or decoding sequences.
        step_s: mean step time at that rate [s].
        tpot_rate_rps: largest rate with a mean step within the TPOT target [1/s]; None without one.
        tpot_batch: decoding sequences at that rate.
    """

    rate_rps: float
    limit: str
    batch: float
    step_s: float
    tpot_rate_rps: float | None = None
    tpot_batch: float | None = None

    def times(self, ranks: int) -> Capacity:
        """Of so many ranks that sustain this each, in lock-step."""
        if ranks == 1:
            return self
        return replace(
            self,
            rate_rps=ranks * self.rate_rps,
            batch=ranks * self.batch,
            tpot_rate_rps=None if self.tpot_rate_rps is None else ranks * self.tpot_rate_rps,
            tpot_batch=None if self.tpot_batch is None else ranks * self.tpot_batch,
        )


def reserves(pool: PoolPlan) -> bool:
    """Whether blocks for prompt and output are held from admission to the end (``trtllm``)."""
    return pool.scheduler == "trtllm" and pool.reserve_output


NOTHING = Capacity(float("inf"), "compute", 0.0, 0.0)


def pack_prompts(prompt: IntArray, budget: int, max_seqs: int) -> IntArray:
    """FCFS batches of whole prompts under a token budget; a longer prompt runs alone.

    Args:
        prompt: prompt tokens in order of arrival.
        budget: new tokens one step may compute.
        max_seqs: prompts one step may hold.

    Returns:
        Position of the first prompt of each batch.
    """
    total = np.concatenate([[0], np.cumsum(prompt)])
    # a batch that starts at prompt i ends before the first one that overflows the budget
    after = np.searchsorted(total, total[:-1] + budget, side="right") - 1
    here = np.arange(prompt.size)
    follow = np.clip(after, here + 1, here + max_seqs).tolist()
    starts, i = [], 0
    while i < len(follow):
        starts.append(i)
        i = follow[i]
    return np.array(starts, dtype=np.int64)


def packed_prompts(
    pool: PoolPlan, times: StepTimes, demand: Demand
) -> tuple[IntArray, FloatArray, FloatArray]:
    """A backlog of whole prompts in full FCFS batches, packed in the workload's own order.

    Args:
        pool: the pool.
        times: its step times.
        demand: the requests.

    Returns:
        Of each batch: position of its first prompt, its tokens, its time [s].
    """
    prompt = demand.prompt.astype(np.float64)
    starts = pack_prompts(demand.prompt, pool.max_num_batched_tokens, pool.max_num_seqs)
    tokens = np.add.reduceat(prompt, starts)
    prompts = np.diff(np.append(starts, prompt.size)).astype(np.float64)
    groups = pool.table.groups
    seconds = times.mixed_s(
        batch=0.0,
        reads=tuple(0.0 for _ in groups),
        new=tokens,
        pairs=tuple(np.add.reduceat(prompt_pairs(g, demand.prompt), starts) for g in groups),
        read=tuple(tokens for _ in groups),
        chunks=prompts,
        rows=prompts,
        longest=tuple(np.maximum.reduceat(prompt, starts) for _ in groups),
    )
    return starts, tokens, seconds


def prefill_capacity(
    pool: PoolPlan, times: StepTimes, demand: Demand, transfer_s: float
) -> Capacity:
    """Largest rate of a prefill instance: a backlog served in full FCFS batches.

    The backlog is the workload itself, packed in its own order, so the batch mix is the real one.
    A prompt's blocks stay until its KV has left: by Little's law the rate also has to satisfy
    ``rate · E[blocks] · (batch time + transfer) ≤ capacity``.

    Args:
        pool: the prefill pool.
        times: its step times.
        demand: the requests.
        transfer_s: time the KV stays after prefill, without contention [s].
    """
    starts, tokens, seconds = packed_prompts(pool, times, demand)
    groups = pool.table.groups
    # every rank has such a batch, and a batch enters the pipeline when one stage is free
    rate = times.ranks * pool.table.stages * len(demand) / float(seconds.sum())
    held_s = float(np.dot(seconds, tokens) / tokens.sum()) + transfer_s
    held = demand.mean_prompt_blocks(pool.block_tokens, groups) * held_s
    kv_rate = times.ranks * pool.capacity_blocks / held
    limit = "compute" if rate <= kv_rate else "KV capacity"
    batch = times.ranks * len(demand) / starts.size
    return Capacity(min(rate, kv_rate), limit, batch, float(seconds.mean()))


def decode_capacity(
    pool: PoolPlan,
    times: StepTimes,
    demand: Demand,
    hold_s: float,
    tpot_s: float | None,
) -> Capacity:
    """Largest rate of a decode instance: B sequences decode at all times.

    With B running sequences of mean context S̄ a step takes ``t(B, B·S̄)`` and completes ``B/steps``
    requests. B is limited by ``max_num_seqs`` and by the KV blocks of the running sequences plus
    those promised to transfers, ``rate · hold · E[promised blocks]``. With several attention ranks
    each runs B, and has its share of the rate.

    Args:
        pool: the decode pool.
        times: its step times.
        demand: the requests.
        hold_s: time a request's blocks are promised before it can join, without contention [s].
        tpot_s: largest mean step time wanted [s], if any.
    """
    steps = demand.mean_steps
    if steps == 0.0:
        return NOTHING
    batch = np.arange(1.0, pool.max_num_seqs + 1.0)
    groups, block = pool.table.groups, pool.block_tokens
    step_s = times.decode_s(batch, tuple(batch * n for n in demand.mean_reads(groups)))
    rate = batch / (steps * step_s)
    if reserves(pool):
        reserved = demand.sent * demand.reserved_blocks(block, groups)
        blocks = batch * demand.mean_reserved_blocks(block, groups)
        blocks += rate * hold_s * float(np.mean(reserved))
    else:
        blocks = batch * demand.mean_running_blocks(block, groups)
        blocks += rate * hold_s * demand.mean_promised_blocks(block, groups)
    limits = {
        "batch limit": float(pool.max_num_seqs),
        "KV capacity": largest_batch(batch, blocks, pool.capacity_blocks),
    }
    return capacity_at(batch, step_s, rate, limits, tpot_s).times(times.ranks)


def largest_batch(batch: FloatArray, need: FloatArray, have: float) -> float:
    """Largest (fractional) batch whose need, made monotone, is at most ``have``."""
    need = np.maximum.accumulate(need)
    if need[0] > have:
        return float(batch[0] * have / need[0])  # less than one sequence at a time, on average
    if need[-1] <= have:
        return float(batch[-1])
    i = int(np.searchsorted(need, have, side="right"))
    part = (have - need[i - 1]) / (need[i] - need[i - 1])
    return float(batch[i - 1] + part * (batch[i] - batch[i - 1]))


def capacity_at(
    batch: FloatArray,
    step_s: FloatArray,
    rate: FloatArray,
    limits: dict[str, float],
    tpot_s: float | None,
) -> Capacity:
    """The capacity of an instance that sustains ``rate[i]`` with ``batch[i]`` sequences.

    Args:
        batch: 1, 2, 3, … decoding sequences.
        step_s: mean time of a step with them [s].
        rate: requests completed [1/s].
        limits: largest batch by what limits it.
        tpot_s: largest mean step time wanted [s], if any.
    """
    limit = min(limits, key=lambda name: limits[name])
    most = limits[limit]
    tpot_rate, tpot_batch = None, None
    if tpot_s is not None:
        slow = np.maximum.accumulate(step_s) > tpot_s
        within = float(np.count_nonzero(~slow))  # batches are 1, 2, 3, …
        tpot_batch = min(within, most) if within else 0.0
        tpot_rate = _rate_at(batch, rate, tpot_batch)
    return Capacity(
        rate_rps=_rate_at(batch, rate, most),
        limit=limit,
        batch=most,
        step_s=float(np.interp(most, batch, step_s)),
        tpot_rate_rps=tpot_rate,
        tpot_batch=tpot_batch,
    )


def _rate_at(batch: FloatArray, rate: FloatArray, at: float) -> float:
    if at < batch[0]:
        return float(rate[0] * at / batch[0])
    return float(np.interp(at, batch, rate))

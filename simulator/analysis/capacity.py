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
from simulator.analysis.windows import prompt_pairs, read_back
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
    blocks = batch * demand.mean_running_blocks(block, groups)
    blocks += rate * hold_s * demand.mean_promised_blocks(block, groups)
    limits = {
        "batch limit": float(pool.max_num_seqs),
        "KV capacity": _largest(batch, blocks, pool.capacity_blocks),
    }
    return _capacity(batch, step_s, rate, limits, tpot_s).times(times.ranks)


def colocated_capacity(
    pool: PoolPlan, times: StepTimes, demand: Demand, tpot_s: float | None
) -> Capacity:
    """Largest rate of a colocated instance that decodes first and prefills in the budget left over.

    In steady state B decoding sequences finish ``r = B/steps`` requests a step, so ``r·E[P]`` prompt
    tokens must be prefilled a step. Steps are of two kinds: pure decode steps, and a share φ that
    also carries a chunk, ``φ = max(r·E[P]/(budget − B), 1 − exp(−r))``: the first when chunks fill
    the budget, the second when whole prompts come one by one (Poisson admissions). B is limited by
    the sequences, by the KV blocks (prompts under prefill hold theirs too) and by the budget,
    ``B + r·E[P] ≤ budget``.

    Args:
        pool: the colocated pool.
        times: its step times.
        demand: the requests.
        tpot_s: largest mean step time wanted [s], if any.
    """
    steps = demand.mean_steps
    if steps == 0.0:
        return _chunks_only(pool, times, demand)
    budget = float(pool.max_num_batched_tokens)
    batch = np.arange(1.0, min(pool.max_num_seqs, pool.max_num_batched_tokens) + 1.0)
    step_s = colocated_steps(times, demand, batch, budget).mean_s
    admitted = batch / steps
    # a prompt is under prefill for this many steps
    prefilling = np.maximum(1.0, demand.mean_prompt / np.maximum(budget - batch, 1.0))
    groups, block = pool.table.groups, pool.block_tokens
    blocks = batch * demand.mean_running_blocks(block, groups)
    blocks += admitted * demand.mean_prompt_blocks(block, groups) * (prefilling + 1.0) / 2.0
    limits = {
        "batch limit": _largest(batch, batch + admitted * prefilling, pool.max_num_seqs),
        "KV capacity": _largest(batch, blocks, pool.capacity_blocks),
        "token budget": _largest(batch, batch + admitted * demand.mean_prompt, budget),
    }
    return _capacity(batch, step_s, admitted / step_s, limits, tpot_s).times(times.ranks)


def _chunks_only(pool: PoolPlan, times: StepTimes, demand: Demand) -> Capacity:
    """One output token each: every step is a full budget of prompt chunks."""
    budget = float(pool.max_num_batched_tokens)
    prompts = min(budget / demand.mean_prompt, float(pool.max_num_seqs))
    new = prompts * demand.mean_prompt
    chunks_each = max(1.0, demand.mean_prompt / budget)
    groups = pool.table.groups
    step_s = float(
        times.mixed_s(
            batch=0.0,
            reads=tuple(0.0 for _ in groups),
            new=new,
            pairs=tuple(prompts * n for n in demand.mean_prompt_pairs(groups)),
            read=tuple(prompts * read_back(g, demand.mean_prompt, chunks_each) for g in groups),
            chunks=prompts * chunks_each,
            rows=prompts,
        )
    )
    limit = "token budget" if prompts < pool.max_num_seqs else "batch limit"
    return Capacity(prompts / step_s, limit, prompts, step_s).times(times.ranks)


@dataclass(frozen=True, slots=True)
class ColocatedSteps:
    """The two kinds of steps of a colocated instance in steady state, for each batch.

    Attributes:
        share: fraction of steps that also carry prompt chunks.
        mixed_s: time of those [s].
        plain_s: time of a pure decode step [s].
    """

    share: FloatArray
    mixed_s: FloatArray
    plain_s: FloatArray

    @property
    def mean_s(self) -> FloatArray:
        """Mean step time [s]."""
        return self.share * self.mixed_s + (1.0 - self.share) * self.plain_s


def colocated_steps(
    times: StepTimes, demand: Demand, batch: FloatArray, budget: float
) -> ColocatedSteps:
    """Steps of a colocated instance with ``batch`` decoding sequences in steady state.

    See ``colocated_capacity``. Beyond the budget (``B + r·E[P] > budget``) the values are those of
    a step which exceeds it; callers cut those batches off.
    """
    admitted = batch / demand.mean_steps
    wanted = admitted * demand.mean_prompt
    room = np.maximum(budget - batch, 1.0)
    share = np.clip(np.maximum(wanted / room, -np.expm1(-admitted)), 1e-12, 1.0)
    new = wanted / share
    prompts = admitted / share  # prompts that end in a step with chunks
    groups = times.table.groups
    reads = tuple(batch * n for n in demand.mean_reads(groups))
    chunks_each = np.maximum(1.0, demand.mean_prompt / np.minimum(new, room))
    mixed = times.mixed_s(
        batch=batch,
        reads=reads,
        new=new,
        pairs=tuple(prompts * n for n in demand.mean_prompt_pairs(groups)),
        read=tuple(prompts * read_back(g, demand.mean_prompt, chunks_each) for g in groups),
        chunks=prompts * chunks_each,
        rows=batch + prompts,
    )
    return ColocatedSteps(share, mixed, times.decode_s(batch, reads))


def _largest(batch: FloatArray, need: FloatArray, have: float) -> float:
    """Largest (fractional) batch whose need, made monotone, is at most ``have``."""
    need = np.maximum.accumulate(need)
    if need[0] > have:
        return float(batch[0] * have / need[0])  # less than one sequence at a time, on average
    if need[-1] <= have:
        return float(batch[-1])
    i = int(np.searchsorted(need, have, side="right"))
    part = (have - need[i - 1]) / (need[i] - need[i - 1])
    return float(batch[i - 1] + part * (batch[i] - batch[i - 1]))


def _capacity(
    batch: FloatArray,
    step_s: FloatArray,
    rate: FloatArray,
    limits: dict[str, float],
    tpot_s: float | None,
) -> Capacity:
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

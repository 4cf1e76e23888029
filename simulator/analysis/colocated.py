"""A colocated instance in steady state: its two kinds of steps, and the largest rate they sustain.

The three orders of service (docs/schedulers.md) differ in which steps hold prompts and in what KV a
sequence holds: fluid limits as in ``simulator.analysis.capacity``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.analysis.capacity import (
    Capacity,
    capacity_at,
    largest_batch,
    pack_prompts,
    packed_prompts,
    reserves,
)
from simulator.analysis.demand import Demand
from simulator.analysis.steps import FloatArray, StepTimes
from simulator.analysis.windows import read_back
from simulator.scenario.deployment import PoolPlan


def pauses(pool: PoolPlan) -> bool:
    """Whether running sequences pause while prompts are prefilled (``sglang``, not ``mixed``)."""
    return pool.scheduler == "sglang" and not pool.mixed


def whole(pool: PoolPlan) -> bool:
    """Whether prompts are never cut into chunks (``trtllm``)."""
    return pool.scheduler == "trtllm" and not pool.chunked


def colocated_capacity(
    pool: PoolPlan, times: StepTimes, demand: Demand, tpot_s: float | None
) -> Capacity:
    """Largest rate of a colocated instance under its pool's order of service.

    In steady state B decoding sequences finish ``r = B/steps`` requests a step, so ``r·E[P]`` prompt
    tokens must be prefilled a step (``colocated_steps``). B is limited by the sequences, by the KV
    blocks (prompts under prefill hold theirs too; ``trtllm`` holds those of the whole output from
    admission on) and, where decodes and prompts share steps, by the budget, ``B + r·E[P] ≤ budget``;
    whole prompts moreover fill a step no better than their batches do.

    Args:
        pool: the colocated pool.
        times: its step times.
        demand: the requests.
        tpot_s: largest mean step time wanted [s], if any.
    """
    steps = demand.mean_steps
    if steps == 0.0:
        return (
            _whole_only(pool, times, demand) if whole(pool) else _chunks_only(pool, times, demand)
        )
    alternates = pauses(pool)
    budget = float(pool.max_num_batched_tokens)
    most = pool.max_num_seqs if alternates else min(pool.max_num_seqs, pool.max_num_batched_tokens)
    batch = np.arange(1.0, most + 1.0)
    step_s = colocated_steps(pool, times, demand, batch).mean_s
    admitted = batch / steps
    groups, block = pool.table.groups, pool.block_tokens
    limits = {"batch limit": float(pool.max_num_seqs)}
    if alternates:  # while sequences decode nothing is under prefill
        blocks = batch * demand.mean_running_blocks(block, groups)
    else:
        # a prompt is under prefill for this many steps
        prefilling = np.maximum(1.0, demand.mean_prompt / np.maximum(budget - batch, 1.0))
        if reserves(pool):
            blocks = batch * demand.mean_reserved_blocks(block, groups)
            blocks += admitted * float(demand.reserved_blocks(block, groups).mean()) * prefilling
        else:
            blocks = batch * demand.mean_running_blocks(block, groups)
            blocks += admitted * demand.mean_prompt_blocks(block, groups) * (prefilling + 1.0) / 2.0
        limits["batch limit"] = largest_batch(
            batch, batch + admitted * prefilling, pool.max_num_seqs
        )
        tokens = batch + admitted * demand.mean_prompt
        if whole(pool):
            starts = pack_prompts(demand.prompt, pool.max_num_batched_tokens, pool.max_num_seqs)
            tokens = np.maximum(tokens, admitted * starts.size * (budget / len(demand)))
        limits["token budget"] = largest_batch(batch, tokens, budget)
    limits["KV capacity"] = largest_batch(batch, blocks, pool.capacity_blocks)
    return capacity_at(batch, step_s, admitted / step_s, limits, tpot_s).times(times.ranks)


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


def _whole_only(pool: PoolPlan, times: StepTimes, demand: Demand) -> Capacity:
    """One output token each: every step is a batch of whole prompts, as on a prefill instance."""
    starts, _, seconds = packed_prompts(pool, times, demand)
    prompts, step_s = len(demand) / starts.size, float(seconds.mean())
    limit = "token budget" if prompts < pool.max_num_seqs else "batch limit"
    return Capacity(prompts / step_s, limit, prompts, step_s).times(times.ranks)


@dataclass(frozen=True, slots=True)
class ColocatedSteps:
    """The two kinds of steps of a colocated instance in steady state, for each batch.

    Attributes:
        share: fraction of decode steps that also carry prompts, or come after steps that do.
        mixed_s: time of those, the prefill steps before them included [s].
        plain_s: time of a pure decode step [s].
    """

    share: FloatArray
    mixed_s: FloatArray
    plain_s: FloatArray

    @property
    def mean_s(self) -> FloatArray:
        """Mean time from one token of a sequence to the next [s]."""
        return self.share * self.mixed_s + (1.0 - self.share) * self.plain_s


def colocated_steps(
    pool: PoolPlan, times: StepTimes, demand: Demand, batch: FloatArray
) -> ColocatedSteps:
    """Steps of a colocated instance with ``batch`` decoding sequences in steady state.

    Of its decode steps a share φ also carries prompts, ``φ = max(r·E[P]/(budget − B), 1 − exp(−r))``:
    the first when chunks fill the budget, the second when whole prompts come one by one (Poisson
    admissions). Where sequences pause for prompts (``pauses``) only the second holds: prompts are
    prefilled before the next decode step in as many steps as they need. Beyond the budget
    (``B + r·E[P] > budget``) the values are those of a step which exceeds it; callers cut those
    batches off.

    Args:
        pool: the colocated pool.
        times: its step times.
        demand: the requests.
        batch: decoding sequences.
    """
    budget = float(pool.max_num_batched_tokens)
    admitted = batch / demand.mean_steps
    groups = times.table.groups
    reads = tuple(batch * n for n in demand.mean_reads(groups))
    plain_s = times.decode_s(batch, reads)
    if pauses(pool):
        share = np.clip(-np.expm1(-admitted), 1e-12, 1.0)
        stop_s = prefill_steps_s(times, demand, admitted / share, budget)
        return ColocatedSteps(share, plain_s + stop_s, plain_s)
    wanted = admitted * demand.mean_prompt
    room = np.maximum(budget - batch, 1.0)
    share = np.clip(np.maximum(wanted / room, -np.expm1(-admitted)), 1e-12, 1.0)
    new = wanted / share
    prompts = admitted / share  # prompts that end in a step with chunks
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
    return ColocatedSteps(share, mixed, plain_s)


def prefill_steps_s(
    times: StepTimes, demand: Demand, prompts: FloatArray, budget: float
) -> FloatArray:
    """Time of the steps that prefill so many mean prompts and decode nothing [s].

    As few equal steps as the budget allows, counted as a fraction beyond the first.

    Args:
        times: step times.
        demand: the requests.
        prompts: how many are prefilled together.
        budget: new tokens of a step.
    """
    tokens = prompts * demand.mean_prompt
    steps = np.maximum(1.0, tokens / budget)
    each = prompts / steps
    chunks = max(1.0, demand.mean_prompt / budget)
    groups = times.table.groups
    one_s = times.mixed_s(
        batch=0.0,
        reads=tuple(0.0 for _ in groups),
        new=tokens / steps,
        pairs=tuple(each * n for n in demand.mean_prompt_pairs(groups)),
        read=tuple(each * read_back(g, demand.mean_prompt, chunks) for g in groups),
        chunks=each * chunks,
        rows=each,
    )
    return np.asarray(steps * one_s, dtype=np.float64)

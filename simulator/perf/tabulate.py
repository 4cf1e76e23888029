"""From bound kernels to the plain floats of a ``StepTable``."""

from __future__ import annotations

import itertools

import numpy as np

from simulator.perf.attention import GroupAttention
from simulator.perf.forms import Array
from simulator.perf.memory import units
from simulator.perf.rank import RankCost
from simulator.perf.table import AttentionGroupPlan, AttentionPiece, StepPiece, StepTable


def tabulate(cost: RankCost, max_num_seqs: int, max_tokens: int, host_s: float) -> StepTable:
    """Tabulate the times of one rank, and what all ranks do together.

    Args:
        cost: times of a rank.
        max_num_seqs: most sequences a rank decodes together.
        max_tokens: most new tokens of a rank's step; raised to ``max_num_seqs`` where below it.
        host_s: lower bound of any step [s].
    """
    parallel = cost.ops.parallel
    tokens = np.arange(max(max_tokens, max_num_seqs) + 1, dtype=np.float64)
    batch = tokens[: max_num_seqs + 1]
    token_s, head_s = cost.token_s(tokens), cost.head_s(tokens)
    plain = cost.token_s(batch, True) + cost.head_s(batch, True) + cost.sequence_s * batch
    joint_s = decode_joint_s = None
    if parallel.attention_dp > 1:
        together = np.arange((tokens.size - 1) * parallel.attention_dp + 1, dtype=np.float64)
        joint_s = cost.joint_s(together).tolist()
        decoded = together[: max_num_seqs * parallel.attention_dp + 1]
        decode_joint_s = cost.joint_s(decoded, True).tolist()
    sizes = units(cost.ops.model, parallel.tp)
    return StepTable(
        host_s=host_s,
        token_s=token_s.tolist(),
        head_s=head_s.tolist(),
        seq_s=cost.sequence_s,
        groups=tuple(
            _group(cost, i, group, batch, sizes[i]) for i, group in enumerate(cost.ops.attention)
        ),
        pieces=_pieces(cost, plain, batch),
        joint_s=joint_s,
        decode_joint_s=decode_joint_s,
        eager_s=0.0 if cost.graphs is None else cost.eager_s,
        graph_tokens=0 if cost.graphs is None else cost.graphs.mixed_tokens * cost.share.stages,
        ranks=parallel.attention_dp,
        stages=parallel.pp,
    )


def _pieces(cost: RankCost, plain: Array, batch: Array) -> tuple[StepPiece, ...]:
    """A decode step, one piece for every choice of a piece in each group.

    A further one, flat, where launching the kernels one by one may take longer than running them.
    """
    groups = cost.ops.attention
    share = cost.decoded(batch)
    found = []
    for choice in itertools.product(*(group.decode for group in groups)):
        start = plain
        for i, piece in enumerate(choice):
            start = start + cost.piece_start_s(i, piece, batch)
        slopes = tuple(
            (cost.piece_token_s(i, piece, batch) * share).tolist() for i, piece in enumerate(choice)
        )
        found.append(StepPiece(start.tolist(), slopes))
    launch_s = cost.launch_s(batch, True)
    if np.any(launch_s > np.maximum.reduce([piece.a for piece in found])):
        flat = tuple([0.0] * batch.size for _ in groups)
        found.append(StepPiece(launch_s.tolist(), flat))
    return tuple(found)


def _group(
    cost: RankCost, i: int, group: GroupAttention, batch: Array, size: int
) -> AttentionGroupPlan:
    each = group.layers / cost.share.stages
    part = 1.0 / cost.share.stages
    return AttentionGroupPlan(
        decode=tuple(
            AttentionPiece(
                cost.piece_start_s(i, piece, batch).tolist(),
                (part * cost.piece_token_s(i, piece, batch)).tolist(),
            )
            for piece in group.decode
        ),
        prefill_t0_s=group.layers * group.prefill.fixed_s,
        prefill_pair_s=each * group.prefill.pair_s,
        prefill_new_s=each * group.prefill.new_s,
        prefill_read_s=each * group.prefill.read_s,
        prefill_l2_spill=group.prefill.l2_spill,
        prefill_l2_s=group.layers * group.prefill.l2_s,
        prefill_chain_s=group.layers * group.prefill.chain_s,
        window=group.group.window,
        local_chunk=group.group.local_chunk,
        units=size,
    )

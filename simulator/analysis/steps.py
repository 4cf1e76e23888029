"""The step table as arrays: the times of many (and of fractional) batches at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.perf.forms import chained_s
from simulator.perf.shape import part
from simulator.perf.table import AttentionGroupPlan, StepTable

FloatArray = npt.NDArray[np.float64]
Numbers = float | FloatArray
Groups = tuple[Numbers, ...]
"""A number for each attention group."""


class StepTimes:
    """``StepTable`` vectorised; sizes between two entries are interpolated linearly.

    Sizes are those of one attention rank; every other rank has the same.

    Args:
        table: the table the engine uses.
    """

    def __init__(self, table: StepTable) -> None:
        self.table = table
        self.ranks = table.ranks
        self._pieces = [(np.asarray(p.a), tuple(np.asarray(b) for b in p.b)) for p in table.pieces]
        self._token = np.asarray(table.token_s)
        self._head = np.asarray(table.head_s)
        self._attention = [
            [(np.asarray(piece.fixed_s), np.asarray(piece.token_s)) for piece in group.decode]
            for group in table.groups
        ]
        self._joint = _column(table.joint_s)
        self._decode_joint = _column(table.decode_joint_s or table.joint_s)

    def decode_s(self, batch: FloatArray, reads: Groups) -> FloatArray:
        """Time [s] of a pure decode step.

        Args:
            batch: decoding sequences.
            reads: KV tokens they read together, for each attention group.
        """
        return self._joined(self._rank_s(batch, reads), self.ranks * batch, self._decode_joint)

    def alone_s(self, reads: Groups) -> FloatArray:
        """Time [s] of a decode step of one sequence and no other, on any rank.

        Args:
            reads: KV tokens it reads, for each attention group.
        """
        one = np.ones(np.shape(reads[0]))
        return self._joined(self._rank_s(one, reads), one, self._decode_joint)

    def _rank_s(self, batch: FloatArray, reads: Groups) -> FloatArray:
        pieces = [
            _at(a, batch) + sum(_at(b, batch) * kv for b, kv in zip(slopes, reads, strict=True))
            for a, slopes in self._pieces
        ]
        return np.asarray(np.maximum.reduce(pieces), dtype=np.float64)

    def mixed_s(
        self,
        *,
        batch: Numbers,
        reads: Groups,
        new: Numbers,
        pairs: Groups,
        read: Groups,
        chunks: Numbers,
        rows: Numbers,
        longest: Groups | None = None,
    ) -> FloatArray:
        """Time [s] of a step that decodes ``batch`` sequences and prefills ``new`` prompt tokens.

        Args:
            batch: decoding sequences (0: prefill only).
            reads: KV tokens they read together, for each attention group.
            new: prompt tokens computed, more than 0.
            pairs: their query-key pairs, for each group.
            read: KV tokens read back by the chunks, for each group.
            chunks: prefilling sequences.
            rows: tokens sampled.
            longest: most tokens a query of the chunks attends to, for each group; None: that of
                chunks which are all alike.
        """
        x = self.table
        batch_ = np.asarray(batch, dtype=np.float64)
        t = (
            _at(self._token, batch_ + new)
            + _at(self._head, np.asarray(rows, dtype=np.float64))
            + x.seq_s * (batch_ + chunks)
        )
        for i, group in enumerate(x.groups):
            decode = np.maximum.reduce(
                [
                    _at(fixed, batch_) + _at(slope, batch_) * reads[i]
                    for fixed, slope in self._attention[i]
                ]
            )
            t = (
                t
                + np.where(batch_ > 0.0, decode, 0.0)
                + group.prefill_t0_s
                + _compute_s(
                    group, pairs[i], part(read[i], chunks) if longest is None else longest[i]
                )
                + _moved_s(group, group.prefill_new_s * new + group.prefill_read_s * read[i])
            )
        eager_s = np.where(batch_ + new > x.graph_tokens, x.eager_s, 0.0)
        tokens = self.ranks * (batch_ + new)
        return self._joined(np.maximum(t, eager_s), tokens, self._joint)

    def _joined(
        self, rank_s: FloatArray, tokens: FloatArray, joint: FloatArray | None
    ) -> FloatArray:
        """What the ranks do together is added, and the host's loop bounds the step."""
        if joint is not None:
            rank_s = rank_s + _at(joint, tokens)
        return np.asarray(np.maximum(rank_s, self.table.host_s), dtype=np.float64)

    def lone_prefill_s(self, prompt: int, chunk: int) -> float:
        """Time [s] of one prompt alone, in steps of at most ``chunk`` new tokens."""
        none = tuple(0 for _ in self.table.groups)
        done, total = 0, 0.0
        while done < prompt:
            c = min(chunk, prompt - done)
            ends = 1 if done + c == prompt else 0
            total += self.table.mixed_s(0, none, [(done, c)], ends)
            done += c
        return total

    def lone_decode_s(self, context: float) -> float:
        """Time [s] of a decode step of one sequence with ``context`` resident tokens, and no other."""
        reads = tuple(
            np.array([context if g.span is None else g.reads(max(1, round(context)))], dtype=float)
            for g in self.table.groups
        )
        return float(self.alone_s(reads)[0])


def _column(values: list[float] | None) -> FloatArray | None:
    return None if values is None else np.asarray(values, dtype=np.float64)


def _at(column: FloatArray, index: FloatArray) -> FloatArray:
    return np.asarray(np.interp(index, np.arange(column.size), column), dtype=np.float64)


def _compute_s(group: AttentionGroupPlan, pairs: Numbers, longest: Numbers) -> FloatArray:
    """Arithmetic of a prefill [s], no faster than the row of tiles of the longest context."""
    most = np.minimum(longest, np.inf if group.span is None else group.span)
    return chained_s(group.prefill_pair_s * np.asarray(pairs), group.prefill_chain_s * most)


def _moved_s(group: AttentionGroupPlan, memory_s: Numbers) -> FloatArray:
    """Time [s] of moving a prefill's tensors, the part beyond the L2 slower."""
    memory = np.asarray(memory_s, dtype=np.float64)
    beyond = np.maximum(memory - group.prefill_l2_s, 0.0)
    return np.asarray(memory + group.prefill_l2_spill * beyond, dtype=np.float64)

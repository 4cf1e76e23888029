"""The time one attention rank of an instance needs for its part of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.perf.attention import DecodePiece
from simulator.perf.forms import Array
from simulator.perf.operators import Operators
from simulator.perf.shape import Share, StepShape, part


@dataclass(frozen=True, slots=True)
class RankSizes:
    """Sufficient statistics of a rank's part of a step; arrays that broadcast.

    Attributes:
        batch: decoding sequences.
        reads: KV tokens they read together, for each attention group.
        new: prompt tokens computed.
        pairs: query-key pairs of the chunks, for each group.
        read: KV tokens the chunks read back, for each group.
        rows: tokens sampled.
        prefills: chunks.
    """

    batch: Array
    reads: tuple[Array, ...]
    new: Array
    pairs: tuple[Array, ...]
    read: tuple[Array, ...]
    rows: Array
    prefills: Array


@dataclass(frozen=True, slots=True)
class RankCost:
    """Times of a rank.

    Attributes:
        ops: the bound kernels.
        c0_s: overhead of a step [s].
        c1_s: overhead of a sequence in a step [s].
        share: what falls to a microbatch.
    """

    ops: Operators
    c0_s: float
    c1_s: float
    share: Share

    def token_s(self, m: Array) -> Array:
        """What depends on the ``m`` new tokens of a step alone, its overhead included [s]."""
        tokens = self.share.micro(m)
        return np.where(tokens > 0.0, self.c0_s + self.ops.token_s(tokens), 0.0)

    def joint_s(self, m: Array) -> Array:
        """What all ranks do together for their ``m`` new tokens [s]."""
        return self.ops.joint_s(self.share.micro(m))

    def head_s(self, rows: Array) -> Array:
        """The LM head [s]."""
        return self.ops.head_s(self.share.micro(rows))

    @property
    def sequence_s(self) -> float:
        """Overhead of a sequence [s]."""
        return self.c1_s / self.share.stages

    def piece_start_s(self, group: int, piece: DecodePiece, batch: Array) -> Array:
        """Decode attention of a group: what does not depend on the context [s]."""
        layer = piece.fixed_s + piece.sequence_s * self.share.micro(batch)
        return np.where(batch > 0.0, self.ops.attention[group].layers * layer, 0.0)

    def decoded(self, batch: Array) -> Array:
        """Share of the KV tokens read that is read by the fullest microbatch of a decode step."""
        return part(self.share.micro(batch), batch)

    def decode_attention_s(self, batch: Array, reads: tuple[Array, ...], share: Array) -> Array:
        """Decode attention of all groups [s].

        Args:
            batch: sequences.
            reads: KV tokens they read together, for each group.
            share: of these, what a microbatch reads.
        """
        total = np.zeros(())
        for i, (group, kv) in enumerate(zip(self.ops.attention, reads, strict=True)):
            pieces = [
                self.piece_start_s(i, piece, batch) + group.layers * piece.token_s * kv * share
                for piece in group.decode
            ]
            total = total + np.where(batch > 0.0, np.maximum.reduce(pieces), 0.0)
        return np.asarray(total, dtype=np.float64)

    def prefill_attention_s(self, x: RankSizes) -> Array:
        """Prefill attention of all groups [s]."""
        total = np.zeros(())
        for i, group in enumerate(self.ops.attention):
            cost = group.prefill
            chunks = cost.pair_s * x.pairs[i] + cost.new_s * x.new + cost.read_s * x.read[i]
            total = total + group.layers * (cost.fixed_s + chunks / self.share.stages)
        return np.where(x.prefills > 0.0, total, 0.0)

    def step_s(self, x: RankSizes) -> Array:
        """A rank's time for its part of a step, host bound and joint operators apart [s]."""
        return np.asarray(
            self.token_s(x.batch + x.new)
            + self.head_s(x.rows)
            + self.sequence_s * (x.batch + x.prefills)
            + self.decode_attention_s(x.batch, x.reads, self._share(x))
            + self.prefill_attention_s(x),
            dtype=np.float64,
        )

    def _share(self, x: RankSizes) -> Array:
        """Chunks even the microbatches of a mixed step out."""
        return np.where(x.prefills > 0.0, 1.0 / self.share.stages, self.decoded(x.batch))

    def shape(self, x: RankSizes, all_tokens: float) -> StepShape:
        """The step as one GPU sees it, for a breakdown."""
        share, stages = float(self._share(x)), self.share.stages
        tokens = float(self.share.micro(x.batch + x.new))
        batch = float(self.share.micro(x.batch))
        return StepShape(
            batch=batch,
            reads=tuple(share * float(r) for r in x.reads),
            prefills=float(x.prefills),
            new=float(x.new) / stages,
            pairs=tuple(float(n) / stages for n in x.pairs),
            read=tuple(float(n) / stages for n in x.read),
            rows=float(self.share.micro(x.rows)),
            tokens=tokens,
            all_tokens=float(self.share.micro(np.asarray(all_tokens, dtype=np.float64))),
        )

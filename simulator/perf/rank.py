"""The time one attention rank of an instance needs for its part of a step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.perf.decode import DecodePiece
from simulator.perf.forms import Array, Size
from simulator.perf.graphs import Graphs
from simulator.perf.operators import Operators
from simulator.perf.shape import Share, StepShape, part

Decodes = bool | np.bool_ | npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RankSizes:
    """Sufficient statistics of a rank's part of a step; arrays that broadcast.

    Attributes:
        batch: decoding sequences.
        reads: KV tokens they read together, for each attention group.
        new: prompt tokens computed.
        pairs: query-key pairs of the chunks, for each group.
        read: KV tokens the chunks read back, for each group.
        longest: most tokens a query of the chunks attends to, for each group.
        rows: tokens sampled.
        prefills: chunks.
    """

    batch: Array
    reads: tuple[Array, ...]
    new: Array
    pairs: tuple[Array, ...]
    read: tuple[Array, ...]
    longest: tuple[Array, ...]
    rows: Array
    prefills: Array

    @property
    def decodes(self) -> npt.NDArray[np.bool_]:
        """Whether the step only decodes."""
        return np.asarray(self.prefills == 0.0)


@dataclass(frozen=True, slots=True)
class RankCost:
    """Times of a rank.

    Attributes:
        ops: the bound kernels.
        c0_s: overhead of a step [s].
        c1_s: overhead of a sequence in a step [s].
        share: what falls to a microbatch.
        graphs: captured step sizes; None: steps run at their own size and are never host bound.
        eager_s: what launching a step's kernels without a graph takes the host [s].
    """

    ops: Operators
    c0_s: float
    c1_s: float
    share: Share
    graphs: Graphs | None = None
    eager_s: float = 0.0

    def tokens(self, m: Size, decodes: Decodes = False) -> Array:
        """Tokens of a microbatch that kernels are run on, of a step over ``m`` new tokens.

        Args:
            m: new tokens of the rank.
            decodes: whether the step only decodes.
        """
        tokens = self.share.micro(m)
        if self.graphs is None:
            return tokens
        captured = np.asarray(decodes) | (tokens <= self.graphs.mixed_tokens)
        return np.where(captured, self.graphs.run(tokens), tokens)

    def all_tokens(self, m: Size, decodes: Decodes = False) -> Array:
        """The same of all ranks together: with a graph each is padded to the same size.

        Args:
            m: new tokens of all ranks, spread evenly over them.
            decodes: whether the step only decodes.
        """
        tokens, ranks = self.share.micro(m), self.share.ranks
        if self.graphs is None:
            return tokens
        each = np.ceil(tokens / ranks)
        captured = np.asarray(decodes) | (each <= self.graphs.mixed_tokens)
        replayed = captured & ~self.graphs.eager(each)
        return np.where(replayed, ranks * self.graphs.run(each), tokens)

    def rows(self, rows: Size, decodes: Decodes = False) -> Array:
        """Rows the LM head is computed for: those of a captured decode step are padded as well."""
        plain = self.share.micro(rows)
        return np.where(np.asarray(decodes), self.tokens(rows, decodes), plain)

    def launch_s(self, m: Size, decodes: Decodes = False) -> Array:
        """Shortest time of a step without a graph; 0 with one [s]."""
        if self.graphs is None:
            return np.zeros(np.shape(m))
        tokens = self.share.micro(m)
        prefills = (tokens > self.graphs.mixed_tokens) & ~np.asarray(decodes)
        return np.where(prefills | self.graphs.eager(tokens), self.eager_s, 0.0)

    def token_s(self, m: Array, decodes: Decodes = False) -> Array:
        """What depends on the ``m`` new tokens of a step alone, its overhead included [s]."""
        tokens = self.tokens(m, decodes)
        return np.where(tokens > 0.0, self.c0_s + self.ops.token_s(tokens), 0.0)

    def joint_s(self, m: Array, decodes: Decodes = False) -> Array:
        """What all ranks do together for their ``m`` new tokens [s]."""
        return self.ops.joint_s(self.all_tokens(m, decodes))

    def head_s(self, rows: Array, decodes: Decodes = False) -> Array:
        """The LM head [s]."""
        return self.ops.head_s(self.rows(rows, decodes))

    @property
    def sequence_s(self) -> float:
        """Overhead of a sequence [s]."""
        return self.c1_s / self.share.stages

    def piece_start_s(self, group: int, piece: DecodePiece, batch: Array) -> Array:
        """Decode attention of a group: what does not depend on the context [s]."""
        layer = piece.start_s(self.share.micro(batch))
        return np.where(batch > 0.0, self.ops.attention[group].layers * layer, 0.0)

    def piece_token_s(self, group: int, piece: DecodePiece, batch: Array) -> Array:
        """Decode attention of a group, per KV token read by a microbatch of ``batch`` [s]."""
        return self.ops.attention[group].layers * piece.token_s(self.share.micro(batch))

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
                self.piece_start_s(i, piece, batch)
                + self.piece_token_s(i, piece, batch) * kv * share
                for piece in group.decode
            ]
            total = total + np.where(batch > 0.0, np.maximum.reduce(pieces), 0.0)
        return np.asarray(total, dtype=np.float64)

    def prefill_attention_s(self, x: RankSizes) -> Array:
        """Prefill attention of all groups [s]."""
        total = np.zeros(())
        for i, group in enumerate(self.ops.attention):
            cost = group.prefill
            stages = self.share.stages
            memory = cost.memory_s(x.new / stages, x.read[i] / stages)
            chunks = cost.compute_s(x.pairs[i] / stages, x.longest[i]) + memory
            total = total + group.layers * (cost.fixed_s + chunks)
        return np.where(x.prefills > 0.0, total, 0.0)

    def step_s(self, x: RankSizes) -> Array:
        """A rank's time for its part of a step, host bound and joint operators apart [s]."""
        time = (
            self.token_s(x.batch + x.new, x.decodes)
            + self.head_s(x.rows, x.decodes)
            + self.sequence_s * (x.batch + x.prefills)
            + self.decode_attention_s(x.batch, x.reads, self._share(x))
            + self.prefill_attention_s(x)
        )
        return np.asarray(np.maximum(time, self.launch_s(x.batch + x.new, x.decodes)))

    def _share(self, x: RankSizes) -> Array:
        """Chunks even the microbatches of a mixed step out."""
        return np.where(x.prefills > 0.0, 1.0 / self.share.stages, self.decoded(x.batch))

    def shape(self, x: RankSizes, all_tokens: float) -> StepShape:
        """The step as one GPU sees it, for a breakdown."""
        share, stages = float(self._share(x)), self.share.stages
        tokens = float(self.tokens(x.batch + x.new, x.decodes))
        batch = float(self.share.micro(x.batch))
        return StepShape(
            batch=batch,
            reads=tuple(share * float(r) for r in x.reads),
            prefills=float(x.prefills),
            new=float(x.new) / stages,
            pairs=tuple(float(n) / stages for n in x.pairs),
            read=tuple(float(n) / stages for n in x.read),
            longest=tuple(float(n) for n in x.longest),
            rows=float(self.rows(x.rows, x.decodes)),
            tokens=tokens,
            all_tokens=float(self.all_tokens(all_tokens, x.decodes)),
        )

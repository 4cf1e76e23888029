"""The step-time model as plain Python floats, the only form the engine's hot loop touches.

A *step* is one forward pass of one instance. Attention layers come in *groups*: the layers of a
group read the same share of each context, so that a decode step knows the batch only through the
number of sequences ``B`` and, for each group ``g``, the KV tokens ``S_g`` they read together. A rank
that only decodes takes

    max over pieces p of  a_p[B] + Σ_g b_pg[B]·S_g                              [s]

and a rank that also prefills chunks takes

    token_s[B + Σc] + head_s[rows] + seq_s·(sequences)
        + Σ_g (decode attention_g(B, S_g) + prefill attention_g(chunks))        [s]

or, without a CUDA graph for so many tokens, at least ``eager_s``,

where a chunk ``(p, c)`` computes ``c`` new tokens after ``p`` cached ones. An instance is one rank,
or several that share nothing but the experts and run in lock-step (attention data parallelism):

    step = max(host_s, max over ranks of the rank's time + joint_s[new tokens of all ranks])

``StepModel`` (the vectorised form) builds the table; a test holds both to the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

Reads = float | Sequence[float]
"""KV tokens read by a batch: one number for each attention group, or a number if there is one."""

Chunks = Sequence[tuple[int, int]]
"""``(cached tokens p, new tokens c)`` of every prefilling sequence."""


@dataclass(frozen=True, slots=True, repr=False)
class AttentionPiece:
    """Decode attention of a group as an affine function of the KV tokens read.

    Attributes:
        fixed_s: index ``B`` = 0..max_num_seqs: what does not depend on the context [s]; 0 at 0.
        token_s: index ``B``: per KV token read [s/token].
    """

    fixed_s: list[float]
    token_s: list[float]


@dataclass(frozen=True, slots=True, repr=False)
class AttentionGroupPlan:
    """Attention layers whose queries read the same share of their context.

    A query whose context is ``L`` tokens (its own counts) reads ``min(L, window)`` of them, or, with
    chunk-local attention, ``(L - 1) mod local_chunk + 1``: those of its own chunk. Times are sums
    over the group's layers.

    Attributes:
        decode: its decode attention in a step that also prefills: the largest of these.
        prefill_t0_s: fixed cost of the prefill-attention kernels of one step [s].
        prefill_pair_s: per query-key pair (``pairs``) [s/pair].
        prefill_new_s: per new token: Q, O and the KV written [s/token].
        prefill_read_s: per KV token read back (``read_back``) [s/token].
        window: tokens a query reads at most; None: all.
        local_chunk: tokens of a chunk that queries do not look beyond; None: no chunks. At most one
            of ``window`` and ``local_chunk`` is given.
        units: KV units a block of ``block_tokens`` tokens takes in this group; capacities are in
            units. 1 where there is one group: a unit is then a block.
        prefill_l2_spill: how much slower new and read-back tokens are beyond ``prefill_l2_s`` [1].
        prefill_l2_s: their time when they fill the L2 [s].
        prefill_chain_s: of the row of tiles that attends to the longest context (``longest``) [s/token].
    """

    decode: tuple[AttentionPiece, ...]
    prefill_t0_s: float
    prefill_pair_s: float
    prefill_new_s: float
    prefill_read_s: float
    window: int | None = None
    local_chunk: int | None = None
    units: int = 1
    prefill_l2_spill: float = 0.0
    prefill_l2_s: float = 0.0
    prefill_chain_s: float = 0.0

    @property
    def span(self) -> int | None:
        """Most tokens whose KV a sequence keeps in this group; None: all of them."""
        return self.local_chunk if self.window is None else self.window

    def reads(self, context: int) -> int:
        """KV tokens a decode step reads for a sequence whose context is ``context`` ≥ 1 tokens."""
        if self.window is not None:
            return min(context, self.window)
        if self.local_chunk is not None:
            return (context - 1) % self.local_chunk + 1
        return context

    def pairs(self, cached: int, new: int) -> float:
        """Query-key pairs of a chunk under the causal mask, a query's own token counted half.

        ``∫ read(x) dx`` from ``cached`` to ``cached + new``: ``c·p + c²/2`` for full attention.
        """
        if self.window is None and self.local_chunk is None:
            return new * (cached + 0.5 * new)
        return self._pairs_up_to(cached + new) - self._pairs_up_to(cached)

    def _pairs_up_to(self, x: int) -> float:
        if self.window is not None:
            below = min(x, self.window)
            return 0.5 * below * below + self.window * (x - below)
        assert self.local_chunk is not None
        whole, rest = divmod(x, self.local_chunk)
        return 0.5 * (whole * self.local_chunk * self.local_chunk + rest * rest)

    def read_back(self, cached: int, new: int) -> int:
        """KV tokens a chunk reads, its own included: those any of its queries looks at."""
        if self.window is not None:
            return min(cached, self.window) + new
        if self.local_chunk is not None:
            return cached % self.local_chunk + new
        return cached + new

    def longest(self, chunks: Chunks) -> int:
        """Most tokens a query of at least one chunk attends to, its own included."""
        span = self.span
        if span is None:
            return max(p + c for p, c in chunks)
        return min(span, max(self.read_back(p, c) for p, c in chunks))

    def decode_s(self, batch: int, reads: float) -> float:
        """Decode attention [s] of ``batch`` ≥ 1 sequences that read ``reads`` KV tokens together."""
        pieces = self.decode
        t = pieces[0].fixed_s[batch] + pieces[0].token_s[batch] * reads
        for piece in pieces[1:]:
            t = max(t, piece.fixed_s[batch] + piece.token_s[batch] * reads)
        return t

    def prefill_s(self, chunks: Chunks) -> float:
        """Prefill attention [s] of at least one chunk."""
        new = 0
        pairs = 0.0
        read = 0
        if self.window is None and self.local_chunk is None:
            for p, c in chunks:
                new += c
                pairs += c * (p + 0.5 * c)
                read += p + c
        else:
            for p, c in chunks:
                new += c
                pairs += self.pairs(p, c)
                read += self.read_back(p, c)
        compute_s = self.prefill_pair_s * pairs
        if self.prefill_chain_s:
            compute_s = self.chained_s(compute_s, self.longest(chunks))
        t = self.prefill_t0_s + compute_s + self.prefill_new_s * new + self.prefill_read_s * read
        return t + self.spilled_s(new, read) if self.prefill_l2_spill else t

    def chained_s(self, compute_s: float, longest: int) -> float:
        """Arithmetic of a prefill [s]: its row of tiles of the longest context is one SM's work.

        The root of the squares of both (``forms.chained_s``).
        """
        row_s = self.prefill_chain_s * longest
        return sqrt(compute_s * compute_s + row_s * row_s)

    def spilled_s(self, new: int, read: int) -> float:
        """What tensors of a prefill beyond the L2 cost more [s]."""
        beyond = self.prefill_new_s * new + self.prefill_read_s * read - self.prefill_l2_s
        return self.prefill_l2_spill * beyond if beyond > 0.0 else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class StepPiece:
    """A rank's pure decode step as an affine function of the KV tokens read.

    Attributes:
        a: index ``B`` = 0..max_num_seqs: everything that does not depend on the context, overheads
            included [s]; 0 at 0.
        b: for each attention group, index ``B``: time per KV token read [s/token].
    """

    a: list[float]
    b: tuple[list[float], ...]


@dataclass(frozen=True, slots=True, repr=False)
class StepTable:
    """Step-time coefficients of one kind of instance, tabulated up to its limits.

    Attributes:
        host_s: lower bound of any step set by the host loop [s]; 0 when the host never binds.
        token_s: index ``m`` = 0..max tokens of a rank's step: GEMMs, elementwise kernels,
            collectives and ``c0`` of a step over ``m`` new tokens, language-model head apart [s].
        head_s: index ``rows`` of sampled tokens: the language-model head [s].
        seq_s: overhead per sequence in a step, ``c1`` [s].
        groups: the attention groups, at least one; the first is the one that reads everything,
            where there is such a one.
        pieces: a rank's pure decode step, the largest of these, at least one.
        joint_s: index ``m`` = 0..ranks · max tokens: what a step over ``m`` new tokens on all ranks
            together adds once: experts and their collectives [s]. None with one rank: all of it is in
            ``pieces`` and ``token_s``.
        decode_joint_s: the same of a step that only decodes, up to ranks · max_num_seqs (its batches
            are padded to a CUDA graph); None as ``joint_s``.
        eager_s: shortest time of a step that prefills and has no CUDA graph [s].
        graph_tokens: most new tokens on a rank with which such a step has one.
        ranks: attention-data-parallel ranks of an instance that run in lock-step. Sequences, token
            budget and KV capacity are those of one rank.
        stages: pipeline stages. Times of a table are those of a whole pass; a prefill instance takes
            its next batch after the time of one stage, latency / stages. (Decode rounds have the
            pipeline folded into their time.)
    """

    host_s: float
    token_s: list[float]
    head_s: list[float]
    seq_s: float
    groups: tuple[AttentionGroupPlan, ...]
    pieces: tuple[StepPiece, ...]
    joint_s: list[float] | None = None
    decode_joint_s: list[float] | None = None
    eager_s: float = 0.0
    graph_tokens: int = 0
    ranks: int = 1
    stages: int = 1

    def __repr__(self) -> str:
        return f"StepTable(≤ {len(self.decode_a) - 1} sequences, ≤ {self.max_tokens} tokens)"

    @property
    def max_tokens(self) -> int:
        """Largest number of new tokens one step of a rank may compute."""
        return len(self.token_s) - 1

    @property
    def decode_a(self) -> list[float]:
        """``a[B]`` of the first piece [s]."""
        return self.pieces[0].a

    @property
    def decode_b(self) -> list[float]:
        """``b[B]`` of the first piece and group [s/token]."""
        return self.pieces[0].b[0]

    @property
    def whole(self) -> bool:
        """Whether there is one attention group and it reads everything: B and ΣL say it all."""
        groups = self.groups
        return len(groups) == 1 and groups[0].window is None and groups[0].local_chunk is None

    # ------------------------------------------------------------------ one rank

    def rank_decode_s(self, batch: int, reads: Reads) -> float:
        """Time [s] of a rank that decodes ``batch`` sequences, host bound and joint part apart."""
        read = _reads(reads)
        return max(
            piece.a[batch] + sum(b[batch] * s for b, s in zip(piece.b, read, strict=True))
            for piece in self.pieces
        )

    def rank_mixed_s(self, batch: int, reads: Reads, chunks: Chunks, rows: int) -> float:
        """Time [s] of a rank that decodes and prefills, host bound and joint part apart.

        Args:
            batch: decoding sequences.
            reads: KV tokens they read together, for each group.
            chunks: what it prefills; may be empty.
            rows: tokens sampled at the end of the step: ``batch`` plus the prefills that end in it.
        """
        new = 0
        for _, c in chunks:
            new += c
        t = self.token_s[batch + new] + self.head_s[rows] + self.seq_s * (batch + len(chunks))
        for group, s in zip(self.groups, _reads(reads), strict=True):
            if batch:
                t += group.decode_s(batch, s)
            if chunks:
                t += group.prefill_s(chunks)
        if t < self.eager_s and batch + new > self.graph_tokens:
            return self.eager_s
        return t

    def rank_prefill_s(self, prompts: Sequence[int]) -> float:
        """Time [s] of a rank that prefills whole prompts and nothing else: ``rank_mixed_s``."""
        count = len(prompts)
        if count > 1 or not self.whole:
            return self.rank_mixed_s(0, [0] * len(self.groups), [(0, c) for c in prompts], count)
        (c,) = prompts  # by far the most frequent step of a prefill instance
        group = self.groups[0]
        compute_s = group.prefill_pair_s * (c * (0.5 * c))
        if group.prefill_chain_s:
            compute_s = group.chained_s(compute_s, c)
        attention_s = (
            group.prefill_t0_s + compute_s + group.prefill_new_s * c + group.prefill_read_s * c
        )
        if group.prefill_l2_spill:
            attention_s += group.spilled_s(c, c)
        t = (self.token_s[c] + self.head_s[1] + self.seq_s) + attention_s
        if t < self.eager_s and c > self.graph_tokens:
            return self.eager_s
        return t

    # ------------------------------------------------------------------ a whole step

    def joined_s(self, slowest_s: float, tokens: int, *, decodes: bool = False) -> float:
        """Time [s] of a step whose slowest rank takes ``slowest_s``.

        Args:
            slowest_s: the largest of the ranks' times [s].
            tokens: new tokens of all ranks, decoded and prefilled.
            decodes: whether no rank prefills.
        """
        joint_s = self.joint_s
        if decodes and self.decode_joint_s is not None:
            joint_s = self.decode_joint_s
        if joint_s is not None:
            slowest_s += joint_s[tokens]
        return slowest_s if slowest_s > self.host_s else self.host_s

    def decode_s(self, batch: int, reads: Reads) -> float:
        """Time [s] of a step in which one rank decodes ``batch`` sequences and others do nothing.

        Args:
            batch: sequences.
            reads: KV tokens they read together, for each group.
        """
        return self.joined_s(self.rank_decode_s(batch, reads), batch, decodes=True)

    def mixed_s(self, batch: int, reads: Reads, chunks: Chunks, rows: int) -> float:
        """Time [s] of a step in which one rank decodes and prefills and others do nothing.

        Args:
            batch: decoding sequences.
            reads: KV tokens they read together, for each group.
            chunks: ``(cached tokens p, new tokens c)`` of every prefilling sequence.
            rows: tokens sampled at the end of the step: ``batch`` plus the prefills that end in it.
        """
        tokens = batch + sum(c for _, c in chunks)
        rank_s = self.rank_mixed_s(batch, reads, chunks, rows)
        return self.joined_s(rank_s, tokens, decodes=not chunks)


def _reads(reads: Reads) -> Sequence[float]:
    return (reads,) if isinstance(reads, (int, float)) else reads

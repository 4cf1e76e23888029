"""The time of one forward pass of one instance, as a function of what is in its batch.

A *step* of an instance takes

    max(host, c0 + c1·sequences + Σ layers: (GEMMs, experts, collectives, elementwise)(new tokens)
              + LM head(sampled rows) + Σ layers: (decode attention + prefill attention))

where a step that replays a CUDA graph computes as many tokens and rows as were captured, and one that
does not takes no less than the host needs to launch it (``graphs``).

Decode depends on its batch only through the number of sequences ``B`` and, for each group of layers
that attend alike, the resident KV tokens ``S_g`` they read; it is the largest of a few affine
functions of these. Prefill attention is additive over chunks. With several attention ranks
(attention data parallelism) the step takes what the fullest rank takes, plus the experts over the
tokens of all; with pipeline stages, what the pass through all of them takes (``shape.Share``).
``StepTable`` holds the same numbers as plain floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from hwprofiles import GpuProfile
from simulator.model import ModelSpec, Parallel
from simulator.perf import memory, work
from simulator.perf.breakdown import OperatorTime, breakdown
from simulator.perf.forms import Array, Size
from simulator.perf.graphs import Graphs
from simulator.perf.notes import notes
from simulator.perf.operators import Operators, bind_operators
from simulator.perf.precision import Compute, Precision
from simulator.perf.rank import RankCost, RankSizes
from simulator.perf.shape import (
    Reads,
    Share,
    longest_of,
    pairs_of,
    part,
    per_group,
    read_of,
    span_of,
)
from simulator.perf.table import StepTable
from simulator.perf.tabulate import tabulate
from simulator.units import MS

__all__ = ["OperatorTime", "Parallel", "Precision", "StepModel", "StepTable"]

C0_S = 0.8 * MS
"""Overhead of a step [s]: vLLM's, from measured time per output token of dense models on H100 and
H200 (aiconfigurator-core 0.12.0 silicon samples, Apache-2.0); 0.2-0.5 ms for TensorRT-LLM."""

C1_S = 0.03 * MS
"""Overhead per running sequence in a step [s]: vLLM's, same measurements; 0.02-0.05 ms."""


@dataclass(frozen=True)
class StepModel:
    """Step time of a model on one instance.

    Attributes:
        model: the model.
        gpu: GPU type of the instance.
        parallel: how the instance spreads the model over its GPUs.
        precision: number formats.
        kernels: kernel family of the profile; its first when None.
        skew: Zipf exponent of the popularity of a model's experts; 0: uniform routing.
        host_s: lower bound of any step, set by a host loop that runs beside the GPU [s]; 0: never
            binds (engines with CUDA graphs).
        graphs: captured step sizes, to which batches are padded; None: steps run at their own size,
            and the host keeps up with launching them.
        eager_layer_s: what launching a layer's kernels without a graph takes the host [s].
        c0_s: overhead per step [s].
        c1_s: overhead per sequence in a step [s].
        sustained: share of their efficiency the layers' GEMMs keep in the long steps of a serving
            engine, see ``forms.sustained_share`` [1].
        sustained_experts: the same of routed experts [1]; None: as ``sustained``.
        sustained_attention: share of its benchmarked bandwidth that grouped-query decode attention
            keeps in a server, whose caches lie in pages [1].

    Raises:
        ModelError: ``parallel`` does not shard the model.
        ProfileError: ``tp`` does not fit a node of this GPU, or ``kernels`` is unknown.
    """

    model: ModelSpec
    gpu: GpuProfile
    parallel: Parallel = field(default_factory=Parallel)
    precision: Precision = field(default_factory=Precision)
    _: KW_ONLY
    kernels: str | None = None
    skew: float = 0.0
    host_s: float = 0.0
    c0_s: float = C0_S
    c1_s: float = C1_S
    sustained: float = 1.0
    sustained_experts: float | None = None
    sustained_attention: float = 1.0
    graphs: Graphs | None = None
    eager_layer_s: float = 0.0
    operators_per_gpu: Operators = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bound = bind_operators(
            self.model,
            self.gpu,
            self.parallel,
            self.precision,
            self.kernels,
            self.skew,
            (
                self.sustained,
                self.sustained if self.sustained_experts is None else self.sustained_experts,
            ),
            self.sustained_attention,
        )
        object.__setattr__(self, "operators_per_gpu", bound)

    @property
    def tp(self) -> int:
        """Tensor-parallel degree of an attention rank."""
        return self.parallel.tp

    # ------------------------------------------------------------------ time

    def decode_s(self, batch: Size, kv_tokens: Reads) -> Array:
        """Time [s] of a step that decodes one token for each of ``batch`` sequences.

        Args:
            batch: sequences; broadcasts against ``kv_tokens``.
            kv_tokens: KV tokens they read together, the current ones included: a tuple with one
                entry for each attention group, or what holds for all groups.
        """
        return self.mixed_s(batch, kv_tokens, 0, 0, 0, batch, 0)

    def mixed_s(
        self,
        batch: Size,
        kv_tokens: Reads,
        new: Size,
        pairs: Reads,
        read: Reads,
        rows: Size,
        prefills: Size,
        *,
        longest: Reads | None = None,
        rounds: bool = True,
    ) -> Array:
        """Time [s] of a step that decodes sequences and prefills chunks; arguments broadcast.

        All sizes are of the whole instance.

        Args:
            batch: decoding sequences.
            kv_tokens: KV tokens they read together, by attention group.
            new: prompt tokens computed, summed over chunks.
            pairs: query-key pairs, ``c·p + c²/2`` where all is read, summed over chunks, by group.
            read: KV tokens read back, ``p + c`` where all is, summed over chunks, by group.
            rows: tokens sampled: ``batch`` plus the prefills that end in this step.
            prefills: number of chunks.
            longest: most tokens a query of the chunks attends to, largest ``p + c`` where all is
                read, by group; None: that of chunks which are all alike.
            rounds: with pipeline stages, a round of microbatches; False: one batch through all.
        """
        cost = self._cost(rounds)
        x = self._busiest(cost.share, batch, kv_tokens, new, pairs, read, rows, prefills, longest)
        time = cost.step_s(x)
        if self.parallel.attention_dp > 1:
            tokens = np.asarray(batch, dtype=np.float64) + np.asarray(new)
            time = time + cost.joint_s(tokens, x.decodes)
        return np.maximum(self.host_s, time)

    def _cost(self, rounds: bool) -> RankCost:
        share = Share.of(self.parallel, rounds=rounds)
        eager_s = self.eager_layer_s * self.model.layers
        return RankCost(self.operators_per_gpu, self.c0_s, self.c1_s, share, self.graphs, eager_s)

    def _busiest(
        self,
        share: Share,
        batch: Size,
        kv_tokens: Reads,
        new: Size,
        pairs: Reads,
        read: Reads,
        rows: Size,
        prefills: Size,
        longest: Reads | None,
    ) -> RankSizes:
        """What of an instance's step falls to its fullest rank, sequences being alike."""
        groups = len(self.operators_per_gpu.attention)
        if longest is None:
            longest = tuple(
                np.minimum(part(tokens, prefills), span_of(group))
                for group, tokens in zip(
                    self.model.attention_groups, per_group(read, groups), strict=True
                )
            )
        own, chunks = share.rank(batch), share.rank(prefills)
        held, cut = part(own, batch), part(chunks, prefills)
        return RankSizes(
            batch=own,
            reads=tuple(r * held for r in per_group(kv_tokens, groups)),
            new=np.asarray(new, dtype=np.float64) * cut,
            pairs=tuple(n * cut for n in per_group(pairs, groups)),
            read=tuple(n * cut for n in per_group(read, groups)),
            longest=per_group(longest, groups),
            rows=share.rank(rows),
            prefills=chunks,
        )

    def table(self, max_num_seqs: int, max_tokens: int, *, rounds: bool = True) -> StepTable:
        """Tabulate for the engine; limits and statistics are those of one attention rank.

        Args:
            max_num_seqs: most sequences that decode together.
            max_tokens: most new tokens of a step; raised to ``max_num_seqs`` where below it.
            rounds: with pipeline stages, steps are rounds of microbatches (decode and colocated
                instances); False: a batch passes through all stages as a whole (prefill).
        """
        return tabulate(self._cost(rounds), max_num_seqs, max_tokens, self.host_s)

    # ------------------------------------------------------------------ where the time goes

    def operators(
        self,
        batch: int,
        kv_tokens: Reads,
        chunks: Sequence[tuple[int, int]] = (),
        rows: int | None = None,
        *,
        rounds: bool = True,
    ) -> list[OperatorTime]:
        """Operators of a step on each GPU of the fullest rank; their times add up to the step.

        Args:
            batch: decoding sequences.
            kv_tokens: KV tokens they read together, by attention group.
            chunks: ``(cached tokens, new tokens)`` of every prefilling sequence.
            rows: tokens sampled; None: ``batch`` plus one for every chunk.
            rounds: as in ``mixed_s``.
        """
        cost, groups = self._cost(rounds), self.model.attention_groups
        new = sum(c for _, c in chunks)
        x = self._busiest(
            cost.share,
            batch,
            kv_tokens,
            new,
            tuple(sum(pairs_of(g, p, c) for p, c in chunks) for g in groups),
            tuple(float(sum(read_of(g, p, c) for p, c in chunks)) for g in groups),
            batch + len(chunks) if rows is None else rows,
            len(chunks),
            tuple(longest_of(g, chunks) for g in groups),
        )
        overhead = self.c0_s + cost.sequence_s * float(x.batch + x.prefills)
        shape = cost.shape(x, batch + new)
        # a rank that launches its kernels one by one is as late at what all do together
        launch_s = float(cost.launch_s(x.batch + x.new, x.decodes))
        launched_s = launch_s + float(self.operators_per_gpu.joint_s(shape.all_tokens))
        return breakdown(
            self.operators_per_gpu,
            shape,
            overhead_s=overhead,
            host_s=max(self.host_s, launched_s) if launch_s else self.host_s,
        )

    def reads(self, batch: int, context: int) -> tuple[int, ...]:
        """KV tokens ``batch`` sequences of ``context`` tokens read, by attention group."""
        return tuple(batch * group.reads(context) for group in self.model.attention_groups)

    def decode_operators(self, batch: int, context: int) -> list[OperatorTime]:
        """Operators of a decode step of ``batch`` sequences with ``context`` KV tokens each."""
        return self.operators(batch, self.reads(batch, context))

    def prefill_operators(self, batch: int, prompt_tokens: int) -> list[OperatorTime]:
        """Operators of a step that prefills ``batch`` whole prompts, none of it cached."""
        return self.operators(0, 0, [(0, prompt_tokens)] * batch, rounds=False)

    # ------------------------------------------------------------------ work and bytes

    @property
    def compute(self) -> Compute:
        """Type most of the layers' matrices are multiplied in on this GPU."""
        return self.operators_per_gpu.compute

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was substituted, for reports."""
        return notes(self.operators_per_gpu)

    def flops(self, tokens: Size, pairs: Reads, rows: Size) -> Array:
        """Arithmetic of a step over all its GPUs, replicas not counted [FLOP].

        Args:
            tokens: new tokens, decoded and prefilled.
            pairs: query-key pairs by attention group: resident KV tokens the decoding sequences
                read plus those of the chunks.
            rows: tokens sampled.
        """
        return work.flops(self.model, tokens, pairs, rows)

    def read_bytes(self, kv_tokens: Reads, tokens: Size | None = None) -> Array:
        """Bytes a step must read over all its GPUs: weights once, resident KV once [bytes].

        The input embedding (a lookup) is left out.

        Args:
            kv_tokens: KV tokens read, by attention group.
            tokens: new tokens, which decide how many experts are visited; None: all of them.
        """
        weights = work.weight_read_bytes(
            self.model, self.parallel, self.precision, self.skew, tokens
        )
        return weights + self.kv_read_bytes(kv_tokens)

    def kv_read_bytes(self, kv_tokens: Reads) -> Array:
        """The KV part of ``read_bytes`` [bytes]."""
        return work.kv_read_bytes(self.model, self.tp, self.precision, kv_tokens)

    @property
    def peak_flops_per_s(self) -> float:
        """Dense peak of the instance in its compute type [FLOP/s]; the base of MFU."""
        return self.parallel.gpus * self.operators_per_gpu.peak_flops

    @property
    def peak_bytes_per_s(self) -> float:
        """Memory bandwidth of the instance [bytes/s]; the base of MBU."""
        return self.parallel.gpus * self.gpu.memory_bytes_per_s.value

    # ------------------------------------------------------------------ memory

    @property
    def weight_bytes_per_gpu(self) -> float:
        """Weights on each GPU of the fullest pipeline stage [bytes]."""
        return self.model.weight_bytes_per_gpu(self.parallel, self.precision.formats)

    @property
    def kv_bytes_per_token_per_gpu(self) -> float:
        """KV cache of one token on each GPU of the fullest stage, replicas included [bytes/token]."""
        sizes = memory.stage_kv_bytes_per_token(self.model, self.parallel, self.precision.kv_bytes)
        return max(sizes)

    def activation_bytes(self, max_tokens: int) -> float:
        """Estimate of what a step needs beside weights and KV on each GPU [bytes]."""
        return memory.activation_bytes(self.model, self.parallel, max_tokens)

    def kv_capacity_tokens(self, memory_fraction: float, max_tokens: int) -> int:
        """KV tokens an attention rank can hold; 0 where the weights leave no room.

        Of sequences no longer than any window: longer ones take less, as windowed layers forget.

        Args:
            memory_fraction: share of the GPU's memory the engine may use, in (0, 1].
            max_tokens: most new tokens of a step of a rank, for the activations.
        """
        return int(self._room(memory_fraction, max_tokens))

    def kv_capacity_units(self, memory_fraction: float, max_tokens: int, block: int) -> int:
        """KV units of ``StepTable.groups`` a rank can hold; blocks where there is one group.

        Args:
            memory_fraction: as in ``kv_capacity_tokens``.
            max_tokens: as in ``kv_capacity_tokens``.
            block: tokens of a block.
        """
        each = sum(memory.units(self.model, self.tp))
        return int(self._room(memory_fraction, max_tokens) * each // block)

    def _room(self, memory_fraction: float, max_tokens: int) -> float:
        return memory.kv_room_tokens(
            self.model, self.gpu, self.parallel, self.precision, memory_fraction, max_tokens
        )

"""The time of one forward pass of one instance, as a function of what is in its batch.

A *step* of an instance (TP GPUs of one type) takes

    max(host, c0 + c1·sequences + layers·(GEMMs + 2 all-reduces + elementwise)(new tokens)
              + LM head(sampled rows) + layers·(decode attention + prefill attention))

Decode depends on its batch only through the number of sequences ``B`` and the resident KV tokens
``S`` they read, and is affine in ``S``; prefill attention is additive over chunks. ``StepTable``
holds the same numbers as plain floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from hwprofiles import GpuProfile
from simulator.model import ModelSpec, Parallel, WeightFormats
from simulator.perf.breakdown import OperatorTime, StepShape, breakdown
from simulator.perf.forms import Array, Size
from simulator.perf.operators import Operators, bind_operators
from simulator.perf.precision import Precision
from simulator.perf.table import AttentionGroupPlan, AttentionPiece, StepPiece, StepTable
from simulator.units import GIB, MS

__all__ = ["OperatorTime", "Precision", "StepModel", "StepTable"]

C0_S = 0.8 * MS
"""Overhead of a step [s]: vLLM's, from measured time per output token of dense models on H100 and
H200 (aiconfigurator-core 0.12.0 silicon samples, Apache-2.0); 0.2-0.5 ms for TensorRT-LLM."""

C1_S = 0.03 * MS
"""Overhead per running sequence in a step [s]: vLLM's, same measurements; 0.02-0.05 ms."""

RUNTIME_BYTES = 1.5 * GIB
"""Device memory outside weights, KV and activations: CUDA context, graphs, NCCL buffers [bytes].
Assumed: engines report 1-2 GiB."""


@dataclass(frozen=True)
class StepModel:
    """Step time of a model on one instance.

    Attributes:
        model: the model.
        gpu: GPU type of the instance.
        tp: tensor-parallel degree, GPUs of the instance.
        precision: number formats.
        kernels: kernel family of the profile; its first when None.
        host_s: lower bound of any step, set by a host loop that runs beside the GPU [s]; 0: never
            binds (engines with CUDA graphs).
        c0_s: overhead per step [s].
        c1_s: overhead per sequence in a step [s].
        sustained: share of their efficiency the layers' GEMMs keep in the long steps of a serving
            engine, see ``forms.sustained_share`` [1].

    Raises:
        ModelError: ``tp`` does not shard the model.
        ProfileError: ``tp`` does not fit a node of this GPU, or ``kernels`` is unknown.
    """

    model: ModelSpec
    gpu: GpuProfile
    tp: int = 1
    precision: Precision = field(default_factory=Precision)
    _: KW_ONLY
    kernels: str | None = None
    host_s: float = 0.0
    c0_s: float = C0_S
    c1_s: float = C1_S
    sustained: float = 1.0
    operators_per_gpu: Operators = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        bound = bind_operators(
            self.model, self.gpu, self.tp, self.precision, self.kernels, self.sustained
        )
        object.__setattr__(self, "operators_per_gpu", bound)

    # ------------------------------------------------------------------ time

    def decode_s(self, batch: Size, kv_tokens: Size) -> Array:
        """Time [s] of a step that decodes one token for each of ``batch`` sequences.

        Args:
            batch: sequences; broadcasts against ``kv_tokens``.
            kv_tokens: KV tokens they read together, the current ones included.
        """
        return self.mixed_s(batch, kv_tokens, 0, 0, 0, batch, 0)

    def mixed_s(
        self,
        batch: Size,
        kv_tokens: Size,
        new: Size,
        pairs: Size,
        read: Size,
        rows: Size,
        prefills: Size,
    ) -> Array:
        """Time [s] of a step that decodes sequences and prefills chunks; arguments broadcast.

        Args:
            batch: decoding sequences.
            kv_tokens: KV tokens they read together.
            new: prompt tokens computed, summed over chunks.
            pairs: query-key pairs ``c·p + c²/2``, summed over chunks.
            read: KV tokens read back ``p + c``, summed over chunks.
            rows: tokens sampled: ``batch`` plus the prefills that end in this step.
            prefills: number of chunks.
        """
        batch, new = np.asarray(batch, dtype=np.float64), np.asarray(new, dtype=np.float64)
        chunks = np.asarray(prefills, dtype=np.float64)
        time = (
            self._token_s(batch + new)
            + self.operators_per_gpu.head_s(rows)
            + self.c1_s * (batch + chunks)
            + self._decode_attention_s(batch, kv_tokens)
            + self._prefill_attention_s(chunks, new, pairs, read)
        )
        return np.maximum(self.host_s, time)

    def _token_s(self, m: Array) -> Array:
        return np.where(m > 0.0, self.c0_s + self.operators_per_gpu.token_s(m), 0.0)

    def _decode_attention_s(self, batch: Array, kv_tokens: Size) -> Array:
        fixed, sequence, token = self.operators_per_gpu.decode
        kv = np.asarray(kv_tokens, dtype=np.float64)
        layer = fixed + sequence * batch + token * kv
        return np.where(batch > 0.0, self.model.layers * layer, 0.0)

    def _prefill_attention_s(self, chunks: Array, new: Array, pairs: Size, read: Size) -> Array:
        fixed, per_pair, per_new, per_read = self.operators_per_gpu.prefill
        pairs, read = np.asarray(pairs, dtype=np.float64), np.asarray(read, dtype=np.float64)
        layer = fixed + per_pair * pairs + per_new * new + per_read * read
        return np.where(chunks > 0.0, self.model.layers * layer, 0.0)

    def table(self, max_num_seqs: int, max_tokens: int) -> StepTable:
        """Tabulate for the engine.

        Args:
            max_num_seqs: most sequences that decode together.
            max_tokens: most new tokens of a step; raised to ``max_num_seqs`` where below it.
        """
        layers = self.model.layers
        tokens = np.arange(max(max_tokens, max_num_seqs) + 1, dtype=np.float64)
        batch = tokens[: max_num_seqs + 1]
        token_s, head_s = self._token_s(tokens), self.operators_per_gpu.head_s(tokens)
        attention_s = self._decode_attention_s(batch, 0.0)
        n = len(batch)
        decode_a = token_s[:n] + head_s[:n] + self.c1_s * batch + attention_s
        per_kv_token = layers * self.operators_per_gpu.decode[2]
        fixed, per_pair, per_new, per_read = self.operators_per_gpu.prefill
        attention = AttentionGroupPlan(
            decode=(AttentionPiece(attention_s.tolist(), per_kv_token),),
            prefill_t0_s=layers * fixed,
            prefill_pair_s=layers * per_pair,
            prefill_new_s=layers * per_new,
            prefill_read_s=layers * per_read,
        )
        return StepTable(
            host_s=self.host_s,
            token_s=token_s.tolist(),
            head_s=head_s.tolist(),
            seq_s=self.c1_s,
            groups=(attention,),
            pieces=(StepPiece(decode_a.tolist(), ([0.0] + [per_kv_token] * max_num_seqs,)),),
        )

    # ------------------------------------------------------------------ where the time goes

    def operators(
        self,
        batch: int,
        kv_tokens: float,
        chunks: Sequence[tuple[int, int]] = (),
        rows: int | None = None,
    ) -> list[OperatorTime]:
        """Operators of a step, whose times add up to it.

        Args:
            batch: decoding sequences.
            kv_tokens: KV tokens they read together.
            chunks: ``(cached tokens, new tokens)`` of every prefilling sequence.
            rows: tokens sampled; None: ``batch`` plus one for every chunk.
        """
        shape = StepShape.of(batch, kv_tokens, chunks, rows)
        overhead = self.c0_s + self.c1_s * (batch + shape.prefills)
        return breakdown(self.operators_per_gpu, shape, overhead_s=overhead, host_s=self.host_s)

    def decode_operators(self, batch: int, context: int) -> list[OperatorTime]:
        """Operators of a decode step of ``batch`` sequences with ``context`` KV tokens each."""
        return self.operators(batch, batch * context)

    def prefill_operators(self, batch: int, prompt_tokens: int) -> list[OperatorTime]:
        """Operators of a step that prefills ``batch`` whole prompts, none of it cached."""
        return self.operators(0, 0, [(0, prompt_tokens)] * batch)

    # ------------------------------------------------------------------ work and bytes

    @property
    def compute(self) -> str:
        """Type the layers' matrices are multiplied in on this GPU: ``bf16`` or ``fp8``."""
        return self.operators_per_gpu.compute

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was substituted, for reports."""
        notes = []
        if self.compute != (self.precision.compute or self.precision.weights):
            notes.append(
                f"{self.gpu.name} has no fp8 GEMM: fp8 weights are weight-only, computed in bf16."
            )
        if self.precision.activations == "static" and self.compute == "fp8":
            notes.append(
                "fp8 GEMMs with static scales are not measured: the bf16 kernel's fixed cost and "
                "corner with the fp8 peak (assumed)."
            )
        if self.precision.kv not in dict(self.operators_per_gpu.family.decode_attention):
            notes.append(
                f"{self.gpu.name} has no measured {self.precision.kv} KV attention: bf16 "
                "parameters, with the bytes of the KV type."
            )
        return tuple(notes)

    def flops(self, tokens: Size, pairs: Size, rows: Size) -> Array:
        """Arithmetic of a step over all its GPUs, replicas not counted [FLOP].

        Args:
            tokens: new tokens, decoded and prefilled.
            pairs: query-key pairs: resident KV tokens of the decoding sequences plus
                ``c·p + c²/2`` of every chunk.
            rows: tokens sampled.
        """
        model, attention = self.model, self.operators_per_gpu.attention
        per_pair = 4.0 * model.layers * attention.heads * attention.head_dim
        per_row = 2.0 * model.vocab * model.hidden
        return np.asarray(
            2.0 * model.linear_parameters * np.asarray(tokens, dtype=np.float64)
            + per_pair * np.asarray(pairs, dtype=np.float64)
            + per_row * np.asarray(rows, dtype=np.float64)
        )

    def read_bytes(self, kv_tokens: Size) -> Array:
        """Bytes a step must read over all its GPUs: weights once, resident KV once [bytes].

        The input embedding (a lookup) is left out.
        """
        table = self.model.padded_vocab(self.tp) // self.tp * self.model.hidden
        lookup = 0.0 if self.model.tied_embeddings else 2.0 * table
        kv = np.asarray(kv_tokens, dtype=np.float64) * self.kv_bytes_per_token_per_gpu
        return np.asarray(self.tp * (self.weight_bytes_per_gpu - lookup + kv))

    @property
    def peak_flops_per_s(self) -> float:
        """Dense peak of the instance in its compute type [FLOP/s]; the base of MFU."""
        return self.tp * self.gpu.peak_flops(self.compute)

    @property
    def peak_bytes_per_s(self) -> float:
        """Memory bandwidth of the instance [bytes/s]; the base of MBU."""
        return self.tp * self.gpu.memory_bytes_per_s.value

    # ------------------------------------------------------------------ memory

    @property
    def weight_bytes_per_gpu(self) -> float:
        """Weights on each GPU [bytes]."""
        formats = WeightFormats.uniform(self.precision.weights)
        return self.model.weight_bytes_per_gpu(Parallel(tp=self.tp), formats)

    @property
    def kv_bytes_per_token_per_gpu(self) -> float:
        """KV cache of one token on each GPU, replicas included [bytes/token]."""
        return self.model.kv_bytes_per_token_per_gpu(self.tp, self.precision.kv_bytes)

    def activation_bytes(self, max_tokens: int) -> float:
        """Estimate of what a step needs beside weights and KV on each GPU [bytes].

        The largest moment of a layer in bf16 (residual, its norm, gate, up and their product):
        ``2·max_tokens·(2·hidden + 3·ffn/TP)``, plus ``RUNTIME_BYTES``. An estimate, not fitted.
        """
        width = 2 * self.model.hidden + 3 * self.operators_per_gpu.ffn.width / self.tp
        return 2.0 * max_tokens * width + RUNTIME_BYTES

    def kv_capacity_tokens(self, memory_fraction: float, max_tokens: int) -> int:
        """KV tokens an instance can hold; 0 where the weights leave no room.

        Args:
            memory_fraction: share of the GPU's memory the engine may use, in (0, 1].
            max_tokens: most new tokens of a step, for the activations.
        """
        usable = self.gpu.memory_bytes.value * memory_fraction
        free = usable - self.weight_bytes_per_gpu - self.activation_bytes(max_tokens)
        return max(0, int(free // self.kv_bytes_per_token_per_gpu))

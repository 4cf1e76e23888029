"""The architecture of a decoder-only transformer, and what follows from it by counting.

Every number here is exact arithmetic on published hyper-parameters; nothing is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from simulator.errors import ModelError
from simulator.model.counting import ParameterCount, count
from simulator.model.formats import BF16, BF16_BYTES, Quantization, WeightFormats
from simulator.model.layers import AttentionGroup, DenseFfn, LayerKind, MlaAttention, MoeFfn
from simulator.model.memory import layer_bytes
from simulator.model.parallel import Parallel, divisors

VOCAB_MULTIPLE = 64
"""Engines pad the vocabulary to a multiple of this before sharding it (vLLM, Megatron-LM)."""

ONE_GPU = Parallel()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A decoder-only transformer: layers of one or several kinds between an embedding and a head.

    Attributes:
        name: what reports call it.
        architecture: the ``architectures[0]`` of its config.json.
        hidden: width of the residual stream.
        vocab: vocabulary size, as published (unpadded).
        kinds: its layers, by shape.
        max_position: longest context the model was built for [tokens].
        order: the kind of every layer as an index into ``kinds``; empty: one kind after the other.
        tied_embeddings: the LM head is the input embedding.
        norms_per_layer: norms of width ``hidden`` in a layer.
        encoder_parameters: parameters of encoders of images, which engines load too.
        embedding_active: its publisher counts the embedding table among the active parameters.
        quantization: what the checkpoint's ``quantization_config`` says; None: 16 bits.
        left_out: sentences on parts of the checkpoint that are not counted.
    """

    name: str
    architecture: str
    hidden: int
    vocab: int
    kinds: tuple[LayerKind, ...]
    max_position: int
    order: tuple[int, ...] = ()
    tied_embeddings: bool = False
    norms_per_layer: int = 2
    encoder_parameters: int = 0
    embedding_active: bool = True
    quantization: Quantization | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.order and [self.order.count(i) for i in range(len(self.kinds))] != [
            kind.count for kind in self.kinds
        ]:
            raise ModelError(f"{self.name}: the order of the layers does not match their kinds.")

    # ------------------------------------------------------------------ layers

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return sum(kind.count for kind in self.kinds)

    @property
    def kv_tensors(self) -> int:
        """Tensors the KV cache of a token consists of: K and V of a layer, or its latent."""
        return sum(
            kind.count * (1 if isinstance(kind.attention, MlaAttention) else 2)
            for kind in self.kinds
        )

    @property
    def is_moe(self) -> bool:
        """Whether any layer is a mixture of experts."""
        return any(isinstance(kind.ffn, MoeFfn) for kind in self.kinds)

    @property
    def attention_groups(self) -> tuple[AttentionGroup, ...]:
        """Layers by what their attention reads; those that read everything come first."""
        found: dict[object, AttentionGroup] = {}
        for kind in self.kinds:
            group = found.get(kind.attention, AttentionGroup(kind.attention, 0))
            found[kind.attention] = replace(group, layers=group.layers + kind.count)
        limited = [g for g in found.values() if g.window or g.local_chunk]
        return tuple([g for g in found.values() if g not in limited] + limited)

    def stages(self, pp: int) -> tuple[tuple[LayerKind, ...], ...]:
        """Layers of every pipeline stage, by kind, counts adjusted.

        Stages hold equally many layers; what is left over goes one by one to the stages before the
        last, which has the LM head (the rule of vLLM).

        Raises:
            ModelError: more stages than layers.
        """
        if not 1 <= pp <= self.layers:
            raise ModelError(
                f"pp: {pp} does not split the {self.layers} layers of {self.name}; "
                f"allowed: 1 to {self.layers}."
            )
        each, over = divmod(self.layers, pp)
        order = self.order or [i for i, kind in enumerate(self.kinds) for _ in range(kind.count)]
        stages, start = [], 0
        for stage in range(pp):
            end = start + each + (1 if pp - 1 - over <= stage < pp - 1 else 0)
            held = [order[start:end].count(i) for i in range(len(self.kinds))]
            pairs = zip(self.kinds, held, strict=True)
            stages.append(tuple(replace(kind, count=n) for kind, n in pairs if n))
            start = end
        return tuple(stages)

    # ------------------------------------------------------------------ parameters

    @property
    def count(self) -> ParameterCount:
        """All parameters, by part."""
        return self._count(active=False)

    @property
    def active_count(self) -> ParameterCount:
        """Parameters one token uses, by part; of the embedding table it looks up one row."""
        return self._count(active=True)

    @property
    def parameters(self) -> int:
        """All parameters, as published model cards count them."""
        return self.count.total

    @property
    def active_parameters(self) -> int:
        """Parameters one token uses, as its publisher counts them.

        With the embedding table, of which a token reads one row, or (DeepSeek, Kimi, gpt-oss)
        without; ``active_count`` has every part.
        """
        found = self.active_count
        return found.total - (0 if self.embedding_active else found.embedding)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding: a table looked up, not a matrix multiplied."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the LM head that the embedding does not already hold."""
        return self.count.head

    @property
    def linear_parameters(self) -> int:
        """Weights of all matrices of all layers (LM head and biases apart)."""
        return self._linear(active=False)

    @property
    def active_linear_parameters(self) -> int:
        """Weights of the matrices of all layers that one token is multiplied with."""
        return self._linear(active=True)

    @property
    def small_parameters(self) -> int:
        """Norms, sinks, and biases outside the experts: whole on every tensor-parallel rank."""
        return self.count.small

    def _linear(self, *, active: bool) -> int:
        total = 0
        for kind in self.kinds:
            each = kind.attention.linear(self.hidden)
            ffn = kind.ffn
            if isinstance(ffn, MoeFfn):
                visited = ffn.experts_per_token if active else ffn.experts
                each += ffn.router(self.hidden) + ffn.shared(self.hidden)
                each += visited * ffn.expert(self.hidden)
            else:
                each += ffn.linear(self.hidden)
            total += kind.count * each
        return total

    def _count(self, *, active: bool) -> ParameterCount:
        return count(
            self.kinds,
            hidden=self.hidden,
            vocab=self.vocab,
            norms_per_layer=self.norms_per_layer,
            tied_embeddings=self.tied_embeddings,
            encoder=self.encoder_parameters,
            active=active,
        )

    # ------------------------------------------------------------------ parallelism

    def allowed_tp(self) -> list[int]:
        """Degrees of tensor parallelism that shard the model evenly, ascending.

        Of a mixture of experts those that spread the experts too, with one ``ep`` or another.
        """
        most = min(kind.attention.heads for kind in self.kinds)
        degrees = [tp for tp in range(1, most + 1) if self._shards(tp)]
        return [tp for tp in degrees if self.allowed_ep(tp)]

    def allowed_ep(self, gpus: int) -> list[int]:
        """Numbers of expert groups that spread the routed experts over a stage evenly, ascending.

        Args:
            gpus: GPUs of a stage, ``tp · attention_dp``.
        """
        mixtures = [kind.ffn for kind in self.kinds if isinstance(kind.ffn, MoeFfn)]
        return [
            ep
            for ep in (divisors(gpus) if mixtures else [1])
            if not any(f.experts % ep or f.expert_width % (gpus // ep) for f in mixtures)
        ]

    def check_tp(self, tp: int) -> None:
        """Refuse a tensor-parallel degree that does not shard the model.

        TP must divide the query heads and the widths of dense FFN and shared experts, and TP and
        the KV heads must divide one another: below ``kv_heads`` each rank holds some KV heads,
        above it each KV head is replicated on ``tp / kv_heads`` ranks. A latent cache is on every
        rank whole. The vocabulary is padded, so it always shards.

        Raises:
            ModelError: naming the field ``tp``, the value found and the values allowed.
        """
        if not self._shards(tp):
            allowed = ", ".join(str(n) for n in self.allowed_tp())
            raise ModelError(
                f"tp: {tp} does not shard {self.name} ({self._shapes()}); allowed: {allowed}."
            )

    def check_parallel(self, parallel: Parallel) -> None:
        """Refuse a parallelism that does not shard the model evenly.

        Raises:
            ModelError: naming the field, the value found and the values allowed.
        """
        self.check_tp(parallel.tp)
        self.stages(parallel.pp)
        mixtures = [kind.ffn for kind in self.kinds if isinstance(kind.ffn, MoeFfn)]
        for field in ("ep", "attention_dp"):
            found = getattr(parallel, field)
            if found > 1 and not mixtures:
                raise ModelError(
                    f"{field}: {found} needs routed experts, and {self.name} has none; allowed: 1."
                )
        allowed = self.allowed_ep(parallel.stage_gpus)
        if parallel.ep not in allowed:
            experts = ", ".join(
                dict.fromkeys(f"{f.experts} of width {f.expert_width}" for f in mixtures)
            )
            raise ModelError(
                f"ep: {parallel.ep} does not spread the experts of {self.name} ({experts}) over "
                f"{parallel.stage_gpus} GPUs; allowed: "
                f"{', '.join(map(str, allowed)) or 'none, only another tp or attention_dp'}."
            )

    def _shards(self, tp: int) -> bool:
        return tp >= 1 and all(
            kind.attention.shards(tp) and _width(kind) % tp == 0 for kind in self.kinds
        )

    def _shapes(self) -> str:
        """What ``tp`` has to shard, for an error sentence."""
        parts = [group.attention.described for group in self.attention_groups]
        for kind in self.kinds:
            if _width(kind):
                what = "FFN" if isinstance(kind.ffn, DenseFfn) else "shared experts'"
                parts.append(f"{what} width {_width(kind)}")
        return ", ".join(dict.fromkeys(parts))

    def kv_heads_per_gpu(self, tp: int) -> int:
        """KV heads of a layer one tensor-parallel rank holds: ``max(1, kv_heads / tp)``.

        Of the first attention group, where groups differ.

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        self.check_tp(tp)
        return self.attention_groups[0].attention.kv_heads_per_gpu(tp)

    # ------------------------------------------------------------------ KV cache

    def kv_bytes_per_token(self, kv_bytes: float = BF16_BYTES) -> float:
        """Unique KV-cache bytes of one token over the whole model [bytes/token].

        Windowed layers included, which forget it after a while.

        Args:
            kv_bytes: bytes of one stored number (bf16 2, fp8 1).
        """
        return sum(g.layers * g.attention.kv_numbers() for g in self.attention_groups) * kv_bytes

    def kv_bytes_per_token_per_gpu(self, tp: int, kv_bytes: float = BF16_BYTES) -> float:
        """KV-cache bytes of one token on each rank, replicas included [bytes/token].

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        self.check_tp(tp)
        return sum(g.layers * g.attention.kv_numbers(tp) for g in self.attention_groups) * kv_bytes

    def kv_bytes_of_sequence(
        self, tokens: int, kv_bytes: float = BF16_BYTES, *, tp: int | None = None
    ) -> float:
        """KV-cache bytes of a sequence: windowed layers hold no more than their window [bytes].

        Args:
            tokens: its length.
            kv_bytes: bytes of one stored number.
            tp: on each rank of this degree; None: unique bytes over the whole model.

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        if tp is not None:
            self.check_tp(tp)
        groups = self.attention_groups
        return sum(g.layers * g.kv_bytes(kv_bytes, tp or 1) * g.holds(tokens) for g in groups)

    # ------------------------------------------------------------------ weights

    def padded_vocab(self, tp: int) -> int:
        """Vocabulary rows after padding so that every rank holds the same number."""
        multiple = math.lcm(VOCAB_MULTIPLE, tp)
        return -(-self.vocab // multiple) * multiple

    def weight_bytes_per_gpu(
        self, parallel: Parallel = ONE_GPU, formats: WeightFormats = BF16
    ) -> float:
        """Bytes of weights on each GPU of the fullest pipeline stage [bytes].

        The matrices of the layers are stored in ``formats``; embedding, LM head, routers, norms and
        biases at 16 bits, as quantised checkpoints store them. ``simulator.model.memory`` says what
        is cut and what is repeated.

        Raises:
            ModelError: if ``parallel`` does not shard the model.
        """
        return max(self.stage_weight_bytes(parallel, formats))

    def stage_weight_bytes(
        self, parallel: Parallel = ONE_GPU, formats: WeightFormats = BF16
    ) -> tuple[float, ...]:
        """Bytes of weights on each GPU of every pipeline stage, in order [bytes].

        The first stage has the embedding and encoders of images, the last the final norm and the LM head; tied, each has
        the table.

        Raises:
            ModelError: if ``parallel`` does not shard the model.
        """
        self.check_parallel(parallel)
        table = self.padded_vocab(parallel.tp) // parallel.tp * self.hidden * BF16_BYTES
        held = [
            sum(
                kind.count
                * layer_bytes(
                    kind,
                    hidden=self.hidden,
                    norms_per_layer=self.norms_per_layer,
                    parallel=parallel,
                    formats=formats,
                )
                for kind in stage
            )
            for stage in self.stages(parallel.pp)
        ]
        held[0] += table - (-self.encoder_parameters // parallel.tp) * BF16_BYTES
        held[-1] += self.hidden * BF16_BYTES
        if parallel.pp > 1 or not self.tied_embeddings:
            held[-1] += table
        return tuple(held)


def _width(kind: LayerKind) -> int:
    """Inner width that every token goes through, which ``tp`` cuts."""
    return kind.ffn.width if isinstance(kind.ffn, DenseFfn) else kind.ffn.shared_width

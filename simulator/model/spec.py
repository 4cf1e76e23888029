"""The architecture of a dense decoder-only transformer, and what follows from it by counting.

Every number here is exact arithmetic on published hyper-parameters; nothing is fitted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.errors import ModelError

BF16_BYTES = 2.0
"""Embeddings, LM head, norms and biases stay in 16 bits, also in an fp8 checkpoint [bytes]."""

VOCAB_MULTIPLE = 64
"""Engines pad the vocabulary to a multiple of this before sharding it (vLLM, Megatron-LM)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A dense transformer with grouped-query (or multi-head) attention and a gated FFN.

    Attributes:
        name: what reports call it.
        architecture: the ``architectures[0]`` of its config.json.
        hidden: width of the residual stream.
        layers: decoder layers.
        heads: query heads of a layer.
        kv_heads: key/value heads of a layer; equal to ``heads`` under multi-head attention.
        head_dim: width of one head.
        ffn: inner width of the gated feed-forward network.
        vocab: vocabulary size, as published (unpadded).
        tied_embeddings: the LM head is the input embedding.
        qk_norm: RMS norm on each query and key head (Qwen3).
        qkv_bias: the query, key and value projections have a bias (Qwen2).
        output_bias: the attention output projection has a bias.
        mlp_bias: the three feed-forward projections have a bias.
        max_position: longest context the model was built for [tokens].
    """

    name: str
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    max_position: int
    tied_embeddings: bool = False
    qk_norm: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False

    @property
    def attention_bias(self) -> bool:
        """Whether any attention projection has a bias."""
        return self.qkv_bias or self.output_bias

    # ------------------------------------------------------------------ parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding: a table looked up, not a matrix multiplied."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the LM head that the embedding does not already hold."""
        return 0 if self.tied_embeddings else self.vocab * self.hidden

    @property
    def linear_parameters(self) -> int:
        """Weights of all matrix multiplications of all layers (LM head and biases apart)."""
        q_o = 2 * self.heads * self.head_dim * self.hidden
        k_v = 2 * self.kv_heads * self.head_dim * self.hidden
        return self.layers * (q_o + k_v + 3 * self.hidden * self.ffn)

    @property
    def small_parameters(self) -> int:
        """Norm scales and biases, which every tensor-parallel rank may hold whole."""
        layer = 2 * self.hidden
        if self.qk_norm:
            layer += 2 * self.head_dim
        if self.qkv_bias:
            layer += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.output_bias:
            layer += self.hidden
        if self.mlp_bias:
            layer += 2 * self.ffn + self.hidden
        return self.layers * layer + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters, as published model cards count them."""
        return (
            self.embedding_parameters
            + self.head_parameters
            + self.linear_parameters
            + self.small_parameters
        )

    # ------------------------------------------------------------------ tensor parallelism

    def allowed_tp(self) -> list[int]:
        """Tensor-parallel degrees that shard this model evenly, ascending."""
        return [tp for tp in range(1, self.heads + 1) if self._shards(tp)]

    def check_tp(self, tp: int) -> None:
        """Refuse a tensor-parallel degree that does not shard the model.

        TP must divide the query heads and the FFN width, and TP and the KV heads must divide one
        another: below ``kv_heads`` each rank holds some KV heads, above it each KV head is
        replicated on ``tp / kv_heads`` ranks. The vocabulary is padded, so it always shards.

        Raises:
            ModelError: naming the field ``tp``, the value found and the values allowed.
        """
        if not self._shards(tp):
            allowed = ", ".join(str(n) for n in self.allowed_tp())
            raise ModelError(
                f"tp: {tp} does not shard {self.name} ({self.heads} attention heads, "
                f"{self.kv_heads} KV heads, FFN width {self.ffn}); allowed: {allowed}."
            )

    def _shards(self, tp: int) -> bool:
        if tp < 1 or self.heads % tp or self.ffn % tp:
            return False
        return self.kv_heads % tp == 0 or tp % self.kv_heads == 0

    def kv_heads_per_gpu(self, tp: int) -> int:
        """KV heads one tensor-parallel rank holds: ``max(1, kv_heads / tp)``.

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        self.check_tp(tp)
        return max(1, self.kv_heads // tp)

    # ------------------------------------------------------------------ bytes

    def kv_bytes_per_token(self, kv_bytes: float = BF16_BYTES) -> float:
        """Unique KV-cache bytes of one token over the whole model [bytes/token].

        Args:
            kv_bytes: bytes of one stored number (bf16 2, fp8 1).
        """
        return 2 * self.layers * self.kv_heads * self.head_dim * kv_bytes

    def kv_bytes_per_token_per_gpu(self, tp: int, kv_bytes: float = BF16_BYTES) -> float:
        """KV-cache bytes of one token on each rank, replicas included [bytes/token].

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        return 2 * self.layers * self.kv_heads_per_gpu(tp) * self.head_dim * kv_bytes

    def padded_vocab(self, tp: int) -> int:
        """Vocabulary rows after padding so that every rank holds the same number."""
        multiple = math.lcm(VOCAB_MULTIPLE, tp)
        return -(-self.vocab // multiple) * multiple

    def weight_bytes_per_gpu(self, tp: int, bytes_per_weight: float = BF16_BYTES) -> float:
        """Bytes of weights on each tensor-parallel rank [bytes].

        The matrices of the layers are stored at ``bytes_per_weight``; embedding, LM head, norms
        and biases at 16 bits, as fp8 checkpoints store them. KV projections are replicated when
        ``tp`` exceeds the KV heads; norms and biases are counted whole on every rank.

        Raises:
            ModelError: if ``tp`` does not shard the model.
        """
        kv_heads = self.kv_heads_per_gpu(tp)
        attention = (2 * self.heads // tp + 2 * kv_heads) * self.head_dim * self.hidden
        linear = self.layers * (attention + 3 * self.hidden * (self.ffn // tp))
        tables = 1 if self.tied_embeddings else 2
        vocab = tables * self.padded_vocab(tp) // tp * self.hidden
        return linear * bytes_per_weight + (vocab + self.small_parameters) * BF16_BYTES

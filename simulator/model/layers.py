"""The parts of a decoder layer: attention and feed-forward, with their shapes and their weights.

Each part counts its matrices (``linear``), its norms and biases (``small``), and what one GPU holds
of them; all arguments and results are numbers of parameters unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GqaAttention:
    """Grouped-query attention; multi-head where ``kv_heads`` equals ``heads``.

    Attributes:
        heads: query heads.
        kv_heads: key/value heads.
        head_dim: width of one head.
        window: tokens a query reads, ``min(L, window)``; None: all of them.
        local_chunk: chunk-local attention (Llama 4): the query at position i, from 0, reads
            ``i mod chunk + 1`` tokens; None: all of them.
        qk_norm: each query and key head is normed.
        qk_norm_scales: that norm has weights (Qwen3), or none (Llama 4).
        qkv_bias: the query, key and value projections have a bias.
        output_bias: the output projection has a bias.
        sinks: one learned number a query head joins the softmax (gpt-oss).
    """

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    local_chunk: int | None = None
    qk_norm: bool = False
    qk_norm_scales: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    sinks: bool = False

    def linear(self, hidden: int) -> int:
        """Weights of the four projections."""
        return self.linear_per_gpu(hidden, 1)

    def linear_per_gpu(self, hidden: int, tp: int) -> int:
        """The same on one rank; K and V are replicated where ``tp`` exceeds the KV heads."""
        heads = 2 * self.heads // tp + 2 * self.kv_heads_per_gpu(tp)
        return heads * self.head_dim * hidden

    def small(self, hidden: int) -> int:
        """Norm scales, biases and sinks."""
        found = 2 * self.head_dim if self.qk_norm and self.qk_norm_scales else 0
        if self.qkv_bias:
            found += (self.heads + 2 * self.kv_heads) * self.head_dim
        if self.output_bias:
            found += hidden
        return found + (self.heads if self.sinks else 0)

    def kv_heads_per_gpu(self, tp: int) -> int:
        """``max(1, kv_heads / tp)``."""
        return max(1, self.kv_heads // tp)

    def kv_numbers(self, tp: int = 1) -> int:
        """Numbers kept of one token on each rank of ``tp``: K and V."""
        return 2 * self.kv_heads_per_gpu(tp) * self.head_dim

    def shards(self, tp: int) -> bool:
        """Whether ``tp`` divides the heads, and it and the KV heads divide one another."""
        return self.heads % tp == 0 and (self.kv_heads % tp == 0 or tp % self.kv_heads == 0)

    @property
    def described(self) -> str:
        """For error sentences."""
        return f"{self.heads} attention heads, {self.kv_heads} KV heads"


@dataclass(frozen=True, slots=True)
class MlaAttention:
    """DeepSeek's multi-head latent attention (arXiv:2405.04434, section 2.1).

    What is cached is one latent vector and one rotary key a token, shared by all heads, and so kept
    whole on every tensor-parallel rank.

    Attributes:
        heads: query heads.
        q_lora_rank: width of the query's latent; None: queries are projected directly.
        kv_lora_rank: width of the cached latent.
        qk_nope_head_dim: width of a query/key head without rotary position.
        qk_rope_head_dim: width of the shared rotary key.
        v_head_dim: width of a value head.
    """

    heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def qk_head_dim(self) -> int:
        """Width of a query head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def window(self) -> None:
        """Reads everything."""
        return

    @property
    def local_chunk(self) -> None:
        """Reads everything."""
        return

    def linear(self, hidden: int) -> int:
        """Weights of all projections, down and up."""
        return self.linear_per_gpu(hidden, 1)

    def linear_per_gpu(self, hidden: int, tp: int) -> int:
        """The same on one rank: the projections into the latents are on every rank whole."""
        down = hidden * (self.kv_lora_rank + self.qk_rope_head_dim)
        if self.q_lora_rank is None:
            queries = hidden * self.heads * self.qk_head_dim // tp
        else:
            down += hidden * self.q_lora_rank
            queries = self.q_lora_rank * self.heads * self.qk_head_dim // tp
        up = self.kv_lora_rank * self.heads * (self.qk_nope_head_dim + self.v_head_dim) // tp
        return down + queries + up + self.heads * self.v_head_dim * hidden // tp

    def small(self, hidden: int) -> int:
        """Scales of the two latents' norms."""
        return self.kv_lora_rank + (self.q_lora_rank or 0)

    def kv_heads_per_gpu(self, tp: int) -> int:
        """One latent, on every rank."""
        return 1

    def kv_numbers(self, tp: int = 1) -> int:
        """Numbers kept of one token on each rank of ``tp``: the latent and the rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    def shards(self, tp: int) -> bool:
        """Whether ``tp`` divides the heads."""
        return self.heads % tp == 0

    @property
    def described(self) -> str:
        """For error sentences."""
        return f"{self.heads} attention heads over one latent"


Attention = GqaAttention | MlaAttention


@dataclass(frozen=True, slots=True)
class DenseFfn:
    """A gated feed-forward network: gate, up and down.

    Attributes:
        width: inner width.
        bias: the three projections have a bias.
    """

    width: int
    bias: bool = False

    def linear(self, hidden: int) -> int:
        """Weights of the three projections."""
        return 3 * hidden * self.width

    def small(self, hidden: int) -> int:
        """Biases."""
        return 2 * self.width + hidden if self.bias else 0


@dataclass(frozen=True, slots=True)
class MoeFfn:
    """A mixture of experts: a router, routed experts, and possibly experts every token visits.

    Attributes:
        experts: routed experts.
        experts_per_token: routed experts a token visits.
        expert_width: inner width of one.
        shared_width: inner width of the shared experts together; 0: there are none.
        router_bias: the router has a number an expert beside its matrix: a bias (gpt-oss) or the
            load-balancing correction (DeepSeek-V3).
        expert_bias: the projections of every expert have a bias.
        shared_gate: the shared experts' output is scaled by a gate of width 1 (Qwen2-MoE).
    """

    experts: int
    experts_per_token: int
    expert_width: int
    shared_width: int = 0
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False

    def router(self, hidden: int) -> int:
        """Weights of the router and of the shared experts' gate."""
        return self.experts * hidden + (hidden if self.shared_gate else 0)

    def expert(self, hidden: int) -> int:
        """Weights of one routed expert."""
        return 3 * hidden * self.expert_width

    def expert_biases(self, hidden: int) -> int:
        """Biases of one routed expert."""
        return 2 * self.expert_width + hidden if self.expert_bias else 0

    def shared(self, hidden: int) -> int:
        """Weights of the shared experts."""
        return 3 * hidden * self.shared_width

    def small(self, hidden: int) -> int:
        """The router's numbers beside its matrix."""
        return self.experts if self.router_bias else 0


Ffn = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True)
class LayerKind:
    """Layers of one shape.

    Attributes:
        attention: how they attend.
        ffn: their feed-forward part.
        count: how many there are.
    """

    attention: Attention
    ffn: Ffn
    count: int


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Layers whose decode reads the same tokens of each sequence: one statistic ``S_g`` a group.

    Attributes:
        attention: how they attend.
        layers: how many there are.
    """

    attention: Attention
    layers: int

    @property
    def window(self) -> int | None:
        """Tokens a query reads at most, the latest; None: no such bound."""
        return self.attention.window

    @property
    def local_chunk(self) -> int | None:
        """Tokens of a chunk a query does not read beyond; None: no such bound."""
        return self.attention.local_chunk

    def reads(self, context: int) -> int:
        """Tokens the last of ``context`` tokens reads, itself included."""
        if self.local_chunk is not None:
            return (context - 1) % self.local_chunk + 1 if context > 0 else 0
        return context if self.window is None else min(context, self.window)

    def holds(self, context: int) -> int:
        """Most tokens of a sequence of ``context`` tokens that are kept."""
        limit = self.window if self.local_chunk is None else self.local_chunk
        return context if limit is None else min(context, limit)

    def kv_bytes(self, kv_bytes: float, tp: int = 1) -> float:
        """KV-cache bytes of one token in one layer on each rank of ``tp`` [bytes/token]."""
        return self.attention.kv_numbers(tp) * kv_bytes

"""Bytes of weights and KV cache under parallelism: conserved, replicated only where stated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import ModelError
from simulator.model import (
    FORMAT_BYTES,
    FORMATS,
    AttentionGroup,
    GqaAttention,
    LayerKind,
    MlaAttention,
    ModelSpec,
    MoeFfn,
    Parallel,
    WeightFormats,
    load_model,
    model_names,
)
from tests.model_kit import published

MODELS = [load_model(name) for name in model_names()]


@st.composite
def deployments(draw: st.DrawFn) -> tuple[ModelSpec, Parallel, WeightFormats]:
    spec = draw(st.sampled_from(MODELS))
    tp = draw(st.sampled_from(spec.allowed_tp()))
    dp = draw(st.sampled_from([1, 2, 3, 8, 16])) if spec.is_moe else 1
    if not spec.allowed_ep(tp * dp):
        dp = 1
    ep = draw(st.sampled_from(spec.allowed_ep(tp * dp)))
    pp = draw(st.sampled_from([1, 2, 3, 7, 8, spec.layers]))
    formats = WeightFormats(*(draw(st.sampled_from(FORMATS)) for _ in range(3)))
    return spec, Parallel(tp, pp, ep, dp), formats


def repeated_in_attention(kind: LayerKind, hidden: int, tp: int) -> int:
    """Weights that ranks of one attention group hold beyond the first copy."""
    attention = kind.attention
    if isinstance(attention, MlaAttention):
        down = attention.kv_lora_rank + attention.qk_rope_head_dim + (attention.q_lora_rank or 0)
        return (tp - 1) * down * hidden
    copies = max(tp, attention.kv_heads) - attention.kv_heads
    return copies * 2 * attention.head_dim * hidden


@settings(max_examples=300, deadline=None)
@given(deployments())
def test_ranks_hold_the_model_once_plus_the_stated_replicas(
    deployment: tuple[ModelSpec, Parallel, WeightFormats],
) -> None:
    spec, parallel, formats = deployment
    tp, dp, gpus = parallel.tp, parallel.attention_dp, parallel.stage_gpus
    stages = spec.stage_weight_bytes(parallel, formats)
    assert len(stages) == parallel.pp
    found = gpus * sum(stages)

    count = spec.count
    once = 0.0
    for kind in spec.kinds:
        # attention and always-active FFN: on every attention rank; KV heads or latents repeated
        attention = kind.attention.linear(spec.hidden)
        attention += repeated_in_attention(kind, spec.hidden, tp)
        once += kind.count * dp * attention * FORMAT_BYTES[formats.attention]
        ffn = kind.ffn
        if not isinstance(ffn, MoeFfn):
            once += kind.count * dp * ffn.linear(spec.hidden) * FORMAT_BYTES[formats.ffn]
            continue
        once += kind.count * dp * ffn.shared(spec.hidden) * FORMAT_BYTES[formats.ffn]
        # routed experts: once in the stage; of their biases down's on every GPU of a cut expert
        once += kind.count * ffn.experts * ffn.expert(spec.hidden) * FORMAT_BYTES[formats.experts]
        if ffn.expert_bias:
            bias = 2 * ffn.expert_width + parallel.moe_tp * spec.hidden
            once += kind.count * ffn.experts * bias * 2
    # whole on every GPU of their stage
    once += gpus * (count.router + count.small) * 2
    # vocabulary rows over tp, padded; tied tables are apart only with a pipeline
    tables = 1 if spec.tied_embeddings and parallel.pp == 1 else 2
    once += dp * tables * spec.padded_vocab(tp) * spec.hidden * 2
    once += gpus * -(-count.encoder // tp) * 2
    assert found == pytest.approx(once, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(deployments())
def test_kv_bytes_are_unique_bytes_plus_the_stated_replicas(
    deployment: tuple[ModelSpec, Parallel, WeightFormats],
) -> None:
    spec, parallel, _ = deployment
    tp = parallel.tp
    ranks = tp * spec.kv_bytes_per_token_per_gpu(tp, 1.0)
    unique = spec.kv_bytes_per_token(1.0)
    extra = 0.0
    for kind in spec.kinds:
        attention = kind.attention
        if isinstance(attention, GqaAttention):
            copies = max(tp, attention.kv_heads) - attention.kv_heads
            extra += kind.count * copies * 2 * attention.head_dim
        else:
            extra += kind.count * (tp - 1) * (attention.kv_lora_rank + attention.qk_rope_head_dim)
    assert ranks == unique + extra


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 200))
def test_stages_hold_every_layer_once_and_differ_by_one(spec: ModelSpec, pp: int) -> None:
    if pp > spec.layers:
        with pytest.raises(ModelError, match=f"pp: {pp} does not split the {spec.layers} layers"):
            spec.stages(pp)
        return
    stages = spec.stages(pp)
    sizes = [sum(kind.count for kind in stage) for stage in stages]
    assert sum(sizes) == spec.layers
    assert max(sizes) - min(sizes) <= 1
    assert sizes[-1] == min(sizes)
    for kind in spec.kinds:
        held = [
            k.count for s in stages for k in s if (k.attention, k.ffn) == (kind.attention, kind.ffn)
        ]
        assert sum(held) == kind.count


@given(st.sampled_from(MODELS), st.integers(0, 300_000))
def test_kv_of_a_sequence_is_bounded_by_its_windows(spec: ModelSpec, tokens: int) -> None:
    found = spec.kv_bytes_of_sequence(tokens, 2.0)
    assert found <= tokens * spec.kv_bytes_per_token(2.0)
    limits = [g.window or g.local_chunk for g in spec.attention_groups]
    if all(limit is None or tokens <= limit for limit in limits):
        assert found == tokens * spec.kv_bytes_per_token(2.0)
    assert spec.kv_bytes_of_sequence(tokens + 1, 2.0) > found


# ------------------------------------------------------------------------------- worked examples


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek-v3", 61 * (512 + 64) * 2),  # 70,272, although its config lists 128 KV heads
        ("kimi-k2", 61 * (512 + 64) * 2),
        ("llama-3.1-70b", 80 * 2 * 8 * 128 * 2),
        ("qwen3-235b-a22b", 94 * 2 * 4 * 128 * 2),
        ("gpt-oss-120b", 36 * 2 * 8 * 64 * 2),
        ("llama-4-scout", 48 * 2 * 8 * 128 * 2),
    ],
)
def test_kv_bytes_of_a_token(name: str, expected: int) -> None:
    assert load_model(name).kv_bytes_per_token(2.0) == expected


def test_a_latent_is_whole_on_every_rank() -> None:
    spec = load_model("deepseek-v3")
    assert spec.kv_bytes_per_token() == 70_272
    assert {spec.kv_bytes_per_token_per_gpu(tp) for tp in (1, 8, 128)} == {70_272}


def test_kv_of_a_long_sequence_of_gpt_oss() -> None:
    # 18 layers keep all of 10,000 tokens, 18 the latest 128; 8 heads of 64, K and V, 2 bytes
    spec = load_model("gpt-oss-120b")
    layer = 2 * 8 * 64 * 2
    assert spec.kv_bytes_of_sequence(10_000) == 18 * layer * (10_000 + 128)
    assert spec.kv_bytes_of_sequence(10_000, tp=16) == 18 * layer // 8 * (10_000 + 128)


def test_what_a_chunk_local_query_reads() -> None:
    group = AttentionGroup(GqaAttention(40, 8, 128, local_chunk=8192), 36)
    assert [group.reads(n) for n in (0, 1, 8192, 8193, 16384)] == [0, 1, 8192, 1, 8192]
    assert [group.holds(n) for n in (100, 8192, 9000)] == [100, 8192, 8192]


def test_what_a_windowed_query_reads(tmp_path: Path) -> None:
    (group,) = published(tmp_path, "mistral-7b-v0.1").attention_groups
    assert [group.reads(n) for n in (1, 4096, 9999)] == [1, 4096, 4096]
    assert group.kv_bytes(2.0, tp=4) == 2 * 2 * 128 * 2


def test_attention_ranks_repeat_attention_and_share_experts() -> None:
    spec, formats = load_model("deepseek-v3"), WeightFormats.uniform("fp8_block")
    one = spec.weight_bytes_per_gpu(Parallel(), formats)
    spread = spec.weight_bytes_per_gpu(Parallel(ep=32, attention_dp=32), formats)
    experts = spec.count.routed_experts * FORMAT_BYTES["fp8_block"]
    assert one - spread == pytest.approx(experts * 31 / 32, rel=1e-12)


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "parallel", "sentence"),
    [
        (
            "llama-3.1-8b",
            {"ep": 2, "tp": 2},
            "ep: 2 needs routed experts, and llama-3.1-8b has none",
        ),
        ("llama-3.1-8b", {"attention_dp": 2}, "attention_dp: 2 needs routed experts, and"),
        (
            "llama-3.1-8b",
            {"pp": 33},
            "pp: 33 does not split the 32 layers of llama-3.1-8b; allowed",
        ),
        (
            "mixtral-8x7b",
            {"tp": 16, "ep": 16},
            "(8 of width 14336) over 16 GPUs; allowed: 1, 2, 4, 8.",
        ),
        (
            "qwen3-30b-a3b",
            {"tp": 3},
            "tp: 3 does not shard qwen3-30b-a3b (32 attention heads, 4 KV",
        ),
        (
            "deepseek-v3",
            {"tp": 3},
            "tp: 3 does not shard deepseek-v3 (128 attention heads over one latent, FFN width 18432, "
            "shared experts' width 2048); allowed: 1, 2, 4, 8, 16, 32, 64, 128.",
        ),
        (
            "mixtral-8x22b",
            {"tp": 24},
            "over 24 GPUs; allowed: none, only another tp or attention_dp.",
        ),
        ("deepseek-v3", {"attention_dp": 3}, "ep: 1 does not spread the experts of deepseek-v3"),
    ],
)
def test_an_illegal_parallelism_is_refused(
    name: str, parallel: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ModelError) as refused:
        load_model(name).check_parallel(Parallel(**parallel))
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("degrees", "sentence"),
    [
        ({"pp": 0}, "pp: found 0; allowed: a whole number from 1."),
        ({"attention_dp": -1}, "attention_dp: found -1; allowed: a whole number from 1."),
        (
            {"tp": 4, "ep": 3},
            "ep: 3 does not divide the 4 GPUs of a stage (tp 4 times attention_dp",
        ),
    ],
)
def test_degrees_that_cannot_be(degrees: dict[str, int], sentence: str) -> None:
    with pytest.raises(ModelError) as refused:
        Parallel(**degrees)
    assert sentence in str(refused.value)


def test_allowed_degrees_are_those_that_are_not_refused() -> None:
    for spec in MODELS:
        for gpus in range(1, 65):
            legal = []
            for ep in range(1, gpus + 1):
                try:
                    spec.check_parallel(Parallel(tp=gpus, ep=ep))
                    legal.append(ep)
                except ModelError:
                    continue
            assert bool(legal) == (gpus in spec.allowed_tp())
            assert not legal or legal == spec.allowed_ep(gpus)


def test_an_unknown_format_gets_the_nearest_one() -> None:
    with pytest.raises(ModelError, match=r"weights\.ffn: 'mxfp8' is unknown; did you mean"):
        WeightFormats(ffn="mxfp8")  # type: ignore[arg-type]

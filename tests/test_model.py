"""Parameter counts against published ones, KV bytes, sharding rules, and refusals of bad configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ModelError
from simulator.model import (
    DenseFfn,
    GqaAttention,
    ModelSpec,
    Parallel,
    WeightFormats,
    load_model,
)
from tests.model_kit import read, write

BF16, FP8 = WeightFormats(), WeightFormats.uniform("fp8")

PUBLISHED = {  # tensors of the published checkpoints, summed
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
}


def attention(spec: ModelSpec) -> GqaAttention:
    found = spec.kinds[0].attention
    assert isinstance(found, GqaAttention)
    return found


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_those_of_the_published_checkpoint(name: str) -> None:
    assert load_model(name).parameters == PUBLISHED[name]


def test_tied_embeddings_are_counted_and_stored_once(tmp_path: Path) -> None:
    # Qwen3-0.6B, published: 596,049,920 parameters; its head_dim is not hidden / heads.
    spec = read(
        tmp_path,
        architectures=["Qwen3ForCausalLM"],
        hidden_size=1024,
        intermediate_size=3072,
        num_attention_heads=16,
        num_hidden_layers=28,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
    assert spec.parameters == 596_049_920
    assert spec.weight_bytes_per_gpu(Parallel(1), BF16) == 2 * spec.parameters


def test_biases_of_all_projections_are_counted(tmp_path: Path) -> None:
    # hidden 256, 8 query and 2 KV heads of 32, FFN 704, 3 layers.
    plain = read(tmp_path).parameters
    attention = 3 * ((8 + 2 * 2) * 32 + 256)
    mlp = 3 * (2 * 704 + 256)
    assert read(tmp_path, attention_bias=True).parameters == plain + attention
    assert read(tmp_path, mlp_bias=True).parameters == plain + mlp


def test_qwen3_without_a_head_dim_has_that_of_its_configuration_class(tmp_path: Path) -> None:
    assert attention(read(tmp_path, architectures=["Qwen3ForCausalLM"])).head_dim == 128
    assert attention(read(tmp_path)).head_dim == 32


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_one_gpu_holds_every_parameter_in_two_bytes(name: str) -> None:
    spec = load_model(name)
    assert spec.weight_bytes_per_gpu(Parallel(1), BF16) == 2 * spec.parameters


def test_fp8_halves_the_matrices_only() -> None:
    spec = load_model("llama-3.1-8b")
    both_tables = 2 * spec.vocab * spec.hidden
    saved = spec.weight_bytes_per_gpu(Parallel(1), BF16) - spec.weight_bytes_per_gpu(
        Parallel(1), FP8
    )
    assert saved == spec.linear_parameters
    assert spec.linear_parameters == spec.parameters - both_tables - spec.small_parameters


def test_tensor_parallel_ranks_hold_the_model_once_plus_norms_and_padding() -> None:
    spec = load_model("llama-2-70b")
    whole = 2 * spec.parameters
    replicated = 2 * spec.small_parameters
    assert 8 * spec.weight_bytes_per_gpu(Parallel(8), BF16) == whole + 7 * replicated


def test_kv_projections_are_replicated_beyond_the_kv_heads() -> None:
    spec = load_model("llama-3.1-70b")
    kv_weights = 80 * 2 * 8 * 128 * 8192
    extra = 16 * spec.weight_bytes_per_gpu(Parallel(16), BF16) - 8 * spec.weight_bytes_per_gpu(
        Parallel(8), BF16
    )
    assert extra == 2 * kv_weights + 8 * 2 * spec.small_parameters


# ------------------------------------------------------------------------------- KV cache


def test_kv_of_llama_2_70b_is_grouped_query_sized() -> None:
    spec = load_model("llama-2-70b")
    assert spec.kv_bytes_per_token(2.0) == 327_680


def test_kv_of_llama_2_70b_were_it_multi_head(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        hidden_size=8192,
        intermediate_size=28672,
        num_attention_heads=64,
        num_hidden_layers=80,
        num_key_value_heads=...,  # a Llama config without the key is multi-head
        vocab_size=32000,
    )
    assert spec.kv_bytes_per_token(2.0) == 2_621_440


def test_kv_in_fp8_is_half() -> None:
    assert load_model("qwen3-8b").kv_bytes_per_token(1.0) == 36 * 2 * 8 * 128


@pytest.mark.parametrize(("tp", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1), (64, 1)])
def test_kv_heads_per_gpu_are_sharded_then_replicated(tp: int, heads: int) -> None:
    spec = load_model("llama-3.1-70b")
    assert spec.kv_heads_per_gpu(tp) == heads
    assert spec.kv_bytes_per_token_per_gpu(tp, 2.0) == 2 * 80 * heads * 128 * 2


# ------------------------------------------------------------------------- tensor parallelism


@pytest.mark.parametrize("tp", [0, -1, 3, 5, 128])
def test_an_illegal_tp_is_refused_with_what_is_allowed(tp: int) -> None:
    with pytest.raises(ModelError) as refusal:
        load_model("llama-3.1-70b").check_tp(tp)
    assert str(refusal.value) == (
        f"tp: {tp} does not shard llama-3.1-70b (64 attention heads, 8 KV heads, FFN width 28672); "
        "allowed: 1, 2, 4, 8, 16, 32, 64."
    )


def test_tp_and_kv_heads_must_divide_one_another(tmp_path: Path) -> None:
    # 12 heads over 6 KV heads: 4 divides the heads, but 6 and 4 do not divide one another.
    spec = read(
        tmp_path, num_attention_heads=12, num_key_value_heads=6, head_dim=64, hidden_size=768
    )
    assert 12 % 4 == 0
    assert spec.kinds[0].ffn == DenseFfn(704)
    assert 704 % 4 == 0
    assert 4 not in spec.allowed_tp()
    assert 2 in spec.allowed_tp()


def test_the_ffn_must_shard() -> None:
    # Llama-2-13B: 40 heads, 40 KV heads, FFN 13,824 = 2^9·27, so 5 shards the heads but not the FFN.
    spec = load_model("llama-2-13b")
    assert 5 not in spec.allowed_tp()
    assert spec.allowed_tp() == [1, 2, 4, 8]


def test_the_vocabulary_is_padded_so_that_it_shards(tmp_path: Path) -> None:
    spec = read(tmp_path)  # vocabulary 1,000
    assert spec.padded_vocab(1) == 1024
    assert spec.padded_vocab(3) == 1152
    assert all(spec.padded_vocab(tp) % tp == 0 for tp in range(1, 40))
    assert load_model("llama-3.1-8b").padded_vocab(8) == 128_256


# ------------------------------------------------------------------------------- names and files


def test_names_are_case_insensitive() -> None:
    assert load_model("Llama-3.1-70B") == load_model("llama-3.1-70b")


def test_a_folder_or_a_file_loads_and_is_called_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    write(folder)
    assert load_model(folder).name == "my-model"
    assert load_model(str(folder / "config.json")) == load_model(folder)
    assert load_model(write(tmp_path, "other.json")).name == "other"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(
        ModelError, match=r"model 'llama-3-70b' is unknown; did you mean 'llama-3\.1-70b'"
    ):
        load_model("llama-3-70b")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ModelError, match=r"model file 'no/such/config\.json' does not exist"):
        load_model("no/such/config.json")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json' does not exist"):
        load_model(tmp_path)


def test_malformed_json_says_where(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"hidden_size": 12,\n oops}')
    with pytest.raises(ModelError, match=r"config\.json: not valid JSON \(.*line 2 column 2"):
        load_model(file)


def test_a_json_list_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("[]")
    with pytest.raises(ModelError, match="expected a JSON object, found list"):
        load_model(file)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": ...}, "key 'hidden_size' is missing."),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; allowed: a whole number from 1"),
        ({"vocab_size": "32k"}, "vocab_size is '32k'; allowed: a whole number"),
        ({"vocab_size": True}, "vocab_size is True; allowed: a whole number"),
        ({"intermediate_size": 704.5}, "intermediate_size is 704.5; allowed: a whole number"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; allowed: true, false."),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, which does not divide"),
        ({"hidden_size": 250}, "hidden_size 250 is not a multiple of num_attention_heads 8"),
        ({"architectures": ...}, "architectures is None; expected a list"),
        ({"architectures": ["Qwen5ForCausalLM"]}, "did you mean 'Qwen3ForCausalLM'?"),
        (
            {"architectures": ["MambaForCausalLM"]},
            "architecture 'MambaForCausalLM' is not supported",
        ),
        ({"sliding_window": 4096}, "sliding_window is 4096; allowed: null"),
        ({"num_hidden_layers": 20_000}, "is 20000; allowed: a whole number from 1 to 10,000."),
        (
            {"architectures": ["MistralForCausalLM"], "num_key_value_heads": ...},
            "key 'num_key_value_heads' is missing.",
        ),
    ],
)
def test_an_impossible_config_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    file = write(tmp_path, **changes)
    with pytest.raises(ModelError) as refusal:
        load_model(file)
    message = str(refusal.value)
    assert message.startswith(f"{file}: ")
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message

"""The forms by hand: golden values, limits, and that time never falls with a size."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.perf import forms

UNIT = {"t0_s": 1.0, "peak_flops": 2.0, "bandwidth": 1.0, "compute_eff": 1.0, "memory_eff": 1.0}


def test_gemm_joins_its_two_limits_by_a_p_norm() -> None:
    # m = n = 1, k = 3: compute 2·3/2 = 3; traffic (3·w + 3·i + 1·o)/1 = 4 with w = 1, i = o = 1/4.
    sizes = {"weight_bytes": 1.0, "input_bytes": 0.25, "output_bytes": 0.25}
    assert forms.gemm_s(1, 1, 3, p=2.0, **UNIT, **sizes) == pytest.approx(1 + 5)
    assert forms.gemm_s(1, 1, 3, p=1.0, **UNIT, **sizes) == pytest.approx(1 + 7)
    assert forms.gemm_s(1, 1, 3, p=16.0, **UNIT, **sizes) == pytest.approx(1 + 4, rel=1e-3)


def test_gemm_quantises_its_input_in_five_bytes_a_number() -> None:
    without = forms.gemm_s(2, 7, 3, p=2.0, **UNIT)
    assert forms.gemm_s(2, 7, 3, p=2.0, quant_eff=0.5, **UNIT) == pytest.approx(
        without + 5 * 6 / 0.5
    )


def test_decode_attention_by_hand() -> None:
    # 2 sequences, 10 tokens, 4 query heads and 1 KV head of width 2, bandwidth 4·0.5 = 2 bytes/s:
    # 7 + 3·2·1/6 + (2·10·1·2·1 [KV, 1 byte] + 2·2·4·2·2 [Q, O])/2 = 7 + 1 + (40 + 64)/2.
    time = forms.decode_attention_s(
        2, 10, heads=4, kv_heads=1, head_dim=2, t0_s=7.0, tile_s=3.0, memory_eff=0.5,
        bandwidth=4.0, sms=6.0, kv_bytes=1.0,
    )  # fmt: skip
    assert time == pytest.approx(60.0)


DECODE_TERMS = forms.DecodeTerms(
    split_s=100.0, split_fill=0.5, gather_s=1000.0, cold_s=1e4, fill_s=2.0, wave_exponent=1.0,
    block_s=50.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "kv_heads", "short", "cold", "want"),
    [
        # w = 4/16: split, 7 + 100 + 1000 + 1e4 + 2·w + (KV 10·8 + Q, O 2·4·2·2)/1
        (4, 1, False, 1.0, 7 + 100 + 0 + 1e4 + 0.5 + 40 + 4 * 8),
        (2, 2, False, 0.0, 7 + 100 + 1000 + 0.5 + 80 + 2 * 8),
        (1, 4, False, 0.0, 7 + 100 + 0 + 0.5 + 160 + 8),
        # short: the same, not split
        (2, 2, True, 0.0, 7 + 1000 + 0.5 + 80 + 2 * 8),
        # w = 24/16: whole, one and a half waves read in the time of two
        (24, 1, False, 0.0, 7 + 2 + 3 * 0.5 + 40 * 2 / 1.5 + 24 * 8),
        # short: half a wave takes 25 at least, which its bytes exceed
        (24, 1, True, 0.0, 7 + 2 + 3 * 0.5 + 40 * 2 / 1.5 + 24 * 8),
    ],
)
def test_decode_attention_splits_copies_and_fills_by_hand(
    batch: int, kv_heads: int, short: bool, cold: float, want: float
) -> None:
    time = forms.decode_attention_s(
        batch, 20, heads=2, kv_heads=kv_heads, head_dim=1, t0_s=7.0, tile_s=3.0, memory_eff=0.5,
        bandwidth=2.0, sms=16.0, kv_bytes=1.0, terms=DECODE_TERMS, short=short, cold=cold,
    )  # fmt: skip
    assert time == pytest.approx(want)


def test_a_wave_of_short_contexts_has_a_floor() -> None:
    floor = forms.decode_attention_s(
        48, 48, heads=2, kv_heads=1, head_dim=1, t0_s=7.0, tile_s=3.0, memory_eff=1.0,
        bandwidth=1e6, sms=16.0, terms=DECODE_TERMS, short=True, cold=0.0,
    )  # fmt: skip
    assert floor == pytest.approx(7 + 2 + 2 * 50, rel=1e-3)


def test_prefill_tensors_beyond_the_l2_move_slower() -> None:
    # 10 tokens: (Q, O 4·2·2 + K, V written and read 4·2·1) bytes each = 240 bytes at 2·0.5 bytes/s
    args: dict[str, Any] = {
        "heads": 1, "kv_heads": 1, "head_dim": 2, "t0_s": 1.0, "compute_eff": 1.0, "memory_eff": 0.5,
        "peak_flops": 8.0, "bandwidth": 2.0, "kv_bytes": 2.0,
    }  # fmt: skip
    plain = float(forms.prefill_attention_s(10, 50, 10, **args))
    moved = plain - 1.0 - 50.0
    assert forms.prefill_attention_s(
        10, 50, 10, l2_spill=2.0, l2_bytes=moved - 40.0, **args
    ) == pytest.approx(plain + 2.0 * 40.0)
    assert forms.prefill_attention_s(10, 50, 10, l2_spill=2.0, l2_bytes=moved, **args) == plain


def test_no_prefill_is_faster_than_its_longest_row_of_tiles() -> None:
    # 3 tokens a head: 4·2·3·50 FLOP at 8·0.5 FLOP/s = 300 s; a row of 128 queries of one head that
    # attends to 10 keys, on one multiprocessor of 4: 2·128·4·2·10·4/8 = 10 240 s
    args: dict[str, Any] = {
        "heads": 3, "kv_heads": 1, "head_dim": 2, "t0_s": 0.0, "compute_eff": 0.5, "memory_eff": 1e12,
        "peak_flops": 8.0, "bandwidth": 2.0, "sms": 4.0,
    }  # fmt: skip
    for chain, time_s in ((0.0, 300.0), (2.0, math.hypot(300.0, 10_240.0))):
        assert forms.prefill_attention_s(
            10, 50, 10, longest=10, chain=chain, **args
        ) == pytest.approx(time_s)
    latent = {key: args[key] for key in ("heads", "t0_s", "compute_eff", "memory_eff")}
    latent |= {"peak_flops": 8.0, "bandwidth": 2.0, "sms": 4.0, "qk_head_dim": 3, "v_head_dim": 1}
    # the same arithmetic: 2·(3 + 1) FLOP a pair and head
    assert forms.mla_prefill_s(10, 50, 10, longest=10, chain=2.0, **latent) == pytest.approx(
        math.hypot(300.0, 10_240.0)
    )


PREFILL: dict[str, Any] = {
    "heads": 4, "kv_heads": 2, "head_dim": 64, "t0_s": 1e-5, "compute_eff": 0.5, "memory_eff": 0.25,
    "peak_flops": 1e12, "bandwidth": 1e11,
}  # fmt: skip


@pytest.mark.parametrize(("batch", "length"), [(1, 128), (8, 2048)])
def test_prefill_attention_of_whole_prompts_is_the_textbook_form(batch: int, length: int) -> None:
    # t0 + 2·b·h·hd·L²/(P·eC) + 2·b·L·hd·(2h + 4·hkv)/(BW·eB)
    textbook = (
        1e-5
        + 2 * batch * 4 * 64 * length**2 / (1e12 * 0.5)
        + 2 * batch * length * 64 * (2 * 4 + 4 * 2) / (1e11 * 0.25)
    )
    tokens = batch * length
    time = forms.prefill_attention_s(tokens, batch * length**2 / 2, tokens, **PREFILL)
    assert time == pytest.approx(textbook, rel=1e-12)


def test_head_dim_scales_prefill_efficiency_from_128_and_stops_at_the_peak() -> None:
    def compute_s(head_dim: int, exponent: float) -> float:
        args = PREFILL | {"head_dim": head_dim, "t0_s": 0.0, "memory_eff": 1e12}
        return float(forms.prefill_attention_s(1, 1e6, 1, head_dim_exponent=exponent, **args))

    assert compute_s(128, 0.45) == pytest.approx(compute_s(128, 0.0))
    assert compute_s(64, 1.0) == pytest.approx(2 * compute_s(64, 0.0))
    assert compute_s(1024, 1.0) == pytest.approx(compute_s(1024, 0.0) / 2)  # 0.5 · 8, capped at 1


@given(cached=st.integers(0, 10_000), chunks=st.lists(st.integers(1, 4000), min_size=1, max_size=8))
def test_chunks_of_a_prompt_add_up_to_the_pairs_of_the_whole(
    cached: int, chunks: list[int]
) -> None:
    done, pairs = cached, 0.0
    for chunk in chunks:
        pairs += float(forms.causal_pairs(done, chunk))
        done += chunk
    assert pairs == pytest.approx(done**2 / 2 - cached**2 / 2, rel=1e-12)


REDUCE = {
    "t0_s": 4e-6, "rank_s": 1e-6, "one_shot_eff": 0.5, "two_shot_s": 10e-6, "two_shot_eff": 0.5,
    "link_bytes_per_s": 100e9,
}  # fmt: skip


def test_all_reduce_is_one_shot_when_small_and_two_shot_when_large() -> None:
    # 4 ranks: 7 µs + 3·50 kB/50 GB/s = 10 µs against 7 + 10 + 1.5·50 kB/50 GB/s = 18.5 µs.
    assert forms.all_reduce_s(50e3, 4, **REDUCE) == pytest.approx(10e-6)
    # 50 MB: 7 µs + 3 ms one-shot against 17 µs + 1.5 ms two-shot.
    assert forms.all_reduce_s(50e6, 4, **REDUCE) == pytest.approx(1517e-6)
    # over 8 MiB the library's: a ring of two, the switch for four
    large = REDUCE | {"large_s": 100e-6, "ring_eff": 0.8, "switch_eff": 0.8}
    custom = forms.CUSTOM_MOST_BYTES
    assert forms.all_reduce_s(custom, 4, **large) == forms.all_reduce_s(custom, 4, **REDUCE)
    link = REDUCE["link_bytes_per_s"]
    assert forms.all_reduce_s(50e6, 2, **large) == pytest.approx(105e-6 + 50e6 / link / 0.8)
    assert forms.all_reduce_s(50e6, 4, **large) == pytest.approx(107e-6 + 1.25 * 50e6 / link / 0.8)
    large["switch_eff"] = 0.0
    assert forms.all_reduce_s(50e6, 4, **large) == pytest.approx(107e-6 + 1.5 * 50e6 / link / 0.8)


def test_bus_all_reduce_moves_two_shares_of_every_other_rank() -> None:
    time = forms.all_reduce_ring_s(4e9, 4, alpha_s=1.0, bus_bytes_per_s=2e9)
    assert time == pytest.approx(1.0 + 2 * 3 / 4 * 4e9 / 2e9)


def test_elementwise_by_hand() -> None:
    time = forms.elementwise_s(800.0, kernels=4, t0_s=3.0, memory_eff=0.8, bandwidth=100.0)
    assert time == pytest.approx(4 * 3 + 10)


def test_nothing_costs_nothing() -> None:
    assert forms.gemm_s(0, 8, 8, p=2.0, **UNIT) == 0.0
    assert forms.all_reduce_s(1e6, 1, **REDUCE) == 0.0
    assert forms.all_reduce_s(0, 4, **REDUCE) == 0.0
    assert forms.all_reduce_ring_s(1e6, 1, alpha_s=1.0, bus_bytes_per_s=1.0) == 0.0
    assert forms.elementwise_s(0, t0_s=1.0, memory_eff=1.0, bandwidth=1.0) == 0.0
    assert forms.prefill_attention_s(0, 0, 0, **PREFILL) == 0.0


sizes = st.integers(1, 200_000)


@given(m=sizes, n=sizes, k=sizes, p=st.floats(1, 16), grow=st.integers(1, 1000))
def test_gemm_time_never_falls_with_a_size(m: int, n: int, k: int, p: float, grow: int) -> None:
    def time(m: int, n: int, k: int) -> float:
        args = {"t0_s": 3e-6, "peak_flops": 9e14, "bandwidth": 3e12, "compute_eff": 0.8}
        return float(forms.gemm_s(m, n, k, memory_eff=0.8, p=p, quant_eff=0.5, **args))

    base = time(m, n, k) * (1 - 1e-12)
    assert all(
        t >= base for t in (time(m + grow, n, k), time(m, n + grow, k), time(m, n, k + grow))
    )


@given(size=st.integers(1, 10**9), gpus=st.integers(2, 16), grow=st.integers(1, 10**6))
def test_all_reduce_time_never_falls_with_bytes_or_ranks(size: int, gpus: int, grow: int) -> None:
    base = float(forms.all_reduce_s(size, gpus, **REDUCE)) * (1 - 1e-12)
    assert forms.all_reduce_s(size + grow, gpus, **REDUCE) >= base
    assert forms.all_reduce_s(size, gpus + 1, **REDUCE) >= base


def test_large_gemms_reach_their_sustained_share_of_the_peak() -> None:
    assert forms.sustained_share([1, 256, 512, 1024, 9999], 0.6) == pytest.approx(
        [1.0, 1.0, 0.8, 0.6, 0.6]
    )
    unit = {**UNIT, "bandwidth": 1e30, "t0_s": 0.0}
    benchmarked = forms.gemm_s(4096, 7, 3, p=4.0, **unit)
    assert forms.gemm_s(4096, 7, 3, p=4.0, sustained=0.5, **unit) == pytest.approx(2 * benchmarked)

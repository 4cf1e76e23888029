"""What is measured: sizes spread as they should, within what a device can hold."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from calibration import shapes
from calibration.case import BYTES_OF, OPERATORS, Case, work
from calibration.device import CpuDevice
from calibration.plan import cases, chosen_operators
from calibration.shapes import Limits
from simulator.errors import InputError
from tests.calibration_kit import H100, SMALL


def test_gemm_shapes_are_many_weights_and_log_uniform_rows() -> None:
    found = [dict(shape) for shape in shapes.gemm_shapes(Limits.of(H100), 48)]
    assert len(found) == 48
    assert len({(s["n"], s["k"]) for s in found}) == 48
    m = [s["m"] for s in found]
    assert min(m) < 4
    assert 5000 < max(m) <= 8192
    crowded = sum(64 < value < 512 for value in m)
    assert 18 <= crowded <= 26  # 16 of their own and a share of the others
    for low, high in pairwise((1, 8, 64, 512, 4096)):
        assert sum(low <= value <= high for value in m) >= 6
    weights = [2 * s["n"] * s["k"] for s in found]
    assert 7e6 < min(weights) < 2e7
    assert 4e8 < max(weights) <= 1.05e9
    assert all(s["n"] % 128 == 0 and s["k"] % 128 == 0 for s in found)
    assert all(1 / 8 < s["n"] / s["k"] < 8 for s in found)


def test_decode_shapes_avoid_half_cached_caches() -> None:
    found = [
        Case("attn_decode", "k", "bfloat16", s) for s in shapes.decode_shapes(Limits.of(H100), 20)
    ]
    kv = [
        4 * s["batch"] * s["kv_len"] * s["n_kv_heads"] * s["head_dim"]
        for s in (c.sizes for c in found)
    ]
    small = [size for size in kv if size < 2e6]
    assert len(small) == 4
    assert all(size > 1.4 * H100.cache_bytes for size in kv if size not in small)
    assert len({(c.sizes["n_heads"], c.sizes["n_kv_heads"]) for c in found}) >= 2
    tiles = [c.sizes["batch"] * c.sizes["n_kv_heads"] for c in found]
    assert sum(n > 1000 and size < 4 * 75e6 for n, size in zip(tiles, kv, strict=True)) >= 4


def test_prefill_shapes_have_one_and_many_prompts_of_all_lengths() -> None:
    found = [dict(s) for s in shapes.prefill_shapes(Limits.of(H100), 12)]
    assert len(found) == 12
    assert {s["batch"] for s in found} == {1, 8}
    assert min(s["isl"] for s in found) == 128
    assert max(s["isl"] for s in found) == 16384
    assert len({(s["n_heads"], s["n_kv_heads"], s["head_dim"]) for s in found}) == 3


@pytest.mark.parametrize("machine", [H100, SMALL], ids=lambda m: m.gpu)
@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_no_shape_asks_for_more_than_a_third_of_the_memory(machine, quick) -> None:  # type: ignore[no-untyped-def]
    limits = Limits.of(machine, quick=quick)
    made = {
        "gemm": shapes.gemm_shapes(limits, 48),
        "attn_decode": shapes.decode_shapes(limits, 20),
        "attn_prefill": shapes.prefill_shapes(limits, 12),
        "moe": shapes.moe_shapes(limits, 16),
    }
    for operator, found in made.items():
        for shape in found:
            case = Case(operator, "k", "bfloat16", shape)
            assert work(case).held_bytes < machine.memory_bytes / 3, case
            assert work(case).flops < 10 * limits.flops, case


def test_routed_tokens_touch_few_experts_or_all() -> None:
    one = Case(
        "moe",
        "k",
        "bfloat16",
        (("tokens", 1), ("hidden", 8), ("width", 4), ("topk", 2), ("experts", 8)),
    )
    many = dataclasses.replace(one, shape=(("tokens", 9999), *one.shape[1:]))
    weights = 3 * 8 * 4 * 2
    assert work(one).bytes == pytest.approx(2 * weights + 4 * 2 * 8)
    assert work(many).bytes == pytest.approx(8 * weights + 4 * 2 * 9999 * 8)
    assert work(one).flops == 6 * 2 * 8 * 4


def test_work_of_a_gemm_and_of_attention() -> None:
    gemm = work(Case("gemm", "k", "fp8", (("m", 3), ("n", 5), ("k", 7))))
    assert (gemm.flops, gemm.bytes) == (2 * 3 * 5 * 7, 35 + 21 + 2 * 15)
    heads = (("n_heads", 8), ("n_kv_heads", 2), ("head_dim", 64))
    decode = work(Case("attn_decode", "k", "bfloat16", (("batch", 3), ("kv_len", 100), *heads)))
    assert decode.bytes == 2 * 3 * 100 * 2 * 64 * 2 + 2 * 3 * 8 * 64 * 2
    prefill = work(Case("attn_prefill", "k", "bfloat16", (("batch", 2), ("isl", 100), *heads)))
    assert prefill.flops == 2 * 2 * 100**2 * 8 * 64


@pytest.fixture(scope="module")
def cpu() -> CpuDevice:
    torch = pytest.importorskip("torch")
    return CpuDevice(torch)


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "full"])
def test_plan_has_every_operator_early_and_every_case_once(cpu: CpuDevice, quick: bool) -> None:
    found = cases(cpu, OPERATORS, quick=quick)
    keys = [case.key for case in found]
    assert len(set(keys)) == len(keys)
    assert {case.operator for case in found} == set(OPERATORS)
    assert {case.operator for case in found[:8]} == set(OPERATORS)
    assert keys == [case.key for case in cases(cpu, OPERATORS, quick=quick)]
    assert all(case.dtype in BYTES_OF for case in found)
    assert (len(found) < 70) == quick


def test_chosen_operators() -> None:
    assert chosen_operators(None) == OPERATORS
    assert chosen_operators("copy, GEMM") == ("gemm", "copy")
    with pytest.raises(InputError, match="'gem' is unknown; did you mean 'gemm'"):
        chosen_operators("gem,copy")
    with pytest.raises(InputError, match="--operators is empty"):
        chosen_operators(" ,")

"""Data sheets against independent arithmetic: dense peaks, capacities, power, units and sources."""

from __future__ import annotations

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwprofiles import gpu_names, load_gpu, load_prices, schema
from simulator.errors import ProfileError
from simulator.units import MIB

GPUS = gpu_names()
MEMORY_MIB = {
    "h100_sxm": 81_559,
    "h100_pcie": 81_559,
    "h100_nvl": 95_830,
    "h200_sxm": 143_771,
    "h20": 97_871,
    "gh200": 97_871,
    "a100_sxm_80gb": 81_920,
    "a100_pcie_80gb": 81_920,
    "a100_sxm_40gb": 40_960,
    "a10g": 23_028,
    "l4": 23_034,
    "l40": 46_068,
    "l40s": 46_068,
    "rtx_4090": 24_564,
    "rtx_5090": 32_607,
    "rtx_pro_6000": 97_887,
    "b200": 183_359,
    "b300": 275_040,
    "gb200_nvl72": 189_471,
    "mi300x": 192 * 1024 - 16,
    "mi325x": 256 * 1024 - 16,
    "mi355x": 288 * 1024 - 16,
}

# FLOP of one multiprocessor (or compute unit) in one clock, dense bf16 with fp32 accumulation, and
# the clock [Hz] of the printed peak. Architecture white papers: four tensor cores of 512 (Hopper),
# 256 (GA100), 128 (Ada and GA102 professional; half of it on GeForce, A10G and L40, which cut fp32
# accumulation) and 1024 (GB100) fused multiply-adds; four matrix cores of 256 (CDNA 3) and 512
# (CDNA 4). A sparse peak would come out twice as large.
HOPPER, GA100, ADA, GA102, GB100 = 4096, 2048, 1024, 512, 8192
TENSOR = {
    "h100_sxm": (HOPPER, 1.83e9),
    "h200_sxm": (HOPPER, 1.83e9),
    "gh200": (HOPPER, 1.83e9),
    "h100_pcie": (HOPPER, 1.62e9),
    "h100_nvl": (HOPPER, 1.545e9),
    "h20": (1024, 1.85e9),  # issue rate of the tensor cores cut to a quarter
    "a100_sxm_80gb": (GA100, 1.41e9),
    "a100_pcie_80gb": (GA100, 1.41e9),
    "a100_sxm_40gb": (GA100, 1.41e9),
    "a10g": (GA102, 1.71e9),
    "l4": (ADA, 2.04e9),
    "l40": (GA102, 2.49e9),
    "l40s": (ADA, 2.52e9),
    "rtx_4090": (GA102, 2.52e9),
    "rtx_5090": (GA102, 2.407e9),
    "rtx_pro_6000": (ADA, 2.43e9),
    "b200": (GB100, 1.86e9),
    "b300": (GB100, 1.86e9),
    "gb200_nvl72": (GB100, 2.01e9),
    "mi300x": (2048, 2.1e9),
    "mi325x": (2048, 2.1e9),
    "mi355x": (4096, 2.4e9),
}

# Dense bf16 [TFLOP/s] as the vendors' data sheets print it, or half of what they print with sparsity.
DENSE_BF16 = {
    "h100_sxm": 1979 / 2,
    "h200_sxm": 1979 / 2,
    "gh200": 1979 / 2,
    "h100_pcie": 1513 / 2,
    "h100_nvl": 1671 / 2,
    "h20": 148,
    "a100_sxm_80gb": 312,
    "a100_pcie_80gb": 312,
    "a100_sxm_40gb": 312,
    "a10g": 70,
    "l4": 242 / 2,
    "l40": 181.05,
    "l40s": 362.05,
    "rtx_4090": 165.2,
    "rtx_5090": 209.5,
    "rtx_pro_6000": 467.8,
    "b200": 36e3 / 8 / 2,
    "b300": 36e3 / 8 / 2,
    "gb200_nvl72": 360e3 / 72 / 2,
    "mi300x": 1307.4,
    "mi325x": 1307.4,
    "mi355x": 2516.6,
}

# Peaks that are not twice bf16 (int8) or twice fp8 (fp4), and what they are times.
INT8_RATIO = {"rtx_4090": 4.0, "rtx_5090": 4.0, "b300": 153.5 / 2250}
FP4_RATIO = {"b300": 3.0, "rtx_5090": 4.0}
NO_FP8 = ["a100_pcie_80gb", "a100_sxm_40gb", "a100_sxm_80gb", "a10g"]
FP4 = ["b200", "b300", "gb200_nvl72", "mi355x", "rtx_5090", "rtx_pro_6000"]


@pytest.mark.parametrize("name", GPUS)
def test_memory_is_what_the_driver_reports(name: str) -> None:
    assert load_gpu(name).memory_bytes.value == MEMORY_MIB[name] * MIB


@pytest.mark.parametrize("name", GPUS)
def test_the_bf16_peak_is_dense(name: str) -> None:
    gpu = load_gpu(name)
    per_clock, hz = TENSOR[name]
    assert gpu.bf16_flops.value == pytest.approx(gpu.sms.value * per_clock * hz, rel=0.02)
    assert gpu.bf16_flops.value == pytest.approx(DENSE_BF16[name] * 1e12, rel=0.002)


@pytest.mark.parametrize("name", GPUS)
def test_narrow_peaks_are_the_known_multiples_of_the_bf16_peak(name: str) -> None:
    gpu = load_gpu(name)
    assert gpu.int8_ops is not None
    ratio = gpu.int8_ops.value / gpu.bf16_flops.value
    assert ratio == pytest.approx(INT8_RATIO.get(name, 2.0), rel=0.02)
    if gpu.fp8_flops is not None:
        assert gpu.fp8_flops.value == pytest.approx(2 * gpu.bf16_flops.value, rel=0.02)
    if gpu.fp4_flops is not None:
        assert gpu.fp8_flops is not None
        ratio = gpu.fp4_flops.value / gpu.fp8_flops.value
        assert ratio == pytest.approx(FP4_RATIO.get(name, 2.0), rel=0.02)


def test_who_has_fp8_and_fp4_units() -> None:
    assert [name for name in GPUS if not load_gpu(name).has_fp8] == NO_FP8
    assert [name for name in GPUS if load_gpu(name).has_fp4] == FP4
    with pytest.raises(ProfileError, match="compute type 'fp8' has no peak"):
        load_gpu("a100").peak_flops("fp8")
    assert load_gpu("b200").peak_flops("fp4") == 9e15
    assert load_gpu("a100").peak_flops("int8") == 624e12


@pytest.mark.parametrize("name", GPUS)
def test_data_sheet_fields_are_sourced_and_name_where_to_look(name: str) -> None:
    gpu = load_gpu(name)
    for field in schema.GPU:
        param = getattr(gpu, field.name)
        if param is None:
            assert not field.required
            continue
        assert param.unit == field.unit
        assert param.source.kind in {"datasheet", "measured", "assumed"}, field.name
    for field_name in ("memory_bytes_per_s", "bf16_flops"):
        source = getattr(gpu, field_name).source
        assert source.kind == "datasheet"
        assert "https://" in source.text or "aiconfigurator" in source.text


@pytest.mark.parametrize("name", GPUS)
def test_power_is_ordered_and_within_the_limit(name: str) -> None:
    gpu = load_gpu(name)
    assert gpu.idle_w is not None
    assert gpu.memory_bound_w is not None
    assert gpu.compute_bound_w is not None
    idle, memory, compute = gpu.idle_w.value, gpu.memory_bound_w.value, gpu.compute_bound_w.value
    assert 0.05 * gpu.tdp_w.value < idle < memory < compute <= gpu.tdp_w.value


def test_every_gpu_has_an_example_price_that_says_it_is_one() -> None:
    book = load_prices()
    assert "example" in book.note
    assert "illustrative" in book.note
    assert all(0.1 < book.usd_per_gpu_hour(name) < 20 for name in GPUS)


def test_the_nvl72_is_one_domain_and_a_lone_superchip_a_node() -> None:
    assert load_gpu("gb200").gpus_per_node.value == 72
    assert load_gpu("gh200").gpus_per_node.value == 1


# ------------------------------------------------------------------------------- refusals


def changed(tmp_path: Path, gpu: str, edits: dict[str, Any]) -> Path:
    """A bundled file with data-sheet fields replaced, or removed with ``...``."""
    text = files("hwprofiles").joinpath("gpus", f"{gpu}.yaml").read_text(encoding="utf-8")
    data = copy.deepcopy(yaml.safe_load(text))
    for path, value in edits.items():
        *parents, last = path.split(".")
        place = data
        for key in parents:
            place = place[key]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.mark.parametrize("field", [f.name for f in schema.GPU if f.name != "fp4_flops"])
@pytest.mark.parametrize("part", ["unit", "source"])
def test_a_field_without_unit_or_source_is_refused(tmp_path: Path, field: str, part: str) -> None:
    file = changed(tmp_path, "h100_sxm", {f"gpu.{field}.{part}": ...})
    with pytest.raises(ProfileError, match=rf"gpu\.{field}: key '{part}' is missing"):
        load_gpu(file)


def test_sparse_fp8_is_refused(tmp_path: Path) -> None:
    file = changed(tmp_path, "h100_sxm", {"gpu.fp8_flops.value": 3958e12})
    with pytest.raises(
        ProfileError, match=r"fp8_flops\.value: found 4 times gpu\.bf16_flops; allo"
    ):
        load_gpu(file)


@pytest.mark.parametrize("name", GPUS)
def test_a_sparse_bf16_peak_would_not_pass(name: str) -> None:
    sparse = 2 * load_gpu(name).bf16_flops.value
    per_clock, hz = TENSOR[name]
    assert sparse != pytest.approx(load_gpu(name).sms.value * per_clock * hz, rel=0.5)


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"gpu.idle_w": ...}, "gpu: key 'idle_w' is missing; give all of idle_w, memory_bound_w"),
        ({"gpu.idle_w.value": 400}, "found 400, 350 and 700 W for idle_w, memory_bound_w"),
        (
            {"gpu.compute_bound_w.value": 900},
            "found 115, 350 and 900 W .* up to the tdp_w of 700 W",
        ),
    ],
)
def test_power_that_makes_no_sense_is_refused(
    tmp_path: Path, edits: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ProfileError, match=sentence):
        load_gpu(changed(tmp_path, "h100_sxm", edits))


def test_a_profile_may_leave_power_out(tmp_path: Path) -> None:
    gone = {f"gpu.{name}": ... for name in ("idle_w", "memory_bound_w", "compute_bound_w")}
    assert load_gpu(changed(tmp_path, "h100_sxm", gone)).idle_w is None

"""A GPU nobody has measured runs with another's efficiencies on its own data sheet, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hwprofiles import NvlinkAllReduce, as_borrower, gpu_names, load_gpu
from hwprofiles.borrow import ERRORS
from simulator.errors import ProfileError
from simulator.model import load_model
from simulator.perf.step import Parallel, StepModel

BORROWERS = [name for name in gpu_names() if not load_gpu(name).calibrated]
SHEET_OF_H100: dict[str, tuple[float, str]] = {
    "memory_bytes": (80e9, "bytes"),
    "memory_bytes_per_s": (3.35e12, "bytes/s"),
    "l2_bytes": (50e6, "bytes"),
    "sms": (132, "1"),
    "bf16_flops": (989e12, "FLOP/s"),
    "fp8_flops": (1979e12, "FLOP/s"),
    "nvlink_bytes_per_s": (450e9, "bytes/s"),
    "pcie_bytes_per_s": (64e9, "bytes/s"),
    "nic_bytes_per_s": (50e9, "bytes/s"),
    "gpus_per_node": (8, "1"),
    "tdp_w": (700, "W"),
}


def borrower(
    tmp_path: Path, sheet: dict[str, tuple[float, str]], kernels: dict[str, Any], name: str = "mine"
) -> Path:
    source = {"kind": "assumed", "text": "a made-up data sheet"}
    data = {
        "schema": 1,
        "name": name,
        "description": "a GPU",
        "gpu": {key: {"value": v, "unit": u, "source": source} for key, (v, u) in sheet.items()},
        "kernels": kernels,
    }
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def values(gpu: str | Path) -> dict[str, float]:
    found = load_gpu(gpu).parameters()
    return {k: p.value for k, p in found if k.startswith("kernels") and not k.endswith("error")}


def test_the_same_data_sheet_gives_the_same_kernels_and_the_same_times(tmp_path: Path) -> None:
    file = borrower(tmp_path, SHEET_OF_H100, {"borrow": "h100"})
    assert values(file) == values("h100_sxm")
    mine, theirs = (
        StepModel(load_model("llama-3.1-8b"), load_gpu(g), Parallel(tp=2)) for g in (file, "h100")
    )
    assert float(mine.decode_s(32, 65536)) == float(theirs.decode_s(32, 65536))


def test_decode_at_the_roofline_scales_with_the_borrowers_bandwidth(tmp_path: Path) -> None:
    twice = SHEET_OF_H100 | {"memory_bytes_per_s": (6.7e12, "bytes/s")}
    model = load_model("llama-3.1-8b")
    mine = StepModel(model, load_gpu(borrower(tmp_path, twice, {"borrow": "h100"})))
    theirs = StepModel(model, load_gpu("h100"))

    def slope(step: StepModel) -> float:
        return float(step.decode_s(8, 2_000_000) - step.decode_s(8, 1_000_000))

    assert slope(theirs) == pytest.approx(2 * slope(mine), rel=1e-9)


def test_a_calibrated_gpu_can_be_modelled_as_if_nobody_had_measured_it() -> None:
    h100, h200, l40s = (load_gpu(name) for name in ("h100", "h200", "l40s"))
    own = as_borrower(h100, h100)
    mine = {k: p.value for k, p in own.parameters() if not k.endswith("error")}
    assert mine == {k: p.value for k, p in h100.parameters() if not k.endswith("error")}
    assert own.borrowed_from == "h100_sxm"
    blind = as_borrower(h100, h200)
    assert blind.memory_bytes == h100.memory_bytes
    assert blind.family().gemm[0][1].t0_s.value == h200.family().gemm[0][1].t0_s.value
    # another fabric: the GPU keeps its own all-reduce
    assert as_borrower(l40s, h100).family().all_reduce == l40s.family().all_reduce


@pytest.mark.parametrize("name", ["h100_sxm", "h200_sxm", "a100_sxm_80gb", "l40s"])
def test_borrowing_between_calibrated_gpus_costs_about_what_reports_say(name: str) -> None:
    # A decode step is mostly GEMMs read from memory, so their 6-20 % and some room bound it.
    gpu = load_gpu(name)
    model = load_model("llama-3.1-8b")
    truth = float(StepModel(model, gpu).decode_s(32, 32 * 2048))
    for lender in ("h100_sxm", "h200_sxm", "a100_sxm_80gb", "l40s"):
        guess = float(StepModel(model, as_borrower(gpu, load_gpu(lender))).decode_s(32, 32 * 2048))
        assert guess == pytest.approx(truth, rel=1.5 * ERRORS["gemm"][1])


@pytest.mark.parametrize("name", BORROWERS)
def test_every_kernel_parameter_says_whose_it_is(name: str) -> None:
    gpu = load_gpu(name)
    assert gpu.borrowed_from is not None
    for path, param in gpu.parameters():
        if not path.startswith("kernels"):
            continue
        assert param.stderr is None, path
        if param.source.kind == "borrowed":
            assert "from " in param.source.text
        else:  # an error widened, or an all-reduce the profile gives itself
            assert param.source.kind == "assumed", path
            assert path.endswith(".error") or "all_reduce" in path


@pytest.mark.parametrize("name", BORROWERS)
def test_the_error_of_a_borrower_is_at_least_what_borrowing_cost(name: str) -> None:
    family = load_gpu(name).family()
    for operator, (_, worst) in ERRORS.items():
        for _, params in getattr(family, operator):
            assert params.error.value >= worst


@pytest.mark.parametrize("name", BORROWERS)
def test_the_caution_names_lender_and_errors(name: str) -> None:
    gpu = load_gpu(name)
    assert gpu.caution is not None
    assert f"{name} is not calibrated" in gpu.caution
    assert str(gpu.borrowed_from) in gpu.caution
    assert "11-61 % for prefill attention" in gpu.caution
    assert load_gpu("h100").caution is None


@pytest.mark.parametrize("name", BORROWERS)
def test_a_step_can_be_timed_on_every_gpu_at_every_size_of_its_node(name: str) -> None:
    gpu = load_gpu(name)
    for tp in (1, 2, 4, 8):
        if tp <= gpu.gpus_per_node.value:
            assert (
                0
                < float(
                    StepModel(load_model("llama-3.1-8b"), gpu, Parallel(tp=tp)).decode_s(8, 8000)
                )
                < 1
            )


def test_units_decide_which_compute_types_are_borrowed() -> None:
    assert dict(load_gpu("a10g").family().gemm).keys() == {"bf16"}
    assert dict(load_gpu("l40").family().gemm).keys() == {"bf16", "fp8"}
    gemm = dict(load_gpu("b200").family().gemm)
    assert gemm["fp4"].compute_eff.value == gemm["fp8"].compute_eff.value
    assert "stand for fp4" in gemm["fp4"].compute_eff.source.text


def test_a_bus_scales_with_pcie_and_keeps_its_fixed_cost() -> None:
    lender, mine = load_gpu("l40s").family().all_reduce, load_gpu("h100_pcie").family().all_reduce
    assert isinstance(lender, tuple)
    assert isinstance(mine, tuple)
    for theirs, ours in zip(lender, mine, strict=True):
        assert ours.gpus == theirs.gpus
        assert ours.alpha_s.value == theirs.alpha_s.value
        assert ours.bus_bytes_per_s.value == 2 * theirs.bus_bytes_per_s.value
        assert "times 2 for its PCIe" in ours.bus_bytes_per_s.source.text
        assert ours.error is None


def test_an_efficiency_above_one_shrinks_with_the_l2() -> None:
    # L40S: 1.36 with 96 MB; the 4090 has 72 MB, the L40 all of it.
    theirs = load_gpu("l40s").family().prefill_attention[0][1].memory_eff.value
    eff = load_gpu("rtx_4090").family().prefill_attention[0][1].memory_eff.value
    assert eff == pytest.approx(1 + (theirs - 1) * 72 / 96)
    assert load_gpu("l40").family().prefill_attention[0][1].memory_eff.value == theirs


def test_amd_reaches_less_and_links_every_pair() -> None:
    lender, gpu = load_gpu("h200_sxm").family(), load_gpu("mi300x").family()
    ours, theirs = dict(gpu.gemm)["bf16"], dict(lender.gemm)["bf16"]
    assert ours.compute_eff.value == pytest.approx(0.65 * theirs.compute_eff.value)
    assert "times 0.65" in ours.compute_eff.source.text
    bus = gpu.all_reduce
    assert isinstance(bus, tuple)
    for entry in bus:
        assert entry.bus_bytes_per_s.value == pytest.approx(
            (entry.gpus - 1) * 64e9 * 0.73, rel=1e-3
        )


def test_nvlink_fractions_meet_the_borrowers_nvlink() -> None:
    for name in ("b200", "gb200_nvl72", "h20", "a100_sxm_40gb"):
        assert isinstance(load_gpu(name).family().all_reduce, NvlinkAllReduce)


NO_NVLINK = {k: v for k, v in SHEET_OF_H100.items() if k != "nvlink_bytes_per_s"}


@pytest.mark.parametrize(
    ("sheet", "kernels", "sentence"),
    [
        (
            SHEET_OF_H100,
            {"borrow": "h101"},
            r"kernels\.borrow: GPU 'h101' is unknown; did you mean",
        ),
        (
            SHEET_OF_H100,
            {"borrow": "b200"},
            r"kernels\.borrow: b200 is not calibrated itself; allo",
        ),
        (SHEET_OF_H100, {"borow": "h100"}, r"kernels\.borow: found 'h100'; allowed: a mapping"),
        (SHEET_OF_H100, {"borrow": "h100", "vllm": {}}, "kernels: key 'vllm' is unknown"),
        (NO_NVLINK, {"borrow": "h100"}, "kernels: h100_sxm has another fabric than mine; allowed"),
        (SHEET_OF_H100, {"borrow": "l40s"}, "kernels: l40s has another fabric than mine"),
        (
            SHEET_OF_H100,
            {"borrow": "h100", "scale": {"gemm.compute_ef": {}}},
            r"kernels\.scale: key 'gemm\.compute_ef' is unknown; did you mean 'gemm\.compute_eff'",
        ),
    ],
)
def test_bad_borrowing_is_refused(
    tmp_path: Path, sheet: dict[str, tuple[float, str]], kernels: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ProfileError, match=sentence) as refusal:
        load_gpu(borrower(tmp_path, sheet, kernels))
    assert str(refusal.value).startswith(str(tmp_path))


def test_a_file_may_lend_but_not_in_a_circle(tmp_path: Path) -> None:
    data = yaml.safe_load(
        (Path(__file__).parents[1] / "hwprofiles/gpus/l40s.yaml").read_text(encoding="utf-8")
    )
    data["name"] = "calibrated_here"
    lender = tmp_path / "lender.yaml"
    lender.write_text(yaml.safe_dump(data))
    file = borrower(tmp_path, NO_NVLINK, {"borrow": str(lender)})
    assert load_gpu(file).borrowed_from == "calibrated_here"
    circle = tmp_path / "circle.yaml"
    circle.write_text(borrower(tmp_path, NO_NVLINK, {"borrow": str(circle)}).read_text())
    with pytest.raises(ProfileError, match="cannot lend; allowed: a calibrated GPU"):
        load_gpu(circle)

"""The bundled profiles are what the bundled measurements say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import hwprofiles
from calibration.refit import Fits, refit
from hwprofiles import load_gpu
from simulator.errors import InputError
from simulator.perf.fits import Sheet, Split
from simulator.perf.fits.attention import DECODE, PREFILL
from simulator.perf.fits.bundled import PROFILES, TABLES, jobs, measurements
from simulator.perf.fits.gemm import GEMM
from simulator.perf.fits.kernel import HELD_OUT, values_of
from simulator.perf.fits.mla import MLA_DECODE, MLA_PREFILL
from simulator.perf.fits.moe import MOE

FOLDER = Path(hwprofiles.__file__).parent / "gpus"

BARS = {
    ("h100_sxm", "gemm", "bf16"): 0.07, ("h200_sxm", "gemm", "bf16"): 0.07,
    ("a100_sxm", "gemm", "bf16"): 0.07, ("l40s", "gemm", "bf16"): 0.09,
    ("h100_sxm", "gemm", "fp8"): 0.12, ("h200_sxm", "gemm", "fp8"): 0.12,
    ("l40s", "gemm", "fp8"): 0.12,
    ("h100_sxm", "decode_attention", "bf16"): 0.04, ("h200_sxm", "decode_attention", "bf16"): 0.04,
    ("a100_sxm", "decode_attention", "bf16"): 0.045, ("l40s", "decode_attention", "bf16"): 0.055,
    ("h100_sxm", "prefill_attention", "bf16"): 0.07, ("h200_sxm", "prefill_attention", "bf16"): 0.07,
    ("a100_sxm", "prefill_attention", "bf16"): 0.06, ("l40s", "prefill_attention", "bf16"): 0.07,
    ("h100_sxm", "moe", "bf16"): 0.15, ("h100_sxm", "moe", "fp8_block"): 0.15,
    ("h200_sxm", "moe", "bf16"): 0.15, ("h200_sxm", "moe", "fp8_block"): 0.15,
}  # fmt: skip
"""Mean error on groups never fitted that the vLLM kernels of a profile must hold."""


@pytest.mark.parametrize(
    ("name", "operator"), [("a100_sxm", "prefill_attention"), ("l40s", "gemm")]
)
def test_a_refit_from_the_bundled_rows_gives_the_profile(name: str, operator: str) -> None:
    for (family, _, key), (_, found) in Fits.of(name, only=[operator]).found.items():
        params = dict(getattr(load_gpu(PROFILES[name]).family(family), operator))[key]
        held = values_of(params)
        for p in found.parameters:
            allowed = max(3e-4 * abs(p.value), 0.05 * (p.stderr or 0.0), 1e-12)
            assert held[p.name] == pytest.approx(p.value, abs=allowed), (family, key, p.name)
        assert {p[:2]: p[2] for p in params.correlations} == pytest.approx(
            {p[:2]: p[2] for p in found.correlations}, abs=0.02
        )
        assert held["error"] == pytest.approx(found.held_out.mape, rel=0.01)


@pytest.mark.parametrize(("where", "bar"), BARS.items())
def test_errors_on_rows_never_fitted_stay_below_their_bars(
    where: tuple[str, str, str], bar: float
) -> None:
    name, operator, key = where
    params = dict(getattr(load_gpu(PROFILES[name]).family("vllm"), operator))[key]
    assert params.error.value <= bar


@pytest.mark.slow
@pytest.mark.parametrize("name", PROFILES)
def test_the_whole_file_is_reproducible(name: str) -> None:
    file = FOLDER / f"{PROFILES[name]}.yaml"
    before, after = file.read_text().split(), refit(name, file).split()
    assert len(before) == len(after)
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert same > 0.97 * len(before)  # last digits of flat directions differ between machines


@pytest.mark.parametrize("name", PROFILES)
def test_every_table_is_there_and_says_what_was_fitted(name: str) -> None:
    for table in TABLES[:5]:
        rows = measurements(name, table)
        assert len(rows) > 50
        assert (rows["latency_us"] > 0).all()
        assert set(rows["part"]) <= {"fit", "held", "other"}
        assert {"fit", "held"} <= set(rows["part"])


@pytest.mark.parametrize("name", PROFILES)
def test_the_part_of_a_row_is_what_the_fit_does_with_it(name: str) -> None:
    gpu = load_gpu(PROFILES[name])
    kernels = {
        "gemm": GEMM, "decode_attention": DECODE, "prefill_attention": PREFILL, "moe": MOE,
        "mla_decode": MLA_DECODE, "mla_prefill": MLA_PREFILL,
    }  # fmt: skip
    for job in jobs(name, gpu):
        if job.operator not in kernels:
            continue
        kernel = kernels[job.operator]
        usable = job.rows[kernel.usable(job.rows, Sheet.of(gpu, job.compute))]
        split = Split.by_hash(usable, kernel.keys, HELD_OUT)
        assert set(split.train["part"]) == {"fit"}
        assert set(split.held_out["part"]) <= {"held"}


def test_the_origin_is_named_and_an_unknown_table_refused() -> None:
    page = (FOLDER.parent / "measurements" / "README.md").read_text()
    assert "aiconfigurator-core` 0.12.0 (Apache-2.0" in page
    with pytest.raises(InputError, match="table 'gem' is unknown; did you mean 'gemm'"):
        measurements("l40s", "gem")
    with pytest.raises(InputError, match="GPU 'l4' is unknown; did you mean 'l40s'"):
        measurements("l4", "gemm")

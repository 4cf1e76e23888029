"""Experts and latent attention in ``xpyd validate``: predicted as fitted, refused where unknown."""

from __future__ import annotations

import numpy as np
import pytest

from hwprofiles import load_gpu
from simulator.perf.fits.bundled import PROFILES, measurements
from simulator.validation.operators import mixtures
from simulator.validation.operators.predict import predict
from simulator.validation.operators.tables import bundled_tables


def test_every_bundled_row_has_a_prediction_or_a_reason() -> None:
    for table in bundled_tables():
        found = predict(table)
        assert len(found) == len(table.frame)
        assert (found["predicted_us"].notna() | (found["note"] != "")).all(), table.stem


@pytest.mark.parametrize("name", PROFILES)
def test_the_region_scored_is_the_region_fitted(name: str) -> None:
    for table in bundled_tables():
        if table.gpu.name != PROFILES[name] or table.operator == "comm":
            continue
        found = predict(table)
        assert ((found["region"] == "cold") == (found["part"] != "other")).all(), table.stem


def test_experts_by_hand() -> None:
    # One row of 2 experts visited, on a sheet of 1 FLOP/s and 1 byte/s: nothing but the weights and
    # the arithmetic, joined by a sharp corner.
    rows = measurements("h100_sxm", "moe").head(1).assign(
        tokens=2, hidden=10, width=5, topk=1, experts=2, ep=1, balanced=True, dtype="bfloat16"
    )  # fmt: skip
    gpu = load_gpu("h100")
    weights = 2 * 3 * 10 * 5 * 2
    found = mixtures.naive("moe", rows, gpu, "bfloat16")
    assert found[0] == pytest.approx(weights / gpu.memory_bytes_per_s.value, rel=1e-3)


def test_a_family_without_experts_says_so() -> None:
    rows = measurements("a100_sxm", "moe").head(3)
    time, why = mixtures.times("moe", rows, load_gpu("a100"), load_gpu("a100").family(), "bfloat16")
    assert np.isnan(time).all()
    assert why == "no moe parameters in bf16 for vllm"

"""A planning question that is small enough to answer in a second or two."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.planner import Inventory, Space, sizes
from simulator.scenario import SLO, Scenario

SPACE = Space(max_num_seqs=(8,), max_num_batched_tokens=(4096,), tps=(1,), most_instances=3)
TARGETS = SLO(ttft_s=0.15, tpot_s=0.03, attainment=0.9)


def tiny(rate_rps: float = 60.0, **changes: Any) -> Scenario:
    """Short chats with an 8B model on single H100s whose decode steps hold 8 sequences."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "model": "llama-3.1-8b",
        "workload": {
            "rate_rps": rate_rps,
            "requests": 2000,
            "prompt_tokens": {"dist": "lognormal", "mean": 128, "cv": 0.5, "max": 1024},
            "output_tokens": {"dist": "lognormal", "mean": 24, "cv": 0.7, "max": 128},
        },
        "pools": {"prefill": {"gpu": "h100_sxm"}, "decode": {"gpu": "h100_sxm"}},
        "link": "ib_ndr",
    }
    return Scenario.from_dict({**raw, **changes})


def two_types(**constraints: Any) -> Inventory:
    """H100s and cheaper, slower A100s."""
    return Inventory.from_dict(
        {
            "name": "two types",
            "gpus": {
                "h100_sxm": {"count": 6, "price": {"on_demand": 2.8}},
                "a100_sxm_80gb": {"count": 6, "price": {"on_demand": 1.6}},
            },
            "constraints": constraints,
        }
    )


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of hundreds of requests instead of thousands."""
    monkeypatch.setattr(sizes, "COUNTED", 320)
    monkeypatch.setattr(sizes, "PROBE", 160)

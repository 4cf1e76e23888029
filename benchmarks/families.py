"""Small families of layouts, few enough to try every one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simulator import Scenario
from simulator.planner import Inventory, Space


@dataclass(frozen=True)
class Family:
    """A question whose layouts can all be tried.

    Attributes:
        name: what tables call it.
        about: what it is for, in a sentence.
        base: bundled scenario it starts from.
        overrides: what is different.
        inventory: GPU types, links and limits, as an inventory file would hold them.
        max_gpus: GPUs of a layout at most.
        seqs: decode batch limits.
    """

    name: str
    about: str
    base: str
    overrides: tuple[str, ...]
    inventory: dict[str, Any]
    max_gpus: int
    seqs: tuple[int, ...] = (256,)
    tokens: tuple[int, ...] = (8192,)

    @property
    def space(self) -> Space:
        """What may vary besides the inventory."""
        return Space(max_num_seqs=self.seqs, max_num_batched_tokens=self.tokens)

    def scenario(self) -> Scenario:
        """The question."""
        return Scenario.load(self.base, [f"name={self.name}", *self.overrides])

    def stock(self) -> Inventory:
        """What may be bought."""
        return Inventory.from_dict({"name": self.name, **self.inventory})


def _lengths(name: str, mean: int, most: int) -> tuple[str, str]:
    key = f"workload.{name}_tokens"
    return f"{key}.mean={mean}", f"{key}.max={most}"


FAMILIES = (
    Family(
        name="h100_8b",
        about="Llama-3.1-8B on one GPU type, TP1 and TP2: how many, and split how?",
        base="quick_8b",
        overrides=("workload.rate_rps=110", "slo.ttft_s=0.2", "slo.tpot_s=0.015"),
        inventory={"gpus": {"h100_sxm": {"tp": [1, 2]}}, "links": ["ib_ndr"]},
        max_gpus=5,
    ),
    Family(
        name="l40s_h100_8b",
        about="Llama-3.1-8B on L40S and H100: may cheap cards decode, or prefill, or do it all?",
        base="quick_8b",
        overrides=("workload.rate_rps=24", "slo.ttft_s=0.4", "slo.tpot_s=0.03"),
        inventory={"gpus": {"l40s": {"tp": [1]}, "h100_sxm": {"tp": [1]}}, "links": ["ib_ndr"]},
        max_gpus=4,
    ),
    Family(
        name="h100_a100_70b",
        about="Llama-3.1-70B on H100 and A100 at TP4: older GPUs for one of the two phases?",
        base="chat_70b_h100",
        overrides=("workload.rate_rps=15", "slo.ttft_s=0.8", "slo.tpot_s=0.06"),
        inventory={
            "gpus": {"h100_sxm": {"tp": [4]}, "a100_sxm_80gb": {"tp": [4]}},
            "links": ["ib_ndr"],
        },
        max_gpus=16,
    ),
    Family(
        name="tcp_8b",
        about="Long prompts, short answers and a slow TCP link: the KV is the traffic.",
        base="quick_8b",
        overrides=(
            "workload.rate_rps=16",
            *_lengths("prompt", 2500, 12000),
            *_lengths("output", 60, 400),
            "slo.ttft_s=0.6",
            "slo.tpot_s=0.06",
        ),
        inventory={"gpus": {"h100_sxm": {"tp": [1, 2]}}, "links": ["tcp_100g"]},
        max_gpus=5,
        seqs=(64,),
    ),
)

TINY = (
    Family(
        name="tiny_h100",
        about="One GPU type, one TP degree.",
        base="quick_8b",
        overrides=("workload.rate_rps=110", *_lengths("output", 40, 200), "slo.tpot_s=0.015"),
        inventory={"gpus": {"h100_sxm": {"tp": [1]}}, "links": ["ib_ndr"]},
        max_gpus=4,
        seqs=(128,),
    ),
    Family(
        name="tiny_tcp",
        about="Long prompts, a few tokens back, a slow link.",
        base="quick_8b",
        overrides=(
            "workload.rate_rps=24",
            *_lengths("prompt", 1500, 8000),
            *_lengths("output", 30, 150),
            "slo.ttft_s=0.5",
            "slo.tpot_s=0.06",
        ),
        inventory={"gpus": {"h100_sxm": {"tp": [1]}}, "links": ["tcp_100g"]},
        max_gpus=4,
        seqs=(64,),
    ),
)
"""Two that the default tests try."""

"""A layout: which GPUs do what. The unit a plan considers, simulates and recommends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hwprofiles import load_gpu
from simulator.model import Parallel
from simulator.scenario import SLO, Scenario
from simulator.scenario.resolve import order_of_service

Mode = Literal["disaggregated", "colocated"]

_DISAGGREGATED_ONLY = ("link", "first_token", "reserve", "transfer")


@dataclass(frozen=True, slots=True)
class Shape:
    """Identical instances.

    Attributes:
        gpu: GPU type: a bundled name, or the path of a profile.
        tp: tensor-parallel degree.
        instances: how many.
        pp: pipeline stages.
        ep: groups the routed experts are spread over.
        attention_dp: attention ranks in lock-step.
    """

    gpu: str
    tp: int
    instances: int
    pp: int = 1
    ep: int = 1
    attention_dp: int = 1

    @property
    def parallel(self) -> Parallel:
        """How an instance spreads the model over its GPUs."""
        return Parallel(self.tp, self.pp, self.ep, self.attention_dp)

    @property
    def instance_gpus(self) -> int:
        """GPUs of one instance."""
        return self.tp * self.pp * self.attention_dp

    @property
    def kind(self) -> tuple[str, int, int, int, int]:
        """Everything but the number of instances."""
        return self.gpu, self.tp, self.pp, self.ep, self.attention_dp

    def times(self, instances: int) -> Shape:
        """So many of these instances."""
        return replace(self, instances=instances)

    def to_dict(self) -> dict[str, Any]:
        """As a pool of a scenario says it; degrees that are 1 are left out, but for ``tp``."""
        more = {"pp": self.pp, "ep": self.ep, "attention_dp": self.attention_dp}
        return {
            "gpu": self.gpu,
            "tp": self.tp,
            **{name: n for name, n in more.items() if n > 1},
            "instances": self.instances,
        }

    @property
    def gpus(self) -> int:
        """GPUs of all instances."""
        return self.instance_gpus * self.instances

    @property
    def label(self) -> str:
        """``h100_sxm:TP4``, ``h200_sxm:TP8.EP8``."""
        name = Path(self.gpu).stem if Path(self.gpu).suffix else self.gpu
        return f"{name}:{self.parallel.label.replace(' ', '.')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Pools, link and batching limits; hashable, so that it can key a table.

    Attributes:
        mode: ``disaggregated`` (prefill and decode given) or ``colocated`` (colocated given).
        prefill: prefill instances.
        decode: decode instances.
        colocated: colocated instances.
        link: fabric between prefill and decode; None when colocated.
        max_num_seqs: sequences a decode (or colocated) step may hold.
        max_num_batched_tokens: new tokens a prefill (or colocated) step may compute.
    """

    mode: Mode
    prefill: Shape | None = None
    decode: Shape | None = None
    colocated: Shape | None = None
    link: str | None = None
    max_num_seqs: int
    max_num_batched_tokens: int

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Its pools: prefill and decode, or colocated."""
        return tuple(s for s in (self.prefill, self.decode, self.colocated) if s is not None)

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(shape.gpus for shape in self.shapes)

    def usd_per_hour(self, prices: Mapping[str, float]) -> float:
        """Price of all GPUs [USD/h].

        Args:
            prices: of one GPU, by GPU type as in the shapes [USD/h].
        """
        # rounded so that equal sums of prices are equal in whatever order they are added
        return round(sum(s.gpus * prices[s.gpu] for s in self.shapes), 9)

    @property
    def label(self) -> str:
        """``4P2D h100_sxm:TP4 / a100_sxm_80gb:TP4 ib_ndr``, or ``6C h100_sxm:TP4``."""
        if self.prefill is not None and self.decode is not None:
            counts = f"{self.prefill.instances}P{self.decode.instances}D"
            link = Path(str(self.link)).stem
            return f"{counts} {self.prefill.label} / {self.decode.label} {link}"
        assert self.colocated is not None
        return f"{self.colocated.instances}C {self.colocated.label}"

    @property
    def full_label(self) -> str:
        """The label and the batching limits, which together name one layout."""
        return f"{self.label} ({self.max_num_seqs} seqs, {self.max_num_batched_tokens} tokens)"

    @property
    def slug(self) -> str:
        """The same as a file name."""
        return re.sub(r"[^A-Za-z0-9.]+", "_", self.full_label).strip("_")

    @property
    def family(self) -> tuple[object, ...]:
        """Everything but the numbers of instances."""
        pools = tuple(s.kind for s in self.shapes)
        return (self.mode, pools, self.link, self.max_num_seqs, self.max_num_batched_tokens)

    @property
    def order(self) -> tuple[object, ...]:
        """A total order that depends on nothing but the layout."""
        shapes = tuple((*s.kind, s.instances) for s in self.shapes)
        knobs = (self.max_num_seqs, self.max_num_batched_tokens)
        return (self.mode, self.gpus, shapes, self.link or "", knobs)

    def scenario(
        self,
        base: Scenario,
        *,
        prices: Mapping[str, float] | None = None,
        slo: SLO | None = None,
    ) -> Scenario:
        """The layout as a scenario: workload, model and everything else of ``base``.

        Memory share, block size, NICs and prefill waiting are those of the base pool of the same
        role; what the base does not have is the default.

        Args:
            base: the scenario planned for.
            prices: of one GPU, by GPU type [USD/h]; the base's own if None.
            slo: targets; the base's own if None.

        Raises:
            ScenarioError: the layout is not possible.
        """
        raw = base.config.model_dump(mode="json", exclude_none=True)
        raw["name"] = f"{base.name} {self.label}"
        raw["pools"] = _pools(self, base)
        if self.mode == "colocated":
            for key in _DISAGGREGATED_ONLY:
                raw.pop(key, None)
            raw["routing"].pop("decode", None)
        elif raw.get("link", {}).get("name") != self.link:
            raw["link"] = {"name": self.link}
        if prices is not None:
            raw["prices"] = {load_gpu(s.gpu).name: prices[s.gpu] for s in self.shapes}
        if slo is not None:
            targets = {"ttft_s": slo.ttft_s, "tpot_s": slo.tpot_s, "attainment": slo.attainment}
            raw["slo"] = {key: value for key, value in targets.items() if value is not None}
            for name, found in raw["workload"].get("classes", {}).items():
                if name not in slo.classes:  # the targets asked for hold for all requests
                    found.pop("slo", None)
        return Scenario.from_dict(raw, source=self.label)


def _pools(layout: Layout, base: Scenario) -> dict[str, dict[str, Any]]:
    seqs, tokens = layout.max_num_seqs, layout.max_num_batched_tokens
    if layout.colocated is not None:
        kept = _inherited(base, "colocated", ("memory_fraction", "block_tokens"))
        own = {"max_num_seqs": seqs, "max_num_batched_tokens": max(tokens, seqs)}
        order = _order(base, "colocated")
        return {"colocated": {**kept, **order, **own, **layout.colocated.to_dict()}}
    assert layout.prefill is not None
    assert layout.decode is not None
    common = ("memory_fraction", "block_tokens", "nics_per_gpu")
    prefill = _inherited(base, "prefill", (*common, "max_wait_s", "max_num_seqs"))
    decode = _inherited(base, "decode", (*common, "max_num_batched_tokens"))
    if "max_num_batched_tokens" in decode:
        decode["max_num_batched_tokens"] = max(decode["max_num_batched_tokens"], seqs)
    return {
        "prefill": {**prefill, "max_num_batched_tokens": tokens, **layout.prefill.to_dict()},
        "decode": {
            **decode,
            **_order(base, "decode"),
            "max_num_seqs": seqs,
            **layout.decode.to_dict(),
        },
    }


def _order(base: Scenario, role: str) -> dict[str, Any]:
    """Order of service of the base's first pool of a role, or of the first that has one."""
    pools = [p for p in base.config.pools.values() if p.scheduler is not None]
    found = next((p for p in pools if p.role == role), pools[0] if pools else None)
    return {} if found is None else order_of_service(found)


def _inherited(base: Scenario, role: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Settings of the base's first pool of a role; of any role, only those that all pools share."""
    pools = list(base.config.pools.values())
    same = [p for p in pools if p.role == role]
    if not same:
        keys = tuple(key for key in keys if key in ("memory_fraction", "block_tokens"))
    found = (same or pools)[0].model_dump(mode="json", exclude_none=True)
    return {key: found[key] for key in keys if key in found}

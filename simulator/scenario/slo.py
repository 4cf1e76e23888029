"""Latency targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simulator.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class SLO:
    """Targets that a share of all requests must meet, each request all of them together.

    Attributes:
        ttft_s: time to first token [s], or None for no target.
        tpot_s: time per output token after the first [s], or None for no target; a request with
            one output token meets it.
        attainment: share of all requests, rejected and failed ones included [fraction].

    Raises:
        ScenarioError: no target at all, a target that is not positive and finite, or an attainment
            outside (0, 1].
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    attainment: float = 0.99

    def __post_init__(self) -> None:
        targets = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s}
        if all(target is None for target in targets.values()):
            raise ScenarioError("slo holds no target; allowed: ttft_s, tpot_s or both.")
        for name, target in targets.items():
            if target is not None and not 0 < target < math.inf:
                raise ScenarioError(f"slo.{name}: found {target}; allowed: more than 0, finite.")
        if not 0 < self.attainment <= 1:
            raise ScenarioError(
                f"slo.attainment: found {self.attainment}; allowed: more than 0, at most 1."
            )

"""Latency targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from simulator.errors import ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSLO:
    """Targets of the requests of one class.

    Attributes:
        ttft_s: time to first token [s], or None for no target.
        tpot_s: time per output token after the first [s], or None for no target.

    Raises:
        ScenarioError: no target at all, or one that is not positive and finite.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None

    def __post_init__(self) -> None:
        _check(self, "a class's slo")


@dataclass(frozen=True, slots=True, kw_only=True)
class SLO:
    """Targets that a share of all requests must meet, each request all of them together.

    Attributes:
        ttft_s: time to first token [s], or None for no target.
        tpot_s: time per output token after the first [s], or None for no target; a request with
            one output token meets it.
        attainment: share of all requests, rejected and failed ones included [fraction].
        classes: targets of request classes that have their own, in place of both above.

    Raises:
        ScenarioError: no target at all, a target that is not positive and finite, or an attainment
            outside (0, 1].
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    attainment: float = 0.99
    classes: Mapping[str, ClassSLO] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.classes:
            _check_values(self.ttft_s, self.tpot_s)
        else:
            _check(self, "slo")
        if not 0 < self.attainment <= 1:
            raise ScenarioError(
                f"slo.attainment: found {self.attainment}; allowed: more than 0, at most 1."
            )

    def of(self, name: str) -> ClassSLO | SLO:
        """The targets of a class: its own, or those of the whole."""
        return self.classes.get(name, self)

    def __hash__(self) -> int:
        return hash((self.ttft_s, self.tpot_s, self.attainment, *sorted(self.classes)))


def _check(slo: ClassSLO | SLO, name: str) -> None:
    if slo.ttft_s is None and slo.tpot_s is None:
        raise ScenarioError(f"{name} holds no target; allowed: ttft_s, tpot_s or both.")
    _check_values(slo.ttft_s, slo.tpot_s)


def _check_values(ttft_s: float | None, tpot_s: float | None) -> None:
    for name, target in {"ttft_s": ttft_s, "tpot_s": tpot_s}.items():
        if target is not None and not 0 < target < math.inf:
            raise ScenarioError(f"slo.{name}: found {target}; allowed: more than 0, finite.")

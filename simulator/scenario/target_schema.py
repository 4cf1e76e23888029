"""Latency targets of the scenario file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from simulator.scenario.values import Fraction, PositiveSeconds, Section, refuse


class ClassTargets(Section):
    """Latency targets of one request class, in place of all the scenario's."""

    ttft_s: Annotated[
        PositiveSeconds | None, Field(description="time to first token [s]; default: no target")
    ] = None
    tpot_s: Annotated[
        PositiveSeconds | None,
        Field(description="time per output token after the first [s]; default: no target"),
    ] = None

    @model_validator(mode="after")
    def _some_target(self) -> ClassTargets:
        if self.ttft_s is None and self.tpot_s is None:
            raise refuse("", "holds no target; allowed: ttft_s, tpot_s or both.")
        return self


class Targets(Section):
    """Latency targets that a share of all requests must meet together."""

    ttft_s: Annotated[
        PositiveSeconds | None, Field(description="time to first token [s]; default: no target")
    ] = None
    tpot_s: Annotated[
        PositiveSeconds | None,
        Field(description="time per output token after the first [s]; default: no target"),
    ] = None
    attainment: Annotated[
        Fraction, Field(description="share of requests that must meet every target [fraction]")
    ] = 0.99

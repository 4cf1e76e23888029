"""Length distributions of the scenario file, told apart by ``dist``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.scenario.values import Section, Tokens, refuse
from simulator.workload.lengths import MAX_TOKENS


class FixedTokens(Section):
    """Every request has the same length."""

    dist: Literal["fixed"]
    tokens: Annotated[Tokens, Field(description="length of every request [tokens]")]


class UniformTokens(Section):
    """Whole numbers between two bounds, both included."""

    dist: Literal["uniform"]
    low: Annotated[Tokens, Field(description="shortest length [tokens]")]
    high: Annotated[Tokens, Field(description="longest length [tokens]")]

    @model_validator(mode="after")
    def _ordered(self) -> UniformTokens:
        if self.low > self.high:
            raise refuse("low", f"found {self.low}; allowed: at most high, {self.high}.")
        return self


class UniformRatioTokens(Section):
    """The benchmark client's lengths: uniform between ``ratio`` × ``max`` and ``max``."""

    dist: Literal["uniform_ratio"]
    max: Annotated[Tokens, Field(description="longest length [tokens]")]
    ratio: Annotated[
        float, Field(gt=0, le=1, description="shortest over longest length [fraction]")
    ]


class LognormalTokens(Section):
    """Lognormal, clipped to ``min`` … ``max``; ``mean`` and ``cv`` are before clipping."""

    dist: Literal["lognormal"]
    mean: Annotated[float, Field(ge=1, le=MAX_TOKENS, description="mean length [tokens]")]
    cv: Annotated[float, Field(ge=0, le=10, description="standard deviation over mean [ratio]")]
    min: Annotated[Tokens, Field(description="shorter lengths become this [tokens]")] = 1
    max: Annotated[
        Tokens | None,
        Field(description="longer lengths become this [tokens]; default: no limit"),
    ] = None

    @model_validator(mode="after")
    def _ordered(self) -> LognormalTokens:
        if self.max is not None and self.min > self.max:
            raise refuse("min", f"found {self.min}; allowed: at most max, {self.max}.")
        return self


Lengths = Annotated[
    FixedTokens | UniformTokens | UniformRatioTokens | LognormalTokens,
    Field(discriminator="dist"),
]

"""Arrival processes of the scenario file: a bare name, or a mapping told apart by ``process``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from simulator.errors import InputError
from simulator.scenario.values import (
    Name,
    PositiveReal,
    PositiveSeconds,
    Real,
    Seconds,
    Section,
    refuse,
)
from simulator.workload.rate_file import read_rates
from simulator.workload.rates import Rates

ArrivalName = Literal["poisson", "gamma", "constant"]


class OnOff(Section):
    """Bursts: a Poisson process that switches between two rates at random (Markov-modulated)."""

    process: Literal["bursty"]
    on_rps: Annotated[PositiveReal, Field(description="rate during bursts [1/s]")]
    off_rps: Annotated[Real, Field(description="rate between bursts [1/s]")] = 0.0
    on_s: Annotated[PositiveSeconds, Field(description="mean length of a burst [s]")]
    off_s: Annotated[PositiveSeconds, Field(description="mean time between bursts [s]")]

    @property
    def mean_rps(self) -> float:
        """Mean rate [1/s]."""
        busy = self.on_rps * self.on_s + self.off_rps * self.off_s
        return busy / (self.on_s + self.off_s)

    @model_validator(mode="after")
    def _ordered(self) -> OnOff:
        if self.off_rps > self.on_rps:
            raise refuse("off_rps", f"found {self.off_rps:g}; allowed: at most on_rps.")
        return self


class Diurnal(Section):
    """A Poisson process whose rate is a sine wave, from the trough on; needs ``rate_rps``, its mean."""

    process: Literal["diurnal"]
    period_s: Annotated[PositiveSeconds, Field(description="length of a day [s]")] = 86400.0
    peak_to_mean: Annotated[
        float, Field(ge=1, le=2, description="rate at the peak over the mean [ratio]")
    ]


class Ramp(Section):
    """A Poisson process whose rate rises or falls along a straight line, and then ends."""

    process: Literal["ramp"]
    from_rps: Annotated[Real, Field(description="rate at the start [1/s]")]
    to_rps: Annotated[Real, Field(description="rate at the end [1/s]")]
    over_s: Annotated[PositiveSeconds, Field(description="how long it takes [s]")]

    @model_validator(mode="after")
    def _usable(self) -> Ramp:
        _check_rates(self, "to_rps")
        return self

    def rates(self) -> Rates:
        """The rates of a whole run."""
        return Rates(np.array([0.0, self.over_s]), np.array([self.from_rps, self.to_rps]))


class Level(Section):
    """A constant rate for a while."""

    rate_rps: Annotated[Real, Field(description="rate [1/s]")]
    for_s: Annotated[PositiveSeconds, Field(description="how long [s]")]


class Steps(Section):
    """A Poisson process with constant rates one after another, which then ends."""

    process: Literal["step"]
    levels: Annotated[list[Level], Field(min_length=1, description="rates in order of time")]

    @model_validator(mode="after")
    def _usable(self) -> Steps:
        _check_rates(self, "levels")
        return self

    def rates(self) -> Rates:
        """The rates of a whole run."""
        return Rates.steps([x.rate_rps for x in self.levels], [x.for_s for x in self.levels])


class RatePoint(Section):
    """A rate at an instant."""

    t_s: Annotated[Seconds, Field(description="instant, the first 0 [s]")]
    rate_rps: Annotated[Real, Field(description="rate [1/s]")]


class RateTable(Section):
    """A Poisson process whose rate is linear between the points of a table, and ends with it."""

    process: Literal["rates"]
    points: Annotated[
        list[RatePoint] | None,
        Field(min_length=2, description="the table; an instant given twice is a jump"),
    ] = None
    path: Annotated[
        Name | None,
        Field(
            description="or a CSV file of it with the columns t_s, rate_rps (relative to the "
            "scenario file)"
        ),
    ] = None

    @model_validator(mode="after")
    def _one_table(self) -> RateTable:
        if (self.points is None) == (self.path is None):
            found = "neither" if self.points is None else "both"
            raise refuse("", f"found {found} of points and path; allowed: exactly one of them.")
        if self.points is not None:
            _check_rates(self, "points")
        return self

    def rates(self) -> Rates:
        """The rates of a whole run.

        Raises:
            InputError: the file cannot be read.
        """
        if self.path is not None:
            return read_rates(Path(self.path))
        points = self.points or []
        return Rates(np.array([p.t_s for p in points]), np.array([p.rate_rps for p in points]))


Profile = Ramp | Steps | RateTable
"""Processes whose rates end by themselves, and with them the requests."""

Process = OnOff | Diurnal | Profile


def _check_rates(section: Profile, key: str) -> None:
    try:
        section.rates()
    except InputError as error:
        raise refuse(key, f"cannot be used: {error}") from None


def _kind(value: Any) -> Any:
    if isinstance(value, str):
        return "name"
    if isinstance(value, dict):
        return value.get("process")
    return getattr(value, "process", None)


Arrivals = Annotated[
    Annotated[ArrivalName, Tag("name")]
    | Annotated[OnOff, Tag("bursty")]
    | Annotated[Diurnal, Tag("diurnal")]
    | Annotated[Ramp, Tag("ramp")]
    | Annotated[Steps, Tag("step")]
    | Annotated[RateTable, Tag("rates")],
    Discriminator(_kind),
]


def process_name(arrivals: str | Section | None) -> str:
    """Name of an arrival process."""
    return arrivals if isinstance(arrivals, str) else getattr(arrivals, "process", "poisson")


def is_profile(arrivals: object) -> bool:
    """Whether a process ends by itself."""
    return getattr(arrivals, "process", None) in ("ramp", "step", "rates")


def arrival_keys(
    arrivals: str | Section | None, *, own: bool = False
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Name of an open arrival process, and the keys it needs and allows.

    Args:
        arrivals: the process as written; None stands for ``poisson``.
        own: whether it belongs to one class of several, which have no number of requests.
    """
    count: tuple[str, ...] = () if own else ("requests",)
    needed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ("rate_rps",)
    if is_profile(arrivals):
        pass
    elif isinstance(arrivals, OnOff):
        needed, allowed = count, (*count, "rate_rps")
    else:
        needed = allowed = ("rate_rps", *count)
        if arrivals == "gamma":
            needed = allowed = (*needed, "cv")
    return f"arrivals: {process_name(arrivals)}", needed, (*allowed, "arrivals")

"""A number that says where it comes from, and the tables of fields profiles are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

SourceKind = Literal["datasheet", "measured", "fitted", "borrowed", "assumed"]
SOURCE_KINDS: tuple[SourceKind, ...] = get_args(SourceKind)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number comes from.

    Attributes:
        kind: ``datasheet`` (the vendor's), ``measured`` (on a named device), ``fitted`` (to named
            measurements, with the error it reached), ``borrowed`` (from a named GPU's profile) or
            ``assumed`` (a stated guess).
        text: which data sheet, device, measurements or reasoning.
    """

    kind: SourceKind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True, slots=True)
class Param:
    """A profile parameter.

    Attributes:
        value: the number, in ``unit``.
        unit: SI (``s``, ``bytes``, ``bytes/s``, ``FLOP/s``, ``W``) or ``1``.
        source: where it comes from.
        stderr: its standard error in the same unit; None when unknown or exact.
    """

    value: float
    unit: str
    source: Source
    stderr: float | None = None

    def __float__(self) -> float:
        return self.value


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table that defines a section of a profile: the schema and its documentation.

    Attributes:
        name: key in the YAML file and attribute of the profile.
        unit: the only unit accepted.
        low: smallest value allowed.
        high: largest value allowed.
        description: what the number means.
        required: whether a profile must have it.
        integer: whether it counts things.
    """

    name: str
    unit: str
    low: float
    high: float
    description: str
    required: bool = True
    integer: bool = False

    def allowed(self) -> str:
        """The accepted range, for error sentences."""
        kind = "a whole number" if self.integer else "a number"
        return f"{kind} from {self.low:g} to {self.high:g} {self.unit}".removesuffix(" 1")

    def admits(self, value: float) -> bool:
        """Whether ``value`` is finite, in range, and whole where it must be."""
        if not math.isfinite(value) or not self.low <= value <= self.high:
            return False
        return not self.integer or value == int(value)

"""Scalar types of the scenario file, and what may be written for them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from simulator.workload.lengths import MAX_TOKENS

SECONDS = {
    unit: Decimal(length)
    for unit, length in {
        "us": "1e-6",
        "µs": "1e-6",
        "ms": "1e-3",
        "s": "1",
        "min": "60",
        "h": "3600",
    }.items()
}
"""Units a duration may carry, and their length [s]; decimal, so that ``3us`` is exactly 3e-6."""

_DURATION = re.compile(r"\s*([0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+)\s*([a-zµ]+)\s*")


def refuse(key: str, problem: str) -> PydanticCustomError:
    """The error of a rule of ours; ``key`` is relative to the section that raises it."""
    return PydanticCustomError("rule", "{problem}", {"key": key, "problem": problem})


def duration(value: Any) -> Any:
    """A text such as ``"500ms"`` as seconds; anything else is handed on as it is.

    Raises:
        PydanticCustomError: for a text that is no number with a unit of ``SECONDS``.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None or match[2] not in SECONDS:
        raise refuse(
            "",
            f"found {value[:60]!r}; allowed: a number of seconds, or a text with one of the units "
            f"{', '.join(SECONDS)} such as 500ms.",
        )
    return float(Decimal(match[1]) * SECONDS[match[2]])


def whole(value: Any) -> Any:
    """A float without a fraction (``1e6`` in the file) as an int; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def named(value: Any) -> Any:
    """A bare text as the ``name`` of a section; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def text_or_mapping(value: Any) -> Any:
    """The value, refused unless it is a text, a mapping or null."""
    if value is None or isinstance(value, str | dict):
        return value
    raise refuse("", f"found {value!r}; allowed: a text or a mapping.")


Seconds = Annotated[float, BeforeValidator(duration), Field(ge=0)]
PositiveReal = Annotated[float, Field(gt=0)]
Real = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, BeforeValidator(whole), Field(ge=1, le=MAX_TOKENS)]
Count = Annotated[int, BeforeValidator(whole), Field(ge=1, le=100_000_000)]
PositiveSeconds = Annotated[float, BeforeValidator(duration), Field(gt=0)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class Section(BaseModel):
    """A mapping of the scenario file: no unknown keys, no coercion, no NaN, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

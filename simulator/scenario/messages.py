"""From a pydantic error to one sentence: where, what was found, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from simulator.errors import suggest
from simulator.scenario.fields import allowed_keys
from simulator.scenario.yaml_file import kind_of

_KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
PROCESSES = ["bursty", "diurnal", "ramp", "step", "rates"]
"""Arrival processes that are mappings."""


def listed(words: list[str]) -> str:
    """``a, b or c``."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def explain(error: ValidationError, raw: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The first mistake of a scenario, an unknown key before anything else.

    A mistyped key is reported before the missing key it leaves behind.

    Args:
        error: what pydantic found.
        raw: the scenario as read.

    Returns:
        Its path, and the sentence about it without the path.
    """
    details = sorted(error.errors(), key=lambda d: d["type"] != "extra_forbidden")[0]
    path = _path(details, raw)
    return path, _SENTENCES.get(details["type"], _other)(details, path, raw)


def _path(details: ErrorDetails, raw: object) -> tuple[str, ...]:
    """The keys of an error's location, without the union tags pydantic mixes in."""
    path: list[str] = []
    parts = [str(part) for part in details["loc"]]
    for i, part in enumerate(parts):
        if isinstance(raw, Mapping) and part in raw:
            raw = raw[part]
        elif not (i == len(parts) - 1 and details["type"] == "missing"):
            continue
        path.append(part)
    key = details.get("ctx", {}).get("key", "")
    return (*path, key) if key else tuple(path)


def shown(value: object) -> str:
    """A value in an error sentence: short, and never a whole section."""
    if isinstance(value, dict | list):
        return kind_of(value)
    text = repr(value) if value is not None else "null"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return f"unknown key; {suggest(path[-1], allowed_keys(raw, path[:-1]))}"


def _missing(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return "is missing; it has no default."


def _literal(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    allowed = details["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    if path and path[-1] == "arrivals" and details["input"] in PROCESSES:
        name = details["input"]
        return f"found {name!r}, which needs numbers; write a mapping with process: {name}."
    return f"found {shown(details['input'])}; {suggest(str(details['input']), allowed)}"


def _no_tag(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    if path and path[-1] == "arrivals":
        return (
            f"has no process; allowed: poisson, gamma, constant, or a mapping with "
            f"process: {listed(PROCESSES)}."
        )
    return "has no dist; allowed: a mapping with dist: fixed, uniform, uniform_ratio or lognormal."


def _bad_tag(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    allowed = details["ctx"]["expected_tags"].replace("'", "").split(", ")
    tag = details["ctx"]["tag"]
    if path and path[-1] == "arrivals":
        return f"found process {shown(tag)}; {suggest(tag, PROCESSES)}"
    return f"found dist {shown(tag)}; {suggest(tag, allowed)}"


def _rule(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return str(details["ctx"]["problem"])


def _kind(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    value = details["input"]
    kind = " (text)" if isinstance(value, str) else ""
    return f"found {shown(value)}{kind}; allowed: {_KINDS[details['type']]}."


def _bound(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    key, words = _BOUNDS[details["type"]]
    return f"found {shown(details['input'])}; allowed: {words} {details['ctx'][key]:g}."


def _empty(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return "is empty; allowed: at least one entry."


def _too_long(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return f"is too long; allowed: at most {details['ctx']['max_length']} characters."


def _name(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    return "is no name; allowed: letters, digits, _ and -, with a letter first."


def _other(details: ErrorDetails, path: tuple[str, ...], raw: Mapping[str, Any]) -> str:
    message = details["msg"]
    return f"found {shown(details['input'])}; {message[0].lower()}{message[1:]}."


_SENTENCES: dict[str, Callable[[ErrorDetails, tuple[str, ...], Mapping[str, Any]], str]] = {
    "extra_forbidden": _unknown,
    "missing": _missing,
    "literal_error": _literal,
    "union_tag_not_found": _no_tag,
    "union_tag_invalid": _bad_tag,
    "rule": _rule,
    "too_short": _empty,
    "string_too_short": _empty,
    "string_too_long": _too_long,
    "string_pattern_mismatch": _name,
    **dict.fromkeys(_KINDS, _kind),
    **dict.fromkeys(_BOUNDS, _bound),
}

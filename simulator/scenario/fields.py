"""Walking the schema along a dotted path: which keys may stand where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from simulator.scenario.schema import ScenarioConfig
from simulator.scenario.values import Section

TAGS = ("dist", "process")
"""Keys that tell alternatives apart."""


def allowed_keys(raw: object, path: Sequence[str]) -> list[str]:
    """Keys the schema knows at ``path``; empty for free keys (pool and GPU names) and scalars.

    Args:
        raw: the scenario as read, which decides between alternatives (such as ``dist``).
        path: keys from the top down.
    """
    types: list[Any] = [ScenarioConfig]
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
        types = [inner for outer in types for inner in _below(outer, key)]
        types = _chosen(types, raw)
    return sorted({name for t in types if _is_section(t) for name in t.model_fields})


def _chosen(types: list[Any], raw: object) -> list[Any]:
    """Of alternatives told apart by a tag, the one that is meant; all, if it cannot be told."""
    if not isinstance(raw, Mapping):
        return types
    meant = [t for t in types if _is_section(t) and _is_meant(t, raw)]
    return meant or types


def _is_meant(section: type[Section], raw: Mapping[str, object]) -> bool:
    tag = tag_of(section)
    return tag is not None and raw.get(tag[0]) == tag[1]


def tag_of(section: type[Section]) -> tuple[str, str] | None:
    """The key that tells this section from its alternatives, and its value there."""
    for key in TAGS:
        field = section.model_fields.get(key)
        if field is not None:
            return key, str(get_args(field.annotation)[0])
    return None


def _below(outer: Any, key: str) -> Iterator[Any]:
    """Types a value under ``key`` may have, ``Annotated``, ``Optional`` and unions taken apart."""
    if _is_section(outer):
        field: FieldInfo | None = outer.model_fields.get(key)
        if field is not None:
            yield from alternatives(field.annotation)
    elif get_origin(outer) is dict:
        yield from alternatives(get_args(outer)[1])


def alternatives(annotation: Any) -> Iterator[Any]:
    """Members of a possibly nested ``Annotated`` union, None apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    elif annotation is not type(None):
        yield annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)

"""Walking the schema along a dotted path: which keys may stand where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from simulator.scenario.schema import ScenarioConfig
from simulator.scenario.values import Section


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
    """Of alternatives told apart by ``dist``, the one that is meant; all, if it cannot be told."""
    dist = raw.get("dist") if isinstance(raw, Mapping) else None
    meant = [t for t in types if _is_section(t) and dist in dist_names(t)]
    return meant or types


def dist_names(section: type[Section]) -> tuple[str, ...]:
    """The values of ``dist`` that stand for this section."""
    field = section.model_fields.get("dist")
    return get_args(field.annotation) if field else ()


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

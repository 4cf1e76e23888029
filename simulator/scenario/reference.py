"""The tables of ``docs/scenario.md``, made from the schema: ``python -m simulator.scenario.reference``.

A field's description reads ``meaning [unit]; default: what None stands for``, the last two optional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from simulator.scenario.fields import TAGS, alternatives, tag_of
from simulator.scenario.schema import ScenarioConfig
from simulator.scenario.values import Section, duration

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

_DESCRIPTION = re.compile(r"(.*?)(?: \[([^\]]+)\])?(?:; default: (.*))?")
_HEADER = "| field | type | unit | default | meaning |\n|---|---|---|---|---|"
_KINDS = {int: "whole number", float: "number", str: "text", bool: "true, false"}


def tables() -> str:
    """A Markdown table for every section of the scenario file, top level first."""
    parts = []
    for path, section in sections():
        title = path or "Top level"
        tag = tag_of(section)
        doc = (section.__doc__ or "").strip().replace("``", "`")
        heading = f"### `{title}`" if path else f"### {title}"
        if tag:
            heading += f" with `{tag[0]}: {tag[1]}`"
        rows = "\n".join(_row(name, field) for name, field in section.model_fields.items())
        parts.append(f"{heading}\n\n{doc}\n\n{_HEADER}\n{rows}")
    return "\n\n".join(parts)


def sections() -> Iterator[tuple[str, type[Section]]]:
    """Every section of the schema with its dotted path (``<name>`` for any), parents first.

    One that may stand in several places comes with the first.
    """
    yield from _walk("", ScenarioConfig, set())


def _walk(
    path: str, section: type[Section], seen: set[type[Section]]
) -> Iterator[tuple[str, type[Section]]]:
    if section in seen:
        return
    seen.add(section)
    yield path, section
    for name, field in section.model_fields.items():
        if name == "output_tokens":  # the same distributions as prompt_tokens
            continue
        dotted = f"{path}.{name}".removeprefix(".")
        dotted = dotted.replace("prompt_tokens", "prompt_tokens | output_tokens")
        for inner in alternatives(field.annotation):
            if get_origin(inner) is dict:
                for value in alternatives(get_args(inner)[1]):
                    if _sections_in(value):
                        yield from _walk(f"{dotted}.<name>", value, seen)
            elif get_origin(inner) is list and _sections_in(get_args(inner)[0]):
                yield from _walk(f"{dotted}[]", get_args(inner)[0], seen)
            elif _sections_in(inner):
                yield from _walk(dotted, inner, seen)


def _sections_in(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _row(name: str, field: FieldInfo) -> str:
    match = _DESCRIPTION.fullmatch(field.description or "")
    assert match is not None  # every part of the pattern is optional
    meaning, unit, default = match.groups()
    if name in TAGS:
        meaning = "which distribution" if name == "dist" else "which process"
    shown = default or ("required" if field.is_required() else _default(field.default))
    kind = _type(field.annotation, field.metadata)
    return f"| `{name}` | {kind} | {unit or ''} | {shown} | {meaning} |"


def _default(value: object) -> str:
    if isinstance(value, Section):
        return "see below"
    return "none" if value is None else f"`{value}`"


def _type(annotation: Any, metadata: list[Any]) -> str:
    """A type in words, with its bounds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _type(inner, [*more, *metadata])
    if origin in (Union, UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        words = [_type(member, metadata) for member in members]
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin is list:
        return f"list of {_type(get_args(annotation)[0], [])}s"
    if origin is dict or _sections_in(annotation):
        return "mapping"
    is_duration = any(isinstance(m, BeforeValidator) and m.func is duration for m in metadata)
    return ("duration" if is_duration else _KINDS[annotation]) + _bounds(metadata)


def _bounds(metadata: list[Any]) -> str:
    words = {Ge: "at least", Gt: "more than", Le: "at most"}
    names = {Ge: "ge", Gt: "gt", Le: "le"}
    return "".join(
        f", {words[type(item)]} {getattr(item, names[type(item)]):,}"
        for item in _flat(metadata)
        if type(item) in words
    )


def _flat(metadata: list[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


if __name__ == "__main__":
    print(tables())

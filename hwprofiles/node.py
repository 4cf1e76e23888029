"""A place in a YAML file that knows its path, so that every refusal is one precise sentence."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hwprofiles.param import SOURCE_KINDS, Field, Param, Source
from simulator.errors import ProfileError, suggest

# The parser in C, where PyYAML was built with it, is eight times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_SafeLoader):  # type: ignore[misc]  # either base is a SafeLoader
    """SafeLoader that refuses a key written twice, where YAML silently keeps the last."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    keys = [key.value for key, _ in node.value]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise yaml.constructor.ConstructorError(
            None, None, f"key '{twice[0]}' appears twice", node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(file: Traversable | Path, where: str) -> Node:
    """Parse a YAML file.

    Args:
        file: the file.
        where: how error sentences call it.

    Raises:
        ProfileError: unreadable or malformed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{where}: cannot be read ({error}).") from error
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ProfileError(f"{where}: {problem}{place}.") from error
    return Node(value, where)


class Node:
    """A value in a file, its path, and checked ways to read it.

    Attributes:
        value: what YAML parsed.
        where: the file.
        path: dotted path inside it, empty at the top.
    """

    def __init__(self, value: object, where: str, path: str = "") -> None:
        self.value = value
        self.where = where
        self.path = path

    def fail(self, found: str, allowed: str) -> NoReturn:
        """Refuse this place.

        Raises:
            ProfileError: always; file, path, what was found, what is allowed.
        """
        place = f" {self.path}:" if self.path else ""
        raise ProfileError(f"{self.where}:{place} {found}; {allowed.removesuffix('.')}.")

    def keys(self, known: Iterable[str] | None = None) -> list[str]:
        """Keys of a mapping, in file order; an unknown one is refused."""
        if not isinstance(self.value, dict):
            self.fail(f"found {_shown(self.value)}", "allowed: a mapping")
        keys = [str(key) for key in self.value]
        if known is not None:
            names = list(known)
            for key in keys:
                if key not in names:
                    self.fail(f"key '{key}' is unknown", suggest(key, names))
        return keys

    def child(self, key: str) -> Node:
        """The value under a key, which must be there."""
        found = self.get(key)
        if found is None:
            self.fail(f"key '{key}' is missing", "it is required")
        return found

    def get(self, key: str) -> Node | None:
        """The value under a key; None where it is absent or null."""
        self.keys()
        assert isinstance(self.value, dict)
        value = self.value.get(key)
        if value is None:
            return None
        return Node(value, self.where, f"{self.path}.{key}" if self.path else key)

    def text(self) -> str:
        """A string that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            self.fail(f"found {_shown(self.value)}", "allowed: a text that is not empty")
        return self.value.strip()

    def texts(self) -> tuple[str, ...]:
        """A list of strings."""
        if not isinstance(self.value, list):
            self.fail(f"found {_shown(self.value)}", "allowed: a list of names")
        return tuple(
            Node(item, self.where, f"{self.path}[{i}]").text() for i, item in enumerate(self.value)
        )

    def boolean(self) -> bool:
        """``true`` or ``false``."""
        if not isinstance(self.value, bool):
            self.fail(f"found {_shown(self.value)}", "allowed: true, false")
        return self.value

    def number(self, field: Field) -> float:
        """A number the field admits; ``1e-6``, which YAML reads as a text, counts as one."""
        value = self.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"found {_shown(self.value)}", f"allowed: {field.allowed()}")
        if not field.admits(float(value)):
            self.fail(f"found {_shown(self.value)}", f"allowed: {field.allowed()}")
        return float(value)

    def param(self, field: Field, sources: dict[str, Source]) -> Param:
        """A parameter: ``{value, unit, source, stderr?}``."""
        self.keys(("value", "unit", "source", "stderr"))
        unit = self.child("unit").text()
        if unit != field.unit:
            self.child("unit").fail(f"found '{unit}'", f"allowed: {field.unit}")
        stderr = self.get("stderr")
        spread = Field(field.name, field.unit, 0.0, field.high, "standard error")
        return Param(
            value=self.child("value").number(field),
            unit=unit,
            source=self.child("source").source(sources),
            stderr=None if stderr is None else stderr.number(spread),
        )

    def source(self, sources: dict[str, Source]) -> Source:
        """A source: a key of the file's ``sources``, or ``{kind, text}`` in place."""
        if isinstance(self.value, str):
            if self.value not in sources:
                self.fail(f"source '{self.value}' is unknown", suggest(self.value, sources))
            return sources[self.value]
        self.keys(("kind", "text"))
        kind = self.child("kind").text()
        known = {name: name for name in SOURCE_KINDS}
        if kind not in known:
            self.child("kind").fail(f"found '{kind}'", suggest(kind, known))
        return Source(known[kind], self.child("text").text())

    def params(self, fields: tuple[Field, ...], sources: dict[str, Source]) -> dict[str, Param]:
        """All parameters of a section; required ones present, no unknown ones."""
        self.keys(f.name for f in fields)
        found = {}
        for field in fields:
            node = self.child(field.name) if field.required else self.get(field.name)
            if node is not None:
                found[field.name] = node.param(field, sources)
        return found


def _shown(value: object) -> str:
    """A value in an error sentence."""
    if isinstance(value, dict):
        return "a mapping"
    return f"'{value}'" if isinstance(value, str) else repr(value)

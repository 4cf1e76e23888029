"""``pools.decode.instances=6``: changing a value of a scenario without editing its file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulator.errors import ScenarioError, suggest
from simulator.scenario.fields import allowed_keys
from simulator.scenario.yaml_file import parse_yaml


@dataclass(frozen=True, slots=True)
class Override:
    """One assignment.

    Attributes:
        text: as the user wrote it.
        path: keys from the top of the scenario down.
        value: a YAML value; None takes the key away, so that its default applies again.
    """

    text: str
    path: tuple[str, ...]
    value: Any

    def error(self, problem: str) -> ScenarioError:
        """The error of an override that cannot be applied."""
        return ScenarioError(f"--set {self.text}: {problem}")


def parse_override(text: str) -> Override:
    """Read ``path.to.key=value``; the value is YAML.

    Raises:
        ScenarioError: there is no ``=``, a part of the path is empty, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    keys = tuple(key.strip() for key in path.split("."))
    if not equals or not value.strip() or not all(keys):
        raise ScenarioError(
            f"--set {text}: malformed; allowed: path.to.key=value, such as "
            "pools.decode.instances=6 (and =null to go back to the default)."
        )
    return Override(text, keys, parse_yaml(value, f"--set {text}"))


def apply_overrides(raw: Mapping[str, Any], overrides: Iterable[Override]) -> dict[str, Any]:
    """A copy of a raw scenario with the assignments made, in order.

    Raises:
        ScenarioError: a path that no scenario, or not this one, has.
    """
    changed = copy.deepcopy(dict(raw))
    for override in overrides:
        _assign(changed, override)
    return changed


def _assign(raw: dict[str, Any], override: Override) -> None:
    section: Any = raw
    for depth, key in enumerate(override.path[:-1]):
        parents = override.path[:depth]
        _check_key(raw, parents, key, override, new=False)
        below = section.setdefault(key, {})
        if isinstance(below, str) and "name" in allowed_keys(raw, (*parents, key)):
            below = section[key] = {"name": below}  # `link: ib_ndr` is short for its name
        if not isinstance(below, dict):
            dotted = ".".join((*parents, key))
            raise override.error(f"{dotted} is {below!r} here and has no keys below it.")
        section = below
    *parents_, last = override.path
    _check_key(raw, tuple(parents_), last, override, new=isinstance(override.value, dict))
    if override.value is None:
        section.pop(last, None)
    else:
        section[last] = copy.deepcopy(override.value)


def _check_key(
    raw: Mapping[str, Any], parents: tuple[str, ...], key: str, override: Override, new: bool
) -> None:
    """Refuse a key that the schema does not know, or a pool that is not there (unless ``new``)."""
    allowed = allowed_keys(raw, parents)
    if parents == ("pools",) and not new:
        pools = raw.get("pools")
        allowed = list(pools) if isinstance(pools, dict) else []
    elif not allowed:  # a mapping with free keys, or nothing the schema knows
        return
    if key not in allowed:
        dotted = ".".join((*parents, key))
        raise override.error(f"unknown key {dotted}; {suggest(key, allowed)}")

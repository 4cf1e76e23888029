"""Reading YAML the way a scenario means it: plain scalars, unique keys, errors with a line.

The scalars are those of YAML's core schema (1.2), not of version 1.1: ``1e6`` is a number, ``no``
and ``on`` are texts, ``1:30`` is not ninety and ``010`` is ten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from simulator.errors import ScenarioError


class _Loader(yaml.SafeLoader):
    """Core-schema scalars; a repeated key and a key that is no text are errors."""


_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)

_Loader.yaml_implicit_resolvers = {"": [("tag:yaml.org,2002:null", re.compile(r"^$"))]}
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    # base ten always; SafeLoader's own reads a leading zero as octal
    return int(loader.construct_scalar(node))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).replace(".inf", "inf").replace(".nan", "nan"))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _bad(key_node, f"key {key!r} is not a text")
        if key in found:
            raise _bad(key_node, f"key '{key}' is given twice")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _bad(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: one YAML document.
        where: how error sentences call it.

    Raises:
        ScenarioError: not YAML, or a repeated key; with line and column.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise ScenarioError(f"{where}:{at} not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ScenarioError(f"{where}: not valid YAML: {str(error).splitlines()[0]}.") from None
    except RecursionError:
        raise ScenarioError(f"{where}: not valid YAML: nested too deeply.") from None
    except ValueError as error:
        raise ScenarioError(f"{where}: not valid YAML: {error}.") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises:
        ScenarioError: the file is missing, a directory, unreadable, not UTF-8, not YAML, empty, or
            holds something else at its top level.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such file.") from None
    except IsADirectoryError:
        raise ScenarioError(f"{path}: is a directory; allowed: a YAML file.") from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: is not UTF-8 text; allowed: a YAML file.") from None
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read ({error.strerror}).") from None
    value = parse_yaml(text, str(path))
    if value is None:
        raise ScenarioError(f"{path}: the file is empty; allowed: a mapping of scenario keys.")
    if not isinstance(value, dict):
        raise ScenarioError(
            f"{path}: found {kind_of(value)} at the top level; allowed: a mapping of scenario keys."
        )
    return value


def kind_of(value: object) -> str:
    """What a YAML value is, in a word."""
    kinds = {dict: "a mapping", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return kinds.get(type(value), "a number")


class _Dumper(yaml.SafeDumper):
    """Quotes a text wherever ``_Loader`` would read it as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(value: Mapping[str, Any]) -> str:
    """A mapping as YAML that ``parse_yaml`` reads back unchanged, keys in order."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text

"""Engine profiles by name: the bundled YAML files, or a path to the user's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from hwprofiles.node import Node, read_yaml
from hwprofiles.param import Field, Param, Source
from simulator.engine_profiles.profile import (
    NUMBERS,
    EngineProfile,
    FirstToken,
    MemoryBase,
    Reserve,
    Scheduler,
)
from simulator.errors import ProfileError, suggest

_VERSION = Field("schema", "1", 1, 1, "version", integer=True)
_SIZE = Field("graph_sizes", "1", 1, 65_536, "a batch size", integer=True)
_CHOICES: dict[str, tuple[str, ...]] = {
    "scheduler": get_args(Scheduler),
    "memory_base": get_args(MemoryBase),
    "first_token": get_args(FirstToken),
    "reserve": get_args(Reserve),
}


_FLAGS = {"graph_padding": True, "graph_mixed": False, "overlap": False}
"""What may be on or off, and what it is where a file says nothing."""


def engine_names() -> list[str]:
    """Names of the bundled engines, sorted."""
    return sorted(_bundled())


def load_engine(name_or_path: str | Path) -> EngineProfile:
    """An engine by bundled name (in any case), or from a YAML file.

    Raises:
        ProfileError: unknown name (with the nearest one), or a bad file: one sentence with file,
            field path, what was found and what is allowed.
    """
    text = str(name_or_path)
    if Path(text).suffix in (".yaml", ".yml"):
        return _profile(read_yaml(Path(text), text))
    if text.lower() not in _bundled():
        raise ProfileError(f"engine '{text}' is unknown; {suggest(text.lower(), engine_names())}")
    return _load(text.lower())


@cache
def _load(name: str) -> EngineProfile:
    return _profile(read_yaml(_bundled()[name], f"simulator/engine_profiles/{name}.yaml"))


def _bundled() -> dict[str, Traversable]:
    folder = files("simulator").joinpath("engine_profiles")
    found = {f.name: f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {name.removesuffix(".yaml"): file for name, file in found.items()}


def _profile(node: Node) -> EngineProfile:
    node.keys(
        (
            "schema",
            "name",
            "description",
            "sources",
            "kernels",
            *_CHOICES,
            "graph_sizes",
            *_FLAGS,
            "numbers",
            "versions",
        )
    )
    node.child("schema").number(_VERSION)
    inline = node.child("sources")
    sources = {key: inline.child(key).source({}) for key in inline.keys()}  # noqa: SIM118 (no dict)
    chosen: dict[str, Any] = {}
    origin: list[tuple[str, Source]] = []
    for key, allowed in _CHOICES.items():
        value, source = _choice(node.child(key), sources)
        if value not in allowed:
            node.child(key).fail(f"found '{value}'", suggest(str(value), allowed))
        chosen[key] = value
        origin.append((key, source))
    kernels, source = _choice(node.child("kernels"), sources)
    origin.append(("kernels", source))
    sizes: tuple[int, ...] = ()
    narrow = None
    graphs = node.get("graph_sizes")
    if graphs is not None:
        sizes, narrow, source = _sizes(graphs, sources)
        origin.append(("graph_sizes", source))
    for key, default in _FLAGS.items():
        chosen[key] = default
        flag = node.get(key)
        if flag is not None:
            flag.keys(("value", "source", *(("versions",) if key == "overlap" else ())))
            chosen[key] = flag.child("value").boolean()
            origin.append((key, flag.child("source").source(sources)))
    return EngineProfile(
        name=node.child("name").text().lower(),
        description=node.child("description").text(),
        kernels=str(kernels),
        graph_sizes=sizes,
        graph_narrow=narrow,
        choices=tuple(origin),
        values=tuple(node.child("numbers").params(NUMBERS, sources).items()),
        versions=_versions(node, sources),
        overlaps=_overlaps(node.get("overlap")),
        **chosen,
    )


def _versions(
    node: Node, sources: dict[str, Source]
) -> tuple[tuple[str, tuple[tuple[str, Param], ...]], ...]:
    """``versions: {"1.0": {c0_s: {...}}}``: numbers that differ in some versions."""
    found = node.get("versions")
    if found is None:
        return ()
    some = tuple(replace(field, required=False) for field in NUMBERS)
    return tuple(
        (name, tuple(found.child(name).params(some, sources).items()))
        for name in found.keys()  # noqa: SIM118 (no dict)
    )


def _overlaps(flag: Node | None) -> tuple[tuple[str, bool], ...]:
    """``versions: {"0.9": false}``: whether steps overlap in some versions."""
    found = None if flag is None else flag.get("versions")
    if found is None:
        return ()
    names = found.keys()
    return tuple((name, found.child(name).boolean()) for name in names)


def _choice(node: Node, sources: dict[str, Source]) -> tuple[str, Source]:
    """``{value, source}``: one of a few names."""
    node.keys(("value", "source"))
    return node.child("value").text(), node.child("source").source(sources)


def _sizes(
    node: Node, sources: dict[str, Source]
) -> tuple[tuple[int, ...], tuple[int, int] | None, Source]:
    """``{value: [1, 2, 4, ...], narrow: {gpus, largest}, source}``: ascending batch sizes."""
    node.keys(("value", "narrow", "source"))
    found = node.child("value")
    if not isinstance(found.value, list):
        found.fail("found no list", "allowed: a list of batch sizes")
    sizes = tuple(
        int(Node(item, found.where, f"{found.path}[{i}]").number(_SIZE))
        for i, item in enumerate(found.value)
    )
    if list(sizes) != sorted(set(sizes)):
        found.fail(f"found {list(sizes)}", "allowed: batch sizes in ascending order")
    narrow = None
    limit = node.get("narrow")
    if limit is not None:
        limit.keys(("gpus", "largest"))
        narrow = (int(limit.child("gpus").number(_SIZE)), int(limit.child("largest").number(_SIZE)))
    return sizes, narrow, node.child("source").source(sources)

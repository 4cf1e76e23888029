"""Two hardware profiles side by side: every parameter, its ratio, and where each number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprofiles import GpuProfile, gpu_names, link_names, load_gpu, load_link
from simulator.errors import InputError, ProfileError, suggest
from simulator.report.hardware_sheet import (
    SCHEMA_VERSION,
    legend,
    link_parameters,
    number_sources,
    parameter_rows,
    quantity,
)
from simulator.report.text import MISSING


def hardware_diff(a: str, b: str) -> dict[str, Any]:
    """Two GPUs, or two links, parameter by parameter.

    Args:
        a: name or path of a GPU or link profile.
        b: what it is compared with, of the same kind.

    Returns:
        ``schema, kind, a, b`` (``name, description`` and for a GPU ``caution``) and ``parameters``:
        ``name, unit, ratio`` (b over a), ``differs`` and under ``a`` and ``b`` what each says
        (``value, stderr, source, source_text``). A missing value is None.

    Raises:
        InputError: an unknown name, a bad file, or a GPU against a link.
    """
    left, right = _profile(a), _profile(b)
    if left["kind"] != right["kind"]:
        raise InputError(
            f"hardware diff: {a} is a {left['kind']} and {b} a {right['kind']}; allowed: two of a kind."
        )
    ours, theirs = left.pop("parameters"), right.pop("parameters")
    # in the order of a, and what only b has at the end
    names = [*ours, *(name for name in theirs if name not in ours)]
    return {
        "schema": SCHEMA_VERSION,
        "kind": left.pop("kind"),
        "a": left,
        "b": {key: value for key, value in right.items() if key != "kind"},
        "parameters": [_pair(name, ours.get(name), theirs.get(name)) for name in names],
    }


def _profile(name: str) -> dict[str, Any]:
    """A profile as far as a comparison needs it."""
    if known_name(name) == "link":
        link = load_link(name)
        rows = parameter_rows(link_parameters(link))
        head: dict[str, Any] = {"kind": "link", "name": link.name, "description": link.description}
    else:
        gpu = load_gpu(name)
        head = _gpu_head(gpu)
        rows = parameter_rows(gpu.parameters())
    return head | {"parameters": {row["name"]: row for row in rows}}


def _gpu_head(gpu: GpuProfile) -> dict[str, Any]:
    return {
        "kind": "GPU",
        "name": gpu.name,
        "description": gpu.description,
        "caution": gpu.caution,
    }


def _is_link_file(name: str) -> bool:
    try:
        load_link(name)
    except ProfileError:
        return False
    return True


def known_name(name: str) -> str:
    """``"GPU"`` or ``"link"``: what a bundled name or a file is.

    Raises:
        ProfileError: it is neither; with the nearest names of both.
    """
    try:
        load_gpu(name)
    except ProfileError:
        if _is_link_file(name):
            return "link"
        if name.lower() in gpu_names() or "." in name or "/" in name:
            raise
        known = [*gpu_names(), *link_names()]
        raise ProfileError(f"GPU or link '{name}' is unknown; {suggest(name, known)}") from None
    return "GPU"


def _pair(
    name: str, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None
) -> dict[str, Any]:
    known = ours or theirs
    assert known is not None  # the names come from these
    a = None if ours is None else ours["value"]
    b = None if theirs is None else theirs["value"]
    return {
        "name": name,
        "unit": known["unit"],
        "ratio": b / a if a and b is not None else None,
        "differs": a != b,
        "a": _side(ours),
        "b": _side(theirs),
    }


def _side(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {key: row[key] for key in ("value", "stderr", "source", "source_text")}


# ---------------------------------------------------------------------------- rendering


def diff_view(report: Mapping[str, Any], *, everything: bool = False) -> RenderableType:
    """A rich renderable of a ``hardware_diff``.

    Args:
        report: the comparison.
        everything: whether equal parameters are shown too.
    """
    a, b = report["a"]["name"], report["b"]["name"]
    rows = [row for row in report["parameters"] if everything or row["differs"]]
    sides = [side for row in rows for side in (row["a"], row["b"]) if side is not None]
    sources = number_sources(sides)
    table = Table(title=f"{a} and {b}; ratio: {b} over {a}", title_justify="left")
    table.add_column("parameter", overflow="fold")
    for column in (a, b, "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("sources", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"].removeprefix("kernels."),
            _shown(row["a"], row["unit"]),
            _shown(row["b"], row["unit"]),
            MISSING if row["ratio"] is None else f"{row['ratio']:.3g}",
            f"{_cite(row['a'], sources)}, {_cite(row['b'], sources)}",
        )
    parts: list[RenderableType] = [table]
    same = len(report["parameters"]) - len(rows)
    if same:
        parts.append(Text(f"{same} parameters are equal; --all shows them", style="dim"))
    cautions = [side.get("caution") for side in (report["a"], report["b"])]
    parts += [Text(caution, style="yellow") for caution in cautions if caution]
    return Group(*parts, legend(sources))


def _shown(side: Mapping[str, Any] | None, unit: str) -> str:
    if side is None:
        return MISSING
    spread = "" if side["stderr"] is None else f" ± {quantity(side['stderr'], unit)}"
    return quantity(side["value"], unit) + spread


def _cite(side: Mapping[str, Any] | None, sources: Mapping[tuple[str, str], int]) -> str:
    return MISSING if side is None else f"[{sources[side['source'], side['source_text']]}]"

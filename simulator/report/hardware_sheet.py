"""The parameters of a hardware profile as rows and tables: value, unit, standard error, source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwprofiles import GpuProfile, LinkProfile, Param, load_link, schema
from hwprofiles.scaling import operator_keys, operator_path
from simulator.report.text import number, seconds

SCHEMA_VERSION = 1
_SI = {"bytes", "bytes/s", "FLOP/s", "OP/s"}
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def parameter_rows(parameters: Iterable[tuple[str, Param]]) -> list[dict[str, Any]]:
    """``name, value, unit, stderr, source, source_text`` of every parameter."""
    return [
        {
            "name": name,
            "value": param.value,
            "unit": param.unit,
            "stderr": param.stderr,
            "source": param.source.kind,
            "source_text": param.source.text,
        }
        for name, param in parameters
    ]


def range_rows(gpu: GpuProfile) -> list[dict[str, Any]]:
    """``name, sizes`` (smallest and largest measured, by size) of every operator that says them."""
    return [
        {
            "name": operator_path(key),
            "sizes": {name: [low, high] for name, low, high in params.ranges},
        }
        for family in gpu.kernels
        for key, params in operator_keys(gpu, family)
        if getattr(params, "ranges", ())
    ]


def link_parameters(link: LinkProfile) -> Iterator[tuple[str, Param]]:
    """Every parameter of a link with its name."""
    for field in schema.LINK:
        yield field.name, getattr(link, field.name)


def link_report(name: str) -> dict[str, Any]:
    """A link profile: ``schema, link, description, coalesced, usable_bytes_per_s, parameters``.

    Args:
        name: a bundled link, or a file of one.

    Raises:
        ProfileError: unknown name or bad file.
    """
    link = load_link(name)
    return {
        "schema": SCHEMA_VERSION,
        "link": link.name,
        "description": link.description,
        "coalesced": link.coalesced,
        "usable_bytes_per_s": link.usable_bytes_per_s,
        "parameters": parameter_rows(link_parameters(link)),
    }


# ---------------------------------------------------------------------------- rendering


def number_sources(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """A number for every source, in order of appearance, by its kind and text."""
    sources: dict[tuple[str, str], int] = {}
    for row in rows:
        sources.setdefault((row["source"], row["source_text"]), len(sources) + 1)
    return sources


def legend(sources: Mapping[tuple[str, str], int]) -> Table:
    """The sources and their numbers."""
    table = Table(title="sources", title_justify="left", show_header=False)
    table.add_column("no", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("text", overflow="fold")
    for (kind, text), index in sources.items():
        table.add_row(f"[{index}]", kind, Text(text))
    return table


def link_view(report: Mapping[str, Any]) -> RenderableType:
    """A rich renderable of a ``link_report``."""
    rows = report["parameters"]
    sources = number_sources(rows)
    usable = quantity(report["usable_bytes_per_s"], "bytes/s")
    how = "one per rank pair" if report["coalesced"] else "one per layer, K or V and block"
    return Group(
        _parameter_table(f"{report['link']}: {report['description']}", rows, sources),
        Text(f"usable {usable} per NIC and direction; messages: {how}"),
        legend(sources),
    )


def sheet_view(report: Mapping[str, Any]) -> RenderableType:
    """The data sheet, the kernels, and the sources both refer to by number."""
    rows = report["parameters"]
    sources = number_sources(rows)
    sheet = [row for row in rows if not row["name"].startswith("kernels.")]
    kernels = [row for row in rows if row["name"].startswith("kernels.")]
    title = f"{report['gpu']}: {report['description']}"
    parts: list[RenderableType] = [_parameter_table(title, sheet, sources)]
    if report["caution"]:
        parts.append(Text(report["caution"], style="yellow"))
    parts.append(_parameter_table("kernels", kernels, sources))
    return Group(*parts, _range_table(report), legend(sources))


def _range_table(report: Mapping[str, Any]) -> Table:
    lender = report["borrowed_from"]
    title = "sizes measured" + (f", on {lender}" if lender else "")
    table = Table(title=f"{title}; beyond them reports say so", title_justify="left")
    table.add_column("operator", no_wrap=True)
    table.add_column("smallest to largest", overflow="fold")
    for row in report["ranges"]:
        sizes = [f"{name} {_extent(*bounds)}" for name, bounds in row["sizes"].items()]
        table.add_row(row["name"].removeprefix("kernels."), ", ".join(sizes))
    return table


def _extent(low: float, high: float) -> str:
    return f"{low:,.6g}" if low == high else f"{low:,.6g}–{high:,.10g}"


def _parameter_table(
    title: str, rows: Sequence[Mapping[str, Any]], sources: Mapping[tuple[str, str], int]
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("parameter", overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True)
    for row in rows:
        spread = "" if row["stderr"] is None else f" ± {quantity(row['stderr'], row['unit'])}"
        index = sources[row["source"], row["source_text"]]
        table.add_row(
            row["name"].removeprefix("kernels."),
            quantity(row["value"], row["unit"]) + spread,
            f"{row['source']} [{index}]",
        )
    return table


def quantity(value: float, unit: str) -> str:
    """A parameter as data sheets print it: SI prefixes, µs, or a bare number."""
    if unit == "s":
        return seconds(value)
    if unit not in _SI:
        return f"{value:.4g}" if unit == "1" else number(value, unit)
    for size, prefix in _PREFIXES:
        if value >= size:
            short = "B" + unit.removeprefix("bytes") if unit.startswith("bytes") else unit
            return number(value / size, prefix + short, digits=4)
    return number(value, unit)

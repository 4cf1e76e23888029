"""A profile as the YAML text of ``hwprofiles``: each number with unit, source and standard error."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap

import yaml

from calibration.fitted import Fitted
from hwprofiles.joint import Correlations
from hwprofiles.param import Param, Source


class Sources:
    """Sources by key; the same source has one key."""

    def __init__(self) -> None:
        self.known: dict[str, Source] = {}

    def key(self, source: Source, wanted: str) -> str:
        """The key of a source, new if need be."""
        for key, known in self.known.items():
            if known == source:
                return key
        name, number = wanted, 2
        while name in self.known:
            name, number = f"{wanted}_{number}", number + 1
        self.known[name] = source
        return name

    def lines(self) -> list[str]:
        """The ``sources`` section."""
        found = ["sources:"]
        for key, source in self.known.items():
            found += [f"  {key}:", f"    kind: {source.kind}", "    text: >-"]
            found += [f"      {line}" for line in wrap(source.text, 88, break_long_words=False)]
        return found


def profile_text(
    *,
    name: str,
    description: str,
    sheet: Mapping[str, Param],
    family: str,
    operators: list[Fitted],
) -> str:
    """The whole file.

    Args:
        name: of the profile.
        description: one line.
        sheet: fields of ``schema.GPU``.
        family: name of the kernel family.
        operators: its fitted operators.
    """
    sources = Sources()
    gpu = [f"  {key}: {param_text(param, sources, key)}" for key, param in sheet.items()]
    kernels = [f"  {family}:"]
    for fitted in _grouped(operators):
        depth = 2
        *parents, last = fitted.path
        for parent in parents:
            line = "  " * depth + f"{parent}:"
            if line not in _section(kernels, depth):
                kernels.append(line)
            depth += 1
        kernels.append("  " * depth + f"{last}:")
        for key, param in fitted.params.items():
            text = param_text(param, sources, "_".join(fitted.path))
            kernels.append("  " * (depth + 1) + f"{key}: {text}")
        if fitted.ranges:
            pairs = [f"{size}: [{low:.6g}, {high:.6g}]" for size, low, high in fitted.ranges]
            kernels.append("  " * (depth + 1) + f"ranges: {{{', '.join(pairs)}}}")
        if fitted.correlations:
            line = f"correlations: {flow(nested(fitted.correlations))}"
            kernels.append("  " * (depth + 1) + line)
    head = [
        "schema: 1",
        f"name: {quoted(name)}",
        f"description: {quoted(description)}",
        *sources.lines(),
    ]
    return "\n".join([*head, "gpu:", *gpu, "kernels:", *kernels]) + "\n"


def nested(correlations: Correlations) -> dict[str, dict[str, float]]:
    """Correlations as a file holds them: by the first parameter, then the second."""
    found: dict[str, dict[str, float]] = {}
    for one, two, value in correlations:
        found.setdefault(one, {})[two] = value
    return found


def flow(correlations: Mapping[str, Mapping[str, float]]) -> str:
    """Nested correlations on one line of YAML."""
    rows = [
        f"{one}: {{{', '.join(f'{two}: {value:g}' for two, value in inner.items())}}}"
        for one, inner in correlations.items()
    ]
    return "{" + ", ".join(rows) + "}"


def _grouped(operators: list[Fitted]) -> list[Fitted]:
    """Operators of one section together, sections in the order they first appear."""
    order = list(dict.fromkeys(fitted.path[0] for fitted in operators))
    return sorted(operators, key=lambda fitted: order.index(fitted.path[0]))


def _section(lines: list[str], depth: int) -> list[str]:
    """The lines since the last one less deep than ``depth``."""
    for start in range(len(lines) - 1, -1, -1):
        indent = len(lines[start]) - len(lines[start].lstrip())
        if indent < 2 * depth:
            return lines[start + 1 :]
    return lines


def param_text(param: Param, sources: Sources, wanted: str) -> str:
    """A parameter; its source has the key ``wanted`` unless it is known already."""
    parts = [f"value: {_number(param.value)}", f"unit: {quoted(param.unit)}"]
    parts.append(f"source: {sources.key(param.source, wanted)}")
    if param.stderr is not None:
        parts.append(f"stderr: {_number(param.stderr)}")
    return "{" + ", ".join(parts) + "}"


def _number(value: float) -> str:
    """As YAML reads it back: a float needs a point and a signed exponent."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.5e}"


def quoted(text: str) -> str:
    """A scalar that YAML reads back as this text."""
    return yaml.safe_dump(text, width=10**6, allow_unicode=True).removesuffix("\n...\n").strip()

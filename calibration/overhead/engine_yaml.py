"""A refitted engine profile as the YAML of ``simulator.engine_profiles``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from calibration.profile_yaml import Sources, param_text, quoted
from hwprofiles.param import Param
from simulator.engine_profiles import EngineProfile, load_engine


def engine_text(profile: EngineProfile, comment: str = "") -> str:
    """The whole file.

    Args:
        profile: what it says.
        comment: lines put at its top.
    """
    sources = Sources()
    origin = dict(profile.choices)
    body = [
        f"{key}: {{value: {value}, source: {sources.key(origin[key], origin[key].kind)}}}"
        for key, value in (
            ("scheduler", profile.scheduler),
            ("kernels", quoted(profile.kernels)),
            ("memory_base", profile.memory_base),
            ("first_token", profile.first_token),
            ("reserve", profile.reserve),
        )
    ]
    body += _graphs(profile, sources)
    body.append("numbers:")
    body += [
        f"  {key}: {param_text(param, sources, param.source.kind)}" for key, param in profile.values
    ]
    head = [f"# {line}".rstrip() for line in comment.splitlines()]
    head += [
        "schema: 1",
        f"name: {quoted(profile.name)}",
        f"description: {quoted(profile.description)}",
        *sources.lines(),
    ]
    return "\n".join([*head, *body]) + "\n"


def _graphs(profile: EngineProfile, sources: Sources) -> list[str]:
    """What it captures, and whether its steps overlap."""
    origin = dict(profile.choices)
    lines = []
    if profile.graph_sizes:
        value = f"[{', '.join(map(str, profile.graph_sizes))}]"
        if profile.graph_narrow is not None:
            gpus, largest = profile.graph_narrow
            value += f", narrow: {{gpus: {gpus}, largest: {largest}}}"
        lines.append(("graph_sizes", value))
    flags = [key for key in ("graph_padding", "graph_mixed", "overlap") if key in origin]
    lines += [(key, str(getattr(profile, key)).lower()) for key in flags]
    return [
        f"{key}: {{value: {value}, source: {sources.key(origin[key], origin[key].kind)}}}"
        for key, value in lines
    ]


def checked_text(profile: EngineProfile, comment: str = "") -> str:
    """The same, after reading it back: what is written can be used."""
    text = engine_text(profile, comment)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "engine.yaml"
        file.write_text(text, encoding="utf-8")
        found = load_engine(file)
    wanted: Mapping[str, Param] = dict(profile.values)
    for name, param in found.values:
        if abs(param.value - wanted[name].value) > 1e-4 * abs(wanted[name].value):
            raise RuntimeError(f"{name} was written as {param.value}, not {wanted[name].value}")
    return text

"""Profiles by name: the bundled YAML files, or a path to the user's own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from hwprofiles.links import LinkProfile
from hwprofiles.node import read_yaml
from hwprofiles.parse import gpu_profile, link_profile, price_book
from hwprofiles.prices import PriceBook
from hwprofiles.profile import GpuProfile
from simulator.errors import ProfileError, suggest

EXAMPLE_PRICES = "prices_example.yaml"


def gpu_names() -> list[str]:
    """Names of the bundled GPUs, sorted; aliases apart."""
    return sorted(_bundled("gpus"))


def link_names() -> list[str]:
    """Names of the bundled links, sorted."""
    return sorted(_bundled("links"))


def load_gpu(name_or_path: str | Path) -> GpuProfile:
    """A GPU by bundled name or alias (in any case), or from a YAML file.

    Raises:
        ProfileError: unknown name (with the nearest one), or a bad file: one sentence with file,
            field path, what was found and what is allowed.
    """
    path = _as_path(name_or_path)
    if path is not None:
        return gpu_profile(read_yaml(path, str(path)), _lend)
    name = str(name_or_path).lower()
    if name in _bundled("gpus"):
        return _bundled_gpu(name)
    canonical = dict(_gpu_aliases()).get(name)
    if canonical is None:
        known = [*gpu_names(), *(alias for alias, _ in _gpu_aliases())]
        raise ProfileError(f"GPU '{name_or_path}' is unknown; {suggest(name, known)}")
    return _bundled_gpu(canonical)


def _lend(name_or_path: str) -> GpuProfile:
    """The GPU another one borrows from: bundled, or a file that does not borrow in turn."""
    path = _as_path(name_or_path)
    if path is None:
        return load_gpu(name_or_path)
    return gpu_profile(read_yaml(path, str(path)), _no_lender)


def _no_lender(name: str) -> GpuProfile:
    raise ProfileError(f"a GPU that borrows from {name} cannot lend; allowed: a calibrated GPU.")


def load_link(name_or_path: str | Path) -> LinkProfile:
    """A link by bundled name (in any case), or from a YAML file.

    Raises:
        ProfileError: as in ``load_gpu``.
    """
    path = _as_path(name_or_path)
    if path is not None:
        return link_profile(read_yaml(path, str(path)))
    name = str(name_or_path).lower()
    if name not in _bundled("links"):
        raise ProfileError(f"link '{name_or_path}' is unknown; {suggest(name, link_names())}")
    return _bundled_link(name)


def load_prices(path: str | Path | None = None) -> PriceBook:
    """Prices from a YAML file; without one, the bundled, dated example.

    Raises:
        ProfileError: as in ``load_gpu``.
    """
    if path is None:
        bundled = files("hwprofiles").joinpath(EXAMPLE_PRICES)
        return price_book(read_yaml(bundled, f"hwprofiles/{EXAMPLE_PRICES}"), _gpu_aliases())
    file = Path(path)
    if not file.is_file():
        raise ProfileError(f"price file '{path}' does not exist.")
    return price_book(read_yaml(file, str(path)), _gpu_aliases())


def _as_path(name_or_path: str | Path) -> Path | None:
    """The path meant, or None where a bundled name is.

    Raises:
        ProfileError: it looks like a path, and there is no such file.
    """
    path = Path(name_or_path)
    looks_like_path = path.suffix in {".yaml", ".yml"} or len(path.parts) > 1
    if not looks_like_path and not isinstance(name_or_path, Path):
        return None
    if not path.is_file():
        raise ProfileError(f"profile file '{path}' does not exist.")
    return path


@cache
def _bundled(folder: str) -> dict[str, Traversable]:
    found = files("hwprofiles").joinpath(folder).iterdir()
    return {f.name.removesuffix(".yaml"): f for f in found if f.name.endswith(".yaml")}


@cache
def _bundled_gpu(name: str) -> GpuProfile:
    file = read_yaml(_bundled("gpus")[name], f"hwprofiles/gpus/{name}.yaml")
    return gpu_profile(file, _lend)


@cache
def _bundled_link(name: str) -> LinkProfile:
    return link_profile(read_yaml(_bundled("links")[name], f"hwprofiles/links/{name}.yaml"))


@cache
def _gpu_aliases() -> tuple[tuple[str, str], ...]:
    """Read without the kernels: a name must not cost the parsing of every profile."""
    found = []
    for name, file in sorted(_bundled("gpus").items()):
        aliases = read_yaml(file, f"hwprofiles/gpus/{name}.yaml").get("aliases")
        found += [] if aliases is None else [(a.lower(), name) for a in aliases.texts()]
    return tuple(found)

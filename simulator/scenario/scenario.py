"""A scenario: what to simulate, read from one file and checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import scenarios
from simulator.errors import ScenarioError, suggest
from simulator.html import card, duration, settings
from simulator.scenario.applied import settings_of
from simulator.scenario.arrival_schema import process_name
from simulator.scenario.build import build_deployment, check_names
from simulator.scenario.deployment import Deployment
from simulator.scenario.draw import draw_requests
from simulator.scenario.fit import check_fit
from simulator.scenario.messages import explain
from simulator.scenario.names import anchor
from simulator.scenario.overrides import Override, apply_overrides, parse_override
from simulator.scenario.problem import Problem
from simulator.scenario.resolve import Mode, mode_of, resolve
from simulator.scenario.schema import ScenarioConfig
from simulator.scenario.slo import SLO, ClassSLO
from simulator.scenario.yaml_file import dump_yaml, read_mapping
from simulator.workload import Requests


@dataclass(frozen=True, eq=False, repr=False)
class Scenario:
    """A checked scenario. Make one with ``load`` or ``from_dict``; two with equal content are equal.

    Attributes:
        config: the resolved content: every default that has an effect is filled in.
        source: the file it came from, or what else error sentences call it.
        raw: the content as written, with overrides made and paths absolute.
        overrides: the overrides made, in order.
    """

    config: ScenarioConfig
    source: str
    raw: Mapping[str, Any]
    overrides: tuple[Override, ...] = field(default=())

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Iterable[str] = ()) -> Scenario:
        """Read a bundled scenario by name, or a YAML file.

        Args:
            name_or_path: one of ``scenarios.scenario_names()``, or a path.
            overrides: assignments such as ``"pools.decode.instances=6"``, in order; relative paths
                in them are relative to the working directory.

        Raises:
            ScenarioError: one sentence with file, key, what was found and what is allowed.
        """
        path = _find(name_or_path)
        raw = anchor(read_mapping(path), path.resolve().parent)
        return cls._checked(raw, str(path), overrides)

    @classmethod
    def from_dict(
        cls,
        raw: Mapping[str, Any],
        overrides: Iterable[str] = (),
        *,
        folder: Path | None = None,
        source: str = "scenario",
    ) -> Scenario:
        """A scenario from the mapping a file would hold.

        Args:
            raw: its content.
            overrides: as in ``load``.
            folder: what relative paths in it are relative to; the working directory if None.
            source: what error sentences call it.

        Raises:
            ScenarioError: as in ``load``.
        """
        return cls._checked(anchor(dict(raw), folder or Path.cwd()), source, overrides)

    def with_overrides(self, overrides: Iterable[str]) -> Scenario:
        """A copy with assignments made on top of what was written (see ``load``).

        Raises:
            ScenarioError: as in ``load``.
        """
        return self._checked(self.raw, self.source, overrides, self.overrides)

    @classmethod
    def _checked(
        cls,
        raw: Mapping[str, Any],
        source: str,
        overrides: Iterable[str],
        earlier: tuple[Override, ...] = (),
    ) -> Scenario:
        made = tuple(parse_override(text) for text in overrides)
        raw = anchor(apply_overrides(raw, made), Path.cwd())
        made = (*earlier, *made)
        with _blamed(source, made):
            try:
                config = ScenarioConfig.model_validate(raw)
            except ValidationError as error:
                raise Problem(*explain(error, raw)) from None
            config = resolve(config)
            check_names(config)
        return cls(config, source, raw, made)

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.config.name

    @property
    def seed(self) -> int:
        """Seed of every random stream."""
        return self.config.seed

    @property
    def mode(self) -> Mode:
        """``"disaggregated"`` or ``"colocated"``."""
        return mode_of(self.config)

    @property
    def slo(self) -> SLO | None:
        """Latency targets, those of request classes included; None if the scenario has none."""
        targets = self.config.slo
        classes = {
            name: ClassSLO(**found.slo.model_dump())
            for name, found in (self.config.workload.classes or {}).items()
            if found.slo is not None
        }
        if targets is None:
            return SLO(classes=classes) if classes else None
        return SLO(**targets.model_dump(), classes=classes)

    def deployment(self) -> Deployment:
        """The cluster: every name an object, every pool with its tabulated step times.

        The step tables reach the longest prompt of any seed (of the trace), or what the KV cache
        of a prefill instance holds where prompt lengths have no bound.

        Raises:
            ScenarioError: the model does not fit a pool's GPUs; or the trace cannot be read.
        """
        with _blamed(self.source, self.overrides):
            built = build_deployment(self.config)
            return replace(built, settings=settings_of(self.config, built))

    def requests(self, seed: int | None = None) -> Requests:
        """The workload.

        Args:
            seed: experiment seed; the scenario's own if None.

        Raises:
            ScenarioError: the trace cannot be read or cut as asked; or, with
                ``on_too_long: error``, a request can never fit a KV cache.
        """
        with _blamed(self.source, self.overrides):
            drawn = draw_requests(self.config.workload, self.seed if seed is None else seed)
            if self.config.workload.on_too_long == "error":
                check_fit(drawn, build_deployment(self.config))
        return drawn

    def to_yaml(self) -> str:
        """The resolved scenario as YAML; loading it gives an equal scenario."""
        return dump_yaml(self.config.model_dump(mode="json", exclude_none=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.to_yaml() == other.to_yaml()

    def __hash__(self) -> int:
        return hash(self.to_yaml())

    def __repr__(self) -> str:
        return f"Scenario({self.name!r}, {self.mode}, from {self.source})"

    def _repr_html_(self) -> str:
        config = self.config
        workload = config.workload
        facts = {
            "model": f"{config.model}, weights {config.precision.weights}, KV {config.precision.kv}"
        }
        if workload.rate_rps is not None:
            count = "" if workload.requests is None else f", {workload.requests:,} requests"
            facts["arrivals"] = (
                f"{process_name(workload.arrivals)}, {workload.rate_rps:.4g} requests/s{count}"
            )
        given = workload.model_dump(exclude_none=True)
        for key in ("trace", "closed_loop", "lengths", "prompt_tokens", "output_tokens"):
            facts[key.replace("_", " ")] = settings(given.get(key, {}))
        facts["classes"] = ", ".join(workload.classes or ())
        for name, pool in config.pools.items():
            facts[f"{name} pool"] = f"{pool.instances} × {pool.gpu} {pool.parallel.label}"
        facts["link"] = config.link.name if config.link else ""
        facts["targets"] = _targets(self.slo)
        return card(f"{self.name} · {self.mode}", facts=facts)


def _targets(slo: SLO | None) -> str:
    """Targets in words; empty without any."""
    if slo is None:
        return ""
    named = {"TTFT": slo.ttft_s, "TPOT": slo.tpot_s}
    limits = [f"{name} ≤ {duration(s)}" for name, s in named.items() if s is not None]
    if slo.classes:
        limits.append(
            "those of its class" if not limits else "those of classes that have their own"
        )
    return f"{' and '.join(limits)} for {100 * slo.attainment:g} % of requests"


def _find(name_or_path: str | Path) -> Path:
    """The file of a bundled scenario, or the path given."""
    text = str(name_or_path)
    names = scenarios.scenario_names()
    if isinstance(name_or_path, str) and text in names:
        return scenarios.scenario_path(text)
    path = Path(name_or_path)
    if "\0" in text or (len(path.parts) < 2 and not path.suffix and not path.exists()):
        raise ScenarioError(f"{text!r} is no file and no bundled scenario; {suggest(text, names)}")
    return path


@contextmanager
def _blamed(source: str, overrides: tuple[Override, ...]) -> Iterator[None]:
    """Turn a ``Problem`` into a ``ScenarioError`` that names the file or the override at fault."""
    try:
        yield
    except Problem as problem:
        guilty = [o for o in overrides if problem.path[: len(o.path)] == o.path][-1:]
        changed = "".join(f" with --set {o.text}" for o in guilty or overrides)
        dotted = f" {'.'.join(problem.path)}:" if problem.path else ""
        raise ScenarioError(f"{source}{changed}:{dotted} {problem.text}") from problem.__cause__

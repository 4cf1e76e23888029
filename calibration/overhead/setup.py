"""What was measured: the deployment, from options or a scenario, held against what files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibration.overhead.results import Result, Said
from simulator.engine_profiles import EngineProfile, load_engine
from simulator.errors import InputError
from simulator.model import load_model
from simulator.perf.precision import Precision
from simulator.scenario import Scenario
from simulator.scenario.engine import step_overhead_s
from simulator.validation.serving.mapping import Unpredictable, model_of

FITTED_KEYS = ("c0_s", "c1_s", "host_s", "sustained", "sustained_experts")
"""Keys of a scenario's engine that this fit is there to find."""


def any_workload(prompt_tokens: int = 1, output_tokens: int = 1) -> dict[str, Any]:
    """A workload section whose only effect is how long requests may be [tokens]."""
    return {
        "closed_loop": {"concurrency": 1, "requests": 1},
        "prompt_tokens": {"dist": "fixed", "tokens": prompt_tokens},
        "output_tokens": {"dist": "fixed", "tokens": output_tokens},
    }


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said of the deployment, beside the files.

    Attributes:
        profile: GPU: a bundled name or a file.
        engine: serving engine: a bundled name or a file.
        model: bundled name or config.json.
        tp: tensor parallelism.
        precision: format of the weights.
        scenario: a scenario that says the deployment instead.
        overrides: assignments to keys of the scenario.
    """

    profile: str | None = None
    engine: str | None = None
    model: str | None = None
    tp: int | None = None
    precision: str | None = None
    scenario: str | None = None
    overrides: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Setup:
    """A deployment, but for what its clients sent.

    Attributes:
        raw: the scenario's content.
        source: what error sentences call it.
        engine: the engine's profile: starting values and prior.
        text: the deployment in words.
        compute: type the dense matrices are multiplied in.
        experts: whether the model has routed experts.
        added: what the profile adds to its ``c0_s`` for this model, and to its ``front_s`` for these
            GPUs [s].
    """

    raw: Mapping[str, Any]
    source: str
    engine: EngineProfile
    text: str
    compute: str
    experts: bool
    added: Mapping[str, float]

    @property
    def sustained(self) -> str:
        """Name of the profile's prefill efficiency that this deployment uses."""
        return "sustained_fp8" if self.compute == "fp8" else "sustained_bf16"


def set_up(options: Options, results: Sequence[Result]) -> Setup:
    """The deployment that all results were measured on.

    Raises:
        InputError: something is missing, unknown or does not go together, or a file says otherwise.
    """
    given = _from_options(options, results)
    scenario = given.with_overrides(options.overrides) if options.overrides else given
    config = scenario.config
    assert config.engine.name is not None  # both sources see to it
    raw = dict(scenario.raw)
    _refuse_fitted(scenario.source, raw)
    model = load_model(config.model)
    for result in results:
        _check(result, scenario, model.name)
    bits = config.precision
    precision = Precision.of(
        model,
        weights=None if bits.weights == "auto" else bits.weights,
        experts=None if bits.experts == "auto" else bits.experts,
        compute=None if bits.compute == "auto" else bits.compute,
        kv=None if bits.kv == "auto" else bits.kv,
        activations=bits.activations,
    )
    stored = precision.formats.attention if model.is_moe else precision.weights
    formats = f"{precision.weights} weights"
    if model.is_moe and precision.formats.experts != precision.weights:
        formats += f", {precision.formats.experts} experts"
    pools = ", ".join(f"{p.instances} × {p.gpu} {p.parallel.label}" for p in config.pools.values())
    engine = load_engine(config.engine.name)
    last = [pool for pool in config.pools.values() if pool.role != "prefill"]
    widest = max(pool.parallel.gpus for pool in last or config.pools.values())
    c0_s = step_overhead_s(config.engine, model, precision, widest)
    assert c0_s is not None  # the profile brings it
    return Setup(
        raw=raw,
        source=scenario.source,
        engine=engine,
        text=f"{model.name}, {formats}, {precision.kv} KV, {pools}",
        compute=precision.wanted(stored),
        experts=model.is_moe,
        added={
            "c0_s": c0_s - engine["c0_s"],
            "front_s": config.routing.latency_s - engine["front_s"],
        },
    )


# --- options ------------------------------------------------------------------------------------


def _from_options(options: Options, results: Sequence[Result]) -> Scenario:
    if options.scenario is not None:
        return _from_scenario(options, options.scenario)
    for name in ("profile", "engine"):
        if getattr(options, name) is None:
            raise InputError(
                f"--{name} is missing; allowed: --profile GPU and --engine NAME, or --scenario FILE."
            )
    raw: dict[str, Any] = {
        "name": "overhead",
        "model": options.model or _model_said(results),
        "engine": {"name": options.engine},
        "workload": any_workload(),
        "pools": {"colocated": {"gpu": options.profile, "tp": options.tp or 1}},
    }
    if options.precision is not None:
        raw["precision"] = {"weights": options.precision}
    load_engine(str(options.engine))  # its own sentence, before that of a scenario
    return Scenario.from_dict(raw, source="options")


def _from_scenario(options: Options, name: str) -> Scenario:
    found = Scenario.load(name)
    for option, value in (
        ("model", options.model),
        ("tp", options.tp),
        ("precision", options.precision),
    ):
        if value is not None:
            raise InputError(
                f"--{option} has no effect with --scenario; allowed: --set to change a key of it."
            )
    if found.config.engine.name is None and options.engine is None:
        raise InputError(f"{found.source}: engine.name is missing; allowed: it, or --engine NAME.")
    if options.engine is not None:
        own = found.config.engine.name
        if own is not None and own.lower() != options.engine.lower():
            raise InputError(
                f"{found.source}: engine.name: found '{own}'; allowed: {options.engine} (--engine)."
            )
        load_engine(options.engine)
        if own is None:
            found = found.with_overrides([f"engine.name={options.engine}"])
    if options.profile is not None:
        for pool, plan in found.config.pools.items():
            if plan.gpu.lower() != options.profile.lower():
                raise InputError(
                    f"{found.source}: pools.{pool}.gpu: found '{plan.gpu}'; allowed: "
                    f"{options.profile} (--profile)."
                )
    raw = dict(found.raw)
    raw.pop("slo", None)
    raw["workload"] = any_workload()
    return Scenario.from_dict(raw, source=found.source)


def _model_said(results: Sequence[Result]) -> str:
    """The bundled model the files name."""
    for result in results:
        if result.model is not None:
            try:
                return model_of(result.model.value)
            except Unpredictable:
                raise InputError(
                    f"{result.entry.file}: {result.model.key}: found '{result.model.value}', which "
                    "is not bundled; allowed: --model NAME or --model config.json."
                ) from None
    raise InputError("--model is missing, and no file names its model; allowed: --model NAME.")


def _refuse_fitted(source: str, raw: Mapping[str, Any]) -> None:
    engine = raw.get("engine")
    for key in FITTED_KEYS:
        if isinstance(engine, Mapping) and engine.get(key) is not None:
            raise InputError(
                f"{source}: engine.{key} is what is to be fitted; allowed: leave it out, the engine's "
                "profile is the prior."
            )
    routing = raw.get("routing")
    if isinstance(routing, Mapping) and routing.get("latency_s") is not None:
        raise InputError(
            f"{source}: routing.latency_s is what is to be fitted; allowed: leave it out."
        )


# --- files --------------------------------------------------------------------------------------


def _check(result: Result, scenario: Scenario, model: str) -> None:
    """Refuse a file that says something else."""
    config = scenario.config
    if result.model is not None:
        _agree(result, result.model, _known(result.model.value), _known(model) or model)
    if result.engine is not None:
        assert config.engine.name is not None
        engine = load_engine(config.engine.name)
        _agree(result, result.engine, result.engine.value, engine.scheduler.split("_")[0])
    if result.tp is not None:
        degrees = {pool.tp for pool in config.pools.values()}
        if result.tp.value not in map(str, degrees):
            _agree(result, result.tp, result.tp.value, str(min(degrees)))


def _agree(result: Result, said: Said, found: str | None, wanted: str) -> None:
    if found is not None and found != wanted:
        line = f" line {result.entry.line}," if result.entry.line else ""
        raise InputError(
            f"{result.entry.file}:{line} {said.key}: found '{said.value}'; allowed: {wanted}, as the "
            "options or the scenario say."
        )


def _known(name: str) -> str | None:
    """Bundled name of a model; None for any other name, which servers choose freely."""
    try:
        return model_of(name)
    except Unpredictable:
        return None


def version_of(results: Sequence[Result]) -> str:
    """Versions and dates that files say, in words."""
    versions = sorted({result.version for result in results if result.version})
    dates = sorted({result.date for result in results if result.date})
    parts = []
    if versions:
        parts.append(f"version {', '.join(versions)}")
    if dates:
        parts.append(dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}")
    return ", ".join(parts)


def short(path: str | Path) -> str:
    """Name of a profile or its file, for sentences."""
    return Path(path).name

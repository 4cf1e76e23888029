"""A profile whose kernels take longer or shorter than it says, each operator by a factor of its own.

Parameters are times (fixed costs, passes over memory), rates (fractions of a peak or a bandwidth, bus
rates) or shapes (exponents, tile sizes). An operator that takes ``f`` times as long for every size has its times
multiplied and its rates divided by ``f``; its shapes stay. With ``f`` = 1 every number stays bit for
bit what it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from hwprofiles.param import Param
from hwprofiles.profile import GpuProfile, KernelFamily


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """The parameters of one operator of one kernel family of a GPU.

    Attributes:
        gpu: name of the GPU.
        family: the kernel family.
        operator: such as ``gemm``.
        kind: type it is given for (``bf16``), GPUs on a bus (``2``), or empty.
    """

    gpu: str
    family: str
    operator: str
    kind: str = ""

    def __str__(self) -> str:
        of = f" {self.kind}" if self.kind else ""
        return f"{self.gpu} {self.operator}{of}"

    @property
    def path(self) -> str:
        """Its place in the profile, e.g. ``kernels.vllm.gemm.bf16``."""
        parts = ("kernels", self.family, self.operator, self.kind)
        return ".".join(part for part in parts if part)


def operator_keys(gpu: GpuProfile, family: KernelFamily) -> Iterator[tuple[OperatorKey, Any]]:
    """Every operator of a family, with its parameters."""
    for field in fields(family):
        value = getattr(family, field.name)
        if isinstance(value, tuple):
            for item in value:
                kind, params = item if isinstance(item, tuple) else (str(item.gpus), item)
                yield OperatorKey(gpu.name, family.name, field.name, kind), params
        elif is_dataclass(value):
            yield OperatorKey(gpu.name, family.name, field.name), value


def held_out_error(params: Any) -> float | None:
    """Mean relative error of an operator on shapes it was not fitted to; None where unknown."""
    error = getattr(params, "error", None)
    return None if error is None else float(error.value)


def scaled(
    gpu: GpuProfile,
    factors: Mapping[OperatorKey, float],
    logs: Mapping[str, float] | None = None,
) -> GpuProfile:
    """The same GPU with other kernel times.

    Args:
        gpu: a profile.
        factors: how many times as long operators take, above 0; those left out stay.
        logs: logarithm of the factor on a parameter, by ``GpuProfile.parameters`` path; those left
            out stay, and parameters of 0 do.
    """
    return replace(
        gpu, kernels=tuple(_family(gpu, family, factors, logs or {}) for family in gpu.kernels)
    )


def _family(
    gpu: GpuProfile,
    family: KernelFamily,
    factors: Mapping[OperatorKey, float],
    logs: Mapping[str, float],
) -> KernelFamily:
    changed: dict[str, Any] = {}
    for field in fields(family):
        value = getattr(family, field.name)
        if isinstance(value, tuple):
            changed[field.name] = tuple(
                _entry(gpu, family, field.name, item, factors, logs) for item in value
            )
        elif is_dataclass(value):
            key = OperatorKey(gpu.name, family.name, field.name)
            changed[field.name] = _slower(value, key, factors, logs)
    return replace(family, **changed)


def _entry(
    gpu: GpuProfile,
    family: KernelFamily,
    operator: str,
    item: Any,
    factors: Mapping[OperatorKey, float],
    logs: Mapping[str, float],
) -> Any:
    if isinstance(item, tuple):
        key = OperatorKey(gpu.name, family.name, operator, item[0])
        return item[0], _slower(item[1], key, factors, logs)
    key = OperatorKey(gpu.name, family.name, operator, str(item.gpus))
    return _slower(item, key, factors, logs)


def _slower(
    params: Any,
    key: OperatorKey,
    factors: Mapping[OperatorKey, float],
    logs: Mapping[str, float],
) -> Any:
    factor = factors.get(key, 1.0)
    changed = {}
    for field in fields(params):
        param = getattr(params, field.name)
        if isinstance(param, Param):
            drawn = _drawn(param, logs.get(parameter_path(key, field.name), 0.0))
            changed[field.name] = _scaled(drawn, field.name, factor)
    return replace(params, **changed)


def operator_path(key: OperatorKey) -> str:
    """Path of an operator as ``GpuProfile.parameters`` names it."""
    if key.operator == "all_reduce":
        where = f"bus.{key.kind}" if key.kind else "nvlink"
        return f"kernels.{key.family}.all_reduce.{where}"
    return key.path


def parameter_path(key: OperatorKey, field: str) -> str:
    """Path of a parameter as ``GpuProfile.parameters`` names it."""
    return f"{operator_path(key)}.{field}"


def _scaled(param: Param, name: str, factor: float) -> Param:
    if param.unit == "s" or name.endswith("_passes") or name == "chain":
        return replace(param, value=param.value * factor)
    if param.unit == "bytes/s" or name == "eff" or name.endswith("_eff"):
        return replace(param, value=param.value / factor)
    return param


def _drawn(param: Param, log: float) -> Param:
    return param if log == 0.0 else replace(param, value=param.value * math.exp(log))

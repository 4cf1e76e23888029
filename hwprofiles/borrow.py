"""Kernel parameters of a GPU nobody has calibrated, borrowed from the nearest one that is.

Efficiencies are fractions of the data sheet, so they carry over to another data sheet: fixed costs
and the cost of a tile on one multiprocessor are kept, and what is a fraction of a peak or a bandwidth
meets the borrower's own. Three things are scaled, each with a reason:

- a bus in proportion to PCIe (a measured PCIe box stands for another);
- an efficiency above 1, which a large L2 makes possible by serving second reads, in proportion to
  the L2: ``1 + (eff - 1)·min(1, L2 / lender's L2)``;
- what the profile's own ``kernels.scale`` says, for a GPU known to reach less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from hwprofiles import schema
from hwprofiles.param import Param, Source
from hwprofiles.profile import (
    AllReduceParams,
    Borrowing,
    GpuProfile,
    KernelFamily,
    NvlinkAllReduce,
)

ERRORS: Mapping[str, tuple[float, float]] = {
    "gemm": (0.06, 0.20),
    "decode_attention": (0.06, 0.28),
    "prefill_attention": (0.11, 0.61),
}
"""Mean relative error, lowest and highest, of predicting one calibrated GPU with the parameters of
another, by operator: H100, H200, A100 and L40S, vLLM kernels in bf16, unseen shapes."""

_ERROR_SOURCE = Source(
    "assumed",
    "the worst seen when each calibrated GPU was predicted with the parameters of another; this GPU "
    "was not measured",
)
_COMPUTE_OPERATORS = ("gemm", "moe")
"""Operators given per compute type, which a GPU has only where it has the units."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a borrower says about itself.

    Attributes:
        name: the borrower.
        lender: the calibrated GPU.
        sheet: the borrower's data sheet, by field of ``schema.GPU``.
        scale: factors by ``operator.field``, e.g. ``gemm.compute_eff``.
    """

    name: str
    lender: GpuProfile
    sheet: Mapping[str, Param]
    scale: Mapping[str, Param]

    def ratio(self, field: str) -> float:
        """The borrower's data-sheet value over the lender's."""
        return float(self.sheet[field].value / getattr(self.lender, field).value)


def as_borrower(gpu: GpuProfile, lender: GpuProfile) -> GpuProfile:
    """A GPU as it would be modelled had nobody measured it: its data sheet, the lender's kernels.

    What borrowing costs is the difference between this and the calibrated profile. The all-reduce is
    the lender's where both have the same fabric, else the GPU's own.
    """
    sheet = {f.name: getattr(gpu, f.name) for f in schema.GPU if getattr(gpu, f.name) is not None}
    terms = Terms(name=gpu.name, lender=lender, sheet=sheet, scale={})
    found = borrow_all_reduce(terms)
    if isinstance(found, NvlinkAllReduce) != (gpu.nvlink_bytes_per_s is not None):
        found = gpu.family().all_reduce
    return replace(
        gpu, kernels=borrow_families(terms, found), borrowing=borrowing_of(lender, None, "")
    )


def borrowing_of(lender: GpuProfile, all_reduce_lender: str | None, note: str) -> Borrowing:
    """What a borrower says of its lender, with what borrowing cost where it could be checked."""
    return Borrowing(
        lender=lender.name,
        all_reduce_lender=all_reduce_lender,
        note=note,
        errors=tuple((operator, *bounds) for operator, bounds in ERRORS.items()),
    )


def borrow_families(terms: Terms, all_reduce: AllReduceParams | None) -> tuple[KernelFamily, ...]:
    """The lender's kernel families as the borrower runs them.

    Args:
        terms: who borrows from whom.
        all_reduce: the borrower's all-reduce (``borrow_all_reduce``, or its own).
    """
    return tuple(_family(family, terms, all_reduce) for family in terms.lender.kernels)


def borrow_all_reduce(terms: Terms, family: str | None = None) -> AllReduceParams | None:
    """The lender's all-reduce as the borrower runs it: a bus in proportion to PCIe.

    Args:
        terms: who borrows from whom.
        family: kernel family; the lender's first where it has no such family.
    """
    known = {f.name: f for f in terms.lender.kernels}
    found = known.get(family or "", terms.lender.kernels[0]).all_reduce
    return None if found is None else _mapped(found, "all_reduce", _change(terms))


def _family(family: KernelFamily, terms: Terms, all_reduce: AllReduceParams | None) -> KernelFamily:
    change = _change(terms)
    found: dict[str, Any] = {}
    for field in fields(family):
        if field.name in {"name", "all_reduce"}:
            continue
        value = getattr(family, field.name)
        if field.name in _COMPUTE_OPERATORS and isinstance(value, tuple):
            value = _with_units(value, terms.sheet)
        found[field.name] = _mapped(value, field.name, change)
    if all_reduce == borrow_all_reduce(terms):  # the lender's: then of each family its own
        all_reduce = borrow_all_reduce(terms, family.name)
    return replace(family, **found, all_reduce=all_reduce)


def _with_units(
    pairs: tuple[tuple[str, Any], ...], sheet: Mapping[str, Param]
) -> tuple[tuple[str, Any], ...]:
    """Parameters of the compute types the GPU has; where it has fp4, those of fp8 stand for it."""
    kept = [(d, p) for d, p in pairs if not d.startswith("fp8") or "fp8_flops" in sheet]
    kept = [(d, p) for d, p in kept if not d.startswith("fp4") or "fp4_flops" in sheet]
    known = dict(kept)
    if "fp4_flops" in sheet and "fp4" not in known and "fp8" in known:
        stands = "the parameters of fp8 stand for fp4, "
        kept.append(("fp4", _mapped(known["fp8"], "", lambda _, p: _noted(p, stands))))
    return tuple(kept)


Change = Callable[[str, Param], Param | None]
"""What becomes of a parameter at ``operator.….field``."""


def _change(terms: Terms) -> Change:
    """How a parameter changes hands."""

    def change(path: str, param: Param) -> Param | None:
        operator, field = path.split(".")[0], path.split(".")[-1]
        if field == "error":
            return _error(operator, param)
        factor, why = _factor(terms, f"{operator}.{field}", field, param.value)
        text = f"from {terms.lender.name}{why} ({param.source})"
        return Param(param.value * factor, param.unit, Source("borrowed", text))

    return change


def _factor(terms: Terms, key: str, field: str, value: float) -> tuple[float, str]:
    """The factor a parameter is scaled by, and why."""
    if key in terms.scale:
        given = terms.scale[key]
        return given.value, f" times {given.value:g}, {given.source}"
    if field == "bus_bytes_per_s":
        ratio = terms.ratio("pcie_bytes_per_s")
        return ratio, "" if ratio == 1.0 else f" times {ratio:g} for its PCIe"
    if field.endswith("_eff") and value > 1.0:
        ratio = min(1.0, terms.ratio("l2_bytes"))
        scaled = (1.0 + (value - 1.0) * ratio) / value
        return scaled, "" if ratio == 1.0 else ", its excess over 1 in proportion to the L2"
    return 1.0, ""


def _error(operator: str, param: Param) -> Param | None:
    """The error of a fit on another GPU, widened to what borrowing costs; None where unknown."""
    if operator not in ERRORS:
        return None
    worst = max(param.value, ERRORS[operator][1])
    return Param(worst, param.unit, _ERROR_SOURCE)


def _noted(param: Param, prefix: str) -> Param:
    return replace(param, source=Source(param.source.kind, prefix + param.source.text))


def _mapped(value: T, path: str, change: Change) -> T:
    """A copy of nested dataclasses and tuples with every parameter changed."""
    return _walk(value, path, change)  # type: ignore[no-any-return]  # same shape as value


def _walk(value: Any, path: str, change: Change) -> Any:
    if isinstance(value, Param):
        return change(path, value)
    if isinstance(value, tuple):
        return tuple(_walk(item, path, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {
            f.name: _walk(getattr(value, f.name), f"{path}.{f.name}", change) for f in fields(value)
        }
        if "correlations" in parts:
            parts["correlations"] = ()  # of standard errors, which are not lent
        return replace(value, **parts)
    return value

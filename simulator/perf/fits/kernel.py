"""A form as something that can be fitted: its parameters, its rows, its predictions.

``Sheet`` is what a fit needs of a GPU; ``Kernel`` joins a form to the columns of the operator tables.
The same predictions serve ``fit_…`` and ``xpyd validate``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd

from hwprofiles import GpuProfile, Param
from simulator.errors import InputError
from simulator.perf.fits.result import FitResult, Fitted, Score
from simulator.perf.fits.solve import Bound, solve
from simulator.perf.fits.split import Mask, Split, group_keys

Array = npt.NDArray[np.float64]

HELD_OUT = 0.25
"""Share of the groups held out where the caller does not say [1]."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Data sheet of a GPU, as forms take it.

    Attributes:
        peak_flops: dense peak of the compute type [FLOP/s].
        bandwidth: memory bandwidth [bytes/s].
        l2_bytes: last-level cache [bytes].
        sms: streaming multiprocessors [1].
        link_bytes_per_s: links of one GPU, one way [bytes/s]; 0 without.
    """

    peak_flops: float
    bandwidth: float
    l2_bytes: float
    sms: float
    link_bytes_per_s: float = 0.0

    @classmethod
    def of(cls, gpu: GpuProfile, compute: str = "bf16") -> Sheet:
        """The data sheet of a profile for a compute type.

        Args:
            gpu: the profile.
            compute: ``bf16``, ``fp8`` or ``fp8_block``.

        Raises:
            ProfileError: the GPU does not compute in it.
        """
        link = gpu.nvlink_bytes_per_s
        return cls(
            peak_flops=gpu.peak_flops(compute.removesuffix("_block")),
            bandwidth=gpu.memory_bytes_per_s.value,
            l2_bytes=gpu.l2_bytes.value,
            sms=gpu.sms.value,
            link_bytes_per_s=0.0 if link is None else link.value,
        )


Predict = Callable[[pd.DataFrame, Sheet, Mapping[str, float]], Array]
Usable = Callable[[pd.DataFrame, Sheet], Mask]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A form, the rows it is fitted to, and what of them makes a group.

    Attributes:
        operator: name of the section in a profile.
        bounds: parameters to fit.
        keys: columns that make a group of rows that share their error.
        sizes: columns whose range is recorded.
        predict: times of rows for parameter values [s].
        usable: which rows are fitted: the pitfalls of the tables left out.
    """

    operator: str
    bounds: tuple[Bound, ...]
    keys: tuple[str, ...]
    sizes: tuple[str, ...]
    predict: Predict
    usable: Usable


def measured_s(rows: pd.DataFrame) -> Array:
    """Measured times of rows [s]."""
    return rows["latency_us"].to_numpy(np.float64) * 1e-6


def column(rows: pd.DataFrame, name: str) -> Array:
    """A column as floats.

    Raises:
        InputError: it is missing.
    """
    if name not in rows.columns:
        raise InputError(f"rows: column '{name}' is missing; found {', '.join(rows.columns)}.")
    return rows[name].to_numpy(np.float64)


def values_of(params: object) -> dict[str, float]:
    """Values of the parameters of a profile's section, those it has."""
    found = {f.name: getattr(params, f.name) for f in fields(params)}  # type: ignore[arg-type]  # a dataclass
    return {name: p.value for name, p in found.items() if isinstance(p, Param)}


def fit_kernel(
    kernel: Kernel,
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    fixed: Mapping[str, float] | None = None,
) -> FitResult:
    """Fit a form to measured rows and score it on rows of groups it never saw.

    Args:
        kernel: the form.
        rows: measured rows in the columns of the operator tables, of one GPU, kernel family and
            type; about a quarter of their groups is held out. Or a split of your own.
        sheet: the GPU.
        fixed: values of parameters not to be fitted.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    if not isinstance(rows, Split):
        rows = rows[kernel.usable(rows, sheet)]
        parts = Split.by_hash(rows, kernel.keys, HELD_OUT)
    else:
        parts = Split(
            rows.train[kernel.usable(rows.train, sheet)],
            rows.held_out[kernel.usable(rows.held_out, sheet)],
            kernel.keys,  # also where the caller's groups are finer than the form's
        )
    known = dict(fixed or {})
    bounds = [b for b in kernel.bounds if b.name not in known]

    def named(x: Array | Sequence[float]) -> dict[str, float]:
        return known | {b.name: float(v) for b, v in zip(bounds, x, strict=True)}

    train = parts.train
    found = solve(
        lambda x: kernel.predict(train, sheet, named(x)),
        bounds,
        measured_s(train),
        group_keys(train, kernel.keys),
    )
    error = np.sqrt(np.diag(found.covariance))
    # no row tells a parameter whose error vanishes
    told = ~np.asarray(found.at_bound) & (error > 1e-9 * np.abs(found.values))
    covariance = np.where(np.outer(told, told), found.covariance, 0.0)

    def score(part: pd.DataFrame) -> Score:
        if part.empty:
            return Score.of(np.empty(0), np.empty(0))
        return Score.of(kernel.predict(part, sheet, named(found.values)), measured_s(part))

    return FitResult(
        operator=kernel.operator,
        parameters=tuple(
            Fitted(b.name, float(v), float(e) if known else None, b.unit)
            for b, v, e, known in zip(bounds, found.values, error, told, strict=True)
        ),
        covariance=covariance,
        groups=found.groups,
        fitted=score(train),
        held_out=score(parts.held_out),
        ranges=tuple(
            (size, float(train[size].min()), float(train[size].max())) for size in kernel.sizes
        ),
        fixed=tuple(known.items()),
    )

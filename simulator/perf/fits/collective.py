"""Fits of ``forms.all_reduce_s``, ``forms.all_reduce_ring_s`` and ``forms.all_to_all_s``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from simulator.perf import forms
from simulator.perf.fits.kernel import Array, Kernel, Sheet, column, fit_kernel
from simulator.perf.fits.result import FitResult
from simulator.perf.fits.solve import Bound
from simulator.perf.fits.split import Mask, Split

CUSTOM_BYTES = (8192.0, forms.CUSTOM_MOST_BYTES)
"""Messages vLLM and SGLang reduce with kernels of their own [bytes]."""


def _by_gpus(rows: pd.DataFrame, time: Callable[[Array, int], Array]) -> Array:
    """Times of rows whose number of GPUs varies."""
    size, gpus = column(rows, "bytes"), column(rows, "n_gpus")
    found = np.zeros(len(rows))
    for n in np.unique(gpus):
        at = gpus == n
        found[at] = time(size[at], int(n))
    return found


def all_reduce_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``comm`` rows that reduce over NVLink [s]."""
    return _by_gpus(
        rows,
        lambda size, n: forms.all_reduce_s(
            size,
            n,
            t0_s=values["t0_s"],
            rank_s=values["rank_s"],
            one_shot_eff=values["one_shot_eff"],
            two_shot_s=values["two_shot_s"],
            two_shot_eff=values["two_shot_eff"],
            large_s=values.get("large_s", 0.0),
            ring_eff=values.get("ring_eff", 0.0),
            switch_eff=values.get("switch_eff", 0.0),
            custom_bytes=values.get("custom_bytes", forms.CUSTOM_MOST_BYTES),
            link_bytes_per_s=sheet.link_bytes_per_s,
        ),
    )


def bus_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``comm`` rows that reduce over a bus [s]."""
    del sheet
    return _by_gpus(
        rows,
        lambda size, n: forms.all_reduce_ring_s(
            size, n, alpha_s=values["alpha_s"], bus_bytes_per_s=values["bus_bytes_per_s"]
        ),
    )


def all_to_all_seconds(rows: pd.DataFrame, sheet: Sheet, values: Mapping[str, float]) -> Array:
    """Predicted times of ``comm`` rows that exchange all to all [s]."""
    return _by_gpus(
        rows,
        lambda size, n: forms.all_to_all_s(
            size,
            n,
            t0_s=values["t0_s"],
            rank_s=values["rank_s"],
            eff=values["eff"],
            link_bytes_per_s=sheet.link_bytes_per_s,
        ),
    )


def custom_sizes(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Messages of 8 KB to 8 MB."""
    del sheet
    size = column(rows, "bytes")
    return np.asarray((size >= CUSTOM_BYTES[0]) & (size <= CUSTOM_BYTES[1]))


def custom_and_large(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    """Messages of 8 KB and more."""
    del sheet
    return np.asarray(column(rows, "bytes") >= CUSTOM_BYTES[0])


def _every(rows: pd.DataFrame, sheet: Sheet) -> Mask:
    del sheet
    return np.ones(len(rows), dtype=np.bool_)


_KEYS = ("n_gpus", "bytes")
ALL_REDUCE = Kernel(
    "all_reduce",
    (
        Bound("t0_s", 4e-6, 0.0, 1e-3, "s"),
        Bound("rank_s", 1e-7, 0.0, 1e-4, "s"),
        Bound("one_shot_eff", 0.6, 0.01, 2.0),
        Bound("two_shot_s", 5e-6, 0.0, 1e-3, "s"),
        Bound("two_shot_eff", 0.7, 0.01, 2.0),
    ),
    _KEYS,
    ("n_gpus", "bytes"),
    all_reduce_seconds,
    custom_sizes,
)
LARGE = (
    Bound("large_s", 3e-5, 0.0, 1e-3, "s"),
    Bound("ring_eff", 0.75, 0.01, 2.0),
)
SWITCH = Bound("switch_eff", 0.65, 0.01, 2.0)
BUS = Kernel(
    "all_reduce",
    (
        Bound("alpha_s", 1e-5, 0.0, 1.0, "s"),
        Bound("bus_bytes_per_s", 1e10, 1e6, 1e13, "bytes/s"),
    ),
    _KEYS,
    ("n_gpus", "bytes"),
    bus_seconds,
    _every,
)
ALL_TO_ALL = Kernel(
    "all_to_all",
    (
        Bound("t0_s", 1e-5, 0.0, 1e-2, "s"),
        Bound("rank_s", 1e-6, 0.0, 1e-3, "s"),
        Bound("eff", 0.6, 0.001, 2.0),
    ),
    _KEYS,
    ("n_gpus", "bytes"),
    all_to_all_seconds,
    _every,
)


def fit_all_reduce(
    rows: pd.DataFrame | Split,
    sheet: Sheet,
    *,
    large: bool = False,
    switch: bool = False,
    custom_bytes: float | None = None,
) -> FitResult:
    """Fit ``forms.all_reduce_s`` to rows of one GPU and kernel family over NVLink.

    Args:
        rows: ``n_gpus, bytes, latency_us``, all-reduces only; held out by message and ranks.
        sheet: the GPU.
        large: fit messages over ``forms.CUSTOM_MOST_BYTES``, too, with parameters of their own.
        switch: the switch can sum.
        custom_bytes: with ``large``: the library takes over above this [bytes]; None: above
            ``forms.CUSTOM_MOST_BYTES``.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    kernel = ALL_REDUCE
    if large:
        bounds = (*kernel.bounds, *LARGE, *((SWITCH,) if switch else ()))
        kernel = replace(kernel, bounds=bounds, usable=custom_and_large)
    fixed = {} if custom_bytes is None else {"custom_bytes": custom_bytes}
    return fit_kernel(kernel, rows, sheet, fixed=fixed)


def fit_bus_all_reduce(rows: pd.DataFrame | Split, sheet: Sheet) -> FitResult:
    """Fit ``forms.all_reduce_ring_s`` to rows of one GPU, kernel family and number of GPUs.

    Args:
        rows: ``n_gpus, bytes, latency_us``, all-reduces only; held out by message.
        sheet: the GPU.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    return fit_kernel(BUS, rows, sheet)


def fit_all_to_all(rows: pd.DataFrame | Split, sheet: Sheet) -> FitResult:
    """Fit ``forms.all_to_all_s`` to rows of one GPU and kernel family.

    Args:
        rows: ``n_gpus, bytes, latency_us``, all-to-alls only; held out by message and ranks.
        sheet: the GPU; without NVLink give its bus as the link.

    Raises:
        LeakError: held-out groups are among the fitted ones.
        InputError: a column is missing, or too few rows are usable.
    """
    return fit_kernel(ALL_TO_ALL, rows, sheet)

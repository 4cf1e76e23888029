"""Which operators of a prefill or a decode are evaluated outside the measurements behind them.

What counts is what carries time: every finding says the share of its phase that is computed outside
the measured sizes. Sizes just beyond an edge are as good as measured; a size in which the time of a
kernel grows in proportion once it is large (tokens, columns, message bytes) may be some times larger.
Below the smallest measured size only shapes matter: few tokens, short contexts and small messages
are bound by fixed costs, which every table shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal

import numpy as np

from simulator.perf.evaluated import Evaluation
from simulator.perf.forms import Array
from simulator.perf.step import StepModel

Phase = Literal["prefill", "decode"]

NEAR = 1.25
"""A size up to so many times beyond an edge counts as measured [1]."""

PROPORTIONAL = 4.0
"""The same for sizes in which a large kernel's time is proportional [1]. All-reduces fitted to 8 MB are
12-20 % off at 16 MB to 1 GB, so that it is not taken to be any size."""

SAID = 0.05
"""Findings of less than this share of their phase are not worth a sentence [1]."""

LISTED = 0.001
"""Findings of less than this share are dropped [1]."""

_PROPORTIONAL = ("m", "n", "k", "tokens", "bytes")
_SHAPES = (
    "n",
    "k",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "hidden",
    "width",
    "topk",
    "experts",
    "n_gpus",
)
"""Sizes that are no less a shape of their own for being small."""

_IGNORED = ("batch",)
"""More sequences than measured fill the GPU no better than the most that were."""


@dataclass(frozen=True, slots=True)
class Outside:
    """A size at which an operator runs and was not measured.

    Attributes:
        name: of the size, as in the profile's ``ranges``.
        used_low: smallest size used, of those outside.
        used_high: largest.
        low: smallest size measured.
        high: largest.
    """

    name: str
    used_low: float
    used_high: float
    low: float
    high: float

    @property
    def times(self) -> float:
        """How many times beyond the edge, at most."""
        above = self.used_high / self.high if self.used_high > self.high else 1.0
        below = self.low / self.used_low if 0.0 < self.used_low < self.low else 1.0
        return max(above, below)

    def with_also(self, other: Outside) -> Outside:
        """Both extents in one."""
        return replace(
            self,
            used_low=min(self.used_low, other.used_low),
            used_high=max(self.used_high, other.used_high),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """An operator of a phase whose times are not those of measurements at these sizes.

    Attributes:
        pool: where; empty for a step model alone.
        gpu: name of the GPU.
        kernels: kernel family.
        phase: ``prefill`` or ``decode``.
        operator: section of the profile.
        kind: type its parameters are given for, or GPUs of a bus; may be empty.
        parts: what the breakdown calls it.
        share: of the phase's time, what is computed so [1].
        why: ``outside`` the sizes measured, or not measured: ``borrowed``, ``stands_in``, ``assumed``.
        sizes: for ``outside``, which ones.
    """

    pool: str
    gpu: str
    kernels: str
    phase: Phase
    operator: str
    kind: str
    parts: tuple[str, ...]
    share: float
    why: str
    sizes: tuple[Outside, ...] = ()

    @property
    def what(self) -> str:
        """In words, e.g. ``prefill attention bf16``."""
        name = self.operator.replace("_", " ")
        return (
            f"{name} of {self.kind} GPUs" if self.kind.isdigit() else f"{name} {self.kind}".strip()
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it (docs/json.md)."""
        return {
            "pool": self.pool,
            "gpu": self.gpu,
            "kernels": self.kernels,
            "phase": self.phase,
            "operator": self.operator,
            "kind": self.kind,
            "parts": list(self.parts),
            "share": self.share,
            "why": self.why,
            "sizes": [
                {"name": s.name, "used": [s.used_low, s.used_high], "measured": [s.low, s.high]}
                for s in self.sizes
            ],
        }


def findings(
    evaluations: Sequence[Evaluation], *, phase: Phase, step: StepModel, pool: str = ""
) -> list[Finding]:
    """What of a phase does not rest on measurements at its sizes, largest share first.

    An operator that was not measured is not also reported as outside a range.

    Args:
        evaluations: all operators of the phase.
        phase: which it is.
        step: the instance.
        pool: where.
    """
    gpu, kernels = step.gpu.name, step.operators_per_gpu.family.name
    total = sum(float(e.time_s.sum()) for e in evaluations)
    merged: dict[tuple[str, str, str], Finding] = {}
    for e in evaluations:
        found = _judged(e)
        if found is None or total <= 0.0:
            continue
        why, time_s, sizes = found
        key = (e.operator, e.kind, why)
        new = Finding(
            pool, gpu, kernels, phase, e.operator, e.kind, (e.part,), time_s / total, why, sizes
        )
        merged[key] = _together(merged[key], new) if key in merged else new
    kept = [found for found in merged.values() if found.share >= LISTED]
    return sorted(kept, key=lambda f: -f.share)


def _judged(e: Evaluation) -> tuple[str, float, tuple[Outside, ...]] | None:
    """Why an operator is no measurement, the time spent so [s], and at which sizes."""
    if not e.operator:
        return None
    if e.why is not None:
        return e.why, float(e.time_s.sum()), ()
    measured = {name: (low, high) for name, low, high in e.ranges}
    beyond = np.zeros(e.time_s.shape, dtype=np.bool_)
    sizes = []
    for name, used in e.sizes.items():
        if name in measured and name not in _IGNORED:
            values = np.broadcast_to(np.asarray(used, dtype=np.float64), e.time_s.shape)
            mask = _beyond(name, values, *measured[name])
            if mask.any():
                some = values[mask]
                sizes.append(Outside(name, float(some.min()), float(some.max()), *measured[name]))
                beyond |= mask
    spent = float(e.time_s[beyond].sum())
    return ("outside", spent, tuple(sizes)) if spent > 0.0 else None


def _beyond(
    name: str, values: Array, low: float, high: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    room = PROPORTIONAL if name in _PROPORTIONAL else NEAR
    above = values > high * room
    return np.asarray(above | (values * NEAR < low) if name in _SHAPES else above)


def _together(one: Finding, two: Finding) -> Finding:
    sizes = {size.name: size for size in one.sizes}
    for size in two.sizes:
        sizes[size.name] = sizes[size.name].with_also(size) if size.name in sizes else size
    return replace(
        one,
        parts=tuple(dict.fromkeys([*one.parts, *two.parts])),
        share=one.share + two.share,
        sizes=tuple(sizes.values()),
    )


# --- in words -----------------------------------------------------------------------------------


def sentences(found: Iterable[Finding]) -> list[str]:
    """What a reader must be told: one sentence an operator, and one for what was not measured.

    GPUs that borrow their kernels, and operators that stand in for others, have sentences of their
    own (``GpuProfile.caution``, ``StepModel.notes``).
    """
    told = [f for f in found if f.share >= SAID]
    outside: dict[tuple[str, str, str], list[Finding]] = {}
    missing: dict[tuple[str, str], list[Finding]] = {}
    for f in told:
        if f.why == "outside":
            outside.setdefault((f.gpu, f.operator, f.kind), []).append(f)
        elif f.why == "assumed" and f.operator != "elementwise":
            missing.setdefault((f.gpu, f.kernels), []).append(f)
    return [*map(_outside_sentence, outside.values()), *map(_missing_sentence, missing.values())]


def _outside_sentence(same: list[Finding]) -> str:
    first = reduce(_together, same)
    parts = [part for part in first.parts if part != first.operator]
    which = f" ({', '.join(parts)})" if parts else ""
    sizes = "; ".join(_said(size) for size in first.sizes)
    return f"{first.gpu} {first.what}{which} is extrapolated: {sizes} ({_shares(same)})."


def _missing_sentence(same: list[Finding]) -> str:
    first = same[0]
    whats = list(dict.fromkeys(f.what for f in same))
    return (
        f"{first.gpu} {first.kernels} kernels: {_and(whats)} {'was' if len(whats) == 1 else 'were'} "
        f"not measured in this engine and taken from another ({_shares(same)})."
    )


def _shares(same: list[Finding]) -> str:
    """``31 % of prefill time``: per phase the largest share of any pool."""
    largest: dict[str, float] = {}
    by_pool: dict[tuple[str, str], float] = {}
    for f in same:
        by_pool[f.pool, f.phase] = by_pool.get((f.pool, f.phase), 0.0) + f.share
    for (_, phase), share in by_pool.items():
        largest[phase] = max(largest.get(phase, 0.0), share)
    return f"{_and([f'{100 * share:.0f} % of {phase}' for phase, share in largest.items()])} time"


def _and(texts: list[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)


_WORDS = {
    "m": ("steps of", "tokens"),
    "tokens": ("steps of", "tokens"),
    "n": ("weights of", "columns"),
    "k": ("weights of", "rows"),
    "isl": ("prompts of", "tokens"),
    "kv_len": ("contexts of", "tokens"),
    "n_heads": ("", "query heads a GPU"),
    "n_kv_heads": ("", "KV heads a GPU"),
    "head_dim": ("heads of width", ""),
    "hidden": ("a residual stream of width", ""),
    "width": ("", "columns of an expert"),
    "topk": ("", "experts a token"),
    "experts": ("", "experts"),
    "n_gpus": ("", "GPUs"),
    "bytes": ("messages of", "MB"),
}


def _said(size: Outside) -> str:
    """``prompts of up to 120,000 tokens, measured to 16,384``."""
    before, unit = _WORDS.get(size.name, ("", size.name))
    above, below = size.used_high > size.high, size.used_low < size.low
    used = f"{_number(size.used_low, size)} to {_number(size.used_high, size)}"
    if size.used_low == size.used_high or above != below:
        one = _number(size.used_high if above else size.used_low, size)
        same = size.used_low == size.used_high
        used = one if same else f"{'up to' if above else 'down to'} {one}"
    limits = f"{_number(size.low, size)} to {_number(size.high, size)}"
    if above != below:
        limits = f"to {_number(size.high, size)}" if above else f"from {_number(size.low, size)}"
    if size.low == size.high:
        limits = f"at {_number(size.low, size)}"
    return f"{before} {used} {unit}".strip() + f", measured {limits}"


def _number(value: float, size: Outside) -> str:
    if size.name == "bytes":
        return f"{value / 1e6:,.0f}" if value >= 1e8 else f"{value / 1e6:.3g}"
    return f"{value:,.0f}"

"""Steps of dense models as sums of measured kernels, beside the step model's sum of the same.

Norms, rotary embedding, sampling and the engine's own work are in neither: this checks what the
parameters of GEMM, attention and all-reduce add up to, on shapes of real models. ``python -m
simulator.validation.steps.summed DIR`` writes the bundled sums anew from complete tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd

from hwprofiles import load_gpu
from simulator.errors import ModelError, ProfileError
from simulator.model import GqaAttention, ModelSpec, Parallel, load_model
from simulator.perf.step import StepModel
from simulator.validation.operators.tables import Table, read_tables
from simulator.validation.steps.tables import MeasuredKernels, by_gpu

MODELS = ("llama-3.1-8b", "qwen3-32b", "llama-3.1-70b")
TP = (1, 2, 4, 8)
DECODE = [(b, n) for b in (1, 8, 32, 64, 128, 256) for n in (512, 1024, 4096, 16384)]
PREFILL = [(1, 512), (1, 1024), (1, 2048), (1, 4096), (1, 8192), (4, 1024), (4, 2048), (8, 1024)]

FILE = "steps_summed.parquet"
COLUMNS = ["gpu", "model", "tp", "phase", "batch", "length", "measured_s"]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a dense model.

    Attributes:
        model: bundled name.
        tp: tensor-parallel degree.
        phase: ``decode`` or ``prefill``.
        batch: sequences.
        length: context of each, the current token included, or its prompt [tokens].
    """

    model: str
    tp: int
    phase: str
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        """New tokens of the step."""
        return self.batch * (1 if self.phase == "decode" else self.length)


def steps() -> Iterator[Step]:
    """The grid of steps that is looked up; what was not measured falls out later."""
    for model in MODELS:
        for tp in TP:
            for phase, shapes in (("decode", DECODE), ("prefill", PREFILL)):
                for batch, length in shapes:
                    yield Step(model, tp, phase, batch, length)


def measured_s(kernels: MeasuredKernels, step: Step) -> float:
    """Sum of a step's measured kernels, LM head and elementwise ones apart [s]; or NaN."""
    spec = load_model(step.model)
    a = _attention(spec)
    m, tp = step.tokens, step.tp
    heads, kv_heads = a.heads // tp, a.kv_heads_per_gpu(tp)
    width = heads * a.head_dim
    ffn = _ffn_width(spec) // tp
    shapes = (
        (width + 2 * kv_heads * a.head_dim, spec.hidden),
        (spec.hidden, width),
        (2 * ffn, spec.hidden),
        (spec.hidden, ffn),
    )
    lookup = kernels.decode_s if step.phase == "decode" else kernels.prefill_s
    layer = lookup(step.batch, step.length, heads, kv_heads, a.head_dim)
    layer += sum(kernels.gemm_s(m, n, k) for n, k in shapes)
    layer += 2.0 * kernels.all_reduce_s(2.0 * m * spec.hidden, tp)
    return spec.layers * layer


def predicted_s(gpu: str, step: Step) -> float:
    """The step model's sum over the same kernels [s]; NaN where it has no such step."""
    try:
        model = StepModel(load_model(step.model), load_gpu(gpu), parallel=Parallel(tp=step.tp))
    except (ModelError, ProfileError):
        return float("nan")
    if step.phase == "decode":
        parts = model.decode_operators(step.batch, step.length)
    else:
        parts = model.prefill_operators(step.batch, step.length)
    left_out = ("lm_head", "elementwise", "framework", "host_wait")
    return sum(part.time_s for part in parts if part.name not in left_out)


def _attention(spec: ModelSpec) -> GqaAttention:
    attention = spec.kinds[0].attention
    assert isinstance(attention, GqaAttention)  # every model of MODELS is dense
    return attention


def _ffn_width(spec: ModelSpec) -> int:
    return int(spec.kinds[0].ffn.width)  # type: ignore[union-attr]  # dense, as above


def sum_tables(tables: list[Table], framework: str = "vllm") -> pd.DataFrame:
    """Steps whose kernels were all measured: ``COLUMNS``, times in seconds."""
    rows = []
    for gpu, group in sorted(by_gpu(tables).items()):
        kernels = MeasuredKernels(group, framework)
        for step in steps():
            value = measured_s(kernels, step)
            if np.isfinite(value):
                rows.append((gpu, step.model, step.tp, step.phase, step.batch, step.length, value))
    return pd.DataFrame(rows, columns=COLUMNS)


def bundled_steps() -> pd.DataFrame:
    """The sums that come with the project."""
    with as_file(files("simulator").joinpath("validation", "data", FILE)) as path:
        return pd.read_parquet(path)


def validate_summed(found: pd.DataFrame) -> pd.DataFrame:
    """The same rows with ``predicted_s`` and ``error`` (``predicted/measured - 1``)."""
    out = found.copy()
    out["predicted_s"] = [
        predicted_s(str(gpu), Step(str(model), int(tp), str(phase), int(batch), int(length)))
        for gpu, model, tp, phase, batch, length in zip(
            *(found[c].tolist() for c in COLUMNS[:6]), strict=True
        )
    ]
    out["error"] = out["predicted_s"] / out["measured_s"] - 1.0
    return out


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "data" / FILE
    sum_tables(read_tables(Path(sys.argv[1]))).to_parquet(target, index=False)

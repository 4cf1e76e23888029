"""Step models the perf tests share: several models, GPUs, degrees and precisions."""

from __future__ import annotations

from functools import cache

from hypothesis import strategies as st

from hwprofiles import load_gpu
from simulator.model import DenseFfn, GqaAttention, LayerKind, ModelSpec, load_model
from simulator.perf.step import OperatorTime, Parallel, Precision, StepModel, StepTable

Setup = tuple[str, str, int, Precision]

BF16 = Precision()
FP8 = Precision(weights="fp8", kv="fp8")
SETUPS = [
    ("llama-3.1-8b", "h100", 1, BF16),
    ("llama-3.1-70b", "h200", 4, FP8),
    ("llama-3.1-70b", "a100", 8, Precision(weights="fp8", kv="fp8")),
    ("qwen3-32b", "l40s", 2, BF16),
    ("llama-3.1-405b", "h100", 8, FP8),
    ("llama-2-7b", "l40s", 1, Precision(weights="fp8", compute="bf16", kv="bf16")),
]
MAX_SEQS, MAX_TOKENS = 128, 4096


def twelve(kv_heads: int = 12, head_dim: int = 128) -> ModelSpec:
    """Two layers of twelve heads."""
    layer = LayerKind(GqaAttention(12, kv_heads, head_dim), DenseFfn(4608), 2)
    return ModelSpec(
        name="twelve", architecture="LlamaForCausalLM", hidden=1536, vocab=32000, kinds=(layer,),
        max_position=4096,
    )  # fmt: skip


TWELVE = twelve()

setups = st.sampled_from(SETUPS)


@cache
def step(
    model: str,
    gpu: str,
    tp: int = 1,
    precision: Precision = BF16,
    *,
    c0_s: float = 0.8e-3,
    c1_s: float = 0.03e-3,
    host_s: float = 0.0,
) -> StepModel:
    return StepModel(
        load_model(model),
        load_gpu(gpu),
        Parallel(tp=tp),
        precision,
        host_s=host_s,
        c0_s=c0_s,
        c1_s=c1_s,
    )


@cache
def table(setup: Setup) -> StepTable:
    return step(*setup).table(MAX_SEQS, MAX_TOKENS)


def kernels_only(model: str, gpu: str, tp: int) -> StepModel:
    return step(model, gpu, tp, BF16, c0_s=0.0, c1_s=0.0)


def prefill_s(model: StepModel, chunks: list[tuple[int, int]], rows: int) -> float:
    """A step of chunks only, through the vectorised form."""
    new = sum(c for _, c in chunks)
    pairs = sum(c * p + c * c / 2 for p, c in chunks)
    read = sum(p + c for p, c in chunks)
    longest = max(p + c for p, c in chunks)
    return float(model.mixed_s(0, 0, new, pairs, read, rows, len(chunks), longest=longest))


def operator(parts: list[OperatorTime], name: str) -> OperatorTime:
    return next(part for part in parts if part.name == name)

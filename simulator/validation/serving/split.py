"""Which development runs the engine profiles were fitted on.

Whole deployments are fitted or not: one or two layouts of an engine and model on one GPU, and never
another layout, GPU or model. So the rows that were never fitted show what transfers.
"""

from __future__ import annotations

from simulator.validation.serving.runs import MeasuredRun

FITTED: frozenset[tuple[str, str, str, str]] = frozenset(
    {
        ("vllm", "Llama-3.1-70B", "h200_sxm", "TP2"),
        ("vllm", "Llama-3.1-70B", "h200_sxm", "TP8"),
        ("vllm", "gpt-oss-120b", "h200_sxm", "TP2"),
        ("trtllm", "Llama-3.1-70B", "h200_sxm", "TP1"),
        ("trtllm", "gpt-oss-120b", "h200_sxm", "TP1"),
        ("trtllm", "gpt-oss-120b", "h200_sxm", "TP4"),
        ("trtllm", "Qwen3-32B", "h100_sxm", "TP4"),
        ("trtllm", "Llama-3.1-8B-Instruct", "h100_sxm", "TP1"),
        ("trtllm", "Qwen3-235B-A22B-FP8", "h100_sxm", "TP4 EP4"),
        ("trtllm", "DeepSeek-V3", "h200_sxm", "TP8 EP8"),
        ("sglang", "Llama-3.1-8B-Instruct", "h200_sxm", "TP1"),
        ("sglang", "Qwen3-32B", "h100_sxm", "TP2"),
        ("sglang", "Qwen3-235B-A22B-FP8", "h200_sxm", "TP4"),
    }
)
"""Engine, model, GPU and layout of the deployments in the fit; the client of the undocumented ones
was inferred on them as well."""

OTHERS = ("qwen3_32b.csv",)
"""Files whose few runs have clients and versions of their own: never fitted, whatever they ran."""


def fitted(run: MeasuredRun) -> bool:
    """Whether the deployment of a run is one the engine profiles were fitted on."""
    key = (run.engine, run.model.rsplit("/", 1)[-1], run.gpu, run.layout)
    return run.prefill is None and run.dump not in OTHERS and key in FITTED

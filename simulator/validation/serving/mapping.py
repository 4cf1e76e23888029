"""From a measured run to the scenario that says what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwprofiles import gpu_names
from simulator.engine_profiles import EngineProfile, engine_names
from simulator.model import load_model, model_names
from simulator.scenario import Scenario
from simulator.scenario.engine import expert_layers
from simulator.validation.serving.clients import Client
from simulator.validation.serving.runs import MeasuredRun, Workers

SKEW = 0.6
"""Zipf exponent of the popularity of a mixture's experts: without it decode times of DeepSeek-V3 on
TensorRT-LLM grow faster with the batch than measured (fitted on its TP8 runs)."""

_COSTS = ("c1_s", "host_s", "eager_layer_s", "sustained_attention")

LINK = "ib_ndr"
"""Fabric of disaggregated runs; the tables do not record it (assumed)."""

_SUFFIXES = ("-instruct", "-fp8", "-fp4", "-nvfp4", "-hf", "-0528", "-2507", "-block", "-dynamic")


class Unpredictable(Exception):  # noqa: N818 -- not an error: a reason that goes into the table
    """A run that cannot be simulated; the message says why."""


def scenario_of(
    run: MeasuredRun,
    client: Client,
    engine: EngineProfile,
    *,
    seed: int = 1,
) -> Scenario:
    """The scenario of a run.

    Args:
        run: what was measured.
        client: what its benchmark client did.
        engine: the engine's defaults.
        seed: of the lengths.

    Raises:
        Unpredictable: something in the run is not modelled.
        InputError: the scenario cannot be built: the model does not fit, a degree is not allowed.
    """
    first = run.prefill or run.workers
    front_s = engine.latency_s(first.gpus // first.instances)
    raw: dict[str, Any] = {
        "name": f"row {run.row}",
        "model": model_of(run.model),
        "precision": precision_of(run),
        "workload": {
            "closed_loop": {
                "concurrency": run.concurrency,
                "requests": client.prompts_per_slot * run.concurrency,
            },
            "prompt_tokens": _lengths(run.isl, client.ratio),
            "output_tokens": _lengths(run.osl, client.ratio),
        },
        "engine": _engine(run, engine),
        "routing": {"latency_s": front_s},
        "seed": seed,
    }
    if load_model(raw["model"]).is_moe:
        raw["expert_skew"] = SKEW
    if run.prefill is None:
        raw["pools"] = {"colocated": _pool(run, run.workers, client, engine)}
    else:
        raw["pools"] = {
            "prefill": _pool(run, run.prefill, client, engine),
            "decode": _pool(run, run.workers, client, engine),
        }
        if client.prefill_budget_tokens is not None:
            raw["pools"]["prefill"]["max_num_batched_tokens"] = client.prefill_budget_tokens
        raw["link"] = LINK
    return Scenario.from_dict(raw, source=f"row {run.row}")


def _engine(run: MeasuredRun, engine: EngineProfile) -> dict[str, Any]:
    """The engine with every number of its profile, bundled or changed."""
    section: dict[str, Any] = {
        "name": engine.name,
        "kernels": engine.kernels,
        "sustained": engine.sustained(compute_of(run)),
    }
    model = load_model(model_of(run.model))
    section |= {name: engine[name] for name in _COSTS}
    section |= _graphs(run, engine)
    gpus = run.workers.gpus // run.workers.instances
    section["c0_s"] = engine.step_s(
        expert_layers(model), compute_of(run), layers=model.layers, gpus=gpus
    )
    if model.is_moe:
        section["sustained_experts"] = engine.sustained(compute_of(run), experts=True)
    return section


def _graphs(run: MeasuredRun, engine: EngineProfile) -> dict[str, Any]:
    """CUDA graphs of a run: the engine's, of its widest instance."""
    widest = max(run.workers.gpus // run.workers.instances, 1)
    if run.prefill is not None:
        widest = max(widest, run.prefill.gpus // run.prefill.instances)
    sizes, padding = engine.graphs(widest), engine.graph_padding
    # InferenceMAX's scripts for vLLM set async-scheduling (benchmarks/70b_fp8_h200_slurm.sh, 2025)
    overlap = engine.overlap or (engine.name == "vllm" and run.documented)
    found = {"overlap": overlap, "graph_sizes": list(sizes)}
    if sizes:
        found |= {"graph_padding": padding, "graph_mixed": engine.graph_mixed}
    return found


def compute_of(run: MeasuredRun) -> str:
    """Type the dense matrices of a run are multiplied in."""
    return "fp8" if str(precision_of(run).get("weights", "")).startswith("fp8") else "bf16"


def engine_of(run: MeasuredRun) -> str:
    """Name of the engine's profile.

    Raises:
        Unpredictable: no profile.
    """
    if run.engine not in engine_names():
        raise Unpredictable(f"no profile of the engine '{run.engine}'")
    return run.engine


def model_of(path: str) -> str:
    """Bundled name of a Hugging Face path.

    Raises:
        Unpredictable: the model is not bundled.
    """
    name = path.rsplit("/", 1)[-1].lower().removeprefix("meta-")
    known = model_names()
    while name not in known:
        shorter = next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), None)
        if shorter is None:
            raise Unpredictable(f"the model '{path}' is not bundled")
        name = shorter
    return name


def precision_of(run: MeasuredRun) -> dict[str, Any]:
    """Number formats of a run: its label names the weights, the KV type is not recorded.

    Checkpoints with one fp8 scale a tensor hold the scales of activations and of the KV cache as
    well, and engines take them: static activations, fp8 KV. Block-scaled fp8 is scaled on the fly
    and keeps a bf16 KV cache.
    """
    if not run.precision or run.precision == "bf16":
        return {}
    model = model_of(run.model)
    if model.startswith("gpt-oss"):
        return {"kv": "bf16"}  # the checkpoint is mxfp4 whatever the label says
    if model.startswith("deepseek"):
        return {"weights": "fp8_block", "kv": "fp8" if run.engine == "trtllm" else "bf16"}
    if run.precision == "fp8":
        if run.gemm == "fp8_block" or "235b" in model:
            return {"weights": "fp8_block", "kv": "bf16"}
        return {"weights": "fp8", "activations": "static", "kv": "fp8"}
    raise Unpredictable(f"weights in {run.precision} are not modelled")


def check_gpu(run: MeasuredRun) -> None:
    """Refuse a run on a GPU without a profile.

    Raises:
        Unpredictable: no profile.
    """
    if run.gpu not in gpu_names():
        raise Unpredictable(f"no profile of the GPU '{run.gpu}'")


def _lengths(tokens: int, ratio: float) -> Mapping[str, Any]:
    if ratio >= 1.0:
        return {"dist": "fixed", "tokens": tokens}
    return {"dist": "uniform_ratio", "max": tokens, "ratio": ratio}


def _pool(
    run: MeasuredRun, workers: Workers, client: Client, engine: EngineProfile
) -> dict[str, Any]:
    pool: dict[str, Any] = {
        "gpu": run.gpu,
        "tp": workers.tp,
        "pp": workers.pp,
        "ep": workers.ep,
        "attention_dp": workers.attention_dp,
        "instances": workers.instances,
    }
    if client.spare_slots is not None:
        pool["max_num_seqs"] = max(1, run.concurrency + client.spare_slots)
    else:
        # no more than the client can fill: the same run, and a smaller table
        pool["max_num_seqs"] = min(engine.whole("max_num_seqs"), run.concurrency)
    if client.one_prompt_a_step:
        pool["max_num_batched_tokens"] = run.isl + pool["max_num_seqs"] + 64
    else:
        budget = client.budget_tokens or engine.whole("max_num_batched_tokens")
        pool["max_num_batched_tokens"] = max(budget, pool["max_num_seqs"])
        if engine.scheduler == "trtllm":
            # prompts are computed whole: one must fit beside a full batch, or it would starve
            least = run.isl + pool["max_num_seqs"]
            pool["max_num_batched_tokens"] = max(budget, least)
    if client.balance is not None and workers.attention_dp > 1:
        timeout, batching = client.balance
        pool["attention_balance"] = {"timeout_iters": timeout, "batching_wait_iters": batching}
    if client.memory_fraction is not None:
        pool["memory_fraction"] = client.memory_fraction
    return pool

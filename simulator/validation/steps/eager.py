"""Whole steps measured on an engine of 2023 without CUDA graphs, whose host loop is the bottleneck.

Such an engine launches every kernel from Python; a layer costs the host a fixed time whatever the
GPU does, and all ranks of a tensor-parallel group wait for it. Llama-2-70B at TP8 on H100 takes
28 ms a token at batch 1, where reading its weights takes 5 ms. The step model covers this with a lower
bound per step (``host_s``); here it is read off the decode steps at batch 1, and tried on the rest.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd

from hwprofiles import load_gpu
from simulator.model import Parallel, load_model
from simulator.perf.step import StepModel

FILE = "steps_eager.parquet"
GPUS = {"a100-80gb": "a100_sxm_80gb", "h100-80gb": "h100_sxm"}
MODEL = "llama-2-70b"

KEYS = ["gpu", "tp", "batch", "prompt_tokens", "output_tokens"]


def select(measured: pd.DataFrame) -> pd.DataFrame:
    """Medians over repetitions of the usable Llama-2-70B rows: ``KEYS``, ``prefill_s, decode_s``.

    BLOOM-176B has no gated FFN and no rotary embedding, and is not modelled.

    Args:
        measured: the table of splitwise-sim with its ``use`` column.
    """
    rows = measured[measured["use"] & (measured["model"] == "llama2-70b")]
    out = pd.DataFrame(
        {
            "gpu": rows["hardware"].map(GPUS),
            "tp": rows["tensor_parallel"],
            "batch": rows["batch_size"],
            "prompt_tokens": rows["prompt_tokens_per_request"],
            "output_tokens": rows["output_tokens_per_request"],
            "prefill_s": rows["prompt_time_ms"] / 1e3,
            "decode_s": rows["token_time_ms"] / 1e3,
        }
    )
    return out.groupby(KEYS, as_index=False)[["prefill_s", "decode_s"]].median()


def bundled_eager() -> pd.DataFrame:
    """The measured steps that come with the project."""
    with as_file(files("simulator").joinpath("validation", "data", FILE)) as path:
        return pd.read_parquet(path)


@lru_cache(maxsize=16)
def _model(gpu: str, tp: int) -> StepModel:
    return StepModel(load_model(MODEL), load_gpu(gpu), parallel=Parallel(tp=tp))


def validate_eager(measured: pd.DataFrame) -> pd.DataFrame:
    """Predictions of every row, with and without a host bound.

    Returns:
        The rows with ``prefill_model_s``, ``decode_model_s`` (kernels and the default overheads),
        ``host_s`` (median decode step at batch 1 of its GPU and TP), ``decode_host_s`` (the larger
        of the two) and ``tested`` (not one of the rows ``host_s`` was read off).
    """
    out = measured.copy()
    prefill, decode = [], []
    for gpu, tp, batch, prompt, output in zip(*(out[k].tolist() for k in KEYS), strict=True):
        model = _model(str(gpu), int(tp))
        context = prompt + output / 2.0
        prefill.append(sum(op.time_s for op in model.prefill_operators(batch, prompt)))
        decode.append(float(model.decode_s(batch, batch * context)))
    out["prefill_model_s"] = prefill
    out["decode_model_s"] = decode
    alone = out[out["batch"] == 1].groupby(["gpu", "tp"])["decode_s"].median()
    out["host_s"] = [float(alone[gpu, tp]) for gpu, tp in zip(out["gpu"], out["tp"], strict=True)]
    out["decode_host_s"] = np.maximum(out["decode_model_s"], out["host_s"])
    out["tested"] = out["batch"] > 1
    return out


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "data" / FILE
    select(pd.read_parquet(sys.argv[1])).to_parquet(target, index=False)

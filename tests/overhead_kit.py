"""Result files of every benchmark client, of runs simulated with known constants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simulator.engine import simulate
from simulator.scenario import Scenario

TRUTH = {"c0_s": 1.5e-3, "c1_s": 60e-6, "front_s": 0.05, "sustained_bf16": 0.8}


def scenario(
    concurrency: int, requests: int, truth: Mapping[str, float] = TRUTH, **lengths: Any
) -> Scenario:
    """A closed loop on one GPU whose engine has these constants."""
    engine = {k: v for k, v in truth.items() if k in ("c0_s", "c1_s", "host_s")}
    if "sustained_bf16" in truth:
        engine["sustained"] = truth["sustained_bf16"]
    uniform = {"dist": "uniform_ratio", "ratio": 0.5}
    raw = {
        "name": "truth",
        "model": "llama-3.1-8b",
        "engine": {"name": "vllm", **engine},
        "workload": {
            "closed_loop": {"concurrency": concurrency, "requests": requests},
            "prompt_tokens": lengths.get("prompt", {**uniform, "max": 2000}),
            "output_tokens": lengths.get("output", {**uniform, "max": 60}),
        },
        "pools": {"colocated": {"gpu": "h100_sxm", "max_num_seqs": max(concurrency, 2)}},
        "routing": {"latency_s": truth.get("front_s", 0.025)},
        "seed": 40 + concurrency,
    }
    return Scenario.from_dict(raw)


class Measured:
    """What a client saw of a simulated run, in its own words."""

    def __init__(self, found: Scenario) -> None:
        run = simulate(found)
        table: Any = run.requests
        loop = run.workload.closed_loop
        self.concurrency = None if loop is None else loop.concurrency
        self.prompt = table["prompt_tokens"].to_numpy()
        self.output = table["output_tokens"].to_numpy()
        self.start = table["arrival_s"].to_numpy()
        self.ttft = table["first_token_s"].to_numpy() - self.start
        self.e2e = table["last_token_s"].to_numpy() - self.start
        self.tpot = (self.e2e - self.ttft) / np.maximum(self.output - 1, 1)
        self.n = int(self.prompt.size)

    def _stats(self, names: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = {}
        for name, values in names.items():
            found[f"mean_{name}_ms"] = 1e3 * float(values.mean())
            found[f"median_{name}_ms"] = 1e3 * float(np.median(values))
        return found

    def vllm(self, *, detailed: bool = True, **more: Any) -> dict[str, Any]:
        """``vllm bench serve --save-result``, with or without ``--save-detailed``."""
        found: dict[str, Any] = {
            "date": "20261120-101500",
            "endpoint_type": "vllm",
            "model_id": "meta-llama/Llama-3.1-8B-Instruct",
            "num_prompts": self.n,
            "request_rate": "inf",
            "burstiness": 1.0,
            "max_concurrency": self.concurrency,
            "completed": self.n,
            "total_input_tokens": int(self.prompt.sum()),
            "total_output_tokens": int(self.output.sum()),
            **self._stats({"ttft": self.ttft, "tpot": self.tpot, "e2el": self.e2e}),
        }
        if detailed:
            found |= {
                "input_lens": self.prompt.tolist(),
                "output_lens": self.output.tolist(),
                "ttfts": self.ttft.tolist(),
                "errors": [""] * self.n,
                "start_times": (self.start + 1e5).tolist(),
            }
        return found | more

    def sglang(self, **more: Any) -> dict[str, Any]:
        """A line of ``sglang.bench_serving``."""
        return {
            "backend": "sglang",
            "dataset_name": "random",
            "request_rate": "inf",
            "max_concurrency": self.concurrency,
            "random_input_len": 2000,
            "random_output_len": 60,
            "random_range_ratio": 0.5,
            "completed": self.n,
            "total_input_tokens": int(self.prompt.sum()),
            "total_output_tokens": int(self.output.sum()),
            **self._stats({"ttft": self.ttft, "tpot": self.tpot, "e2e_latency": self.e2e}),
        } | more

    def records(self) -> list[dict[str, Any]]:
        """Lines of AIPerf's ``profile_export.jsonl``, a warm-up request first."""
        values = zip(
            self.start, self.prompt, self.output, self.ttft, self.tpot, self.e2e, strict=True
        )
        rows: list[dict[str, Any]] = [{"metadata": {"benchmark_phase": "warmup"}, "metrics": {}}]
        for start, prompt, output, ttft, tpot, e2e in values:
            metrics = {
                "input_sequence_length": {"value": int(prompt), "unit": "tokens"},
                "output_sequence_length": {"value": int(output), "unit": "tokens"},
                "time_to_first_token": {"value": 1e3 * ttft, "unit": "ms"},
                "inter_token_latency": {"value": 1e3 * tpot, "unit": "ms"},
                "request_latency": {"value": 1e9 * e2e, "unit": "ns"},
            }
            about = {"request_start_ns": int(1e9 * (start + 5)), "benchmark_phase": "profiling"}
            rows.append({"metadata": about, "metrics": metrics, "error": None})
        return rows

    def aiperf(self) -> dict[str, Any]:
        """AIPerf's ``profile_export_aiperf.json``."""
        return {
            "schema_version": "1.0",
            **self._summary(),
            "input_config": {
                "endpoint": {"model_names": ["meta-llama/Llama-3.1-8B-Instruct"]},
                "loadgen": {"concurrency": self.concurrency, "request_count": self.n},
            },
            "start_time": "2026-11-20T10:15:00",
        }

    def genai_perf(self) -> dict[str, Any]:
        """genai-perf's ``profile_export_genai_perf.json``."""
        return {
            **self._summary(),
            "input_config": {
                "model_names": ["llama-3.1-8b"],
                "perf_analyzer": {"stimulus": {"concurrency": self.concurrency}},
            },
        }

    def inference_perf(self) -> dict[str, Any]:
        """A stage of inference-perf."""
        latency = {
            "time_to_first_token": _block(self.ttft, "median"),
            "time_per_output_token": _block(self.tpot, "median"),
            "request_latency": _block(self.e2e, "median"),
        }
        return {
            "load_summary": {"count": self.n, "concurrency": self.concurrency},
            "successes": {
                "count": self.n,
                "latency": latency,
                "prompt_len": _block(self.prompt, "median"),
                "output_len": _block(self.output, "median"),
            },
            "failures": {"count": 0},
        }

    def _summary(self) -> dict[str, Any]:
        times = {
            "time_to_first_token": self.ttft,
            "inter_token_latency": self.tpot,
            "request_latency": self.e2e,
        }
        found: dict[str, Any] = {
            name: {"unit": "ms", **_named(_block(1e3 * values, "p50"))}
            for name, values in times.items()
        }
        for name, lengths in (
            ("input_sequence_length", self.prompt),
            ("output_sequence_length", self.output),
        ):
            found[name] = {"unit": "tokens", **_named(_block(lengths, "p50"))}
        return found | {"request_count": {"unit": "requests", "avg": float(self.n)}}


def _named(block: dict[str, float]) -> dict[str, float]:
    return {("avg" if name == "mean" else name): value for name, value in block.items()}


def _block(values: np.ndarray, median: str) -> dict[str, float]:
    names = {"p10": 10, median: 50, "p90": 90, "p99": 99}
    found = {name: float(np.percentile(values, q)) for name, q in names.items()}
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        **found,
        "max": float(values.max()),
    }


def write(file: Path, *content: Any) -> Path:
    """One JSON object, or several, one a line."""
    file.write_text("\n".join(json.dumps(item) for item in content) + "\n")
    return file

"""Results of the vLLM and SGLang benchmark clients."""

from __future__ import annotations

from typing import Any

import numpy as np

from calibration.overhead.entry import Entry
from calibration.overhead.results import STATS, Lengths, Result, Said, recorded, uniform
from simulator.errors import InputError

NATIVE = {
    "sglang": "sglang",
    "sglang-native": "sglang",
    "sglang-oai": "sglang",
    "sglang-oai-chat": "sglang",
    "trt": "trtllm",
    "tensorrt-llm": "trtllm",
    "tensorrtllm": "trtllm",
}
"""Backends whose protocol only one engine speaks; OpenAI's (``vllm``, ``openai``) say nothing."""

TOO_MANY = 0.05
"""Share of failed requests above which a run is refused."""

_NAMES = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el"}
_TP = ("tp", "tp_size", "tensor_parallel_size", "tensor_parallel", "server_info.tp_size")
_MODEL = ("model_id", "model", "server_info.model_path")
_VERSION = ("version", "engine_version", "vllm_version", "server_info.version")


def is_client(entry: Entry) -> bool:
    """Whether this is a result of one of the two clients."""
    return entry.get("total_input_tokens") is not None or entry.get("input_lens") is not None


def read_client(entry: Entry) -> Result:
    """The run of a result.

    Raises:
        InputError: a value is missing or cannot be used.
    """
    backend = entry.text("backend", "endpoint_type").lower()
    client = "sglang" if entry.get("mean_e2e_latency_ms") is not None else "vllm"
    details = _details(entry)
    completed = entry.count("completed")
    if completed is None:
        if details is None:
            raise entry.bad("completed", None, "how many requests completed")
        completed = len(details["input_lens"])
    sent = entry.count("num_prompts") or (len(entry.listed("errors") or ()) or completed)
    failed = max(sent - completed, 0)
    notes = (f"{failed} of {sent} requests failed and were left out",) if failed else ()
    refuse_failures(entry, failed, sent)
    if details is None:
        prompt = _aggregate(entry, "total_input_tokens", completed, "random_input_len")
        output = _aggregate(entry, "total_output_tokens", completed, "random_output_len")
        start = None
    else:
        prompt, output = recorded(details["input_lens"]), recorded(details["output_lens"])
        start = details.get("start_times")
    native = NATIVE.get(backend)
    return Result(
        entry=entry,
        client=client,
        requests=completed if details is None else len(details["input_lens"]),
        prompt=prompt,
        output=output,
        measured=_measured(entry),
        concurrency=entry.count("max_concurrency"),
        rate_rps=entry.rate("request_rate"),
        burstiness=entry.number("burstiness") or 1.0,
        start_s=None if start is None else np.array(start) - min(start),
        model=said(entry, *_MODEL),
        engine=None if native is None else Said("backend", native),
        tp=said(entry, *_TP),
        version=entry.text(*_VERSION),
        date=entry.text("date"),
        notes=notes,
    )


def said(entry: Entry, *keys: str) -> Said | None:
    """The first of these fields that has a value."""
    for key in keys:
        text = entry.text(key)
        if text:
            return Said(key, text)
    return None


def refuse_failures(entry: Entry, failed: int, sent: int) -> None:
    """Refuse a run in which many requests failed.

    Raises:
        InputError: more than ``TOO_MANY``.
    """
    if failed > TOO_MANY * sent:
        raise InputError(
            f"{entry.file}: {failed} of {sent} requests failed; allowed: at most "
            f"{100 * TOO_MANY:g} %, since failures change the load."
        )


def _measured(entry: Entry) -> dict[tuple[str, str], float]:
    """What the file reports [s]."""
    found: dict[tuple[str, str], float] = {}
    for metric, name in _NAMES.items():
        for stat in STATS:
            names = (f"{stat}_{name}_ms", f"{stat}_{metric}_latency_ms")
            value = entry.number(*names)
            if value:
                found[metric, stat] = value / 1e3
    return found


def _aggregate(entry: Entry, key: str, completed: int, length_key: str) -> Lengths:
    """Lengths of a file that has only their sum; SGLang's also says how it drew random ones."""
    total = entry.number(key)
    if not total or total < completed:
        raise entry.bad(key, entry.get(key), f"at least {completed}, a token for each request")
    mean = total / completed
    ratio = entry.number("random_range_ratio")
    drawn = entry.text("dataset_name").startswith("random") and entry.get(length_key) is not None
    if drawn and ratio is not None and ratio <= 1.0:
        return uniform(mean, ratio, "random_range_ratio")
    return Lengths(mean)


def _details(entry: Entry) -> dict[str, list[Any]] | None:
    """Lists with an entry for each request that did not fail; None without."""
    prompts = entry.numbers("input_lens")
    if prompts is None:
        return None
    n = len(prompts)
    columns: dict[str, list[Any]] = {"input_lens": prompts}
    outputs = entry.numbers("output_lens", n)
    if outputs is None:
        raise entry.bad("output_lens", None, f"a list of {n} entries, as input_lens")
    columns["output_lens"] = outputs
    starts = entry.numbers("start_times", n)
    if starts is not None:
        columns["start_times"] = starts
    errors = entry.listed("errors", n) or [""] * n
    kept = [i for i in range(n) if not errors[i] and outputs[i] > 0]
    if not kept:
        raise InputError(f"{entry.file}: all {n} requests failed; allowed: some that completed.")
    for i in kept:
        for key in ("input_lens", "output_lens"):
            value = columns[key][i]
            if value < 1 or value != int(value):
                raise entry.bad(f"{key}[{i}]", value, "a whole number of at least 1")
    return {key: [values[i] for i in kept] for key, values in columns.items()}

"""What the benchmark client behind a measured run did: known, or inferred and said so.

TTFT of a closed-loop benchmark is mostly the client: its opening burst, how many prompts it sends,
how much its lengths vary. With lengths that vary, requests drift apart and TTFT is short; with
fixed lengths they move in waves for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.validation.serving.runs import MeasuredRun


@dataclass(frozen=True, slots=True)
class Client:
    """A closed-loop benchmark client, and the limits it ran the server with.

    Attributes:
        ratio: lengths are uniform between this share of the length asked for and that length.
        prompts_per_slot: requests sent in all, per request in flight.
        known: whether the client is documented; otherwise it is inferred from measured runs.
        one_prompt_a_step: the server's token budget held one prompt.
        budget_tokens: the server's token budget, where it is neither that nor the engine's default.
        spare_slots: sequences the server could run beyond the concurrency; None: its default.
        front_request_s: time a request is held up in front of the engine and behind it by others,
            for each request in flight [s].
        warmed_up: the opening burst is a warm-up, whose requests are not counted.
        stream_interval: the server shows so many tokens at once: a client sees the first of them
            when it sees this many.
        wait_steps: steps a prompt waits for company before it is prefilled.
        memory_fraction: the server's, where it is not the engine's default.
        balance: steps after which prompts stop waiting until every attention rank has one, and
            further steps they then wait; None: they do not wait.
        prefill_budget_tokens: token budget of an attention rank that prefills, where disaggregated
            and not the engine's default.
        note: what is inferred or set by the benchmark's script, in words.
    """

    ratio: float
    prompts_per_slot: int = 10
    known: bool = False
    one_prompt_a_step: bool = False
    budget_tokens: int | None = None
    spare_slots: int | None = None
    front_request_s: float = 0.0
    warmed_up: bool = False
    stream_interval: int = 1
    wait_steps: int = 0
    memory_fraction: float | None = None
    balance: tuple[int, int] | None = None
    prefill_budget_tokens: int | None = None
    note: str = ""


INFERENCE_MAX = Client(ratio=0.8, known=True)
"""The public InferenceMAX benchmark: ``--random-range-ratio 0.8``, ``num_prompts`` ten times the
concurrency, ``--request-rate inf``, ``--ignore-eos``. Its scripts run vLLM with ``max-num-seqs`` of the
concurrency, ``max-num-batched-tokens: 8192`` and no prefix cache (``benchmarks/70b_fp8_h200_slurm.sh``,
``gptoss_fp4_h100.sh``, ``gptoss_fp4_h200.sh`` of SemiAnalysisAI/InferenceX)."""

DSR1_TRT = replace(
    INFERENCE_MAX,
    one_prompt_a_step=True,
    stream_interval=10,
    memory_fraction=0.75,
    balance=(60, 0),
    note="the benchmark's script: stream_interval 10, max_num_tokens of one prompt, 0.75 of free "
    "memory for KV, prompts wait until every attention rank has one",
)
"""``benchmarks/dsr1_fp8_h200_trt_slurm.sh`` (2025). That the first token waits for the tenth is inferred:
TTFT grows by nine steps with the load. The scripts of Llama-3.1-70B (10) and gpt-oss-120b (20) set an
interval as well, and their TTFT is shorter than that: executors since mid-2025 send a request's first token
at once (``py_executor.py``)."""

LLAMA_70B_TRT = replace(
    INFERENCE_MAX,
    budget_tokens=16384,
    note="the benchmark's script: max_num_tokens 16384",
)
"""``benchmarks/70b_fp8_h200_trt_slurm.sh`` (2025)."""

LLAMA_70B_TRT_WAITS = replace(
    LLAMA_70B_TRT,
    wait_steps=20,
    note="the benchmark's script: max_num_tokens 16384, batch_wait_timeout_iters 20",
)
"""The same script at 1,024/1,024 tokens and below TP8: prompts wait until they fill 0.9 of
``max_num_tokens`` or until 20 steps have passed (``batch_wait_max_tokens_ratio``,
``batch_wait_timeout_iters``)."""

GPT_OSS_TRT = replace(
    INFERENCE_MAX,
    budget_tokens=20_000,
    memory_fraction=0.85,
    note="the benchmark's script: max_num_tokens 20000, 0.85 of free memory for KV",
)
"""``benchmarks/gptoss_fp4_h200_trt_slurm.sh`` (2025)."""

DSR1_TRT_8K_SPLIT = replace(
    INFERENCE_MAX,
    memory_fraction=0.85,
    prefill_budget_tokens=16_640,
    note="the benchmark's recipe: two prompts a prefill step, 0.85 of free memory for KV",
)
"""``recipes/trtllm/h200/8k1k/stp`` of ishandhanani/srt-slurm (2026), ``max_batch_size: 2``."""

DSR1_TRT_1K_SPLIT = replace(
    INFERENCE_MAX,
    prefill_budget_tokens=8192,
    note="the benchmark's recipe: eight prompts a prefill step of each rank",
)
"""``recipes/trtllm/h200/1k1k/stp`` of the same."""

DSR1_SGLANG_8K_SPLIT = replace(
    INFERENCE_MAX,
    memory_fraction=0.82,
    prefill_budget_tokens=32_768,
    note="the benchmark's recipe: chunked-prefill-size 32768, mem-fraction-static 0.82",
)
"""``recipes/h200/8k1k`` of NVIDIA/srt-slurm (2026)."""

SPREAD = Client(
    ratio=0.8,
    front_request_s=0.0014,
    note="client inferred: lengths 0.8 to 1 of those asked for, ten prompts per slot, held up by 1.4 "
    "ms for each request in flight outside the engine",
)

FIXED = Client(ratio=1.0, note="client inferred: fixed lengths, ten prompts per slot")

WARMED_UP = Client(
    ratio=0.8,
    warmed_up=True,
    note="client inferred: lengths 0.8 to 1 of those asked for, the opening burst not counted",
)

ONE_PROMPT = Client(
    ratio=1.0,
    one_prompt_a_step=True,
    note="client inferred: fixed lengths, ten prompts per slot, one prompt prefilled a step",
)

TIGHT = Client(
    ratio=1.0,
    one_prompt_a_step=True,
    spare_slots=-1,
    note="client inferred: fixed lengths, ten prompts per slot, one prompt prefilled a step, "
    "one running slot fewer than requests in flight",
)


def client_of(run: MeasuredRun) -> Client:
    """The client of a run, and the settings its script gave the server.

    Documented for the dumps that name it. For the others it is inferred on the fitted part of the
    development rows (see ``split``), per engine generation: TensorRT-LLM 1.0 release candidates
    were run with a budget of one prompt a step, Llama-3.1-8B among them with a slot too few; all
    but the Llama-3.1-8B runs of SGLang with fixed lengths.
    """
    if run.documented:
        return _inference_max(run)
    if run.prefill is not None:
        return WARMED_UP
    if run.engine == "trtllm" and run.version.startswith("1.0"):
        return TIGHT if "8B" in run.model else ONE_PROMPT
    if run.engine == "sglang" and "8B" in run.model:
        return SPREAD
    return FIXED


def _inference_max(run: MeasuredRun) -> Client:
    """The public benchmark, with what its script for a model and engine sets."""
    if run.engine == "sglang" and run.prefill is not None and run.isl > 1024:
        return DSR1_SGLANG_8K_SPLIT
    if run.engine != "trtllm":
        return INFERENCE_MAX
    if run.prefill is not None:
        return DSR1_TRT_8K_SPLIT if run.isl > 1024 else DSR1_TRT_1K_SPLIT
    if "DeepSeek" in run.model:
        return DSR1_TRT
    if "gpt-oss" in run.model:
        return GPT_OSS_TRT
    if "Llama-3.1-70B" in run.model:
        waits = (run.isl, run.osl) == (1024, 1024) and run.workers.tp < 8
        return LLAMA_70B_TRT_WAITS if waits else LLAMA_70B_TRT
    return INFERENCE_MAX

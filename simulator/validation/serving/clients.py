"""What the benchmark client behind a measured run did: known, or inferred and said so.

TTFT of a closed-loop benchmark is mostly the client: its opening burst, how many prompts it sends,
how much its lengths vary. With lengths that vary, requests drift apart and TTFT is short; with
fixed lengths they move in waves for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.validation.serving.runs import MeasuredRun


@dataclass(frozen=True, slots=True)
class Client:
    """A closed-loop benchmark client, and the limits it ran the server with.

    Attributes:
        ratio: lengths are uniform between this share of the length asked for and that length.
        prompts_per_slot: requests sent in all, per request in flight.
        known: whether the client is documented; otherwise it is inferred from measured runs.
        one_prompt_a_step: the server's token budget held one prompt.
        spare_slots: sequences the server could run beyond the concurrency; None: its default.
        front_s: front-end latency, where it is not the engine's [s].
        front_request_s: further front-end latency for each request in flight [s].
        warmed_up: the opening burst is a warm-up, whose requests are not counted.
        stream_interval: the server shows so many tokens at once: a client sees the first of them
            when it sees this many.
        memory_fraction: the server's, where it is not the engine's default.
        balance: steps after which prompts stop waiting until every attention rank has one, and
            further steps they then wait; None: they do not wait.
        note: what is inferred or set by the benchmark's script, in words.
    """

    ratio: float
    prompts_per_slot: int = 10
    known: bool = False
    one_prompt_a_step: bool = False
    spare_slots: int | None = None
    front_s: float | None = None
    front_request_s: float = 0.0
    warmed_up: bool = False
    stream_interval: int = 1
    memory_fraction: float | None = None
    balance: tuple[int, int] | None = None
    note: str = ""


INFERENCE_MAX = Client(ratio=0.8, known=True)
"""The public InferenceMAX benchmark: ``--random-range-ratio 0.8``, ``num_prompts`` ten times the
concurrency, ``--request-rate inf``, ``--ignore-eos``."""

INFERENCE_MAX_DSR1_TRT = Client(
    ratio=0.8,
    known=True,
    one_prompt_a_step=True,
    stream_interval=10,
    memory_fraction=0.75,
    balance=(60, 0),
    note="the benchmark's script: stream_interval 10, max_num_tokens of one prompt, 0.75 of free "
    "memory for KV, prompts wait until every attention rank has one",
)
"""Settings of InferenceMAX's public ``benchmarks/dsr1_fp8_h200_trt_slurm.sh`` (2025)."""

INFERENCE_MAX_70B_TRT_1K = Client(
    ratio=0.8,
    known=True,
    stream_interval=20,
    note="inferred: stream_interval 20, TTFT exceeds that of 1024/8192 by 19 steps at every load",
)

SPREAD = Client(
    ratio=0.8,
    front_s=0.0,
    front_request_s=0.0014,
    note="client inferred: lengths 0.8 to 1 of those asked for, ten prompts per slot, 1.4 ms of "
    "front end for each request in flight",
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
    front_s=0.024,
    note="client inferred: fixed lengths, ten prompts per slot, one prompt prefilled a step, "
    "24 ms of front end",
)

ONE_PROMPT_MOE = Client(
    ratio=1.0,
    one_prompt_a_step=True,
    note="client inferred: fixed lengths, ten prompts per slot, one prompt prefilled a step",
)

TIGHT = Client(
    ratio=1.0,
    one_prompt_a_step=True,
    spare_slots=-1,
    front_s=0.030,
    note="client inferred: fixed lengths, ten prompts per slot, one prompt prefilled a step, "
    "one running slot fewer than requests in flight, 30 ms of front end",
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
        if run.workers.ep > 1:
            return ONE_PROMPT_MOE
        return TIGHT if "8B" in run.model else ONE_PROMPT
    if run.engine == "sglang" and "8B" in run.model:
        return SPREAD
    return FIXED


def _inference_max(run: MeasuredRun) -> Client:
    if run.engine == "trtllm" and run.prefill is None:
        if "DeepSeek" in run.model:
            return INFERENCE_MAX_DSR1_TRT
        if "Llama-3.1-70B" in run.model and (run.isl, run.osl) == (1024, 1024):
            return INFERENCE_MAX_70B_TRT_1K
    return INFERENCE_MAX

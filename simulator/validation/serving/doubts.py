"""What is known about measured runs that the simulation misses: one sentence each.

The runs stay in every table; this says where to look first.
"""

from __future__ import annotations

from simulator.validation.serving.runs import MeasuredRun

REPEAT_NOISE = (
    "Repeated measurements of one deployment differ by 1.7 % in TTFT (one in ten by more than "
    "19 %) and by 0.26 % in TPOT (1.0 %)."
)
"""Noise of the measurements themselves, from deployments in the source that were run twice."""


def doubt(run: MeasuredRun) -> str:
    """Why a run should be read with care; empty where nothing is known.

    Args:
        run: what was measured.
    """
    for holds, text in _DOUBTS:
        if holds(run):
            return text
    return ""


def _short_tpot(run: MeasuredRun) -> bool:
    return run.engine == "vllm" and "8B" in run.model


def _one_rank_dp(run: MeasuredRun) -> bool:
    return run.prefill is None and run.workers.attention_dp > 1 and run.engine == "trtllm"


def _front_end_bound(run: MeasuredRun) -> bool:
    return run.engine == "sglang" and "8B" in run.model and run.concurrency >= 448


def _busy_old_server(run: MeasuredRun) -> bool:
    return (
        run.engine == "trtllm"
        and run.version.startswith("1.0")
        and run.concurrency >= (64 if run.workers.tp == 8 and "8B" in run.model else 128)
    )


_DOUBTS = (
    (
        _short_tpot,
        "every estimator is twice too slow here: the measured TPOT leaves less time than the "
        "prefills of the other requests need, so prompts were probably served from a prefix cache",
    ),
    (
        lambda r: r.model.endswith("Qwen3-32B") and r.dump == "qwen3_32b.csv",
        "three runs with a client of their own, of which nothing is known",
    ),
    (
        _one_rank_dp,
        "the script sets attention_dp_config.enable_balance, and prompts are simulated to wait for "
        "one another: TTFT is still up to 40 % longer than predicted",
    ),
    (
        _front_end_bound,
        "TTFT grows with the length of the output, at 15,000 to 20,000 output tokens a second: the "
        "server's one front-end process cannot stream faster",
    ),
    (
        _busy_old_server,
        "at most loads TTFT jumps by 0.3 to 2 s over that of half the load, TPOT does not: requests "
        "wait in front of the scheduler",
    ),
    (
        lambda r: "gpt-oss" in r.model and r.engine == "trtllm" and r.workers.tp == 1
        and r.concurrency >= 64 and max(r.isl, r.osl) >= 8192,
        "its TTFT is that of 54 running sequences, with long prompts as with long outputs: half of the "
        "KV cache that the documented settings give",
    ),
    (
        lambda r: "235B" in r.model and r.engine == "sglang" and r.isl == 4000,
        "TTFT jumps threefold from 2,000 to 4,000 prompt tokens: the prompt exceeds a limit of the "
        "server that is not recorded",
    ),
    (
        lambda r: r.mode == "disagg" and not r.documented,
        "a disaggregated run of an undocumented client: neither its burst nor the fabric is known",
    ),
)  # fmt: skip

"""Kinds of requests that people really send, as starting points: lengths, sessions and targets.

Each is what a request class of a scenario would say, with where it comes from. *Illustrative* means
that nobody measured it for us: the numbers are round, chosen to be typical of the kind, and meant
to be replaced by your own trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MLPERF = (
    "targets: MLPerf Inference v5.0, Llama-2-70B interactive (TTFT 450 ms, TPOT 40 ms at the 99th "
    "percentile)"
)
_AZURE = "Azure LLM inference trace 2023 (CC-BY-4.0)"


@dataclass(frozen=True, slots=True)
class Preset:
    """A kind of request.

    Attributes:
        about: what it is, one line.
        source: where lengths and targets come from.
        content: the keys of a request class.
    """

    about: str
    source: str
    content: Mapping[str, Any]


def _lognormal(mean: float, cv: float, least: int, most: int) -> dict[str, Any]:
    return {"dist": "lognormal", "mean": float(mean), "cv": cv, "min": least, "max": most}


PRESETS: dict[str, Preset] = {
    "search": Preset(
        "query understanding and re-ranking: short prompts, a few tokens out",
        "illustrative",
        {
            "prompt_tokens": _lognormal(256, 0.5, 16, 2048),
            "output_tokens": _lognormal(24, 0.5, 1, 128),
            "slo": {"ttft_s": 0.25, "tpot_s": 0.05},
        },
    ),
    "chat": Preset(
        "conversation with a person who reads along",
        f"lengths: {_AZURE}, conversation; {_MLPERF}",
        {
            "lengths": {"trace": "azure2023_conv"},
            "slo": {"ttft_s": 0.45, "tpot_s": 0.04},
        },
    ),
    "rag": Preset(
        "answers from retrieved passages: long prompts, medium answers",
        "illustrative",
        {
            "prompt_tokens": _lognormal(3500, 0.5, 512, 16384),
            "output_tokens": _lognormal(250, 0.7, 8, 1024),
            "slo": {"ttft_s": 1.0, "tpot_s": 0.05},
        },
    ),
    "code_completion": Preset(
        "completion in an editor: the file around the cursor in, a line or two out",
        f"lengths: {_AZURE}, code; targets illustrative",
        {
            "lengths": {"trace": "azure2023_code"},
            "slo": {"ttft_s": 0.3, "tpot_s": 0.03},
        },
    ),
    "document_qa": Preset(
        "questions about long documents",
        "lengths: Mooncake conversation trace, FAST'25 (Apache-2.0); targets illustrative",
        {
            "lengths": {"trace": "mooncake_conversation"},
            "slo": {"ttft_s": 5.0, "tpot_s": 0.06},
        },
    ),
    "summarisation": Preset(
        "an article in, a paragraph out; nobody waits for the first word",
        "illustrative",
        {
            "prompt_tokens": _lognormal(4000, 0.8, 256, 32768),
            "output_tokens": _lognormal(180, 0.5, 32, 1024),
            "slo": {"ttft_s": 5.0, "tpot_s": 0.1},
        },
    ),
    "reasoning": Preset(
        "short questions, long chains of thought",
        "illustrative",
        {
            "prompt_tokens": _lognormal(512, 1.0, 32, 8192),
            "output_tokens": _lognormal(4000, 0.8, 128, 32768),
            "slo": {"ttft_s": 2.0, "tpot_s": 0.05},
        },
    ),
    "long_context_128k": Preset(
        "whole repositories and books: prompts of 64 to 126 thousand tokens",
        "illustrative",
        {
            "prompt_tokens": {"dist": "uniform", "low": 65536, "high": 126976},
            "output_tokens": _lognormal(500, 0.7, 16, 4096),
            "slo": {"ttft_s": 60.0, "tpot_s": 0.1},
        },
    ),
    "agentic": Preset(
        "an agent calling tools: every turn carries the whole conversation so far",
        "illustrative",
        {
            "prompt_tokens": _lognormal(4000, 0.5, 500, 16384),
            "output_tokens": _lognormal(300, 1.0, 8, 4096),
            "session": {
                "turns": _lognormal(8, 0.8, 1, 40),
                "new_tokens": _lognormal(600, 1.5, 16, 16384),
                "gap_s": 15.0,
                "gap_cv": 1.0,
                "max_context_tokens": 65536,
            },
            "slo": {"ttft_s": 2.0, "tpot_s": 0.05},
        },
    ),
}
"""The presets by name."""

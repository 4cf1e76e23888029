"""How far a serving engine is from its model: spreads that no kernel benchmark shows.

Standard deviations of the logarithm of a factor that one draw applies to the whole deployment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class EngineSpread:
    """Standard deviations of the log of a factor [1].

    Attributes:
        overhead: on the overheads of a step and of a sequence in it, and on the host loop's bound.
        front: on the front-end latency of a request.
        prefill: on the time of GEMMs in long steps (one over their sustained efficiency).
        step: on every step as a whole: what neither kernels nor the overheads above explain.
    """

    overhead: float = 0.0
    front: float = 0.0
    prefill: float = 0.0
    step: float = 0.0


SPREADS: dict[str, EngineSpread] = {
    "vllm": EngineSpread(overhead=0.25, front=0.4, prefill=0.10, step=0.05),
    "trtllm": EngineSpread(overhead=0.5, front=0.7, prefill=0.15, step=0.08),
    "sglang": EngineSpread(overhead=0.4, front=0.5, prefill=0.15, step=0.08),
}
"""By engine profile."""

UNNAMED = SPREADS["vllm"]
"""Of a scenario without an engine: its default overheads are vLLM's."""

LINK = 0.15
"""Standard deviation of the log of a link's transfer times [1]. Assumed: efficiencies of RDMA
transfers between 0.7 and 0.95 of the line rate are reported, and profiles give one number."""

UNMEASURED_ERROR = 0.20
"""Mean relative error taken for an operator whose profile gives none [1]. Assumed: of the order that
borrowing kernels from another GPU costs (``hwprofiles.borrow.ERRORS``)."""


def spread_of(engine: str | None) -> EngineSpread:
    """Spread of an engine by name; a user's own engine file has the widest of each."""
    if engine is None:
        return UNNAMED
    if engine in SPREADS:
        return SPREADS[engine]
    known = SPREADS.values()
    return replace(
        UNNAMED,
        overhead=max(s.overhead for s in known),
        front=max(s.front for s in known),
        prefill=max(s.prefill for s in known),
        step=max(s.step for s in known),
    )

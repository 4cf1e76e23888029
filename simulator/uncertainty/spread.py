"""How far serving engines are from their model: spreads that no kernel benchmark shows.

Standard deviations of the logarithm of a factor that one draw applies to the whole deployment. They
hold for every engine: the runs they come from are of thirteen deployments, too few for each engine's
own (docs/uncertainty.md says how they were chosen, and how often measurements then lie in a band).
"""

from __future__ import annotations

from dataclasses import dataclass


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


SPREAD = EngineSpread(overhead=0.3, front=0.5, prefill=0.3, step=0.14)
"""Of any engine. ``overhead``, ``front``, ``prefill``: fitted constants differ by that between engines and from
one deployment to the next. ``step``: what errors of measured TPOT still ask for, of thirteen deployments
each predicted with constants fitted to the others (``python -m calibration.engines.spread``): the 90 %
conformal bound for a fourteenth. Errors of TTFT then ask for nothing more where the client is documented."""

LINK = 0.15
"""Standard deviation of the log of a link's transfer times [1]. Assumed: efficiencies of RDMA
transfers between 0.7 and 0.95 of the line rate are reported, and profiles give one number."""

UNMEASURED_ERROR = 0.20
"""Mean relative error taken for an operator whose profile gives none [1]. Assumed: of the order that
borrowing kernels from another GPU costs (``hwprofiles.borrow.ERRORS``)."""

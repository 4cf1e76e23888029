"""xpyd: how many prefill GPUs and how many decode GPUs, wired how, and what users will feel.

    from simulator import Scenario, simulate, summarize
    run = simulate(Scenario.load("chat_70b_h100"), seed=1)
    print(summarize(run))

The names below are the public interface; everything else may move. They are imported on first use,
so that ``xpyd --help`` does not wait for pandas and scipy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simulator.version import VERSION

if TYPE_CHECKING:
    from simulator.analysis import Bounds, analyze
    from simulator.compare import compare
    from simulator.engine import simulate
    from simulator.metrics import Summary, summarize
    from simulator.planner import plan
    from simulator.run import Run
    from simulator.scenario import SLO, Scenario

__version__ = VERSION

_HOME = {
    "Bounds": "simulator.analysis",
    "Run": "simulator.run",
    "SLO": "simulator.scenario",
    "Scenario": "simulator.scenario",
    "Summary": "simulator.metrics",
    "analyze": "simulator.analysis",
    "compare": "simulator.compare",
    "plan": "simulator.planner",
    "simulate": "simulator.engine",
    "summarize": "simulator.metrics",
}

__all__ = [
    "SLO",
    "Bounds",
    "Run",
    "Scenario",
    "Summary",
    "analyze",
    "compare",
    "plan",
    "simulate",
    "summarize",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'simulator' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

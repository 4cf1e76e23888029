"""The public interface is small, and every name in it is there."""

from __future__ import annotations

import simulator


def test_public_names() -> None:
    assert sorted(simulator.__all__) == sorted(
        [
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
    )
    assert all(callable(getattr(simulator, name)) for name in simulator.__all__)
    assert simulator.__version__

"""Measured serving runs against their simulation, as a picture."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from simulator.report import style
from simulator.validation.serving.scores import barred

_ENGINES = (("vllm", style.BLUE), ("trtllm", style.VERMILION), ("sglang", style.GREEN))
_BAND = 0.2
"""The grey band: within a fifth of what was measured."""


def serving_figure(table: pd.DataFrame) -> Figure:
    """Predicted against measured TTFT and TPOT of every run, by engine.

    Args:
        table: ``simulator.validation.serving.scores.joined``.
    """
    kept = barred(table)
    fig = style.figure(10.0, 4.8, "Simulated against measured serving runs")
    for ax, metric, name in zip(
        fig.subplots(1, 2), ("ttft", "tpot"), ("TTFT", "TPOT"), strict=True
    ):
        for engine, colour in _ENGINES:
            part = kept[(kept["engine"] == engine) & kept[f"{metric}_predicted"].notna()]
            for fitted, marker in ((True, "x"), (False, "o")):
                dots = part[part["fitted"] == fitted]
                ax.scatter(
                    1e-3 * dots[metric],
                    1e-3 * dots[f"{metric}_predicted"],
                    s=14,
                    marker=marker,
                    alpha=0.6,
                    color=colour,
                    linewidths=0.8 if fitted else 0,
                    label=f"{engine}, {'fitted' if fitted else 'never fitted'}",
                )
        seen = kept[[metric, f"{metric}_predicted"]].to_numpy(dtype=float)
        ends = [
            0.7e-3 * float(pd.Series(seen.ravel()).min()),
            1.4e-3 * float(pd.Series(seen.ravel()).max()),
        ]
        ax.plot(ends, ends, color=style.INK, linewidth=0.8)
        ax.fill_between(
            ends,
            [(1 - _BAND) * x for x in ends],
            [(1 + _BAND) * x for x in ends],
            color=style.GREY,
            alpha=0.2,
            linewidth=0,
        )
        ax.set_xscale("log")
        ax.set_yscale("log")
        style.dress(
            ax, x=f"measured {name} [s]", y=f"simulated {name} [s]", grid="both", title=name
        )
        style.legend(ax)
    return fig

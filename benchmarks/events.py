"""Work grows with requests, not with tokens: events of the stride path, and of single steps.

    python benchmarks/events.py [--requests 20000]

1. Outputs 8 times longer, rate lowered to the same decode load, prefill batch 1: events per request.
2. A tenth of the speed benchmark's load: decode events of the stride path against step by step, and
   the CPU time of both in one process.
"""

from __future__ import annotations

import argparse

from speed import scenario_at

from simulator import Run, Scenario, analyze, simulate


def decode_strides(run: Run) -> float:
    """Batch events of all decode instances."""
    table = run.instances
    return float(table.loc[table.role == "decode", "strides"].sum())


def longer(base: Scenario, factor: int) -> Scenario:
    """The same scenario with longer outputs at the same decode load."""
    load = next(p.load for p in analyze(base).pools if p.role == "decode")
    output = base.config.workload.output_tokens
    rate = base.config.workload.rate_rps / factor
    for _ in range(3):
        scenario = base.with_overrides(
            [
                f"workload.output_tokens.mean={output.mean * factor}",
                f"workload.output_tokens.max={output.max * factor}",
                f"workload.rate_rps={rate!r}",
            ]
        )
        now = next(p.load for p in analyze(scenario).pools if p.role == "decode")
        rate *= load / now
    return scenario


def main() -> None:
    """Run both comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=20_000)
    args = parser.parse_args()
    n = args.requests
    base = scenario_at(0.7, n).with_overrides(["pools.prefill.max_num_seqs=1"])
    short, long = (simulate(s) for s in (base, longer(base, 8)))
    a, b = (r.meta["events"] / n for r in (short, long))
    print(
        f"events per request, outputs × 1  {a:.3f}   (preemptions {short.requests.preemptions.sum()})"
    )
    print(
        f"events per request, outputs × 8  {b:.3f}   (preemptions {long.requests.preemptions.sum()})"
    )
    print(f"rise                             {100 * (b / a - 1):.1f} %")
    light = scenario_at(0.07, n // 4)
    strides, steps = simulate(light), simulate(light, reference=True)
    fewer = decode_strides(steps) / decode_strides(strides)
    print(f"decode events at load 0.07       {fewer:.1f} × fewer than step by step")
    print(
        f"CPU at load 0.07                 {steps.meta['cpu_s'] / strides.meta['cpu_s']:.1f} × less"
    )


if __name__ == "__main__":
    main()

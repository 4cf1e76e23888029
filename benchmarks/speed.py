"""Speed: how many requests a CPU-second simulates, beside the cost of a bare SimPy timer.

    python benchmarks/speed.py [--requests 1000000] [--load 0.7]

Llama-3.1-70B bf16, 8 prefill + 8 decode instances (H100 TP4), lognormal lengths with means 1,024 and
256 and CV 1, Poisson arrivals at decode load 0.7, seed 42, every record kept; one core, CPU time.
CPU clocks of shared machines differ by a factor of three, so the cost of a bare SimPy timer callback is
measured before, during and after in the same process, and the ratio of the two is the number to compare.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import simpy

from simulator import Scenario, analyze
from simulator.engine import simulate_deployment

SCENARIO = Path(__file__).parent / "speed_70b.yaml"
REFERENCE_TIMER_S = 0.7e-6
"""A SimPy timer callback on the machine for which 25,000 requests per CPU-second are asked."""


def timer_s(n: int = 200_000) -> float:
    """CPU time [s] of one bare SimPy timeout and its callback."""
    env = simpy.Environment()
    left = n

    def tick(_: simpy.Event) -> None:
        nonlocal left
        left -= 1
        if left:
            env.timeout(1.0).callbacks.append(tick)

    env.timeout(1.0).callbacks.append(tick)
    started = time.process_time()
    env.run()
    return (time.process_time() - started) / n


def scenario_at(load: float, requests: int) -> Scenario:
    """The benchmark scenario at this decode load."""
    base = Scenario.load(SCENARIO, [f"workload.requests={requests}"])
    for _ in range(3):  # lengths do not depend on the rate; the sample's mean rate settles at once
        bound = next(p for p in analyze(base).pools if p.role == "decode")
        assert bound.load is not None
        rate = base.config.workload.rate_rps * load / bound.load
        base = base.with_overrides([f"workload.rate_rps={rate!r}"])
    return base


def main() -> None:
    """Run the benchmark and print one line a quantity."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--load", type=float, default=0.7)
    args = parser.parse_args()
    scenario = scenario_at(args.load, args.requests)
    deployment, workload = scenario.deployment(), scenario.requests()
    timers = [timer_s() for _ in range(3)]

    def between(done: int, total: int) -> None:
        if done % 2048 == 0 and done % 65536 < 2048:  # the clock of a shared machine drifts
            started = time.process_time()
            timers.append(timer_s(20_000))
            nonlocal beside_s
            beside_s += time.process_time() - started

    beside_s = 0.0
    run = simulate_deployment(deployment, workload, seed=42, progress=between)
    timers += [timer_s() for _ in range(3)]
    cpu_s = run.meta["cpu_s"] - beside_s
    n = args.requests
    timer = sorted(timers)[len(timers) // 2]
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"requests                        {n:,} at {workload.rate_rps:.1f} /s")
    print(f"requests per CPU-second         {n / cpu_s:,.0f}")
    print(f"events per request              {run.meta['events'] / n:.2f}")
    print(f"strides per request             {run.meta['strides'] / n:.2f}")
    print(f"CPU per request                 {cpu_s / n * 1e6:.1f} µs")
    print(f"bare SimPy timer, same process  {timer * 1e6:.2f} µs")
    print(f"timers' worth per request       {cpu_s / n / timer:.1f}")
    print(
        f"at 0.7 µs a timer               {1.0 / (cpu_s / n / timer * REFERENCE_TIMER_S):,.0f} /s"
    )
    print(f"peak resident memory            {resident:.2f} GB")


if __name__ == "__main__":
    main()

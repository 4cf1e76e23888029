"""What the GPUs drew: energy, and with a grid factor the carbon it caused.

The energy roofline [1] for a whole run: a GPU draws ``idle_w`` with a model loaded and nothing to do;
each byte it moves and each operation it does costs energy on top, so that a kernel that saturates
memory draws ``memory_bound_w``, one that saturates the tensor cores ``compute_bound_w``, and none more
than that. While steps run, with m and c the shares of the data sheet's bandwidth and FLOP/s used,

    draw = min(compute_bound, idle + (memory_bound - idle)·m/m* + (compute_bound - idle)·c/c*)

where m* and c* are the shares a kernel reaches at best (``memory_eff`` and ``compute_eff`` of the
profile's GEMM). Outside steps it draws ``idle_w``. GPUs only: hosts, NICs, switches and fans are not in
it; cooling and conversion are what ``pue`` stands for.

[1] J. W. Choi, D. Bedard, R. Fowler, R. Vuduc: A roofline model of energy. IPDPS 2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwprofiles import GpuProfile
from simulator.metrics.attainment import makespan_s
from simulator.metrics.latency import completed
from simulator.metrics.usage import PoolUse
from simulator.run import Run
from simulator.scenario.deployment import PoolPlan

JOULES_PER_WH = 3600.0
MILLION = 1e6


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """Energy of some GPUs over the makespan; None where a GPU's profile gives no power figures.

    Attributes:
        joules: energy [J].
        joules_per_output_token: over the output tokens of completed requests [J].
        wh_per_m_output_tokens: the same per million of them [Wh].
        mean_w_per_gpu: mean draw of one GPU [W].
    """

    joules: float | None
    joules_per_output_token: float | None
    wh_per_m_output_tokens: float | None
    mean_w_per_gpu: float | None


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a deployment and its pools, and carbon where the grid factor is known.

    Attributes:
        total: all GPUs.
        pools: those of each pool; they add up to ``total``.
        grid_gco2_per_kwh: carbon of the electricity [g CO2e/kWh]; None if not given.
        pue: energy of the data centre over that of its IT equipment.
        gco2_per_m_output_tokens: carbon per million output tokens, data centre included [g CO2e].
    """

    total: EnergyUse
    pools: Mapping[str, EnergyUse]
    grid_gco2_per_kwh: float | None
    pue: float
    gco2_per_m_output_tokens: float | None


def energy(run: Run, use: Mapping[str, PoolUse]) -> Energy:
    """Energy of a run.

    Args:
        run: a finished simulation.
        use: how hard each pool worked (``pool_use``).
    """
    deployment = run.deployment
    span = makespan_s(run)
    tokens = float(run.requests["output_tokens"].to_numpy()[completed(run)].sum())
    joules = {pool.name: _joules(pool, use[pool.name], span) for pool in deployment.pools}
    known = [j for j in joules.values() if j is not None]
    total = _use(sum(known) if len(known) == len(joules) else None, deployment.gpus * span, tokens)
    grid, pue = deployment.grid_gco2_per_kwh, deployment.pue
    wh = total.wh_per_m_output_tokens
    return Energy(
        total=total,
        pools={p.name: _use(joules[p.name], p.gpus * span, tokens) for p in deployment.pools},
        grid_gco2_per_kwh=grid,
        pue=pue,
        gco2_per_m_output_tokens=None if grid is None or wh is None else wh / 1e3 * pue * grid,
    )


def draw_w(gpu: GpuProfile, compute: str, mfu: float, mbu: float) -> float | None:
    """Draw of one GPU while steps run [W]; None where its profile gives no power figures.

    Args:
        gpu: the GPU.
        compute: type its matrices are multiplied in, which ``mfu`` refers to.
        mfu: share of that type's dense peak used, 0..1.
        mbu: share of the memory bandwidth used, 0..1.
    """
    if gpu.idle_w is None or gpu.memory_bound_w is None or gpu.compute_bound_w is None:
        return None
    gemm = dict(gpu.family().gemm)
    # a type without kernels of its own runs with those of fp8 where there are any (int8)
    best = gemm.get(compute) or gemm.get("fp8", gemm["bf16"])
    idle, high = gpu.idle_w.value, gpu.compute_bound_w.value
    moving = (gpu.memory_bound_w.value - idle) * mbu / min(best.memory_eff.value, 1.0)
    computing = (high - idle) * mfu / best.compute_eff.value
    return min(high, idle + moving + computing)


def _joules(pool: PoolPlan, use: PoolUse, span_s: float) -> float | None:
    """Energy of a pool's GPUs over the makespan [J]."""
    if pool.gpu.idle_w is None:
        return None
    idle = pool.gpu.idle_w.value
    busy = use.busy or 0.0
    if busy <= 0.0:
        return idle * pool.gpus * span_s
    draw = draw_w(pool.gpu, pool.step.compute, (use.mfu or 0.0) / busy, (use.mbu or 0.0) / busy)
    if draw is None:
        return None
    return (draw * busy + idle * (1.0 - busy)) * pool.gpus * span_s


def _use(joules: float | None, gpu_s: float, tokens: float) -> EnergyUse:
    if joules is None:
        return EnergyUse(None, None, None, None)
    each = joules / tokens if tokens > 0.0 else None
    return EnergyUse(
        joules=joules,
        joules_per_output_token=each,
        wh_per_m_output_tokens=None if each is None else each * MILLION / JOULES_PER_WH,
        mean_w_per_gpu=joules / gpu_s if gpu_s > 0.0 else None,
    )

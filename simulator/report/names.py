"""How results are called and coloured in tables and figures."""

from __future__ import annotations

from simulator.scenario.deployment import Deployment, PoolPlan
from simulator.units import GB

PART_LABELS = {
    "router": "router",
    "prefill_queue": "prefill queue",
    "prefill": "prefill",
    "transfer_wait": "transfer wait",
    "transfer": "exposed transfer",
    "decode_queue": "decode queue",
    "first_decode_step": "first decode step",
}
"""The parts of TTFT in order (``metrics.PARTS``)."""

METRIC_LABELS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}

FIRST_TOKEN = {
    "prefill": "prefill (the client sees it when prefill ends)",
    "handoff": "handoff (prefill samples it, decode releases it once the KV has landed)",
    "decode": "decode (decode recomputes the last prompt token)",
}


def layout_label(deployment: Deployment) -> str:
    """``2P4D`` for 2 prefill and 4 decode instances; ``6 colocated``."""
    if deployment.mode == "colocated":
        return f"{sum(p.instances for p in deployment.pools)} colocated"
    counts = {r: sum(p.instances for p in deployment.role(r)) for r in ("prefill", "decode")}
    return f"{counts['prefill']}P{counts['decode']}D"


def pool_label(pool: PoolPlan) -> str:
    """``2 × h100_sxm TP4``: instances, GPU type and degrees of parallelism."""
    gpu = getattr(pool.gpu, "name", "GPU")
    return f"{pool.instances} × {gpu} {pool.parallel.label}"


def link_label(deployment: Deployment) -> str:
    """Name, rate and mode of the fabric; ``none`` when colocated."""
    link = deployment.link
    if link is None:
        return "none (KV stays where it is)"
    how = deployment.transfer.replace("_", " ")
    return (
        f"{link.name}, {link.nic_bytes_per_s / GB:.3g} GB/s per NIC and direction, "
        f"KV sent {how}, room promised {deployment.reserve.replace('_', ' ')}"
    )

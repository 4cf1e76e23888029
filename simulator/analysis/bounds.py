"""The answer of ``analyze``: plain frozen tables, one sentence, and a JSON form."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


def finite(value: float | None) -> float | None:
    """``value``, or None when it is missing, NaN or infinite (JSON has no such number)."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class PoolBound:
    """The fluid limits of a pool.

    Attributes:
        name: the pool.
        role: ``prefill``, ``decode`` or ``colocated``.
        instances: instances it has.
        share: fraction of all requests it serves.
        rate_max_rps: largest request rate the pool sustains [1/s]; ``inf`` if it has no work.
        limit: what stops it: ``compute``, ``batch limit``, ``token budget`` or ``KV capacity``.
        batch: mean batch of an instance at that rate.
        step_s: mean step time at that rate [s].
        load: λ·share / rate_max; None if λ is unknown.
        tpot_rate_max_rps: the same within the TPOT target [1/s]; None without a target.
        tpot_batch: decoding sequences of an instance at that rate.
        tpot_load: λ·share / tpot_rate_max; None without target or λ, ``inf`` if the target is out
            of reach of a single sequence.
        instances_stable: instances that bring ``load`` (and the load of its NICs) to at most 1.
        instances_target: instances that bring ``load``, the load of its NICs and ``tpot_load`` to
            at most the target load; None if no number does, or λ is unknown.
    """

    name: str
    role: str
    instances: int
    share: float
    rate_max_rps: float
    limit: str
    batch: float
    step_s: float
    load: float | None
    tpot_rate_max_rps: float | None
    tpot_batch: float | None
    tpot_load: float | None
    instances_stable: int | None
    instances_target: int | None


@dataclass(frozen=True, slots=True)
class LinkBound:
    """The limit of one side of the fabric.

    Attributes:
        name: the link.
        side: ``egress`` or ``ingress`` (the NICs of a pool), or ``spine``.
        pool: whose NICs; None for the spine.
        rate_max_rps: largest rate of requests through the whole deployment that it carries [1/s].
        load: λ / rate_max; None if λ is unknown.
    """

    name: str
    side: str
    pool: str | None
    rate_max_rps: float
    load: float | None

    @property
    def label(self) -> str:
        """Its name in sentences: ``egress of prefill`` or ``spine of fabric``."""
        return f"{self.side} of {self.pool or self.name}"


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What binds first.

    Attributes:
        resource: name of the pool or link.
        limit: ``compute``, ``batch limit``, ``token budget``, ``KV capacity``, ``TPOT target``,
            ``egress``, ``ingress`` or ``spine``.
        load: its load; None if the arrival rate is unknown.
        rate_max_rps: deployment-wide request rate at which its load is 1 [1/s].
    """

    resource: str
    limit: str
    load: float | None
    rate_max_rps: float


@dataclass(frozen=True, slots=True)
class BestCase:
    """Latency of one request in an empty system.

    Attributes:
        ttft_mean_prompt_s: TTFT of a prompt of mean length [s].
        ttft_p50_prompt_s: TTFT of a prompt of median length [s].
        tpot_s: decode step of one sequence at the mean running context [s]; None if no request
            has a second token.
    """

    ttft_mean_prompt_s: float
    ttft_p50_prompt_s: float
    tpot_s: float | None


@dataclass(frozen=True, slots=True)
class ClientEstimate:
    """What a closed-loop client will measure, estimated without simulating.

    Attributes:
        rate_rps: completed requests in steady state [1/s].
        tpot_s: mean time per output token in steady state [s].
        ttft_steady_s: mean TTFT after the opening burst [s]; None if KV is short and sequences are
            evicted (only a simulation tells what recomputing them costs).
        ttft_burst_s: mean TTFT of the opening burst [s]; None if more are in flight than can run.
        ttft_s: mean TTFT over all requests, burst included, as such clients report it [s].
    """

    rate_rps: float
    tpot_s: float
    ttft_steady_s: float | None
    ttft_burst_s: float | None
    ttft_s: float | None


@dataclass(frozen=True, slots=True)
class Peak:
    """Load of a workload that is not stationary, window by window.

    A window counts its own arrivals and lengths. Work that lasts longer than a window is smoothed
    by the system, so the peak of a decode pool is overstated when windows are shorter than the
    time requests stay there.

    Attributes:
        window_s: length of a window [s]: 60 s or 1/20 of the workload, whichever is less, but at
            least 1/500 of it.
        windows: how many.
        load: highest load of any window.
        resource: pool or link that has it.
        start_s: start of that window [s].
        overloaded_share: fraction of windows in which some load exceeds 1.
    """

    window_s: float
    windows: int
    load: float
    resource: str
    start_s: float
    overloaded_share: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a deployment can do with a workload, in closed form.

    Attributes:
        scenario: name of the deployment.
        mode: ``disaggregated`` or ``colocated``.
        rate_rps: mean arrival rate [1/s]; None in a closed loop, for one request or one burst.
        pools: one entry per pool.
        links: egress, ingress and spine; empty when colocated.
        load: highest load of all pools and links; None if the rate is unknown.
        bottleneck: what has it.
        tpot_bottleneck: what binds first when decoding also has to hold the TPOT target.
        rate_max_rps: largest request rate the deployment sustains [1/s].
        tpot_rate_max_rps: the same within the TPOT target [1/s]; None without a target.
        target_load: load that ``instances_target`` aims at.
        margin: relative sampling error (two standard errors) of the loads, at least 2 %.
        too_close_to_call: the highest load is within ``margin`` of 1, or less than 15 % below it
            where KV capacity binds (preemption costs work that a fluid limit does not see).
        best: latency in an empty system.
        client: what a closed-loop client will measure; None for other workloads, where one
            colocated pool is not all there is, and with attention ranks in lock-step.
        peak: load by windows; None for a stationary workload.
        stable: no load exceeds 1 (a closed loop cannot overload).
        verdict: the same in one sentence.
    """

    scenario: str
    mode: str
    rate_rps: float | None
    pools: tuple[PoolBound, ...]
    links: tuple[LinkBound, ...]
    load: float | None
    bottleneck: Bottleneck
    tpot_bottleneck: Bottleneck | None
    rate_max_rps: float
    tpot_rate_max_rps: float | None
    target_load: float
    margin: float
    too_close_to_call: bool
    best: BestCase
    client: ClientEstimate | None
    peak: Peak | None
    stable: bool
    verdict: str

    @property
    def instances_needed(self) -> dict[str, int | None]:
        """Per pool, the instances that bring every load to at most ``target_load``."""
        return {p.name: p.instances_target for p in self.pools}

    def pool(self, name: str) -> PoolBound:
        """The entry of one pool.

        Raises:
            KeyError: no pool has this name.
        """
        for bound in self.pools:
            if bound.name == name:
                return bound
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able form: pools by name, missing and infinite numbers as None."""
        out = _plain(asdict(self))
        out["pools"] = {p.pop("name"): p for p in out["pools"]}
        out["instances_needed"] = self.instances_needed
        return dict(out)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return finite(value) if isinstance(value, float) else value

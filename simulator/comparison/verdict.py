"""One sentence on which side of a comparison is better, and at what."""

from __future__ import annotations

from simulator.metrics import Interval, Summary
from simulator.scenario import SLO


def verdict(ours: Summary, theirs: Summary, slo: SLO | None, gain: Interval | None) -> str:
    """Which of the two layouts holds the targets, and what they cost.

    Args:
        ours: the disaggregated side.
        theirs: the colocated side.
        slo: the targets of both.
        gain: difference of their attainments, if there are targets and requests enough to tell.
    """
    parts = [_latencies(ours, theirs) if slo is None else _targets(ours, theirs, slo, gain)]
    for name, side in (("disaggregated", ours), ("colocated", theirs)):
        if not side.stable:
            parts.append(f"{name} does not keep up with the load")
    return "; ".join(parts) + "."


def _targets(ours: Summary, theirs: Summary, slo: SLO, gain: Interval | None) -> str:
    wanted = []
    if slo.ttft_s is not None:
        wanted.append(f"TTFT ≤ {1e3 * slo.ttft_s:.4g} ms")
    if slo.tpot_s is not None:
        wanted.append(f"TPOT ≤ {1e3 * slo.tpot_s:.4g} ms")
    if slo.classes:
        wanted = ["the targets of their class"]
    a, b = ours.slo_attainment or 0.0, theirs.slo_attainment or 0.0
    sentence = (
        f"disaggregated meets {' and '.join(wanted)} for {_share(a)} of requests"
        f"{_price(ours)}; colocated for {_share(b)}{_price(theirs)}"
    )
    ok = [name for name, got in (("disaggregated", a), ("colocated", b)) if got >= slo.attainment]
    target = f"the target of {_share(slo.attainment)}"
    if not ok:
        sentence += f"; neither reaches {target}"
    elif len(ok) == 2:
        sentence += f"; both reach {target}"
    else:
        sentence += f"; only {ok[0]} reaches {target}"
    if gain is None or gain.lo <= 0.0 <= gain.hi:
        sentence += ", and the difference is too close to call from one run"
    return sentence[0].upper() + sentence[1:]


def _latencies(ours: Summary, theirs: Summary) -> str:
    def said(side: Summary) -> str:
        return f"p99 TTFT {_ms(side.ttft_s['p99'])} and p99 TPOT {_ms(side.tpot_s['p99'])}"

    return (
        f"Disaggregated has {said(ours)}{_price(ours)}; colocated has {said(theirs)}"
        f"{_price(theirs)}; without latency targets neither is better as such"
    )


def _share(value: float) -> str:
    """A share in percent that reads 100 or 0 only when it is."""
    text = f"{100 * value:.1f}"
    if text == "100.0" and value < 1.0:
        return "over 99.9 %"
    return f"{text.removesuffix('.0')} %"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{1e3 * value:.3g} ms"


def _price(side: Summary) -> str:
    cost = side.cost.usd_per_hour
    return "" if cost is None else f" at ${cost:,.2f}/h"

"""One plain sentence about the loads."""

from __future__ import annotations

from simulator.analysis.bounds import Bottleneck, LinkBound, PoolBound


def verdict(
    pools: tuple[PoolBound, ...],
    links: tuple[LinkBound, ...],
    bottleneck: Bottleneck,
    tpot: Bottleneck | None,
    tpot_s: float | None,
    close: bool,
) -> str:
    """What binds, how hard, and how many instances would relieve it.

    Args:
        pools: all pools.
        links: all links.
        bottleneck: the physical bottleneck.
        tpot: the bottleneck when the TPOT target counts too.
        tpot_s: that target [s].
        close: whether the load is too close to 1 to call.
    """
    load = bottleneck.load
    if load is None:
        return (
            f"No arrival rate is given; {bottleneck.resource} would bind first "
            f"({bottleneck.limit}), at {bottleneck.rate_max_rps:.3g} requests/s."
        )
    what = f"load {load:.2f}, {bottleneck.limit}"
    if close:
        return f"Too close to call: {bottleneck.resource} runs at {what}."
    if load > 1.0:
        return _overloaded(pools, links, bottleneck)
    if tpot is not None and tpot_s is not None and tpot.load is not None and tpot.load > 1.0:
        return _too_slow(pools, tpot, tpot_s)
    return f"Stable: {bottleneck.resource} is the most loaded, {what}."


def _overloaded(
    pools: tuple[PoolBound, ...], links: tuple[LinkBound, ...], bottleneck: Bottleneck
) -> str:
    sentence = f"{bottleneck.resource} is overloaded: load {bottleneck.load:.2f}"
    sentence += f" ({bottleneck.limit})"
    for pool in pools:
        n = pool.instances_stable
        if pool.name == bottleneck.resource and n is not None and bottleneck.load is not None:
            left = bottleneck.load * pool.instances / n
            sentence += f"; {n} instances would bring it to {left:.2f}"
    others = [p.name for p in pools if p.load is not None and p.load > 1.0]
    others += [b.label for b in links if b.load is not None and b.load > 1.0]
    named = {bottleneck.resource, f"{bottleneck.limit} of {bottleneck.resource}"}
    also = [name for name in others if name not in named]
    if also:
        sentence += f"; {' and '.join(also)} {'is' if len(also) == 1 else 'are'} overloaded too"
    return sentence + "."


def _too_slow(pools: tuple[PoolBound, ...], tpot: Bottleneck, tpot_s: float) -> str:
    target = f"the TPOT target of {1e3 * tpot_s:.3g} ms"
    if tpot.rate_max_rps <= 0.0:
        return f"{tpot.resource} cannot hold {target}, not even for one sequence at a time."
    sentence = (
        f"Stable, but {tpot.resource} is {tpot.load:.2f} times too loaded to hold {target} "
        f"(it does up to {tpot.rate_max_rps:.3g} requests/s)"
    )
    for pool in pools:
        if pool.name == tpot.resource and pool.instances_target is not None:
            sentence += f"; {pool.instances_target} instances would"
    return sentence + "."

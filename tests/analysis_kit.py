"""Workloads and deployments with round numbers, for tests of the closed forms."""

from dataclasses import replace

import numpy as np

from tests.engine_kit import deployment, link, pool, requests


def work(prompts, outputs, rate_rps=1.0, **kw):
    arrival = np.arange(len(prompts)) / rate_rps
    return replace(requests(arrival, prompts, outputs), **kw)


def varied(n, rate_rps, seed=1, **kw):
    """Poisson arrivals of prompts of 200 to 600 and outputs of 20 to 100 tokens."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate_rps, n))
    one = requests(arrival, rng.integers(200, 601, n), rng.integers(20, 101, n))
    return replace(one, **kw)


def disaggregated(prefills=1, decodes=1, fast_link=True, **kw):
    prefill = pool("prefill", instances=prefills, **kw.pop("prefill", {}))
    decode = pool("decode", instances=decodes, **kw.pop("decode", {}))
    fabric = kw.pop("link", link(nic_bytes_per_s=1e9 if fast_link else 1e5))
    return deployment(prefill, decode, link=fabric, **kw)

"""Expected load of the busiest expert-parallel group, against routing drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.perf.routing import Routing

CASES = [(256, 8, 8, 0.0), (128, 8, 8, 0.0), (8, 2, 4, 0.0), (128, 4, 4, 0.0), (256, 8, 8, 0.5)]


def drawn(routing: Routing, tokens: int, draws: int = 120) -> tuple[float, float, float]:
    """Mean rows, experts and visits of the busiest group over placements and tokens.

    Choosing the k largest of log(weight) + Gumbel noise is drawing k without replacement in
    proportion to the weights.
    """
    rng = np.random.default_rng(7)
    e, k, groups = routing.experts, routing.per_token, routing.groups
    log_weight = -routing.skew * np.log(np.arange(1, e + 1))
    found = []
    for _ in range(draws):
        group = np.empty(e, dtype=int)
        group[rng.permutation(e)] = np.arange(e) // routing.local
        noise = rng.gumbel(size=(tokens, e))
        chosen = np.argpartition(-(log_weight + noise), k - 1, axis=1)[:, :k]
        rows = np.bincount(group[chosen].ravel(), minlength=groups)
        experts = np.bincount(group[np.unique(chosen)], minlength=groups)
        visited = np.zeros((tokens, groups), dtype=bool)
        visited[np.arange(tokens)[:, None], group[chosen]] = True
        found.append((rows.max(), experts.max(), visited.sum(axis=0).max()))
    means = np.mean(found, axis=0)
    return float(means[0]), float(means[1]), float(means[2])


@pytest.mark.parametrize(("experts", "per_token", "groups", "skew"), CASES)
@pytest.mark.parametrize(("tokens", "error"), [(1, 0.15), (16, 0.09), (128, 0.06)])
def test_the_busiest_group_is_that_of_drawn_routing(
    experts: int, per_token: int, groups: int, skew: float, tokens: int, error: float
) -> None:
    routing = Routing(experts, per_token, groups, skew)
    rows, distinct, visits = drawn(routing, tokens)
    assert float(routing.rows(tokens)) == pytest.approx(rows, rel=error)
    assert float(routing.distinct(tokens)) == pytest.approx(distinct, rel=error)
    assert float(routing.visits(tokens)) == pytest.approx(visits, rel=error)


def test_one_group_reads_the_experts_a_uniform_draw_touches() -> None:
    # 128 experts, 8 a token: 32 tokens leave each untouched with probability (15/16)^32.
    routing = Routing(128, 8)
    assert float(routing.distinct(32)) == pytest.approx(128 * (1 - (15 / 16) ** 32), rel=1e-12)
    assert float(routing.rows(32)) == 32 * 8
    assert float(routing.visits(32)) == 32


def test_skew_touches_fewer_experts_and_loads_the_busiest_group_more() -> None:
    even, skewed = Routing(128, 8, 8), Routing(128, 8, 8, skew=0.8)
    assert float(skewed.rows(500)) > float(even.rows(500))
    assert float(Routing(128, 8, skew=0.8).distinct(40)) < float(Routing(128, 8).distinct(40))


@given(
    case=st.sampled_from([*CASES, (16, 1, 16, 0.0), (64, 6, 8, 1.2), (384, 8, 32, 0.3)]),
    tokens=st.integers(0, 50_000),
    more=st.integers(1, 5_000),
)
def test_more_tokens_never_mean_less_of_anything(
    case: tuple[int, int, int, float], tokens: int, more: int
) -> None:
    routing = Routing(*case)
    for measure, most in (
        (routing.rows, (tokens + more) * min(routing.per_token, routing.local)),
        (routing.distinct, routing.local),
        (routing.visits, tokens + more),
    ):
        before, after = float(measure(tokens)), float(measure(tokens + more))
        assert 0.0 <= before <= after * (1 + 1e-9)
        assert after <= most * (1 + 1e-9)
    # no group can hold more than the busiest, nor the busiest less than the mean
    assert float(routing.rows(tokens)) >= tokens * routing.per_token / routing.groups * (1 - 1e-12)

"""Planted faults: each breaks the engine on purpose and must be found by a check used elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simulator.engine import admission, batch, cluster, links, prefill, simulate_deployment
from simulator.kvcache import BlockLedger
from simulator.theory import lindley
from tests import test_golden
from tests.engine_kit import deployment, pool, requests
from tests.test_engine import (
    Ledger,
    service_s,
    single_server,
    test_64_transfers_into_one_nic_share_it_fairly,
)
from tests.test_equivalence import assert_same, both

Check = Callable[[], None]


def lindley_check() -> None:
    rng = np.random.default_rng(1)
    w = requests(np.cumsum(rng.exponential(0.1, 400)), rng.integers(1, 9000, 400), 1)
    d = single_server()
    run = simulate_deployment(d, w).requests
    np.testing.assert_allclose(
        run.prefill_start_s - run.arrival_s, lindley(w.arrival_s, service_s(d, w)), atol=1e-8
    )


def busy_cluster() -> Any:
    rng = np.random.default_rng(2)
    w = requests(
        np.cumsum(rng.exponential(0.02, 150)), rng.integers(1, 200, 150), rng.integers(1, 90, 150)
    )
    d = deployment(
        pool("prefill", instances=2), pool("decode", capacity_blocks=60, max_num_seqs=16)
    )
    return d, w


def equivalence_check() -> None:
    assert_same(*both(*busy_cluster()))


def conservation_check() -> None:
    Ledger(*busy_cluster()).check_end()


def golden_check() -> None:
    test_golden.test_disaggregated(False)
    test_golden.test_who_emits_the_first_token(False)
    test_golden.test_colocated_chunks(False)
    test_golden.test_eviction_and_recompute(False)


CHECKS: dict[str, Check] = {
    "lindley": lindley_check,
    "equivalence": equivalence_check,
    "conservation": conservation_check,
    "golden": golden_check,
    "fair": test_64_transfers_into_one_nic_share_it_fairly,
}


def plant_lifo(mp: pytest.MonkeyPatch) -> None:
    def enqueue(self: Any, request: Any, t_s: float) -> None:
        rank = self.ranks[0]
        rank.queue.appendleft(request)
        rank.queued_tokens += request.prompt_tokens
        rank.tokens += request.prompt_tokens
        self.tokens += request.prompt_tokens
        self.retry(t_s)

    mp.setattr(prefill.PrefillInstance, "enqueue", enqueue)


def plant_long_stride(mp: pytest.MonkeyPatch) -> None:
    original = batch.BatchInstance._plan_stride

    def plan(self: Any, t: float) -> None:
        heap = self.core.heap
        for _, _, r in heap:
            r.finish_n += r.finish_n >= 0 and r.output_tokens > 40 and r.emitted == 0
        self.core.heap = [(r.finish_n, a, r) for _, a, r in heap]
        original(self, t)

    mp.setattr(batch.BatchInstance, "_plan_stride", plan)


def plant_step_too_early(mp: pytest.MonkeyPatch) -> None:
    original = batch.BatchInstance._cut

    def cut(self: Any, j: int) -> None:
        original(self, max(1, j - 1))

    mp.setattr(batch.BatchInstance, "_cut", cut)


def plant_flat_steps(mp: pytest.MonkeyPatch) -> None:
    original = batch.BatchInstance._plan_stride

    def plan(self: Any, t: float) -> None:
        original(self, t)
        self.rise = 0.0
        self._cut(self.k)

    mp.setattr(batch.BatchInstance, "_plan_stride", plan)


def plant_lost_transfer(mp: pytest.MonkeyPatch) -> None:
    original = cluster.Cluster._on_land

    def land(self: Any, timer: Any) -> None:
        if timer.payload[0].id != 7:
            original(self, timer)

    mp.setattr(cluster.Cluster, "_on_land", land)


def plant_kv_never_released(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(prefill.PrefillInstance, "release", lambda self, request, t_s: None)


def plant_block_off_by_one(mp: pytest.MonkeyPatch) -> None:
    original = BlockLedger.growth
    mp.setattr(BlockLedger, "growth", lambda self, n, steps: original(self, n + 1, steps))


def plant_evict_the_oldest(mp: pytest.MonkeyPatch) -> None:
    original = admission.evict

    def evict(server: Any, t: float) -> None:
        items = list(server.running.items())
        server.running.clear()
        server.running.update([*items[1:], items[0]])
        original(server, t)

    mp.setattr(admission, "evict", evict)


def plant_unshared_links(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(links, "max_min_rates", lambda ports, caps, capacity, sizes: list(caps))


def plant_first_token_at_landing(mp: pytest.MonkeyPatch) -> None:
    original = batch.BatchInstance.land

    def land(self: Any, request: Any, t_s: float) -> None:
        original(self, request, t_s)
        request.prev_token_s = t_s

    mp.setattr(batch.BatchInstance, "land", land)


MUTANTS = [
    (plant_lifo, "lindley"),
    (plant_long_stride, "equivalence"),
    (plant_step_too_early, "equivalence"),
    (plant_flat_steps, "equivalence"),
    (plant_lost_transfer, "conservation"),
    (plant_kv_never_released, "conservation"),
    (plant_block_off_by_one, "conservation"),
    (plant_evict_the_oldest, "golden"),
    (plant_unshared_links, "fair"),
    (plant_first_token_at_landing, "golden"),
]


@pytest.mark.parametrize("check", CHECKS)
def test_checks_pass_on_the_engine_as_it_is(check: str) -> None:
    CHECKS[check]()


@pytest.mark.parametrize(("plant", "check"), MUTANTS, ids=[m[0].__name__ for m in MUTANTS])
def test_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, IndexError, KeyError)):
        CHECKS[check]()

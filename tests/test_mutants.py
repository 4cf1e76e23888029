"""Planted faults: each breaks the engine on purpose and must be found by a check used elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from simulator.engine import (
    admission,
    batch,
    cluster,
    core,
    groups,
    links,
    lockstep,
    prefill,
    prefill_first,
    simulate_deployment,
    strides,
)
from simulator.kvcache import BlockLedger, GroupedLedger
from simulator.scenario.deployment import Deployment
from simulator.theory import lindley
from simulator.workload import Requests
from tests import test_golden
from tests.engine_kit import deployment, grouped, pool, requests, table
from tests.test_engine import (
    Ledger,
    service_s,
    single_server,
    test_64_transfers_into_one_nic_share_it_fairly,
)
from tests.test_equivalence import ORDERS, assert_same, both

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


def every_kind(check: Callable[[Deployment, Requests], None]) -> None:
    """Attention groups, pieces and lock-step ranks, with little KV memory."""
    rng = np.random.default_rng(3)
    w = requests(
        np.cumsum(rng.exponential(0.015, 90)), rng.integers(1, 90, 90), rng.integers(1, 70, 90)
    )
    for role, order in itertools.product(("colocated", "decode"), ORDERS):
        steps = grouped(table(per_kv=1e-5), "everything", ranks=3)
        servers = pool(role, table=steps, capacity_blocks=90, max_num_seqs=8, **order)
        prefill = pool("prefill", table=grouped(table(), "windowed", 2, 2), max_num_seqs=2)
        check(deployment(*([prefill] * (role == "decode")), servers), w)


def kinds_equivalence_check() -> None:
    every_kind(lambda d, w: assert_same(*both(d, w)))


def kinds_conservation_check() -> None:
    every_kind(lambda d, w: Ledger(d, w).check_end())


def golden_check() -> None:
    test_golden.test_disaggregated(False)
    test_golden.test_who_emits_the_first_token(False)
    test_golden.test_colocated_chunks(False)
    test_golden.test_eviction_and_recompute(False)
    test_golden.test_pipelined_prefill()
    test_golden.test_lock_step_prefill()
    test_golden.test_only_the_window_of_a_prompt_is_sent(False)


def orders_check() -> None:
    """Every order of service, colocated, with one attention group."""
    rng = np.random.default_rng(4)
    w = requests(
        np.cumsum(rng.exponential(0.012, 120)), rng.integers(1, 120, 120), rng.integers(1, 60, 120)
    )
    for order in ORDERS:
        d = deployment(pool("colocated", capacity_blocks=30, max_num_batched_tokens=128, **order))
        assert_same(*both(d, w))


CHECKS: dict[str, Check] = {
    "lindley": lindley_check,
    "equivalence": equivalence_check,
    "conservation": conservation_check,
    "orders": orders_check,
    "equivalence of every kind": kinds_equivalence_check,
    "conservation of every kind": kinds_conservation_check,
    "golden": golden_check,
    "fair": test_64_transfers_into_one_nic_share_it_fairly,
}


def born_with(mp: pytest.MonkeyPatch, kind: Any, **fields: Any) -> None:
    """Every object of this kind has these values from the start."""
    original = kind.__init__

    def init(self: Any, *args: Any) -> None:
        original(self, *args)
        for name, value in fields.items():
            setattr(self, name, value)

    mp.setattr(kind, "__init__", init)


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

    def land(self: Any, landed: Any) -> None:
        if landed[0].id != 7:
            original(self, landed)

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


def plant_edges_ignored(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(groups.GroupSums, "steps_to_edge", lambda self, n: 1 << 60)


def plant_windows_that_never_fill(mp: pytest.MonkeyPatch) -> None:
    original = BlockLedger.stop_growing

    def stop(self: Any, offset: int, units: int) -> None:
        if units < 0 or units > 3:  # joining and leaving are as before
            original(self, offset, units)

    mp.setattr(GroupedLedger, "stop_growing", stop)


def plant_chunks_that_never_end(mp: pytest.MonkeyPatch) -> None:
    original = groups._next_edge

    def edge(group: Any, context: int) -> int:
        return 0 if group.local_chunk else original(group, context)

    mp.setattr(groups, "_next_edge", edge)


def plant_one_piece_for_ever(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(strides, "lead", lambda lines, k: (*max(lines), k))
    mp.setattr(lockstep, "lead", lambda lines, k: (*max(lines), k))
    mp.setattr(batch, "lead", lambda lines, k: (*max(lines), k))


def plant_ranks_that_do_not_wait(mp: pytest.MonkeyPatch) -> None:
    original = lockstep.LockStepInstance._plan_decode

    def plan(self: Any, t: float, working: Any) -> None:
        original(self, t, working[:1])

    mp.setattr(lockstep.LockStepInstance, "_plan_decode", plan)


def plant_everybody_to_rank_0(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(lockstep.LockStepInstance, "_least", lambda self, ranks, t_s: min(ranks))


def plant_landing_on_rank_0(mp: pytest.MonkeyPatch) -> None:
    original = lockstep.LockStepInstance.land

    def land(self: Any, request: Any, t_s: float) -> None:
        request.rank = 0
        original(self, request, t_s)

    mp.setattr(lockstep.LockStepInstance, "land", land)


def plant_overtaking_passes(mp: pytest.MonkeyPatch) -> None:
    original = prefill.PrefillInstance._start

    def start(self: Any, flight: Any) -> None:
        self.last_s = 0.0
        original(self, flight)

    mp.setattr(prefill.PrefillInstance, "_start", start)


def plant_one_pass_at_a_time(mp: pytest.MonkeyPatch) -> None:
    born_with(mp, prefill.PrefillInstance, stages=1)


def plant_prefill_on_rank_0(mp: pytest.MonkeyPatch) -> None:
    original = prefill.PrefillInstance.__init__

    def init(self: Any, *args: Any) -> None:
        original(self, *args)
        self.ranks = (self.ranks[0],) * len(self.ranks)

    mp.setattr(prefill.PrefillInstance, "__init__", init)


def plant_whole_prompts_on_the_wire(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(Deployment, "wire_bytes", lambda self, tokens: tokens * self.kv_wire_bytes_per_token)


def plant_pauses_forgotten(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(prefill_first.PrefillFirst, "pause", lambda self, batch, t0: None)


def plant_always_mixed(mp: pytest.MonkeyPatch) -> None:
    born_with(mp, prefill_first.PrefillFirst, mixed=True)


def plant_ratio_that_never_falls(mp: pytest.MonkeyPatch) -> None:
    mp.setattr(prefill_first, "DECAY_STEPS", 1e9)
    mp.setattr(
        prefill_first.NewTokenRatio, "retracted", lambda self, emitted, sequences, output: None
    )


def plant_retracted_first_in_line(mp: pytest.MonkeyPatch) -> None:
    original = prefill_first.PrefillFirst._retract

    def retract(self: Any, batch: Any, t: float) -> None:
        before = len(batch.waiting)
        original(self, batch, t)
        batch.waiting.rotate(len(batch.waiting) - before)

    mp.setattr(prefill_first.PrefillFirst, "_retract", retract)


def plant_outputs_not_reserved(mp: pytest.MonkeyPatch) -> None:
    born_with(mp, core.Batch, reserves=False)


def plant_reserved_output_leaks(mp: pytest.MonkeyPatch) -> None:
    original = core.Batch.leave

    def leave(self: Any, r: Any) -> int:
        if self.reserves:
            r.blocks -= 1
        return int(original(self, r))

    mp.setattr(core.Batch, "leave", leave)


def plant_contexts_always_cut(mp: pytest.MonkeyPatch) -> None:
    born_with(mp, core.Batch, whole=False)


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
    (plant_edges_ignored, "equivalence of every kind"),
    (plant_windows_that_never_fill, "conservation of every kind"),
    (plant_chunks_that_never_end, "conservation of every kind"),
    (plant_one_piece_for_ever, "equivalence of every kind"),
    (plant_ranks_that_do_not_wait, "equivalence of every kind"),
    (plant_everybody_to_rank_0, "equivalence of every kind"),
    (plant_landing_on_rank_0, "conservation of every kind"),
    (plant_overtaking_passes, "golden"),
    (plant_one_pass_at_a_time, "golden"),
    (plant_prefill_on_rank_0, "golden"),
    (plant_whole_prompts_on_the_wire, "golden"),
    (plant_pauses_forgotten, "orders"),
    (plant_always_mixed, "orders"),
    (plant_ratio_that_never_falls, "orders"),
    (plant_retracted_first_in_line, "orders"),
    (plant_outputs_not_reserved, "orders"),
    (plant_reserved_output_leaks, "conservation of every kind"),
    (plant_contexts_always_cut, "orders"),
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

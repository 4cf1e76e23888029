"""The engine against theory, conservation laws and traces worked by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import simulate_deployment
from simulator.engine.clock import Clock
from simulator.engine.cluster import Cluster
from simulator.engine.fairshare import max_min_rates
from simulator.engine.sources import ClosedSource, OpenSource
from simulator.policies.routing import make_router
from simulator.records import StrideLog
from simulator.request import TERMINAL, TRANSITIONS, State
from simulator.run import Run
from simulator.scenario.deployment import Deployment
from simulator.theory import lindley
from simulator.workload import Requests
from tests.engine_kit import INF, Trail, deployment, link, pool, requests, table
from tests.test_equivalence import FABRIC, SERVER, Knobs, disaggregated, server, workloads


def single_server(**kw: Any) -> Deployment:
    """The reduction to one queue: one prefill at a time, one output token, nothing transferred."""
    step = table(a0=0.0, a1=0.0, head=0.0, pair=0.0, max_tokens=100_000, **kw)
    return deployment(
        pool("prefill", max_num_seqs=1, table=step, capacity_blocks=1_000_000),
        pool("decode", capacity_blocks=1_000_000),
        first_token="prefill",
    )


def service_s(d: Deployment, w: Requests) -> np.ndarray:
    step = d.pools[0].table
    return np.array([step.mixed_s(0, 0, [(0, int(p))], 1) for p in w.prompt_tokens])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reduction_is_the_lindley_recursion(seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = requests(np.cumsum(rng.gamma(0.5, 0.2, 3000)), rng.integers(1, 9000, 3000), 1)
    d = single_server()
    table_ = simulate_deployment(d, w).requests
    waits = lindley(w.arrival_s, service_s(d, w))
    np.testing.assert_allclose(table_.prefill_start_s - table_.arrival_s, waits, atol=1e-8)
    np.testing.assert_allclose(
        table_.first_token_s - table_.prefill_start_s, service_s(d, w), rtol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(("load", "service"), [(0.6, "D"), (0.8, "D"), (0.6, "M"), (0.8, "M")])
def test_mean_wait_is_that_of_md1_and_mm1(load: float, service: str) -> None:
    """Pollaczek–Khinchine: W = ρ·s·(1 + c²)/(2(1 − ρ)), inside a 99.9 % replication interval."""
    d = single_server()
    means, expected = [], []
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        n = 8_000
        if service == "D":
            prompt = np.full(n, 2000)
        else:
            prompt = np.maximum(1, np.rint(rng.exponential(2000.0, n)).astype(np.int64))
        s = service_s(d, requests([0.0], 2000, 1))[0]
        w = requests(np.cumsum(rng.exponential(s / load, n)), prompt, 1)
        run = simulate_deployment(d, w).requests
        means.append(float((run.prefill_start_s - run.arrival_s)[n // 20 :].mean()))
        c2 = 0.0 if service == "D" else 1.0
        expected.append(load * s * (1.0 + c2) / (2.0 * (1.0 - load)))
    half = 4.4 * np.std(means, ddof=1) / np.sqrt(len(means))  # t(0.9995, 11)
    assert abs(np.mean(means) - expected[0]) < half + 0.002 * expected[0]


# ---------------------------------------------------------------- conservation


class Ledger:
    """Steps a cluster event by event and checks what must hold between any two events."""

    def __init__(self, d: Deployment, w: Requests, reference: bool = False) -> None:
        self.trail = Trail()
        self.d, self.w = d, w
        clock = Clock()
        log = StrideLog(sum(p.instances for p in d.pools), 1.0, keep=True)
        rng = np.random.default_rng(0)
        routers = (make_router(d.prefill_router, rng), make_router(d.decode_router, rng))
        self.cluster = c = Cluster(
            d, clock, log, routers, reference=reference, observers=[self.trail]
        )
        kind = OpenSource if w.closed_loop is None else ClosedSource
        source = kind(w, 0.0, clock, c)
        c.ended = source.ended
        for _ in range(200 * len(w.arrival_s) + int(w.output_tokens.sum()) * 4 + 1000):
            if clock.peek() == INF:
                break
            clock.step()
            self.check()
        assert clock.peek() == INF  # else it runs for ever
        log.flush()
        self.rows = log.rows()

    def check(self) -> None:
        c = self.cluster
        for p in c.prefills:
            assert p.tokens == sum(rank.tokens for rank in p.ranks)
            flying = [r for f in p.flights for r in f.requests]
            for i, rank in enumerate(p.ranks):
                assert 0 <= rank.ledger.held <= rank.ledger.capacity
                here = [r for r in flying if r.prefill_rank == i]
                tokens = sum(r.prompt_tokens for r in (*rank.queue, *rank.batch, *here))
                assert rank.tokens == tokens
        for s in c.servers:
            for rank in s.ranks:
                self.check_rank(s, rank)
        if c.deployment.mode != "colocated":
            for path in c.links.paths.values():
                assert path.due
                assert path.served <= path.due[0][0] * (1 + 1e-6) + 1e-6

    def check_rank(self, s: Any, rank: Any) -> None:
        """Running sums of a batch equal a recount from its requests."""
        ledger = rank.ledger
        assert ledger.held >= 0
        assert ledger.growing + ledger.held <= ledger.capacity
        decoding = [r for r in rank.running.values() if r.finish_n >= 0]
        contexts = [r.offset + rank.n for r in decoding]
        assert rank.batch == len(contexts)
        assert rank.kv == sum(contexts)
        footprint = s.plan.footprint
        growing = [] if rank.reserves else contexts
        assert ledger.weight == sum(footprint.weight(x) for x in growing)
        assert ledger.growing == sum(footprint.units_for(x) for x in growing)
        assert sum(ledger.residues) == 2 * ledger.weight
        assert len(rank.running) == len(decoding) + len(rank.partial) <= rank.max_seqs
        if rank.groups is not None:
            for g, group in enumerate(s.plan.table.groups):
                now = [group.reads(x) for x in contexts]
                assert rank.groups.reads[g] == sum(now)
                assert rank.groups.rates[g] == sum(
                    group.window is None or x < group.window for x in contexts
                )
        else:
            assert rank.reads() == [rank.kv]

    def check_end(self) -> None:
        c = self.cluster
        n = len(self.w.arrival_s)
        ends = Counter(rid for _, rid, name, _ in self.trail.events if State[name] in TERMINAL)
        assert ends == Counter(range(n))  # every request ends exactly once
        for s in (rank for i in c.servers for rank in i.ranks):
            assert (s.batch, s.kv, s.ledger.growing, s.ledger.held, s.pending_tokens) == (0,) * 5
            assert s.ledger.weight == 0
            assert set(s.sums.reads) | set(s.sums.rates) == {0}
        for p in c.prefills:
            assert not p.flights
            for rank in p.ranks:
                assert (rank.ledger.held, rank.tokens) == (0, 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(FABRIC, SERVER, workloads())
def test_disaggregated_conserves_requests_blocks_and_bytes(f: Knobs, k: Knobs, w: Requests) -> None:
    run = Ledger(disaggregated(f, k), w)
    run.check_end()
    c = run.cluster
    assert not c.links.paths
    moved = {rid for _, rid, name, _ in run.trail.events if name == "TRANSFERRING"}
    sent = sum(float(w.prompt_tokens[i]) for i in moved) * c.deployment.kv_wire_bytes_per_token
    if not c.message_bytes:
        assert c.links.sent_bytes == pytest.approx(sent)
    check_tokens(run)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SERVER, workloads())
def test_colocated_conserves_requests_and_blocks(k: Knobs, w: Requests) -> None:
    run = Ledger(deployment(server("colocated", k)), w)
    run.check_end()
    check_tokens(run)


def check_tokens(run: Ledger) -> None:
    """Tokens sampled in steps = output tokens of requests served, whoever emits the first."""
    assert run.rows is not None
    sampled = float((run.rows[:, 9] * run.rows[:, 3]).sum())
    ended = {rid for _, rid, name, _ in run.trail.events if name == "DONE"}
    expected = sum(int(run.w.output_tokens[i]) for i in ended)
    if run.d.mode == "disaggregated" and run.d.first_token == "decode":
        expected += len(ended)  # prefill samples a token too, and drops it
    assert sampled == expected


def test_littles_law_on_the_sample_path() -> None:
    rng = np.random.default_rng(5)
    w = requests(np.cumsum(rng.exponential(0.03, 400)), rng.integers(1, 400, 400), 40)
    trail = Trail()
    d = deployment(pool("prefill"), pool("decode", instances=2, max_num_seqs=16))
    run = simulate_deployment(d, w, observers=[trail]).requests
    changes = sorted(
        (t, {"ARRIVED": 1, "DONE": -1}[name])
        for t, _, name, _ in trail.events
        if name in ("ARRIVED", "DONE")
    )
    t = np.array([c[0] for c in changes])
    n = np.cumsum([c[1] for c in changes])
    area = float((n[:-1] * np.diff(t)).sum())
    assert n[-1] == 0
    assert area == pytest.approx(float((run.last_token_s - run.arrival_s).sum()), rel=1e-9)


def test_every_edge_taken_is_in_the_lifecycle_and_states_are_named_once() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(not TRANSITIONS[s] for s in TERMINAL)


# ---------------------------------------------------------------- links


def test_64_transfers_into_one_nic_share_it_fairly() -> None:
    """64 × 8K tokens of 327,680 B through one 0.5 GB/s NIC: the last lands at bytes/bandwidth."""
    d = deployment(
        pool("prefill", instances=64, max_num_seqs=1, table=table(max_tokens=8192)),
        pool("decode", capacity_blocks=64 * 513, table=table()),
        link=link(nic_bytes_per_s=0.5e9),
        kv_wire_bytes_per_token=327_680.0,
    )
    run = simulate_deployment(d, requests([0.0] * 64, 8192, 2)).requests
    took = run.landed_s - run.prefill_end_s
    assert took.max() == pytest.approx(64 * 8192 * 327_680 / 0.5e9, rel=0.01)
    assert took.min() == pytest.approx(took.max(), rel=0.01)  # nobody is favoured


@settings(deadline=None)
@given(st.data())
def test_max_min_shares_are_feasible_and_cannot_be_improved(data: st.DataObject) -> None:
    n_ports = data.draw(st.integers(1, 5))
    capacity = data.draw(st.lists(st.floats(0.1, 10.0), min_size=n_ports, max_size=n_ports))
    ports = data.draw(
        st.lists(
            st.lists(st.integers(0, n_ports - 1), min_size=1, max_size=3, unique=True),
            min_size=1,
            max_size=8,
        )
    )
    caps = data.draw(st.lists(st.floats(0.05, 12.0), min_size=len(ports), max_size=len(ports)))
    rates = max_min_rates(ports, caps, capacity)
    used = [sum(r for r, c in zip(rates, ports, strict=True) if p in c) for p in range(n_ports)]
    for p in range(n_ports):
        assert used[p] <= capacity[p] * (1 + 1e-9)
    for rate, crossing, cap in zip(rates, ports, caps, strict=True):
        # bottleneck condition: at its cap, or at a full port where nobody gets more
        bottleneck = rate >= cap * (1 - 1e-9) or any(
            used[p] >= capacity[p] * (1 - 1e-9)
            and all(
                rate >= other * (1 - 1e-9) for other, c in zip(rates, ports, strict=True) if p in c
            )
            for p in crossing
        )
        assert bottleneck


@pytest.mark.parametrize("nic", [1e5, 1e6, 1e9])
def test_layerwise_transfer_exposes_at_least_the_last_layer(nic: float) -> None:
    """Four layers: a fast link exposes one layer's bytes, a slow one what it could not send."""
    d = deployment(
        pool("prefill"),
        pool("decode"),
        link=link(nic_bytes_per_s=nic),
        reserve="before_prefill",
        transfer="layerwise",
        kv_wire_bytes_per_token=100.0,
    )
    run = simulate_deployment(d, requests([0.0], 1000, 2)).requests.iloc[0]
    size, prefill = 1e5, run.prefill_end_s - run.prefill_start_s
    exposed = run.landed_s - run.prefill_end_s
    first = 0.75 * prefill  # the first layer's bytes appear after a quarter
    sent = min(0.75 * size, first * min(nic, size / prefill))
    assert exposed == pytest.approx((size - sent) / nic + 1e-3, rel=1e-9)
    assert exposed >= 0.25 * size / nic + 1e-3 - 1e-12


# ---------------------------------------------------------------- metamorphic


def spread(run: Run) -> pd.DataFrame:
    return run.requests.drop(columns=["id"])


def sample(n: int = 300, seed: int = 8) -> Requests:
    rng = np.random.default_rng(seed)
    return requests(
        np.cumsum(rng.exponential(0.02, n)), rng.integers(1, 700, n), rng.integers(1, 90, n)
    )


def doubled(d: Deployment) -> Deployment:
    """The same cluster with every time twice as long."""
    pools = [pool(p.role, instances=p.instances, table=_twice(p.table)) for p in d.pools]
    assert d.link is not None
    slow = link(
        nic_bytes_per_s=d.link.nic_bytes_per_s / 2.0, base_latency_s=d.link.base_latency_s * 2.0
    )
    return deployment(*pools, link=slow)


def _twice(value: Any) -> Any:
    """Every time in a step table twice as long; counts stay."""
    if isinstance(value, float):
        return 2.0 * value
    if isinstance(value, (list, tuple)):
        return type(value)(_twice(x) for x in value)
    if is_dataclass(value):
        return type(value)(*(_twice(getattr(value, f.name)) for f in fields(value)))
    return value


def test_twice_the_time_is_bit_equal_after_scaling() -> None:
    d = deployment(pool("prefill", instances=2), pool("decode", instances=2))
    w = sample()
    once = spread(simulate_deployment(d, w))
    twice = spread(
        simulate_deployment(doubled(d), requests(w.arrival_s * 2, w.prompt_tokens, w.output_tokens))
    )
    for name in once:
        factor = 2.0 if name.endswith("_s") else 1.0
        np.testing.assert_array_equal(once[name].to_numpy() * factor, twice[name].to_numpy())


def test_dropping_the_last_arrivals_changes_nothing_before_them() -> None:
    d = deployment(pool("prefill"), pool("decode", instances=2, capacity_blocks=80, max_num_seqs=8))
    w = sample(120)
    whole = simulate_deployment(d, w, keep_strides=True)
    part = simulate_deployment(
        d,
        requests(w.arrival_s[:80], w.prompt_tokens[:80], w.output_tokens[:80]),
        keep_strides=True,
    )
    cut = w.arrival_s[80]
    for run in (whole, part):
        assert run.strides is not None
    early = [r.strides[r.strides.t_end_s < cut].reset_index(drop=True) for r in (whole, part)]  # type: ignore[index]
    assert len(early[0]) > 50
    pd.testing.assert_frame_equal(early[0], early[1], check_exact=True)


def test_no_kv_bytes_is_infinite_bandwidth() -> None:
    pools = (pool("prefill", instances=2), pool("decode", instances=2))
    free = deployment(*pools, kv_wire_bytes_per_token=0.0)
    fast = deployment(*pools, link=link(nic_bytes_per_s=INF))
    w = sample()
    pd.testing.assert_frame_equal(
        simulate_deployment(free, w).requests,
        simulate_deployment(fast, w).requests,
        check_exact=True,
    )


def test_in_the_single_server_bandwidth_never_raises_ttft() -> None:
    w = sample(200)
    ttft = []
    for nic in (1e5, 1e6, 1e9):
        d = deployment(
            pool("prefill", max_num_seqs=1),
            pool("decode", capacity_blocks=100_000, max_num_seqs=64),
            first_token="prefill",
            link=link(nic_bytes_per_s=nic),
        )
        run = simulate_deployment(d, w).requests
        ttft.append((run.first_token_s - run.arrival_s).to_numpy())
    assert (ttft[1] <= ttft[0] + 1e-12).all()
    assert (ttft[2] <= ttft[1] + 1e-12).all()


def test_one_seed_gives_one_table() -> None:
    d = deployment(
        pool("prefill", instances=3),
        pool("decode", instances=3),
        prefill_router="random",
        decode_router="random",
    )
    a, b = (simulate_deployment(d, sample(), seed=4).requests for _ in range(2))
    assert a.to_numpy().tobytes() == b.to_numpy().tobytes()
    other = simulate_deployment(d, sample(), seed=5).requests
    assert not other.prefill_instance.equals(a.prefill_instance)


# ---------------------------------------------------------------- limits and liveness


@pytest.mark.parametrize("reference", [False, True])
def test_eviction_storm_makes_progress(reference: bool) -> None:
    """Two instances with room for little more than one request each: no livelock."""
    d = deployment(
        pool("prefill"), pool("decode", instances=2, capacity_blocks=14, block_tokens=16)
    )
    w = requests([0.0] * 60, 110, 100)
    run = simulate_deployment(d, w, reference=reference).requests
    assert (run.state == State.DONE).all()
    assert run.preemptions.sum() > 0


def test_requests_that_can_never_fit_are_rejected_at_once() -> None:
    d = deployment(pool("prefill"), pool("decode", capacity_blocks=10))
    run = simulate_deployment(d, requests([0.0, 1.0, 2.0], [100, 100, 161], [50, 61, 1])).requests
    assert run.state.tolist() == [State.DONE, State.REJECTED, State.REJECTED]
    assert run.prefill_start_s.isna().tolist() == [False, True, True]


def test_stride_events_do_not_grow_with_tokens() -> None:
    d = deployment(pool("prefill"), pool("decode", capacity_blocks=10_000))
    few = simulate_deployment(d, requests([0.0, 1.0, 2.0], 100, 16)).meta
    many = simulate_deployment(d, requests([0.0, 100.0, 200.0], 100, 4000)).meta
    assert many["events"] == few["events"]


@pytest.mark.parametrize("reference", [False, True])
def test_an_evicted_request_does_not_starve_behind_landed_ones(reference: bool) -> None:
    """Under overload one eviction must not stop promises for long: the evicted goes first."""
    rng = np.random.default_rng(6)
    d = deployment(
        pool("prefill", instances=2), pool("decode", capacity_blocks=260, max_num_seqs=16)
    )
    w = requests(np.cumsum(rng.exponential(0.01, 400)), 150, rng.integers(60, 140, 400))
    run = simulate_deployment(d, w, reference=reference).requests
    assert run.preemptions.sum() > 0
    starts = np.sort(run.decode_start_s.to_numpy())
    # one request lasts about 100 steps of 15 ms; a pause of promises would be several of those
    assert np.diff(starts).max() < 2.0

"""What the engine writes: histograms and timelines lose nothing they claim to keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.records import N_STRIDE, ItlSketch, StrideLog, Timeline

gaps = st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=60)


@settings(max_examples=40)
@given(gaps, st.sampled_from([0.01, 0.1, 0.5, 0.9, 0.99, 1.0]))
def test_sketch_quantiles_are_within_a_quarter_per_cent(values, q):
    x = np.array(values)
    sketch = ItlSketch()
    sketch.add(x, np.ones_like(x))
    exact = np.quantile(x, q, method="inverted_cdf")
    assert sketch.quantile_s(q) == pytest.approx(exact, rel=0.0025)


@settings(max_examples=40)
@given(gaps, st.integers(1, 5))
def test_sketch_mean_is_exact_and_weights_count_gaps(values, weight):
    x = np.array(values)
    sketch = ItlSketch()
    for part in np.array_split(x, 3):
        sketch.add(part, np.full(part.size, float(weight)))
    assert sketch.n == weight * x.size
    assert sketch.mean_s() == pytest.approx(x.mean(), rel=1e-12)


def test_an_empty_sketch_has_no_quantile():
    sketch = ItlSketch()
    sketch.add(np.zeros(0), np.zeros(0))
    assert sketch.n == 0.0
    assert np.isnan(sketch.mean_s())
    assert np.isnan(sketch.quantile_s(0.5))


pieces = st.lists(
    st.tuples(st.integers(0, 2), st.floats(0, 50), st.floats(0, 300), st.floats(0, 9)),
    min_size=1,
    max_size=30,
)


@given(pieces)
@settings(max_examples=50)
def test_a_timeline_keeps_the_integral_through_every_doubling(rows):
    line = Timeline(3, 0.01, ("value",))
    area = np.zeros(3)
    for instance, start, length, value in rows:
        one = np.array([start])
        line.add(np.array([instance]), one, one + length, value=np.array([value]))
        area[instance] += length * value
    assert line.sums["value"].sum(axis=1) == pytest.approx(area, rel=1e-9, abs=1e-9)
    assert line.edges_s().size == line.bins <= line.MAX_BINS
    assert line.mean("value").sum() * line.width_s == pytest.approx(area.sum(), abs=1e-9)
    end = max(start + length for _, start, length, _ in rows)
    assert line.width_s * line.bins >= end * (1 - 1e-12)


def test_a_timeline_puts_time_where_it_was():
    line = Timeline(1, 1.0, ("value",))
    line.add(np.array([0]), np.array([0.5]), np.array([2.25]), value=np.array([4.0]))
    assert line.mean("value")[0].tolist() == [2.0, 4.0, 1.0]


def row(**values):
    names = ["instance", "t0", "t1", "steps", "batch", "kv", "new", "pairs", "read", "rows"]
    names += ["fresh", "blocks", "prefills", "first_s"]
    assert len(names) == N_STRIDE
    return [float(values.get(name, 0.0)) for name in names]


@settings(max_examples=40)
@given(
    st.integers(1, 300),
    st.integers(1, 20),
    st.floats(0.005, 0.05),
    st.floats(0.0, 1e-4),
    st.integers(0, 3),
)
def test_a_stride_counts_what_its_steps_would(steps, batch, first_s, rise_s, fresh):
    each = first_s + rise_s * np.arange(steps)
    kv = 1000 + batch * np.arange(steps)
    fresh = min(fresh, batch)
    log = StrideLog(1, 1.0, keep=True)
    log.buffer.extend(
        row(
            t1=each.sum(),
            steps=steps,
            batch=batch,
            kv=1000,
            rows=batch,
            fresh=fresh,
            blocks=70,
            first_s=first_s,
        )
    )
    log.flush()
    assert len(log.buffer) == 0
    assert log.rows().shape == (1, N_STRIDE)
    t = {key: value[0] for key, value in log.totals.items()}
    assert t["busy_s"] == pytest.approx(each.sum())
    assert (t["strides"], t["steps"]) == (1, steps)
    assert t["tokens"] == t["rows"] == steps * batch
    assert t["kv_token_steps"] == t["pairs"] == kv.sum()
    assert t["kv_peak_blocks"] == 70
    # every sequence closes a gap in every step, but the fresh ones not in their first
    assert log.itl.n == pytest.approx(steps * batch - fresh)
    total = batch * each.sum() - fresh * first_s
    assert log.itl.total_s == pytest.approx(total, rel=1e-9, abs=1e-12)
    if steps * batch > fresh:
        exact = np.quantile(np.repeat(each, batch), 0.9, method="inverted_cdf")
        if fresh == 0:
            assert log.itl.quantile_s(0.9) == pytest.approx(exact, rel=0.005)


def test_mixed_steps_count_their_chunks():
    log = StrideLog(2, 1.0, keep=False)
    log.buffer.extend(
        row(instance=1, t1=0.1, steps=1, batch=2, kv=300, new=50, pairs=1250.0, read=50, rows=3,
            prefills=1, first_s=0.1, blocks=9)
    )  # fmt: skip
    log.flush()
    assert log.rows() is None
    t = {key: value.tolist() for key, value in log.totals.items()}
    assert t["tokens"] == [0.0, 52.0]
    assert t["pairs"] == [0.0, 1550.0]
    assert t["kv_token_steps"] == [0.0, 350.0]
    assert t["rows"] == [0.0, 3.0]


@pytest.mark.parametrize("t1", [-0.5, float("inf")])
def test_a_stride_that_runs_backwards_is_a_fault_with_its_row(t1):
    log = StrideLog(1, 1.0, keep=False)
    log.buffer.extend(row(t1=t1, steps=2, batch=3))
    with pytest.raises(RuntimeError, match=r"backwards or never ends \(instance 0, .* batch 3"):
        log.flush()

"""Sentences a reader of a summary must see: what was overloaded, lost, evicted or extrapolated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simulator.analysis import Bounds
from simulator.analysis.measured import Measured
from simulator.metrics.latency import completed, in_service
from simulator.metrics.stability import Stability
from simulator.request import State
from simulator.run import Run

SHORT_RUN_SHARE = 0.05


def cautions(run: Run, bounds: Bounds, found: Stability, rests: Measured) -> list[str]:
    """All warnings, most important first.

    Args:
        run: the run.
        bounds: its closed form.
        found: whether it keeps up.
        rests: what of its time rests on measurements.
    """
    return [
        *_overload(bounds, found),
        *_lost(run),
        *_evicted(run),
        *_slots(run),
        *_borrowed(run),
        *_substituted(run),
        *rests.sentences,
        *_beyond(run),
        *_peaks(bounds),
        *_chunks(run),
        *_short(run),
        *run.workload.notes,
    ]


def _overload(bounds: Bounds, found: Stability) -> Iterator[str]:
    misses_tpot = bounds.tpot_bottleneck is not None and (bounds.tpot_bottleneck.load or 0.0) > 1.0
    overloaded = bounds.load is not None and bounds.load > 1.0
    if overloaded or bounds.too_close_to_call or misses_tpot:
        yield bounds.verdict
    if found.reason != bounds.verdict and not (found.stable and found.conclusive):
        yield found.reason


def _lost(run: Run) -> Iterator[str]:
    state = run.requests["state"].to_numpy()
    n = len(state)
    for name in (State.REJECTED, State.CANCELLED, State.FAILED):
        count = int(np.count_nonzero(state == name))
        if count:
            yield f"{_of(count, n)} {'was' if count == 1 else 'were'} {name.name.lower()}."
    open_ = int(np.count_nonzero(state < State.DONE))
    if open_:
        yield f"{_of(open_, n)} did not finish."


def _evicted(run: Run) -> Iterator[str]:
    hit = int(np.count_nonzero(run.requests["preemptions"].to_numpy() > 0))
    if hit:
        yield (
            f"{_of(hit, len(run.requests))} lost {'its' if hit == 1 else 'their'} KV cache to "
            f"preemption and recomputed it: KV capacity is short."
        )


def _slots(run: Run) -> Iterator[str]:
    client = run.workload.closed_loop
    if client is None:
        return
    servers = [p for p in run.deployment.pools if p.role != "prefill"]
    slots = sum(p.max_num_seqs * p.parallel.attention_dp * p.instances for p in servers)
    if slots <= client.concurrency:
        yield (
            f"The client keeps {client.concurrency} requests in flight and the instances run at "
            f"most {slots} at a time: TTFT contains the wait for a slot."
        )


def _peaks(bounds: Bounds) -> Iterator[str]:
    peak = bounds.peak
    if peak is not None and peak.overloaded_share > 0.0:
        yield (
            f"{100 * peak.overloaded_share:.3g} % of the {peak.window_s:.3g} s windows are "
            f"overloaded; the peak load is {peak.load:.2f}, on {peak.resource} at "
            f"{peak.start_s:.0f} s."
        )


def _borrowed(run: Run) -> Iterator[str]:
    """GPUs whose kernels nobody has measured, each once."""
    sentences = (pool.gpu.caution for pool in run.deployment.pools)
    yield from dict.fromkeys(text for text in sentences if text is not None)


def _substituted(run: Run) -> Iterator[str]:
    """What the step models had to assume, each sentence once."""
    yield from dict.fromkeys(note for pool in run.deployment.pools for note in pool.step.notes)


def _beyond(run: Run) -> Iterator[str]:
    """Contexts longer than the model was built for."""
    most = run.deployment.model.max_position
    tokens = run.workload.prompt_tokens + run.workload.output_tokens
    over = int(np.count_nonzero(tokens > most))
    if over:
        yield (
            f"{_of(over, len(run.workload))} {'is' if over == 1 else 'are'} longer, prompt and "
            f"output, than {run.deployment.model.name} was built for: up to {int(tokens.max()):,} "
            f"tokens, and its longest context is {most:,}."
        )


def _chunks(run: Run) -> Iterator[str]:
    """A prompt is cut when those waiting at a boundary exceed the budget left by decoding."""
    longest = int(run.workload.prompt_tokens.max())
    for pool in run.deployment.pools:
        room = pool.max_num_batched_tokens - pool.max_num_seqs
        whole = pool.scheduler == "trtllm" and not pool.chunked
        if pool.role == "colocated" and not whole and 2 * longest > room:
            yield (
                f"Prompts are prefilled in chunks on {pool.name}; the attention of a chunk after "
                f"the first is extrapolated from whole prompts."
            )


def _short(run: Run) -> Iterator[str]:
    """A system that fills up during a notable share of the run is not in steady state."""
    if run.workload.closed_loop is not None or not run.workload.stationary:
        return
    served = in_service(run)[completed(run)]
    arrival = run.requests["arrival_s"].to_numpy()
    window = float(arrival.max() - arrival.min()) if arrival.size else 0.0
    if not served.size or window <= 0.0:
        return
    share = float(np.median(served)) / window
    if share > SHORT_RUN_SHARE:
        yield (
            f"The run is short: filling the empty system takes about {100 * min(share, 1.0):.0f} % "
            f"of the arrival window, and warm-up is not removed."
        )


def _of(count: int, n: int) -> str:
    noun = "request" if n == 1 else "requests"
    return f"{count} of {n} {noun} ({100 * count / n:.3g} %)"

"""What a batch does at a boundary besides plain decoding: admit, prefill by chunks, evict.

Plain functions over one ``Batch``, called by it. The order of service is vLLM V1's: running sequences
first (decodes, then chunks under way, in order of admission), then newcomers while slots, token
budget and blocks last; the latest admitted is evicted when blocks run out and recomputes its prompt
and output by chunks. Nobody is admitted at a boundary that evicted, unless it left the batch empty.

TensorRT-LLM's is the same with two differences, each of which can be turned off: a prompt is computed
whole (``batch.whole``), and room for prompt and output is kept from admission to the end
(``batch.reserves``), so that nobody is ever evicted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from simulator.request import Request, State

if TYPE_CHECKING:
    from simulator.engine.core import Batch


def take_back(batch: Batch) -> None:
    """Take back the admissions of the boundary that has just been decided."""
    if batch.policy is not None:
        batch.policy.take_back()
    for r in reversed(batch.joined):
        batch.pending_tokens += batch.leave(r)
        batch.ledger.held += r.reserved
        del batch.running[r.id]
        batch.landed.appendleft(r)
    for r, queue in reversed(batch.started):
        batch.ledger.held -= r.blocks
        r.blocks = 0
        del batch.running[r.id]
        batch.partial.remove(r)
        queue.appendleft(r)


def end_chunks(batch: Batch, t: float) -> None:
    """Account for the chunks of the step that ended at ``t``."""
    batch.started.clear()
    if batch.groups is not None:
        batch.groups.prefilled(batch.spans)
    hooks = batch.hooks
    ledger = batch.ledger
    for r, new in batch.chunks:
        r.computed += new
        target = r.prompt_tokens + r.emitted
        if r.computed < target:
            continue
        batch.pending_tokens -= target
        batch.partial.remove(r)
        ends = r.emitted + 1 == r.output_tokens
        if ends or not batch.reserves:
            ledger.held -= r.blocks
            r.blocks = 0
        r.computed = 0
        r.emitted += 1
        if r.first_token_s < 0.0:
            r.prefill_end_s = r.first_token_s = t
        else:
            batch.log.gaps.append(t - r.prev_token_s)
        r.prev_token_s = t
        if ends:
            del batch.running[r.id]
            r.last_token_s = t
            hooks.finished(r, t)
            batch.left()
        else:
            batch.decode(r, t)
    batch.chunks.clear()


def measure_chunks(batch: Batch) -> None:
    """Add up the chunks of the step that begins."""
    new = read = ends = 0
    pairs = 0.0
    spans = []
    for r, c in batch.chunks:
        p = r.computed
        spans.append((p, c))
        new += c
        pairs += c * (p + 0.5 * c)
        read += p + c
        ends += p + c == r.prompt_tokens + r.emitted
    batch.spans = spans
    batch.chunked = (new, pairs, read, ends)


def evict(batch: Batch, t: float) -> None:
    """Free the KV of the latest admitted; it will recompute prompt and output, before all others."""
    _, r = batch.running.popitem()
    preempt(batch, r, t)
    batch.evicted.appendleft(r)


def preempt(batch: Batch, r: Request, t: float) -> None:
    """Free the KV of a request that no longer runs."""
    if r.finish_n >= 0:
        r.emitted = r.output_tokens - (r.finish_n - batch.n)
        r.prev_token_s = t
        batch.pending_tokens += batch.leave(r)
    else:
        batch.ledger.held -= r.blocks
        r.blocks = 0
        r.computed = 0
        batch.partial.remove(r)
    r.preemptions += 1
    if batch.hooks.observed:
        batch.hooks.moved(t, r, State.PREEMPTED, batch.index)


def make_room(batch: Batch, t: float) -> None:
    """Evict until everybody's next token fits."""
    ledger = batch.ledger
    while ledger.growing + ledger.held > ledger.capacity:
        evict(batch, t)
    batch.admit = not batch.running


def schedule_chunks(batch: Batch, t: float) -> None:
    """Chunks under way, evicted, landed, waiting: in this order.

    Evicted before landed: nothing is promised while one waits, so the landed are few. If blocks
    are what it waits for, the landed hold them, and are not kept waiting in turn.
    """
    budget = continue_chunks(batch, t, batch.budget - batch.batch)
    if batch.admit:
        budget = start_chunks(batch, t, batch.evicted, budget)
        budget = admit_landed(batch, t, budget)
        if not batch.evicted and not batch.held:
            start_chunks(batch, t, batch.waiting, budget)


def continue_chunks(batch: Batch, t: float, budget: int) -> int:
    """Next chunks of the requests being prefilled; the token budget that is left."""
    ledger = batch.ledger
    i = 0
    while i < len(batch.partial) and budget > 0:
        r = batch.partial[i]
        c = min(r.prompt_tokens + r.emitted - r.computed, budget)
        extra = max(0, ledger.units_for(r.computed + c) - r.blocks)
        while extra > ledger.free and r.id in batch.running:
            evict(batch, t)
            batch.admit = not batch.running
        if r.id not in batch.running:
            break
        ledger.held += extra
        r.blocks += extra
        batch.chunks.append((r, c))
        budget -= c
        i += 1
    return budget


def admit_landed(batch: Batch, t: float, budget: int) -> int:
    """Landed requests join while slots and budget last; the budget that is left."""
    landed = batch.landed
    running = batch.running
    ledger = batch.ledger
    while landed and budget > 0 and len(running) < batch.max_seqs:
        r = landed.popleft()
        if batch.reserves:
            r.blocks = r.reserved
        else:
            ledger.held -= r.reserved
        batch.pending_tokens -= r.prompt_tokens + r.emitted
        if batch.first_token == "handoff" and r.first_token_s < 0.0:
            r.first_token_s = t
            if r.output_tokens == 1:
                r.decode_start_s = r.last_token_s = t
                ledger.held -= r.blocks
                r.blocks = 0
                batch.hooks.finished(r, t)
                batch.released = True
                continue
        r.admission = batch.admissions
        batch.admissions += 1
        running[r.id] = r
        batch.decode(r, t)
        batch.joined.append(r)
        budget -= 1
    return budget


def start_chunks(batch: Batch, t: float, queue: deque[Request], budget: int) -> int:
    """Admit from the queue while slots, budget and blocks last; the budget that is left."""
    ledger = batch.ledger
    while queue and budget > 0 and len(batch.running) < batch.max_seqs:
        r = queue[0]
        target = r.prompt_tokens + r.emitted
        c = min(target, budget)
        if batch.whole and c < target <= batch.budget:
            break
        if batch.reserves:
            needed = blocks = ledger.units_for(r.prompt_tokens + r.output_tokens)
        else:
            blocks = ledger.units_for(c)
            # who was evicted comes back only when all of it fits, or it would be evicted for ever
            needed = ledger.units_for(target) if queue is batch.evicted else blocks
        if needed > ledger.free:
            break
        start(batch, t, queue, c, blocks)
        budget -= c
    return budget


def start(batch: Batch, t: float, queue: deque[Request], new: int, units: int) -> None:
    """The head of the queue is admitted: its first chunk of ``new`` tokens, with ``units`` held."""
    r = queue.popleft()
    batch.released |= queue is batch.evicted and not queue
    batch.ledger.held += units
    r.blocks = units
    r.admission = batch.admissions
    batch.admissions += 1
    batch.running[r.id] = r
    batch.partial.append(r)
    batch.chunks.append((r, new))
    batch.started.append((r, queue))
    if r.prefill_start_s < 0.0:
        r.prefill_start_s = t
    if batch.hooks.observed:
        batch.hooks.moved(t, r, State.PREFILLING, batch.index)

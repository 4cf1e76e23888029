"""What an instance does at a boundary besides plain decoding: admit, prefill by chunks, evict.

Plain functions over one ``BatchInstance``, called by it. The order of service is vLLM V1's: see
``simulator.engine.batch`` and docs/ties.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from simulator.engine.clock import BOUNDARY
from simulator.request import Request, State

if TYPE_CHECKING:
    from simulator.engine.batch import BatchInstance


def take_back(server: BatchInstance) -> None:
    """Take back the admissions of the boundary at ``t0`` and decide again with the newcomer."""
    n = server.n
    for r in reversed(server.joined):
        context = r.offset + n
        server.ledger.leave(r.offset, context)
        server.ledger.held += r.reserved
        server.kv -= context
        server.batch -= 1
        server.pending_tokens += context
        r.finish_n = -1
        del server.running[r.id]
        server.landed.appendleft(r)
    for r, queue in reversed(server.started):
        server.ledger.held -= r.blocks
        r.blocks = 0
        del server.running[r.id]
        server.partial.remove(r)
        queue.appendleft(r)
    server.version += 1
    server.begin(server.t0)


def end_chunks(server: BatchInstance, t: float) -> None:
    """Account for the chunks of the step that ended at ``t``."""
    server.started.clear()
    hooks = server.hooks
    ledger = server.ledger
    for r, new in server.chunks:
        r.computed += new
        target = r.prompt_tokens + r.emitted
        if r.computed < target:
            continue
        server.pending_tokens -= target
        server.partial.remove(r)
        ledger.held -= r.blocks
        r.blocks = 0
        r.computed = 0
        r.emitted += 1
        if r.first_token_s < 0.0:
            r.prefill_end_s = r.first_token_s = t
        else:
            server.log.gaps.append(t - r.prev_token_s)
        if r.emitted == r.output_tokens:
            del server.running[r.id]
            r.last_token_s = t
            hooks.finished(r, t)
            server.released = True
        else:
            server.decode(r, t)
    server.chunks.clear()


def plan_mixed(server: BatchInstance, t: float) -> None:
    """Time the step that runs the chunks beside the decoding batch."""
    new = read = ends = 0
    pairs = 0.0
    spans = []
    for r, c in server.chunks:
        p = r.computed
        spans.append((p, c))
        new += c
        pairs += c * (p + 0.5 * c)
        read += p + c
        ends += p + c == r.prompt_tokens + r.emitted
    server.chunked = (new, pairs, read, ends)
    server.k = 1
    server.rise = 0.0
    server.d0 = server.table.mixed_s(server.batch, server.kv, spans, server.batch + ends)
    server.t_end = end = t + server.d0
    server.version += 1
    server.clock.at(end, server.callbacks, server.version, None, BOUNDARY + server.index)


def evict(server: BatchInstance, t: float) -> None:
    """Free the KV of the latest admitted; it will recompute prompt and output."""
    _, r = server.running.popitem()
    if r.finish_n >= 0:
        context = r.offset + server.n
        server.ledger.leave(r.offset, context)
        server.kv -= context
        server.batch -= 1
        r.emitted = r.output_tokens - (r.finish_n - server.n)
        r.finish_n = -1
        r.prev_token_s = t
        server.pending_tokens += context
    else:
        server.ledger.held -= r.blocks
        r.blocks = 0
        r.computed = 0
        server.partial.remove(r)
    r.preemptions += 1
    server.evicted.appendleft(r)
    if server.hooks.observed:
        server.hooks.moved(t, r, State.PREEMPTED, server.index)


def make_room(server: BatchInstance, t: float) -> None:
    """Evict until everybody's next token fits."""
    ledger = server.ledger
    while ledger.growing + ledger.held > ledger.capacity:
        evict(server, t)
    server.admit = not server.running


def schedule_chunks(server: BatchInstance, t: float) -> None:
    """Chunks under way, evicted, landed, waiting: in this order.

    Evicted before landed: nothing is promised while one waits, so the landed are few. If blocks
    are what it waits for, the landed hold them, and are not kept waiting in turn.
    """
    budget = continue_chunks(server, t)
    if server.admit:
        budget = start_chunks(server, t, server.evicted, budget)
        budget = admit_landed(server, t, budget)
        if not server.evicted:
            start_chunks(server, t, server.waiting, budget)


def continue_chunks(server: BatchInstance, t: float) -> int:
    """Next chunks of the requests being prefilled; the token budget that is left."""
    budget = server.budget - server.batch
    ledger = server.ledger
    i = 0
    while i < len(server.partial) and budget > 0:
        r = server.partial[i]
        c = min(r.prompt_tokens + r.emitted - r.computed, budget)
        extra = ledger.blocks_for(r.computed + c) - r.blocks
        while extra > ledger.free and r.id in server.running:
            evict(server, t)
            server.admit = not server.running
        if r.id not in server.running:
            break
        ledger.held += extra
        r.blocks += extra
        server.chunks.append((r, c))
        budget -= c
        i += 1
    return budget


def admit_landed(server: BatchInstance, t: float, budget: int) -> int:
    """Landed requests join while slots and budget last; the budget that is left."""
    landed = server.landed
    running = server.running
    ledger = server.ledger
    while landed and budget > 0 and len(running) < server.max_seqs:
        r = landed.popleft()
        ledger.held -= r.reserved
        server.pending_tokens -= r.prompt_tokens + r.emitted
        if server.first_token == "handoff" and r.first_token_s < 0.0:
            r.first_token_s = t
            if r.output_tokens == 1:
                r.decode_start_s = r.last_token_s = t
                server.hooks.finished(r, t)
                server.released = True
                continue
        r.admission = server.admissions
        server.admissions += 1
        running[r.id] = r
        server.decode(r, t)
        server.joined.append(r)
        budget -= 1
    return budget


def start_chunks(server: BatchInstance, t: float, queue: deque[Request], budget: int) -> int:
    """Admit from the queue while slots, budget and blocks last; the budget that is left."""
    ledger = server.ledger
    while queue and budget > 0 and len(server.running) < server.max_seqs:
        r = queue[0]
        target = r.prompt_tokens + r.emitted
        c = min(target, budget)
        blocks = ledger.blocks_for(c)
        # who was evicted comes back only when all of it fits, or it would be evicted for ever
        needed = ledger.blocks_for(target) if queue is server.evicted else blocks
        if needed > ledger.free:
            break
        queue.popleft()
        server.released |= queue is server.evicted and not queue
        ledger.held += blocks
        r.blocks = blocks
        r.admission = server.admissions
        server.admissions += 1
        server.running[r.id] = r
        server.partial.append(r)
        server.chunks.append((r, c))
        server.started.append((r, queue))
        budget -= c
        if r.prefill_start_s < 0.0:
            r.prefill_start_s = t
        if server.hooks.observed:
            server.hooks.moved(t, r, State.PREFILLING, server.index)
    return budget

"""The lifecycle of a request, as a table of transitions, and the record the engine moves along it.

A request is one object from arrival to its end; it is never split into sub-requests. Every request
ends exactly once, in ``DONE``, ``REJECTED``, ``CANCELLED`` or ``FAILED``.
"""

from __future__ import annotations

from enum import IntEnum

from simulator.errors import LifecycleError


class State(IntEnum):
    """Where a request is. The integer values are stored in results and stay stable."""

    ARRIVED = 0
    QUEUED_PREFILL = 1
    PREFILLING = 2
    KV_WAIT = 3
    TRANSFERRING = 4
    QUEUED_DECODE = 5
    DECODING = 6
    PREEMPTED = 7
    DONE = 8
    REJECTED = 9
    CANCELLED = 10
    FAILED = 11


TERMINAL = frozenset({State.DONE, State.REJECTED, State.CANCELLED, State.FAILED})

_ABORT = frozenset({State.CANCELLED, State.FAILED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.ARRIVED: frozenset({State.QUEUED_PREFILL, State.REJECTED}) | _ABORT,
    State.QUEUED_PREFILL: frozenset({State.PREFILLING}) | _ABORT,
    # a colocated request decodes, or ends with its only token, where it was prefilled; it can be
    # preempted halfway through a chunked prefill
    State.PREFILLING: frozenset(
        {State.KV_WAIT, State.TRANSFERRING, State.DECODING, State.PREEMPTED, State.DONE}
    )
    | _ABORT,
    State.KV_WAIT: frozenset({State.TRANSFERRING}) | _ABORT,
    State.TRANSFERRING: frozenset({State.QUEUED_DECODE}) | _ABORT,
    # DONE: a hand-off whose only token was sampled by the prefill instance
    State.QUEUED_DECODE: frozenset({State.DECODING, State.DONE}) | _ABORT,
    State.DECODING: frozenset({State.PREEMPTED, State.DONE}) | _ABORT,
    # a preempted request recomputes its KV by chunks before it decodes again
    State.PREEMPTED: frozenset({State.PREFILLING}) | _ABORT,
    State.DONE: frozenset(),
    State.REJECTED: frozenset(),
    State.CANCELLED: frozenset(),
    State.FAILED: frozenset(),
}


def check_transition(before: State, after: State) -> None:
    """Raise ``LifecycleError`` if a request may not go from ``before`` to ``after``."""
    if after not in TRANSITIONS[before]:
        raise LifecycleError(f"a request cannot go from {before.name} to {after.name}")


NEVER = -1.0
"""Instant of something that has not happened (yet)."""


class Request:
    """One request on its way through the cluster. All instants in seconds, ``NEVER`` if unset.

    Attributes:
        id: position in the workload, from 0.
        arrival_s: instant the client sent it.
        prompt_tokens: ISL.
        output_tokens: OSL, at least 1.
        emitted: output tokens produced so far.
        prefill: index of the instance that prefills it (or serves it, when colocated), -1 if none.
        decode: index of the instance that decodes it, -1 if none.
        queued_s: instant it was queued for prefill (arrival plus router latency).
        prefill_start_s: start of the step that computed its first prompt token.
        prefill_end_s: end of the step that computed its last prompt token.
        transfer_start_s: instant its KV was promised room and began to move.
        landed_s: instant its last KV byte was usable on the decode instance.
        decode_start_s: start of its first decode step.
        first_token_s: instant the client saw token 1.
        last_token_s: instant the client saw the last token.
        prefill_rank: rank of that prefill instance that has it, where it runs several in lock-step.
        rank: the same of the instance that decodes it.
        preemptions: how many times its KV was evicted.
        state: lifecycle state; maintained for observers and at the end of life.
        blocks: KV blocks it holds on the instance that prefills it.
        reserved: KV blocks promised on the decode instance before it is admitted there.
        computed: tokens whose KV exists while it is being (re)computed by chunks.
        offset: context length minus the instance's step counter, constant while decoding.
        finish_n: instance step counter at which its last token appears, -1 when not decoding.
        admission: order of its latest admission to a batch (the highest is preempted first).
        prev_token_s: instant of its latest token when that was not the previous decode step.
    """

    __slots__ = (
        "admission",
        "arrival_s",
        "blocks",
        "computed",
        "decode",
        "decode_start_s",
        "emitted",
        "finish_n",
        "first_token_s",
        "id",
        "landed_s",
        "last_token_s",
        "offset",
        "output_tokens",
        "preemptions",
        "prefill",
        "prefill_end_s",
        "prefill_rank",
        "prefill_start_s",
        "prev_token_s",
        "prompt_tokens",
        "queued_s",
        "rank",
        "reserved",
        "state",
        "transfer_start_s",
    )

    def __init__(self, id: int, arrival_s: float, prompt_tokens: int, output_tokens: int) -> None:
        self.id = id
        self.arrival_s = arrival_s
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.emitted = 0
        self.prefill = -1
        self.decode = -1
        self.prefill_rank = 0
        self.rank = 0
        self.queued_s = arrival_s
        self.prefill_start_s = NEVER
        self.prefill_end_s = NEVER
        self.transfer_start_s = NEVER
        self.landed_s = NEVER
        self.decode_start_s = NEVER
        self.first_token_s = NEVER
        self.last_token_s = NEVER
        self.preemptions = 0
        self.state = State.ARRIVED
        self.blocks = 0
        self.reserved = 0
        self.computed = 0
        self.offset = 0
        self.finish_n = -1
        self.admission = -1
        self.prev_token_s = NEVER

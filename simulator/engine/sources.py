"""Where requests come from: an open stream of arrivals, or a client with a fixed concurrency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from simulator.engine.clock import Clock, Timer
from simulator.request import Request
from simulator.workload import Requests

_BLOCK = 16384


class Arrives(Protocol):
    """What a source feeds."""

    def arrive(self, request: Request, t_s: float) -> None:
        """A request reaches the router."""
        ...


def requests_of(workload: Requests) -> Iterator[Request]:
    """The workload's requests in order of id, made as they are needed."""
    for start in range(0, len(workload.arrival_s), _BLOCK):
        part = slice(start, start + _BLOCK)
        yield from map(
            Request,
            range(start, start + _BLOCK),
            workload.arrival_s[part].tolist(),
            workload.prompt_tokens[part].tolist(),
            workload.output_tokens[part].tolist(),
        )


class OpenSource:
    """Requests arrive at their own instants, whatever the cluster does."""

    def __init__(self, workload: Requests, latency_s: float, clock: Clock, sink: Arrives) -> None:
        self.requests = requests_of(workload)
        self.latency_s = latency_s
        self.clock = clock
        self.sink = sink
        self.timer = Timer(self._on_arrival)
        self._schedule()

    def _schedule(self) -> None:
        request = next(self.requests, None)
        if request is not None:
            self.clock.at(request.arrival_s + self.latency_s, self.timer, request)

    def _on_arrival(self, request: Request) -> None:
        self._schedule()
        self.sink.arrive(request, request.arrival_s + self.latency_s)

    def ended(self, t_s: float) -> None:
        """A request ended: nothing changes for an open stream."""


class ClosedSource:
    """A client that keeps ``concurrency`` requests in flight, with no think time.

    It opens with a burst; the next request's ``arrival_s`` is the instant a slot frees.
    """

    def __init__(self, workload: Requests, latency_s: float, clock: Clock, sink: Arrives) -> None:
        assert workload.closed_loop is not None
        self.requests = requests_of(workload)
        self.latency_s = latency_s
        self.clock = clock
        self.sink = sink
        self.timer = Timer(self._on_arrival)
        for _ in range(workload.closed_loop.concurrency):
            self.ended(0.0)

    def ended(self, t_s: float) -> None:
        """A slot is free at ``t_s``: send the next request, if there is one."""
        request = next(self.requests, None)
        if request is not None:
            request.arrival_s = t_s
            self.clock.at(t_s + self.latency_s, self.timer, request)

    def _on_arrival(self, request: Request) -> None:
        self.sink.arrive(request, request.arrival_s + self.latency_s)

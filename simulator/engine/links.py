"""KV transfers over network interfaces, sharing bandwidth max-min fairly.

A transfer is a flow from one instance's egress to another's ingress and, where it is limited, the
spine. Ports are the summed NICs of an instance and direction; one flow stripes over
``min(NICs of sender, NICs of receiver)`` of them. Rates are solved anew whenever a flow starts or
finishes, and for layer-wise flows when the backlog empties or the prefill ends, but only for the
flows that share a port, directly or through others, with the one that changed.

A layer-wise flow follows its prefill: once the first layer is done its bytes appear at the rate
``bytes / prefill time``, and the last layer's only when the prefill ends. While nothing is backlogged
the flow cannot go faster than they appear. At the end of the bytes the base latency follows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from simulator.engine.clock import Clock, Timer
from simulator.engine.fairshare import max_min_rates
from simulator.request import Request
from simulator.units import tie_s


class Flow:
    """One transfer under way. Bytes include the time its messages cost, as bytes of a busy NIC."""

    __slots__ = (
        "at_s",
        "cap",
        "due_s",
        "id",
        "ports",
        "production",
        "rate",
        "ready",
        "request",
        "size",
        "unsent",
    )

    def __init__(
        self, id: int, request: Request, ports: tuple[int, ...], size: float, cap: float
    ) -> None:
        self.id = id
        self.request = request
        self.ports = ports
        self.size = size
        self.cap = cap
        self.unsent = size
        self.ready = size  # produced and not yet sent
        self.production = 0.0  # bytes/s that become ready
        self.rate = 0.0
        self.at_s = 0.0  # instant of the figures above
        self.due_s = inf  # instant at which they change by themselves


class Links:
    """The fabric between prefill and decode instances.

    Args:
        clock: the simulated clock.
        capacity: capacity of every port [bytes/s]; the spine, if limited, is one of them.
        left: called as ``left(request, t_s)`` when a request's last byte has left its sender.
    """

    def __init__(
        self, clock: Clock, capacity: list[float], left: Callable[[Request, float], None]
    ) -> None:
        self.clock = clock
        self.capacity = capacity
        self.left = left
        self.flows: dict[int, Flow] = {}
        self.crossing: list[dict[int, Flow]] = [{} for _ in capacity]
        self.next_id = 0
        self.version = 0
        self.timer_s = inf
        self.callbacks = (self._on_timer,)
        self.sent_bytes = 0.0

    def start(
        self,
        request: Request,
        t_s: float,
        ports: tuple[int, ...],
        size: float,
        cap: float,
        production: float = 0.0,
    ) -> Flow:
        """Begin a transfer of ``size`` bytes at ``t_s``.

        Args:
            request: whose KV it is.
            t_s: now [s].
            ports: ports the flow crosses.
            size: bytes on the wire, message costs included.
            cap: the most the flow can use on an empty fabric [bytes/s]; no more than any port has.
            production: for a layer-wise flow, the rate at which bytes become ready [bytes/s];
                ``produced`` ends it.
        """
        i = self.next_id
        self.next_id = i + 1
        flow = Flow(i, request, ports, size, cap)
        flow.at_s = t_s
        if production:
            flow.ready = 0.0
            flow.production = production
        self.flows[i] = flow
        alone = True
        for p in ports:
            crossing = self.crossing[p]
            if crossing:
                alone = False
            crossing[i] = flow
        if not alone:
            self._solve(flow, t_s)
        elif production:
            self._set(flow, min(cap, production))
        else:
            flow.rate = cap
            flow.due_s = due_s = t_s + size / cap
            if due_s < self.timer_s:
                self._schedule(due_s)
        return flow

    def produced(self, flow: Flow, t_s: float) -> None:
        """All bytes of a layer-wise flow are ready: its prefill has ended."""
        self._advance(flow, t_s)
        flow.production = 0.0
        flow.ready = flow.unsent
        self._solve(flow, t_s)

    def _cap(self, flow: Flow) -> float:
        """What the flow could use on an empty fabric."""
        if flow.production and flow.ready <= 0.0:
            return min(flow.cap, flow.production)
        return flow.cap

    def _advance(self, flow: Flow, t: float) -> None:
        dt = t - flow.at_s
        if dt > 0.0:
            sent = flow.rate * dt
            flow.unsent -= sent
            flow.ready += flow.production * dt - sent
            # rounding must not leave a trickle that would need events of its own
            if flow.ready < 1e-9 * flow.size:
                flow.ready = 0.0
            flow.at_s = t

    def _set(self, flow: Flow, rate: float) -> None:
        """Give the flow a rate and find out when that ends by itself."""
        flow.rate = rate
        if not flow.production:
            flow.due_s = flow.at_s + flow.unsent / rate
        elif rate > flow.production and flow.ready > 0.0:
            flow.due_s = flow.at_s + flow.ready / (rate - flow.production)
        else:
            flow.due_s = inf

    def _solve(self, changed: Flow, t: float) -> None:
        """Solve the rates of every flow connected with ``changed`` through shared ports."""
        self._share(self._component(changed.ports), t)

    def _component(self, ports: tuple[int, ...]) -> dict[int, Flow]:
        found: dict[int, Flow] = {}
        seen = set(ports)
        stack = list(ports)
        while stack:
            for flow in self.crossing[stack.pop()].values():
                if flow.id not in found:
                    found[flow.id] = flow
                    for p in flow.ports:
                        if p not in seen:
                            seen.add(p)
                            stack.append(p)
        return found

    def _share(self, component: dict[int, Flow], t: float) -> None:
        flows = [component[i] for i in sorted(component)]
        for flow in flows:
            self._advance(flow, t)
        local: dict[int, int] = {}
        for flow in flows:
            for p in flow.ports:
                local.setdefault(p, len(local))
        rates = max_min_rates(
            [[local[p] for p in f.ports] for f in flows],
            [self._cap(f) for f in flows],
            [self.capacity[p] for p in local],
        )
        for flow, rate in zip(flows, rates, strict=True):
            self._set(flow, rate)
        self._reschedule()

    def _reschedule(self) -> None:
        due = inf
        for flow in self.flows.values():
            if flow.due_s < due:
                due = flow.due_s
        if due < inf:
            if due != self.timer_s:
                self._schedule(due)
        else:
            self.version += 1
            self.timer_s = inf

    def _schedule(self, t: float) -> None:
        self.version += 1
        self.timer_s = t
        self.clock.at(t, self.callbacks, self.version)

    def _on_timer(self, timer: Timer) -> None:
        if timer.version != self.version:
            return
        t = self.timer_s
        self.timer_s = inf
        if len(self.flows) == 1:
            flow = next(iter(self.flows.values()))
            if not flow.production:
                self._remove(flow)
                self.left(flow.request, t)
                return
        self._settle(t)

    def _remove(self, flow: Flow) -> None:
        del self.flows[flow.id]
        for p in flow.ports:
            del self.crossing[p][flow.id]
        self.sent_bytes += flow.size

    def _settle(self, t: float) -> None:
        """Finish and re-rate the flows that are due at ``t``."""
        limit = t + tie_s(t)
        done: list[Flow] = []
        emptied: list[Flow] = []
        for flow in self.flows.values():
            if flow.due_s <= limit:
                (emptied if flow.production else done).append(flow)
        for flow in done:
            self._remove(flow)
        for flow in emptied:
            self._advance(flow, t)
            flow.ready = 0.0
        touched: dict[int, Flow] = {}
        for flow in (*done, *emptied):
            for p in flow.ports:
                if self.crossing[p]:
                    touched |= self._component(flow.ports)
                    break
        if touched:
            self._share(touched, t)
        else:
            self._reschedule()
        for flow in done:
            self.left(flow.request, t)

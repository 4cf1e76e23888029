"""KV transfers over network interfaces, sharing bandwidth max-min fairly.

A transfer is a flow from one instance's egress to another's ingress and, where it is limited, the
spine. Ports are the summed NICs of an instance and direction; one flow stripes over
``min(NICs of sender, NICs of receiver)`` of them. Rates are solved anew whenever a flow starts or
finishes, and for layer-wise flows when the backlog empties or the prefill ends, but only among the
flows that share a port, directly or through others, with the one that changed.

Flows on one path get one rate, so they are served together: a path counts the bytes that each of its
flows has been served (processor sharing in virtual time), and a flow is done when the count reaches
its size above the count at its start. The work of an event grows with paths, not with flows.

A layer-wise flow follows its prefill: once the first layer is done its bytes appear at the rate
``bytes / prefill time``, and the last layer's only when the prefill ends. While nothing is backlogged
the flow cannot go faster than they appear; until then it is a path of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

from simulator.engine.clock import Clock, Timer
from simulator.engine.fairshare import max_min_rates
from simulator.request import Request
from simulator.units import tie_s

Ports = tuple[int, ...]


class Path:
    """Flows that cross the same ports under the same cap, or one layer-wise flow in production.

    Attributes:
        key: identity among the paths in use.
        ports: ports it crosses.
        cap: the most one flow can use [bytes/s].
        rate: what each flow gets now [bytes/s].
        served: bytes each flow has been served since the path came into use, as of ``at_s``.
        due: heap of (count at which the flow is done, order of start, size, request).
        due_s: instant at which something changes by itself.
        production: bytes/s that become ready while the prefill runs; 0 if all are ready.
        ready: bytes produced and not yet sent, while in production.
    """

    __slots__ = (
        "at_s",
        "cap",
        "due",
        "due_s",
        "key",
        "ports",
        "production",
        "rate",
        "ready",
        "served",
    )

    def __init__(self, key: object, ports: Ports, cap: float, t_s: float) -> None:
        self.key = key
        self.ports = ports
        self.cap = cap
        self.rate = 0.0
        self.served = 0.0
        self.at_s = t_s
        self.due: list[tuple[float, int, float, Request]] = []
        self.due_s = inf
        self.production = 0.0
        self.ready = 0.0

    def advance(self, t: float) -> None:
        """Serve until ``t``."""
        dt = t - self.at_s
        if dt > 0.0:
            sent = self.rate * dt
            self.served += sent
            self.at_s = t
            if self.production:
                self.ready += self.production * dt - sent
                # rounding must not leave a trickle that would need events of its own
                if self.ready < 1e-9 * self.due[0][2]:
                    self.ready = 0.0

    def usable(self) -> float:
        """What one flow could use on an empty fabric [bytes/s]."""
        if self.production and self.ready <= 0.0:
            return min(self.cap, self.production)
        return self.cap

    def set_rate(self, rate: float) -> None:
        """Give each flow a rate and find out when that ends by itself."""
        self.rate = rate
        if not self.production:
            self.due_s = self.at_s + (self.due[0][0] - self.served) / rate
        elif rate > self.production and self.ready > 0.0:
            self.due_s = self.at_s + self.ready / (rate - self.production)
        else:
            self.due_s = inf


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
        self.paths: dict[object, Path] = {}
        self.crossing: list[dict[object, Path]] = [{} for _ in capacity]
        self.started = 0
        self.version = 0
        self.timer_s = inf
        self.timer = Timer(self._on_timer)
        self.sent_bytes = 0.0

    def start(
        self,
        request: Request,
        t_s: float,
        ports: Ports,
        size: float,
        cap: float,
        production: float = 0.0,
    ) -> None:
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
        order = self.started
        self.started = order + 1
        path = None if production else self.paths.get(ports)
        if path is None:
            path = Path(request.id if production else ports, ports, cap, t_s)
            path.production = production
            heappush(path.due, (size, order, size, request))
            alone = self._open(path)
        else:
            path.advance(t_s)
            heappush(path.due, (path.served + size, order, size, request))
            alone = False
        if not alone:
            self._solve(self._component(ports), t_s)
            return
        path.set_rate(path.usable())
        if path.due_s < self.timer_s:
            self._schedule(path.due_s)

    def produced(self, request: Request, t_s: float) -> None:
        """All bytes of a layer-wise flow are ready: it joins the other flows of its path."""
        own = self.paths[request.id]
        own.advance(t_s)
        self._close(own)
        _, order, size, _ = own.due[0]
        path = self.paths.get(own.ports)
        if path is None:
            path = Path(own.ports, own.ports, own.cap, t_s)
            self._open(path)
        path.advance(t_s)
        heappush(path.due, (path.served + size - own.served, order, size, request))
        self._solve(self._component(own.ports), t_s)

    def _open(self, path: Path) -> bool:
        """Put a path in use; whether it shares no port with another."""
        self.paths[path.key] = path
        alone = True
        for p in path.ports:
            crossing = self.crossing[p]
            if crossing:
                alone = False
            crossing[path.key] = path
        return alone

    def _close(self, path: Path) -> None:
        del self.paths[path.key]
        for p in path.ports:
            del self.crossing[p][path.key]

    def _component(self, ports: Ports) -> dict[object, Path]:
        """Paths connected with these ports, directly or through other paths."""
        found: dict[object, Path] = {}
        seen = set(ports)
        stack = list(ports)
        while stack:
            for path in self.crossing[stack.pop()].values():
                if path.key not in found:
                    found[path.key] = path
                    for p in path.ports:
                        if p not in seen:
                            seen.add(p)
                            stack.append(p)
        return found

    def _solve(self, component: dict[object, Path], t: float) -> None:
        paths = sorted(component.values(), key=_order)
        for path in paths:
            path.advance(t)
        local: dict[int, int] = {}
        for path in paths:
            for p in path.ports:
                local.setdefault(p, len(local))
        rates = max_min_rates(
            [[local[p] for p in path.ports] for path in paths],
            [path.usable() for path in paths],
            [self.capacity[p] for p in local],
            [len(path.due) for path in paths],
        )
        for path, rate in zip(paths, rates, strict=True):
            path.set_rate(rate)
        self._reschedule()

    def _reschedule(self) -> None:
        due = inf
        for path in self.paths.values():
            if path.due_s < due:
                due = path.due_s
        if due == inf:
            self.version += 1
            self.timer_s = inf
        elif due != self.timer_s:
            self._schedule(due)

    def _schedule(self, t: float) -> None:
        self.version += 1
        self.timer_s = t
        self.clock.at(t, self.timer, self.version)

    def _on_timer(self, version: int) -> None:
        if version != self.version:
            return
        t = self.timer_s
        self.timer_s = inf
        if len(self.paths) == 1:  # one flow alone on the fabric: the common case
            path = next(iter(self.paths.values()))
            if len(path.due) == 1 and not path.production:
                self._close(path)
                _, _, size, request = path.due[0]
                self.sent_bytes += size
                self.left(request, t)
                return
        self._settle(t)

    def _settle(self, t: float) -> None:
        """Finish the flows that are due at ``t`` and share out what they leave."""
        tie = tie_s(t)
        changed = [path for path in self.paths.values() if path.due_s <= t + tie]
        done: list[tuple[int, float, Request]] = []
        touched: dict[object, Path] = {}
        for path in changed:
            path.advance(t)
            if path.production:
                path.ready = 0.0
                continue
            limit = max(path.due[0][0], path.served + path.rate * tie)
            while path.due and path.due[0][0] <= limit:
                _, order, size, request = heappop(path.due)
                done.append((order, size, request))
            if not path.due:
                self._close(path)
        for path in changed:
            if path.key not in touched:
                touched |= self._component(path.ports)
        if touched:
            self._solve(touched, t)
        else:
            self._reschedule()
        for _, size, request in sorted(done, key=_first):
            self.sent_bytes += size
            self.left(request, t)


def _order(path: Path) -> int:
    """Paths by the flow that is to finish first on them: the same in every run."""
    return path.due[0][1]


def _first(item: tuple[int, float, Request]) -> int:
    return item[0]

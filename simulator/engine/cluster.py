"""The cluster: instances, routers, links and the journey of a request between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf, lcm

from simulator.engine.batch import BatchInstance
from simulator.engine.clock import Clock, Timer
from simulator.engine.groups import GroupTotals
from simulator.engine.links import Links
from simulator.engine.lockstep import LockStepInstance
from simulator.engine.prefill import Flight, PrefillInstance
from simulator.engine.reference import ReferenceInstance
from simulator.policies.routing import Router
from simulator.records import Observer, RequestLog, StrideLog
from simulator.request import Request, State, check_transition
from simulator.scenario.deployment import Deployment, PoolPlan

Instance = BatchInstance | LockStepInstance | ReferenceInstance

Route = tuple[tuple[int, ...], float, int, float]
"""Ports, cap [bytes/s], tokens per message (0: one message), bytes a message costs."""


class Cluster:
    """Everything between a request's arrival and its end.

    Args:
        deployment: what to build.
        clock: the simulated clock.
        log: where instances write their strides.
        routers: for the prefill (or colocated) and for the decode instances.
        reference: build step-by-step instances instead of striding ones.
        observers: told of every change of state.
        ended: called when a request has ended, with the instant.
    """

    def __init__(
        self,
        deployment: Deployment,
        clock: Clock,
        log: StrideLog,
        routers: tuple[Router, Router],
        *,
        reference: bool = False,
        observers: Sequence[Observer] = (),
        ended: Callable[[float], None] | None = None,
    ) -> None:
        self.deployment = deployment
        self.clock = clock
        self.observers = tuple(observers)
        self.observed = bool(observers)
        self.ended = ended
        self.records = RequestLog()
        self.done = 0
        self.route_first, self.route_decode = routers
        self.colocated = deployment.mode == "colocated"
        self.first_token = deployment.first_token
        self.sampled = 0 if self.first_token == "decode" else 1  # tokens prefill emits
        self.promise_first = deployment.reserve == "before_prefill"
        self.layerwise = deployment.transfer == "layerwise"
        self.prefills: list[PrefillInstance] = []
        self.servers: list[Instance] = []
        self.first_server = 0
        self._build(log, reference)
        self.kv_wait: deque[Request] = deque()
        self.blocked: dict[int, PrefillInstance] = {}
        self.granting = False
        self.grant_again = False
        self.asking: Request | None = None  # with its KV tokens and the instant,
        self.asked = 0  # of the request being routed to a decode instance
        self.asked_s = 0.0
        self.fits = self._fits
        self.flowing: set[int] = set()  # requests whose layer-wise flow is in production
        self.promising = False
        self.freeing = Timer(self.freed)
        self.landing = Timer(self._on_land)
        self.first_layer = Timer(self._on_first_layer)
        if not self.colocated:
            self._build_links()

    # ------------------------------------------------------------------ construction

    def _build(self, log: StrideLog, reference: bool) -> None:
        index = 0
        for pool in self.deployment.role("prefill"):
            for _ in range(pool.instances):
                self.prefills.append(PrefillInstance(index, pool, self.clock, self, log))
                index += 1
        self.first_server = index
        for pool in (*self.deployment.role("decode"), *self.deployment.role("colocated")):
            kind = _kind(pool, reference)
            for _ in range(pool.instances):
                self.servers.append(
                    kind(index, pool, self.clock, self, log, self.deployment.first_token)
                )
                index += 1
        pools = self.deployment.pools
        self.prompt_limit = min(p.longest_prompt for p in pools if p.role != "decode")
        self.total_limit = min(p.holds_tokens for p in pools if p.role != "prefill")

    def _build_links(self) -> None:
        link = self.deployment.link
        assert link is not None
        self.nic_bytes_per_s = link.nic_bytes_per_s
        self.latency_s = link.base_latency_s
        capacity = [i.plan.nics * link.nic_bytes_per_s for i in (*self.prefills, *self.servers)]
        self.spine: tuple[int, ...] = ()
        self.spine_bytes_per_s = link.spine_bytes_per_s
        self.paths: dict[tuple[int, int], Route] = {}
        if link.spine_bytes_per_s < inf:
            self.spine = (len(capacity),)
            capacity.append(link.spine_bytes_per_s)
        self.message_bytes = link.message_s * link.nic_bytes_per_s if link.message_s else 0.0
        self.coalesced = link.coalesced
        self.token_bytes = self.deployment.kv_wire_bytes_per_token
        self.windows = bool(self.deployment.kv_wire_windows)
        self.links = Links(self.clock, capacity, self._left)

    # ------------------------------------------------------------------ arrival

    def arrive(self, request: Request, t_s: float) -> None:
        """A request reaches the router at ``t_s`` (its arrival plus the router's latency)."""
        if self.observed:
            self._tell(request.arrival_s, request, State.ARRIVED, -1)
        prompt = request.prompt_tokens
        if prompt > self.prompt_limit or prompt + request.output_tokens > self.total_limit:
            self._end(request, t_s, State.REJECTED)
            return
        request.queued_s = t_s
        if self.colocated:
            server = self.servers[self.route_first(self.servers, t_s, None)]
            request.prefill = request.decode = server.index
            if self.observed:
                self.moved(t_s, request, State.QUEUED_PREFILL, server.index)
            server.enqueue(request, t_s)
            return
        prefill = self.prefills[self.route_first(self.prefills, t_s, None)]
        request.prefill = prefill.index
        if self.observed:
            self.moved(t_s, request, State.QUEUED_PREFILL, prefill.index)
        prefill.enqueue(request, t_s)

    # ------------------------------------------------------------------ prefill

    def admits(self, request: Request, t_s: float, prefill: PrefillInstance) -> bool:
        """Promise decode blocks before prefill, where they come first; in order of asking."""
        if not self._needs_decode(request) or request.decode >= 0:
            return True
        first = next(iter(self.blocked.values()), prefill)
        if first is prefill and self._promise(request, t_s):
            self.blocked.pop(prefill.index, None)
            for other in self.blocked.values():
                other.retry(t_s)
                break
            return True
        if not prefill.filling:
            self.blocked.setdefault(prefill.index, prefill)
        return False

    def _needs_decode(self, request: Request) -> bool:
        return self.first_token != "prefill" or request.output_tokens > 1

    def started(self, prefill: PrefillInstance, flight: Flight) -> None:
        """A pass through a prefill instance begins: layer-wise flows follow its first layer."""
        layers = self.deployment.model.layers
        if layers > 1:
            first_s = flight.t0 + (flight.t_end - flight.t0) / layers
            self.clock.at(first_s, self.first_layer, (flight, flight.version))

    def _on_first_layer(self, started: tuple[Flight, int]) -> None:
        flight, version = started
        if version != flight.version:
            return  # the batch was extended
        step_s = flight.t_end - flight.t0
        t = flight.t0 + step_s / self.deployment.model.layers
        for r in flight.requests:
            if self._needs_decode(r):
                self.flowing.add(r.id)
                self._send(r, t, step_s)

    def prefilled(self, request: Request, t_s: float, prefill: PrefillInstance) -> None:
        """A prompt is computed: emit, find room, send."""
        request.emitted = self.sampled
        if self.first_token == "prefill":
            request.first_token_s = request.prev_token_s = t_s
            if request.output_tokens == 1:
                request.last_token_s = t_s
                prefill.release(request, t_s)
                self.finished(request, t_s)
                return
        if request.id in self.flowing:
            self.flowing.remove(request.id)
            if self.observed:
                self.moved(t_s, request, State.TRANSFERRING, request.decode)
            self.links.produced(request, t_s)
        elif request.decode >= 0 or (not self.kv_wait and self._promise(request, t_s)):
            self._transfer(request, t_s)
        else:
            self.kv_wait.append(request)
            if self.observed:
                self.moved(t_s, request, State.KV_WAIT, request.prefill)

    # ------------------------------------------------------------------ promise and transfer

    def _promise(self, request: Request, t_s: float) -> bool:
        """Find a decode instance with room for the prompt and promise it."""
        self.asking = request
        self.asked = context = request.prompt_tokens + self.sampled
        self.asked_s = t_s
        self.promising = True
        i = self.route_decode(self.servers, t_s, self.fits)
        self.promising = False
        if i < 0:
            return False
        server = self.servers[i]
        request.decode = server.index
        server.reserve(request, context, t_s)
        return True

    def _fits(self, i: int) -> bool:
        """Whether decode instance ``i`` has room for the request that is being routed."""
        assert self.asking is not None
        return self.servers[i].has_room(self.asking, self.asked, self.asked_s)

    def freed(self, t_s: float) -> None:
        """Blocks became free on a decode instance: promise them, first come first served."""
        if self.granting:
            self.grant_again = True  # asked from within: an instance took a boundary it owed
            return
        if self.promising:  # the same, while one that asks first is being served
            self.clock.at(t_s, self.freeing, t_s)
            return
        if self.kv_wait:
            self.granting = True
            while self.kv_wait:
                self.grant_again = False
                if self._promise(self.kv_wait[0], t_s):
                    self._transfer(self.kv_wait.popleft(), t_s)
                elif not self.grant_again:
                    break
            self.granting = False
        for prefill in self.blocked.values():
            prefill.retry(t_s)
            break

    def _transfer(self, request: Request, t_s: float) -> None:
        if self.observed:
            self.moved(t_s, request, State.TRANSFERRING, request.decode)
        self._send(request, t_s, 0.0)

    def _send(self, request: Request, t_s: float, prefill_s: float) -> None:
        """Start the flow of a request's KV; layer by layer if its prefill takes ``prefill_s``."""
        key = (request.prefill, request.decode)
        path = self.paths.get(key)
        if path is None:
            path = self.paths[key] = self._path(*key)
        ports, cap, block, message_bytes = path
        if self.windows:
            size = self.deployment.wire_bytes(request.prompt_tokens)
        else:
            size = request.prompt_tokens * self.token_bytes
        if message_bytes:
            size += message_bytes * (-(-request.prompt_tokens // block) if block else 1)
        request.transfer_start_s = t_s
        production = size / prefill_s if prefill_s else 0.0
        self.links.start(request, t_s, ports, size, cap, production)

    def _path(self, prefill: int, decode: int) -> Route:
        """What a transfer between two instances crosses and costs.

        Messages: one per pair of ranks when coalesced, else one per pair, tensor (K or V of a layer,
        or its latent) and block.
        """
        source = self.prefills[prefill].plan
        target = self.servers[decode - self.first_server].plan
        cap = min(source.rank_nics, target.rank_nics) * self.nic_bytes_per_s
        pairs = lcm(source.tp, target.tp)
        if self.spine:
            cap = min(cap, self.spine_bytes_per_s)
        if self.coalesced:
            return (prefill, decode, *self.spine), cap, 0, self.message_bytes * pairs
        each = self.message_bytes * pairs * self.deployment.model.kv_tensors
        return (prefill, decode, *self.spine), cap, target.block_tokens, each

    def _left(self, request: Request, t_s: float) -> None:
        """The last byte has left the prefill instance."""
        t = t_s + self.latency_s
        self.clock.at(t, self.landing, (request, t))
        self.prefills[request.prefill].release(request, t_s)

    def _on_land(self, landed: tuple[Request, float]) -> None:
        request, t = landed
        request.landed_s = t
        if self.observed:
            self.moved(t, request, State.QUEUED_DECODE, request.decode)
        self.servers[request.decode - self.first_server].land(request, t)

    # ------------------------------------------------------------------ the end

    def finished(self, request: Request, t_s: float) -> None:
        """A request has all its tokens."""
        self._end(request, t_s, State.DONE)

    def _end(self, r: Request, t_s: float, state: State) -> None:
        if self.observed:
            self.moved(t_s, r, state, r.decode)
        self.done += 1
        records = self.records
        records.buffer.extend(
            (
                r.id,
                r.arrival_s,
                r.prompt_tokens,
                r.output_tokens,
                state,
                r.prefill,
                r.decode,
                r.queued_s,
                r.prefill_start_s,
                r.prefill_end_s,
                r.transfer_start_s,
                r.landed_s,
                r.decode_start_s,
                r.first_token_s,
                r.last_token_s,
                r.preemptions,
            )
        )
        if len(records.buffer) >= records.limit:
            records.flush()
        if self.ended is not None:
            self.ended(t_s)

    def group_totals(self) -> dict[str, list[float]]:
        """Pairs and KV tokens read by attention group, a number for each instance.

        Columns ``pairs_g1``, ``kv_token_steps_g1`` and so on, for every group of any pool whose
        layers do not all read the whole context. (There, the totals of ``records.TOTALS`` count as
        if they did.)
        """
        sums = [_sums(i) for i in (*self.prefills, *self.servers)]
        columns: dict[str, list[float]] = {}
        for g in range(max(len(pairs) for pairs, _ in sums)):
            columns[f"pairs_g{g}"] = [x[g] if g < len(x) else 0.0 for x, _ in sums]
            columns[f"kv_token_steps_g{g}"] = [x[g] if g < len(x) else 0.0 for _, x in sums]
        return columns

    def moved(self, t_s: float, request: Request, state: State, instance: int) -> None:
        """Check a change of state against the lifecycle and tell the observers."""
        if state == request.state:
            return  # a boundary decided anew, with the same outcome for this request
        check_transition(request.state, state)
        request.state = state
        self._tell(t_s, request, state, instance)

    def _tell(self, t_s: float, request: Request, state: State, instance: int) -> None:
        for observer in self.observers:
            observer.on_state(t_s, request.id, state, instance)


def _kind(
    plan: PoolPlan, reference: bool
) -> type[BatchInstance] | type[LockStepInstance] | type[ReferenceInstance]:
    if reference:
        return ReferenceInstance
    return BatchInstance if plan.table.ranks == 1 else LockStepInstance


def _sums(instance: PrefillInstance | Instance) -> tuple[list[float], list[float]]:
    """Pairs and KV tokens read by group; empty where ``records.TOTALS`` has them."""
    if instance.plan.table.whole:
        return [], []
    parts: list[GroupTotals] = [rank.sums for rank in instance.ranks]
    return (
        [float(sum(x)) for x in zip(*(p.pairs for p in parts), strict=True)],
        [float(sum(x)) for x in zip(*(p.kv_token_steps for p in parts), strict=True)],
    )

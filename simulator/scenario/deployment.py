"""What the engine is given: every name of a scenario resolved to a plain, frozen object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hwprofiles import GpuProfile
from simulator.kvcache import Footprint
from simulator.model import ModelSpec, Parallel
from simulator.perf.step import StepModel
from simulator.perf.table import StepTable
from simulator.scenario.settings import Settings

Role = Literal["prefill", "decode", "colocated"]
RouterName = Literal["round_robin", "random", "least_outstanding_tokens"]
FirstToken = Literal["prefill", "handoff", "decode"]
Reserve = Literal["before_prefill", "after_prefill"]
Scheduler = Literal["vllm_v1", "sglang", "trtllm"]
TransferMode = Literal["after_prefill", "layerwise"]


@dataclass(frozen=True, slots=True)
class Balance:
    """How long prompts wait until every attention rank has one (TensorRT-LLM's ``enable_balance``).

    Attributes:
        timeout_iters: steps after which they start all the same, at least 1.
        batching_wait_iters: further steps to wait for more once every rank has one.
    """

    timeout_iters: int
    batching_wait_iters: int


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool of identical instances.

    Attributes:
        name: the pool's name in the scenario.
        role: what its instances do.
        gpu: profile of the GPU type.
        parallel: how an instance spreads the model over its GPUs.
        instances: how many instances.
        step: vectorised step-time model.
        table: the same, tabulated for the engine up to this pool's limits.
        block_tokens: tokens per KV block.
        capacity_blocks: KV units of one instance (every GPU holds its share of each): blocks, where
            there is one attention group (``footprint``). With lock-step ranks, of one rank.
        max_num_seqs: sequences that may decode together; with lock-step ranks, on each.
        max_num_batched_tokens: new tokens one step may compute (prefill and chunk budget); with
            lock-step ranks, on each.
        max_wait_s: longest time a prefill batch waits to fill [s] (prefill role only).
        nics: network interfaces of one instance.
        usd_per_gpu_hour: price of one GPU [USD/h].
        scheduler: order of service of a decode or colocated instance (docs/schedulers.md).
        mixed: sglang: running sequences decode in the steps that prefill, instead of pausing.
        chunked: trtllm: prompts may be cut into chunks.
        reserve_output: trtllm: room for prompt and output is kept from admission on
            (GUARANTEED_NO_EVICT), not block by block (MAX_UTILIZATION).
        conservativeness: sglang: factor on the share of running requests' remaining output that
            admission expects (``--schedule-conservativeness``).
        balance: trtllm, colocated, with attention ranks: prompts wait for one another; None: not.
        overlap: a step is scheduled when the one before begins: newcomers wait one step longer
            (not of a prefill pool).
    """

    name: str
    role: Role
    gpu: GpuProfile
    parallel: Parallel
    instances: int
    step: StepModel
    table: StepTable
    block_tokens: int
    capacity_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_wait_s: float
    nics: int
    usd_per_gpu_hour: float
    scheduler: Scheduler = "vllm_v1"
    mixed: bool = False
    chunked: bool = False
    reserve_output: bool = True
    conservativeness: float = 1.0
    balance: Balance | None = None
    overlap: bool = False

    @property
    def tp(self) -> int:
        """Tensor-parallel degree of an attention rank."""
        return self.parallel.tp

    @property
    def footprint(self) -> Footprint:
        """How much KV memory sequences take."""
        groups = tuple((group.units, group.span) for group in self.table.groups)
        return Footprint(self.block_tokens, groups)

    @property
    def holds_tokens(self) -> int:
        """Longest sequence whose KV an instance, or one of its ranks, can hold [tokens]."""
        return self.footprint.tokens_within(self.capacity_blocks)

    @property
    def longest_prompt(self) -> int:
        """Longest prompt an instance, or one of its ranks, can compute [tokens]."""
        if self.role == "prefill":
            return min(self.holds_tokens, self.table.max_tokens)
        if self.role == "colocated" and self.scheduler == "trtllm" and not self.chunked:
            return min(self.holds_tokens, self.max_num_batched_tokens)
        return self.holds_tokens

    @property
    def gpus(self) -> int:
        """GPUs of the whole pool."""
        return self.parallel.gpus * self.instances

    @property
    def rank_nics(self) -> int:
        """Network interfaces of the GPUs that hold one sequence: those of an attention rank."""
        return max(1, self.nics // self.parallel.attention_dp)


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """The fabric between prefill and decode instances.

    Attributes:
        name: link name in the scenario.
        nic_bytes_per_s: usable bandwidth of one NIC and direction [bytes/s], efficiency included.
        base_latency_s: from the last byte sent to the KV usable at the receiver [s].
        message_s: NIC time per message [s], in addition to its bytes.
        coalesced: one message per rank pair instead of one per layer, K/V and block.
        spine_bytes_per_s: capacity all transfers share [bytes/s]; ``inf`` when not a bottleneck.
    """

    name: str
    nic_bytes_per_s: float
    base_latency_s: float
    message_s: float
    coalesced: bool
    spine_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Deployment:
    """A cluster, ready to be simulated.

    Attributes:
        name: the scenario's name.
        mode: ``"disaggregated"`` or ``"colocated"``.
        model: the model served.
        pools: prefill pools and decode pools, or colocated pools.
        link: fabric between them; None when colocated.
        kv_wire_bytes_per_token: KV bytes one prompt token puts on the wire while it lies within
            every window (each unique KV head once, however many ranks replicate it) [bytes/token].
        first_token: who emits token 1.
        reserve: when decode blocks are promised.
        transfer: whole KV after prefill, or layer by layer behind it.
        prefill_router: how a request finds its prefill (or colocated) instance.
        decode_router: how it finds its decode instance.
        router_latency_s: time from arrival to the queue of an instance [s].
        grid_gco2_per_kwh: carbon of the electricity [g CO2e/kWh]; None if not given.
        pue: energy of the data centre over that of its IT equipment.
        kv_wire_windows: (tokens kept [tokens], bytes per token [bytes/token]) of the attention
            groups that keep a window only: what lies outside is not sent.
        settings: where the engine settings come from, for reports.
    """

    name: str
    mode: Literal["disaggregated", "colocated"]
    model: ModelSpec
    pools: tuple[PoolPlan, ...]
    link: LinkPlan | None
    kv_wire_bytes_per_token: float
    first_token: FirstToken
    reserve: Reserve
    transfer: TransferMode
    prefill_router: RouterName
    decode_router: RouterName
    router_latency_s: float
    grid_gco2_per_kwh: float | None = None
    pue: float = 1.0
    kv_wire_windows: tuple[tuple[int, float], ...] = ()
    settings: Settings = field(default=Settings(), compare=False)

    def wire_bytes(self, prompt_tokens: int) -> float:
        """KV bytes a prompt puts on the wire [bytes]: ``Σ_g bytes_g · min(prompt, window_g)``."""
        size = prompt_tokens * self.kv_wire_bytes_per_token
        for window, per_token in self.kv_wire_windows:
            if prompt_tokens > window:
                size -= (prompt_tokens - window) * per_token
        return size

    def role(self, role: Role) -> tuple[PoolPlan, ...]:
        """The pools with this role, in scenario order."""
        return tuple(p for p in self.pools if p.role == role)

    @property
    def gpus(self) -> int:
        """GPUs of the whole deployment."""
        return sum(p.gpus for p in self.pools)

    @property
    def usd_per_hour(self) -> float:
        """Price of all its GPUs [USD/h]."""
        return sum(p.gpus * p.usd_per_gpu_hour for p in self.pools)

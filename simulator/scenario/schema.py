"""The scenario file as strict types: every key, its unit, its bounds, its default.

Unknown keys are refused, and so is every key that would have no effect in the scenario at hand.
The same fields feed the table of ``docs/scenario.md`` (``simulator.scenario.reference``). A default
of None stands for a value that depends on the rest of the scenario; ``resolve`` fills it in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from simulator.engine_profiles import MemoryBase
from simulator.model import Format, Parallel
from simulator.perf.precision import Activations, Compute, KvFormat
from simulator.scenario.deployment import (
    FirstToken,
    Reserve,
    Role,
    RouterName,
    Scheduler,
    TransferMode,
)
from simulator.scenario.target_schema import Targets
from simulator.scenario.values import (
    Fraction,
    Name,
    PositiveReal,
    Real,
    Seconds,
    Section,
    named,
    text_or_mapping,
    whole,
)
from simulator.scenario.workload_schema import Workload

PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


# --- cluster ------------------------------------------------------------------------------------


class PrecisionBits(Section):
    """Number formats; ``auto`` is what the model's file says, else bf16."""

    weights: Annotated[
        Format | Literal["auto"], Field(description="matrices of the layers, as stored")
    ] = "auto"
    experts: Annotated[
        Format | Literal["auto"],
        Field(
            description="routed experts, as stored; auto is as weights where those are given, "
            "else what the model's file says"
        ),
    ] = "auto"
    compute: Annotated[
        Compute | Literal["auto"],
        Field(
            description="what matrices are multiplied in; auto is what engines prefer for their "
            "format, bf16 where the GPU must"
        ),
    ] = "auto"
    kv: Annotated[KvFormat | Literal["auto"], Field(description="KV cache")] = "auto"
    activations: Annotated[
        Activations,
        Field(description="scales of fp8 inputs: by a kernel of its own, or in the checkpoint"),
    ] = "dynamic"


class AttentionBalance(Section):
    """Prompts wait until every attention rank has one (TensorRT-LLM's ``attention_dp_config``)."""

    timeout_iters: Annotated[
        int, Field(ge=1, le=100_000, description="steps after which they start all the same")
    ] = 50
    batching_wait_iters: Annotated[
        int,
        Field(
            ge=0, le=100_000, description="further steps to wait for more, once every rank has one"
        ),
    ] = 10


class Pool(Section):
    """Identical instances."""

    role: Annotated[
        Role | None,
        Field(description="what they do; default: the pool's name, where that is a role"),
    ] = None
    gpu: Annotated[Name, Field(description="GPU type: a bundled profile, or a file of one")]
    tp: Annotated[
        int,
        Field(ge=1, le=1024, description="tensor-parallel degree of an attention rank"),
    ] = 1
    pp: Annotated[int, Field(ge=1, le=1024, description="pipeline stages of whole layers")] = 1
    ep: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="groups the routed experts are spread over; divides tp · attention_dp",
        ),
    ] = 1
    attention_dp: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="attention ranks that run in lock-step, each with its own sequences; an "
            "instance has tp · pp · attention_dp GPUs, and its limits are those of one rank",
        ),
    ] = 1
    instances: Annotated[int, Field(ge=1, le=10_000, description="how many instances")] = 1
    max_num_batched_tokens: Annotated[
        int,
        BeforeValidator(whole),
        Field(ge=1, le=1_000_000, description="new tokens one step may compute [tokens]"),
    ] = 8192
    max_num_seqs: Annotated[
        int, Field(ge=1, le=65_536, description="sequences one step may hold")
    ] = 256
    max_wait_s: Annotated[
        Seconds | None,
        Field(description="prefill only: longest wait for a batch to fill [s]; default: 0"),
    ] = None
    memory_fraction: Annotated[
        Fraction, Field(description="share of GPU memory the engine may use [fraction]")
    ] = 0.9
    memory_base: Annotated[
        MemoryBase,
        Field(description="that share is of all memory, or of what weights and activations leave"),
    ] = "total"
    block_tokens: Annotated[
        int, Field(ge=1, le=4096, description="tokens of one KV block [tokens]")
    ] = 16
    scheduler: Annotated[
        Scheduler | None,
        Field(
            description="order of service (docs/schedulers.md), not of prefill pools; default: "
            "the engine's, else vllm_v1"
        ),
    ] = None
    mixed: Annotated[
        bool | None,
        Field(
            description="sglang only: sequences decode in the steps that prefill, instead of "
            "pausing; default: false"
        ),
    ] = None
    schedule_conservativeness: Annotated[
        float | None,
        Field(
            gt=0,
            le=10,
            description="sglang only: factor on the share of the running requests' remaining "
            "output that admission expects; default: 1",
        ),
    ] = None
    chunked: Annotated[
        bool | None,
        Field(description="trtllm only: prompts may be cut into chunks; default: false"),
    ] = None
    reserve_output: Annotated[
        bool | None,
        Field(
            description="trtllm only: room for prompt and output from admission on "
            "(GUARANTEED_NO_EVICT), not block by block (MAX_UTILIZATION); default: true"
        ),
    ] = None
    attention_balance: Annotated[
        AttentionBalance | None,
        Field(
            description="trtllm, colocated, attention_dp above 1: prompts wait until every rank "
            "has one (enable_balance); default: they do not"
        ),
    ] = None
    nics_per_gpu: Annotated[
        int | None,
        Field(ge=1, le=64, description="disaggregated only: NICs of one GPU; default: 1"),
    ] = None

    @property
    def parallel(self) -> Parallel:
        """How an instance spreads the model over its GPUs."""
        return Parallel(self.tp, self.pp, self.ep, self.attention_dp)


class Link(Section):
    """The fabric between prefill and decode; values left out are the profile's."""

    name: Annotated[Name, Field(description="link type: a bundled profile, or a file of one")]
    nic_gbps: Annotated[
        PositiveReal | None,
        Field(description="rate of one NIC and direction [Gbit/s]; default: the profile's"),
    ] = None
    efficiency: Annotated[
        Fraction | None,
        Field(description="share of that rate payload reaches [fraction]; default: the profile's"),
    ] = None
    base_latency_s: Annotated[
        Seconds | None,
        Field(description="from the last byte sent to the KV usable [s]; default: the profile's"),
    ] = None
    message_s: Annotated[
        Seconds | None, Field(description="NIC time of one message [s]; default: the profile's")
    ] = None
    coalesced: Annotated[
        bool | None,
        Field(
            description="one message per rank pair, not one per layer and block; "
            "default: the profile's"
        ),
    ] = None
    spine_gbps: Annotated[
        PositiveReal | None,
        Field(description="rate all transfers share [Gbit/s]; default: no limit"),
    ] = None


class Routing(Section):
    """How requests find their instances."""

    prefill: Annotated[
        RouterName, Field(description="router to prefill (or colocated) instances")
    ] = "least_outstanding_tokens"
    decode: Annotated[
        RouterName | None,
        Field(
            description="router to decode instances, disaggregated only; "
            "default: least_outstanding_tokens"
        ),
    ] = None
    latency_s: Annotated[
        Seconds, Field(description="from arrival to the queue of an instance [s]")
    ] = 0.0


class Overheads(Section):
    """The serving engine: its name brings defaults for everything left out, here and in the pools."""

    name: Annotated[
        Name | None,
        Field(
            description="vllm, sglang, trtllm or a file of a profile (relative to the scenario "
            "file); default: none"
        ),
    ] = None
    kernels: Annotated[
        Name | None,
        Field(description="kernel family of the GPU profiles; default: their first"),
    ] = None
    c0_s: Annotated[
        Seconds | None, Field(description="overhead of a step [s]; default: the step model's")
    ] = None
    c1_s: Annotated[
        Seconds | None,
        Field(description="overhead per running sequence [s]; default: the step model's"),
    ] = None
    host_s: Annotated[
        Seconds | None,
        Field(
            description="what a step takes the host: its shortest time, or with overlap: false "
            "added to it [s]; default: the step model's"
        ),
    ] = None
    graph_sizes: Annotated[
        list[int] | None,
        Field(
            description="tokens of the steps CUDA graphs are captured of, ascending: decode batches "
            "are padded to the next, larger ones are launched kernel by kernel; []: no graphs; "
            "default: steps run at their own size and the host keeps up"
        ),
    ] = None
    graph_padding: Annotated[
        bool | None,
        Field(
            description="with graph_sizes: batches in between are padded (false: have no graph); "
            "default: true"
        ),
    ] = None
    graph_mixed: Annotated[
        bool | None,
        Field(description="with graph_sizes: steps that prefill have graphs too; default: false"),
    ] = None
    eager_layer_s: Annotated[
        Seconds | None,
        Field(
            description="with graph_sizes: host time to launch a layer's kernels without a graph "
            "[s]; default: 0"
        ),
    ] = None
    overlap: Annotated[
        bool | None,
        Field(
            description="the host schedules a step while the GPU is at the one before: newcomers "
            "wait one step longer, host_s is hidden (docs/schedulers.md); default: host_s is "
            "hidden, newcomers do not wait"
        ),
    ] = None
    sustained_attention: Annotated[
        Fraction | None,
        Field(
            description="share of its benchmarked bandwidth that grouped-query decode attention "
            "keeps in a server [fraction]; default: 1"
        ),
    ] = None
    sustained_experts: Annotated[
        Fraction | None,
        Field(description="the same of routed experts' GEMMs [fraction]; default: as sustained"),
    ] = None
    sustained: Annotated[
        Fraction | None,
        Field(
            description="share of their benchmarked efficiency GEMMs keep in long steps "
            "[fraction]; default: 1"
        ),
    ] = None


class EnergySupply(Section):
    """Where the electricity comes from, for carbon."""

    grid_gco2_per_kwh: Annotated[
        float, Field(ge=0, le=5000, description="carbon of the electricity [g CO2e/kWh]")
    ]
    pue: Annotated[
        float,
        Field(ge=1, le=5, description="energy of the data centre over that of its IT equipment"),
    ] = 1.0


class ScenarioConfig(Section):
    """A whole scenario file."""

    name: Annotated[Name, Field(description="what reports call it")]
    model: Annotated[
        Name,
        Field(description="bundled model, or a config.json (relative to the scenario file)"),
    ]
    precision: Annotated[PrecisionBits, Field(description="number formats")] = PrecisionBits()
    expert_skew: Annotated[
        float | None,
        Field(
            ge=0,
            le=3,
            description="Zipf exponent of the experts' popularity, mixtures of experts only; "
            "default: 0, uniform routing",
        ),
    ] = None
    workload: Annotated[Workload, Field(description="what the clients send")]
    pools: Annotated[
        dict[PoolName, Pool], Field(min_length=1, description="pools of instances, by name")
    ]
    link: Annotated[
        Link | None,
        BeforeValidator(named),
        BeforeValidator(text_or_mapping),
        Field(description="fabric, needed when disaggregated; a bare name is enough"),
    ] = None
    routing: Annotated[Routing, Field(description="routers")] = Routing()
    first_token: Annotated[
        FirstToken | None,
        Field(description="who emits the first token, disaggregated only; default: decode"),
    ] = None
    reserve: Annotated[
        Reserve | None,
        Field(
            description="when decode blocks are promised, disaggregated only; "
            "default: after_prefill"
        ),
    ] = None
    transfer: Annotated[
        TransferMode | None,
        Field(
            description="KV sent at once, or layer by layer while prefill runs, disaggregated "
            "only; default: after_prefill"
        ),
    ] = None
    slo: Annotated[Targets | None, Field(description="latency targets; default: none")] = None
    prices: Annotated[
        dict[str, Real] | str | None,
        BeforeValidator(text_or_mapping),
        Field(
            description="prices that replace the bundled ones, by GPU type, or a price file "
            "(relative to the scenario file) [USD per GPU-hour]",
        ),
    ] = None
    engine: Annotated[
        Overheads,
        BeforeValidator(named),
        BeforeValidator(text_or_mapping),
        Field(description="serving engine; a bare name is enough"),
    ] = Overheads()
    energy: Annotated[
        EnergySupply | None, Field(description="electricity; default: no carbon is given")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="seed of every random stream")] = 1

"""The scenario file as strict types: every key, its unit, its bounds, its default.

Unknown keys are refused, and so is every key that would have no effect in the scenario at hand.
The same fields feed the table of ``docs/scenario.md`` (``simulator.scenario.reference``). A default
of None stands for a value that depends on the rest of the scenario; ``resolve`` fills it in.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from simulator.scenario.deployment import FirstToken, Reserve, Role, RouterName, TransferMode
from simulator.scenario.length_schema import Lengths
from simulator.scenario.values import (
    Count,
    Fraction,
    Name,
    PositiveReal,
    PositiveSeconds,
    Real,
    Seconds,
    Section,
    named,
    refuse,
    text_or_mapping,
    whole,
)
from simulator.workload.traces import TraceFormat

PoolName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Bits = Literal["bf16", "fp8"]
ArrivalName = Literal["poisson", "gamma", "constant"]
OnTooLong = Literal["error", "reject"]


# --- workload -----------------------------------------------------------------------------------


class Trace(Section):
    """Replay of a recorded trace. Cut first (in the trace's own time), then made faster."""

    path: Annotated[
        Name,
        Field(description="bundled trace, or a file (relative to the scenario file)"),
    ]
    format: Annotated[TraceFormat, Field(description="file format; auto reads the header")] = "auto"
    rate_scale: Annotated[
        PositiveReal, Field(description="arrival times are divided by this [ratio]")
    ] = 1.0
    start_s: Annotated[
        Seconds | None,
        Field(description="requests before this are left out, and it is time 0 [s]; default: none"),
    ] = None
    end_s: Annotated[
        PositiveSeconds | None,
        Field(description="requests from this on are left out [s]; default: none"),
    ] = None
    max_requests: Annotated[
        Count | None, Field(description="only the first so many are kept; default: all")
    ] = None

    @model_validator(mode="after")
    def _ordered(self) -> Trace:
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            start = f"{self.start_s or 0.0:g}"
            raise refuse("end_s", f"found {self.end_s:g}; allowed: more than start_s, {start}.")
        return self


class ClosedLoopClient(Section):
    """A client that keeps a number of requests in flight, with no think time."""

    concurrency: Annotated[Count, Field(description="requests in flight")]
    requests: Annotated[
        Count | None,
        Field(description="requests sent in all; default: 10 × concurrency"),
    ] = None

    @model_validator(mode="after")
    def _enough(self) -> ClosedLoopClient:
        if self.requests is not None and self.requests < self.concurrency:
            raise refuse(
                "requests",
                f"found {self.requests}; allowed: at least the concurrency, {self.concurrency}.",
            )
        return self


class Workload(Section):
    """What the clients send: an arrival process, a trace, or a closed loop."""

    arrivals: Annotated[
        ArrivalName | None,
        Field(description="arrival process; default: poisson when rate_rps is given"),
    ] = None
    rate_rps: Annotated[
        PositiveReal | None,
        Field(description="mean arrival rate, unless trace or closed_loop [1/s]"),
    ] = None
    cv: Annotated[
        float | None,
        Field(gt=0, le=10, description="standard deviation over mean of the gaps, gamma only"),
    ] = None
    requests: Annotated[
        Count | None, Field(description="how many requests arrive, with rate_rps")
    ] = None
    prompt_tokens: Annotated[
        Lengths | None, Field(description="distribution of prompt lengths, unless trace")
    ] = None
    output_tokens: Annotated[
        Lengths | None, Field(description="distribution of output lengths, unless trace")
    ] = None
    trace: Annotated[Trace | None, Field(description="replay a trace instead")] = None
    closed_loop: Annotated[
        ClosedLoopClient | None, Field(description="a fixed number in flight instead")
    ] = None
    on_too_long: Annotated[
        OnTooLong,
        Field(description="requests that can never fit the KV cache: refuse the run, or them"),
    ] = "error"

    @model_validator(mode="after")
    def _one_source(self) -> Workload:
        source, needed, allowed = self._source()
        for key in ("arrivals", "rate_rps", "cv", "requests", *_LENGTHS):
            given = getattr(self, key) is not None
            if given and key not in allowed:
                raise refuse(key, f"has no effect with {source}; allowed: leave it out.")
            if not given and key in needed:
                raise refuse(key, f"is missing; {source} needs {', '.join(needed)}.")
        return self

    def _source(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What the requests come from, and the keys it needs and allows."""
        rate = "rate_rps" if self.rate_rps is not None else "arrivals"
        opened = self.rate_rps is not None or self.arrivals is not None
        given = [
            name
            for name, there in (
                (rate, opened),
                ("trace", self.trace is not None),
                ("closed_loop", self.closed_loop is not None),
            )
            if there
        ]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise refuse(
                "", f"found {found}; allowed: exactly one of rate_rps, trace, closed_loop."
            )
        if given == ["trace"]:
            return "a trace", (), ()
        if given == ["closed_loop"]:
            return "a closed loop", _LENGTHS, _LENGTHS
        needed = ("rate_rps", "requests", *_LENGTHS)
        if self.arrivals == "gamma":
            return "arrivals: gamma", (*needed, "cv"), (*needed, "cv", "arrivals")
        return f"arrivals: {self.arrivals or 'poisson'}", needed, (*needed, "arrivals")


_LENGTHS = ("prompt_tokens", "output_tokens")


# --- cluster ------------------------------------------------------------------------------------


class PrecisionBits(Section):
    """Number formats."""

    weights: Annotated[Bits, Field(description="weights of the layers' matrices")] = "bf16"
    compute: Annotated[
        Bits | None,
        Field(description="their multiplication; default: as the weights, bf16 where the GPU must"),
    ] = None
    kv: Annotated[Bits, Field(description="KV cache")] = "bf16"

    @model_validator(mode="after")
    def _quantised(self) -> PrecisionBits:
        if self.compute == "fp8" and self.weights != "fp8":
            raise refuse("compute", "found fp8; allowed with weights: bf16: bf16.")
        return self


class Pool(Section):
    """Identical instances."""

    role: Annotated[
        Role | None,
        Field(description="what they do; default: the pool's name, where that is a role"),
    ] = None
    gpu: Annotated[Name, Field(description="GPU type: a bundled profile, or a file of one")]
    tp: Annotated[
        int, Field(ge=1, le=1024, description="tensor-parallel degree, GPUs of one instance")
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
    block_tokens: Annotated[
        int, Field(ge=1, le=4096, description="tokens of one KV block [tokens]")
    ] = 16
    nics_per_gpu: Annotated[
        int | None,
        Field(ge=1, le=64, description="disaggregated only: NICs of one GPU; default: 1"),
    ] = None


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


class Targets(Section):
    """Latency targets that a share of all requests must meet together."""

    ttft_s: Annotated[
        PositiveSeconds | None, Field(description="time to first token [s]; default: no target")
    ] = None
    tpot_s: Annotated[
        PositiveSeconds | None,
        Field(description="time per output token after the first [s]; default: no target"),
    ] = None
    attainment: Annotated[
        Fraction, Field(description="share of requests that must meet every target [fraction]")
    ] = 0.99

    @model_validator(mode="after")
    def _some_target(self) -> Targets:
        if self.ttft_s is None and self.tpot_s is None:
            raise refuse("", "holds no target; allowed: ttft_s, tpot_s or both.")
        return self


class Overheads(Section):
    """Time a serving engine adds to its kernels; values left out are the step model's."""

    c0_s: Annotated[
        Seconds | None, Field(description="overhead of a step [s]; default: the step model's")
    ] = None
    c1_s: Annotated[
        Seconds | None,
        Field(description="overhead per running sequence [s]; default: the step model's"),
    ] = None
    host_s: Annotated[
        Seconds | None,
        Field(description="shortest step of the host loop [s]; default: the step model's"),
    ] = None


class ScenarioConfig(Section):
    """A whole scenario file."""

    name: Annotated[Name, Field(description="what reports call it")]
    model: Annotated[
        Name,
        Field(description="bundled model, or a config.json (relative to the scenario file)"),
    ]
    precision: Annotated[PrecisionBits, Field(description="number formats")] = PrecisionBits()
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
    engine: Annotated[Overheads, Field(description="engine overheads")] = Overheads()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="seed of every random stream")] = 1

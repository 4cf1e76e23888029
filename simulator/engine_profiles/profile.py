"""What an engine profile holds, and the table of its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from hwprofiles.param import Field, Param, Source

Scheduler = Literal["vllm_v1", "sglang", "trtllm"]
MemoryBase = Literal["total", "free"]
FirstToken = Literal["prefill", "handoff", "decode"]
Reserve = Literal["before_prefill", "after_prefill"]

NUMBERS = (
    Field(
        "max_num_batched_tokens", "tokens", 1, 1e6, "new tokens a step may compute", integer=True
    ),
    Field("max_num_seqs", "1", 1, 65_536, "sequences a step may hold", integer=True),
    Field("memory_fraction", "1", 0.05, 1, "share of GPU memory (see memory_base) engines use"),
    Field("block_tokens", "tokens", 1, 4096, "tokens of a KV block", integer=True),
    Field("c0_s", "s", 0, 1, "overhead of a step"),
    Field(
        "c0_gpu_s",
        "s",
        -0.1,
        0.1,
        "the same per layer and doubling of the instance's GPUs: ranks wait for one another",
    ),
    Field(
        "c0_experts_s",
        "s",
        -0.1,
        0.1,
        "further overhead of a step per layer with routed experts; "
        "below 0 where benchmarks count launches that a server's CUDA graphs hide",
    ),
    Field("c0_experts_bf16_s", "s", -0.1, 0.1, "the same where they are multiplied in bf16"),
    Field("c1_s", "s", 0, 0.1, "overhead of a sequence in a step"),
    Field("host_s", "s", 0, 1, "what a step takes the host; with overlap its shortest time"),
    Field("eager_layer_s", "s", 0, 0.01, "host time to launch a layer's kernels without a graph"),
    Field("front_s", "s", 0, 10, "from a request's arrival to the scheduler, and its tokens back"),
    Field("front_gpu_s", "s", 0, 1, "the same for every doubling of the instance's GPUs"),
    Field("sustained_bf16", "1", 0.05, 1, "share of GEMM efficiency kept in long bf16 steps"),
    Field("sustained_fp8", "1", 0.05, 1, "the same for fp8"),
    Field("sustained_attention", "1", 0.05, 1, "share of its bandwidth decode attention keeps"),
    Field("sustained_experts", "1", 0.05, 1, "the same for experts multiplied in bf16"),
    Field("sustained_experts_fp8", "1", 0.05, 1, "the same for experts multiplied in fp8"),
)


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One engine's defaults.

    Attributes:
        name: what scenarios call it.
        description: which engine and versions.
        scheduler: order of service of a colocated instance.
        kernels: kernel family of the GPU profiles; a GPU without it uses its first.
        memory_base: ``total``: ``memory_fraction`` of the GPU holds weights, activations and KV;
            ``free``: of what weights and activations leave, that share holds KV.
        first_token: who emits token 1 when disaggregated.
        reserve: when decode blocks are promised when disaggregated.
        graph_sizes: steps of which CUDA graphs are captured, by their tokens; empty: none.
        graph_narrow: (GPUs, size): an instance of at most so many GPUs captures up to this size;
            None: every instance captures all.
        graph_padding: a batch in between is padded to the next size; False: it has no graph.
        graph_mixed: steps that prefill have graphs too.
        overlap: the host schedules the next step while the GPU is at this one.
        choices: source of each of the values above.
        values: the numbers of ``NUMBERS``, by name.
        versions: (beginning of a version, numbers that are other in it); in order: the first
            that fits holds.
        overlaps: (beginning of a version, ``overlap`` in it), where that is another.
    """

    name: str
    description: str
    scheduler: Scheduler
    kernels: str
    memory_base: MemoryBase
    first_token: FirstToken
    reserve: Reserve
    graph_sizes: tuple[int, ...]
    graph_narrow: tuple[int, int] | None
    graph_padding: bool
    graph_mixed: bool
    overlap: bool
    choices: tuple[tuple[str, Source], ...]
    values: tuple[tuple[str, Param], ...]
    versions: tuple[tuple[str, tuple[tuple[str, Param], ...]], ...] = ()
    overlaps: tuple[tuple[str, bool], ...] = ()

    def of_version(self, version: str) -> EngineProfile:
        """The engine in one of its versions; as it is where nothing is known of that one.

        Args:
            version: e.g. ``1.0.0rc3``; empty: unknown.
        """
        found = self
        for beginning, overlap in self.overlaps:
            if version.startswith(beginning):
                found = replace(found, overlap=overlap)
                break
        for beginning, values in self.versions:
            if version.startswith(beginning):
                return replace(found, values=tuple((dict(self.values) | dict(values)).items()))
        return found

    def graphs(self, gpus: int) -> tuple[int, ...]:
        """Captured step sizes of an instance of so many GPUs [tokens]."""
        if self.graph_narrow is None or gpus > self.graph_narrow[0]:
            return self.graph_sizes
        return tuple(size for size in self.graph_sizes if size <= self.graph_narrow[1])

    def param(self, name: str) -> Param:
        """A number with its unit and source.

        Raises:
            KeyError: no such number.
        """
        return dict(self.values)[name]

    def __getitem__(self, name: str) -> float:
        """A number, in the unit of ``NUMBERS``."""
        return self.param(name).value

    def whole(self, name: str) -> int:
        """A number that counts things."""
        return int(self[name])

    def changed(self, source: Source, **values: float) -> EngineProfile:
        """The same engine with other numbers, all from ``source``."""
        known = dict(self.values)
        new = {key: replace(known[key], value=v, source=source) for key, v in values.items()}
        return replace(self, values=tuple((known | new).items()))

    def step_s(
        self, expert_layers: int, compute: str = "fp8", *, layers: int = 0, gpus: int = 1
    ) -> float:
        """Overhead of a step, at least 0 [s].

        Args:
            expert_layers: layers with routed experts.
            compute: type these are multiplied in.
            layers: all of them.
            gpus: of the instance.
        """
        each = self["c0_experts_s" if compute == "fp8" else "c0_experts_bf16_s"]
        wide = layers * math.log2(gpus) * self["c0_gpu_s"]
        return max(0.0, self["c0_s"] + wide + expert_layers * each)

    def latency_s(self, gpus: int) -> float:
        """Front-end latency of a request to an instance of so many GPUs [s]."""
        return self["front_s"] + math.log2(gpus) * self["front_gpu_s"]

    def sustained(self, compute: str, *, experts: bool = False) -> float:
        """Share of their benchmarked efficiency GEMMs keep in long steps [1].

        Args:
            compute: type they multiply in.
            experts: those of a MoE layer.
        """
        if experts:
            return self["sustained_experts_fp8" if compute == "fp8" else "sustained_experts"]
        return self["sustained_fp8" if compute == "fp8" else "sustained_bf16"]

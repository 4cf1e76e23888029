"""What GPUs of one instance send one another: all-reduce, exchange of experts' tokens, pipeline hops.

Inside a node (``gpus_per_node`` of the profile: the NVLink or PCIe domain) the calibrated all-reduce
gives the fixed cost and the share of the link reached; between nodes every GPU has its own NIC.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwprofiles import BusAllReduce, GpuProfile, KernelFamily, NvlinkAllReduce
from simulator.errors import ProfileError
from simulator.model import ModelSpec, MoeFfn, Parallel
from simulator.perf import forms
from simulator.perf.forms import Array, Size
from simulator.perf.kernels import ACTIVATION_BYTES, largest, value_or
from simulator.perf.routing import Routing

LINK_EFF = 0.75
"""Share of a point-to-point link a large message reaches where no all-reduce was measured [1].
Assumed: two-shot all-reduce over NVLink reaches 0.65-0.75 on the calibrated GPUs."""

HOP_S = 5e-6
"""Fixed cost of a message inside a node where no all-reduce was measured [s]. Assumed: those that
were measured have 4-5 µs."""

NIC_EFF = 0.8
"""Share of a NIC's rate that messages between nodes reach [1]. Assumed."""

NIC_S = 20e-6
"""Fixed cost of a message between nodes [s]. Assumed; RDMA writes with GPU-initiated
communication take 5-10 µs one way, and an exchange waits for a write and its notice."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """The links of one instance.

    Attributes:
        gpu: profile of its GPUs.
        kernels: the kernel family.
        parallel: how it spreads the model.
    """

    gpu: GpuProfile
    kernels: KernelFamily
    parallel: Parallel

    @property
    def node(self) -> int:
        """GPUs of a node."""
        return int(self.gpu.gpus_per_node.value)

    def check(self) -> None:
        """Refuse a tensor-parallel degree without a measured all-reduce inside a node.

        Raises:
            ProfileError: naming ``tp``, what was found and what is allowed.
        """
        tp, params = self.parallel.tp, self.kernels.all_reduce
        if tp == 1:
            return
        if tp > self.node:
            raise ProfileError(
                f"tp: {tp} exceeds one node of {self.gpu.name}; allowed: up to {self.node}."
            )
        if params is None:
            raise ProfileError(
                f"{self.gpu.name}: kernels '{self.kernels.name}' have no all_reduce, which tp {tp} "
                "needs; allowed: tp 1."
            )
        if not isinstance(params, NvlinkAllReduce) and self.bus(tp) is None:
            raise ProfileError(
                f"{self.gpu.name}: kernels.{self.kernels.name}.all_reduce.bus has no entry for "
                f"tp {tp}; allowed: up to {params[-1].gpus}."
            )

    def bus(self, gpus: int) -> BusAllReduce | None:
        """Parameters over a bus; the next larger number of GPUs stands in for one not measured."""
        params = self.kernels.all_reduce
        entries = params if isinstance(params, tuple) else ()
        return next((entry for entry in entries if entry.gpus >= gpus), None)

    def inside(self, gpus: int) -> tuple[float, float]:
        """Fixed cost [s] and rate [bytes/s] of what one of so many GPUs of a node sends the others."""
        params, nvlink = self.kernels.all_reduce, self.gpu.nvlink_bytes_per_s
        if isinstance(params, NvlinkAllReduce) and nvlink is not None:
            start = params.t0_s.value + params.rank_s.value * (gpus - 1)
            return start, nvlink.value * params.two_shot_eff.value
        bus = self.bus(gpus)
        if bus is not None:
            return bus.alpha_s.value, bus.bus_bytes_per_s.value
        link = self.gpu.pcie_bytes_per_s if nvlink is None else nvlink
        return HOP_S, link.value * LINK_EFF

    def between(self) -> tuple[float, float]:
        """Fixed cost [s] and rate [bytes/s] of what one GPU sends other nodes."""
        return NIC_S, self.gpu.nic_bytes_per_s.value * NIC_EFF


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Sum of a tensor over the GPUs of a tensor-parallel group.

    Attributes:
        name: what the breakdown calls it.
        fabric: the links.
        gpus: ranks.
        width: numbers a token has in the tensor.
        calls: calls in a step.
    """

    name: str
    fabric: Fabric
    gpus: int
    width: int
    calls: float = 1

    @property
    def kernels(self) -> float:
        """One."""
        return 1

    def time_s(self, m: Size) -> Array:
        """Time of one call over ``m`` tokens [s]."""
        size = np.asarray(m, dtype=np.float64) * self.width * ACTIVATION_BYTES
        params, gpu = self.fabric.kernels.all_reduce, self.fabric.gpu
        if isinstance(params, NvlinkAllReduce) and gpu.nvlink_bytes_per_s is not None:
            return nvlink_all_reduce_s(size, self.gpus, params, gpu.nvlink_bytes_per_s.value)
        bus = self.fabric.bus(self.gpus)
        return np.zeros_like(size) if bus is None else bus_all_reduce_s(size, self.gpus, bus)

    def flops(self, m: float) -> float:
        """Additions are not counted [FLOP]."""
        return 0.0

    def traffic_bytes(self, m: float) -> float:
        """The tensor each rank holds [bytes]."""
        return m * self.width * ACTIVATION_BYTES

    def bound(self, m: float) -> str:
        """``link`` or ``latency``."""
        # A message of one number would cost about the fixed part: compare with the rest.
        fixed = float(self.time_s(1.0 / self.width))
        return largest(link=float(self.time_s(m)) - fixed, latency=fixed)


def nvlink_all_reduce_s(
    size_bytes: Size, gpus: int, params: NvlinkAllReduce, link_bytes_per_s: float
) -> Array:
    """``forms.all_reduce_s`` with the parameters of a profile [s]."""
    return forms.all_reduce_s(
        size_bytes,
        gpus,
        t0_s=params.t0_s.value,
        rank_s=params.rank_s.value,
        one_shot_eff=params.one_shot_eff.value,
        two_shot_s=params.two_shot_s.value,
        two_shot_eff=params.two_shot_eff.value,
        large_s=value_or(params.large_s, 0.0),
        ring_eff=value_or(params.ring_eff, 0.0),
        switch_eff=value_or(params.switch_eff, 0.0),
        custom_bytes=value_or(params.custom_bytes, forms.CUSTOM_MOST_BYTES),
        link_bytes_per_s=link_bytes_per_s,
    )


def bus_all_reduce_s(size_bytes: Size, gpus: int, params: BusAllReduce) -> Array:
    """``forms.all_reduce_ring_s`` with the parameters of a profile [s]."""
    return forms.all_reduce_ring_s(
        size_bytes,
        gpus,
        alpha_s=params.alpha_s.value,
        bus_bytes_per_s=params.bus_bytes_per_s.value,
    )


@dataclass(frozen=True, slots=True)
class Send:
    """Tokens that each GPU of a group sends to the others, point to point.

    Attributes:
        name: what the breakdown calls it.
        bytes_per_token: of the tensor sent [bytes/token].
        start_s: fixed cost [s].
        inside: seconds a byte takes that stays in the node [s/byte].
        between: seconds a byte takes that leaves it [s/byte]; both run at the same time.
        share: tokens one GPU receives from others, of those given.
        routing: where given, tokens are those the busiest of its groups is sent.
        calls: calls in a step.
    """

    name: str
    bytes_per_token: float
    start_s: float
    inside: float
    between: float
    share: float = 1.0
    routing: Routing | None = None
    calls: float = 1

    @property
    def kernels(self) -> float:
        """One."""
        return 1

    def _tokens(self, m: Size) -> Array:
        t = np.asarray(m, dtype=np.float64)
        return self.share * (t if self.routing is None else self.routing.visits(t))

    def time_s(self, m: Size) -> Array:
        """Time of one call over ``m`` tokens of all ranks [s]."""
        size = self._tokens(m) * self.bytes_per_token
        return np.where(size > 0.0, self.start_s + size * max(self.inside, self.between), 0.0)

    def flops(self, m: float) -> float:
        """None [FLOP]."""
        return 0.0

    def traffic_bytes(self, m: float) -> float:
        """Bytes one GPU receives [bytes]."""
        return float(self._tokens(m)) * self.bytes_per_token

    def bound(self, m: float) -> str:
        """``link`` or ``latency``."""
        return largest(link=float(self.time_s(m)) - self.start_s, latency=self.start_s)


def exchange(
    model: ModelSpec, ffn: MoeFfn, fabric: Fabric, skew: float, input_bytes: float
) -> tuple[Send, Send]:
    """How tokens reach the experts and come back where attention ranks hold different ones.

    With expert parallelism an all-to-all: each token goes to the groups of its experts
    (``dispatch``, in the type the experts multiply), their sums come back (``combine``, bf16).
    Without, every GPU needs every token: ``all_gather``, and ``reduce_scatter`` of the sums.

    Args:
        model: the model.
        ffn: the experts of the layer.
        fabric: the links.
        skew: of the routing.
        input_bytes: bytes of one number as it is dispatched [bytes].
    """
    p = fabric.parallel
    gpus = p.stage_gpus
    start, rate = fabric.inside(min(gpus, fabric.node))
    within, away = (min(gpus, fabric.node) - 1) / (gpus - 1), 0.0
    between = 0.0
    if gpus > fabric.node:
        start, nic = fabric.between()
        away = 1.0 - within
        between = away / nic
    measured, nvlink = fabric.kernels.all_to_all, fabric.gpu.nvlink_bytes_per_s
    if measured is not None and nvlink is not None and gpus <= fabric.node:
        start = measured.t0_s.value + measured.rank_s.value * (gpus - 1)
        rate = nvlink.value * measured.eff.value
    link = Send(
        name="all_gather",
        bytes_per_token=model.hidden * ACTIVATION_BYTES,
        start_s=start,
        inside=within / rate,
        between=between,
        share=1.0 - 1.0 / p.attention_dp,
    )
    if p.ep == 1:
        return link, replace(link, name="reduce_scatter")
    routing = Routing.of(ffn, p.ep, skew)
    combine = replace(link, name="combine", share=1.0 - 1.0 / gpus, routing=routing)
    return replace(combine, name="dispatch", bytes_per_token=model.hidden * input_bytes), combine


def hop(model: ModelSpec, fabric: Fabric) -> Send | None:
    """The residual stream from each pipeline stage to the next; None with one stage.

    An instance larger than a node has its stages on different ones.
    """
    p = fabric.parallel
    if p.pp == 1:
        return None
    start, rate = fabric.inside(2) if p.gpus <= fabric.node else fabric.between()
    size = model.hidden * ACTIVATION_BYTES
    return Send("pipeline_hop", size, start, 1.0 / rate, 0.0, calls=p.pp - 1)

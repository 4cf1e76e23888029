"""The space a plan searches: every layout the inventory and the limits allow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from hwprofiles import load_gpu
from simulator.errors import InputError, ModelError, ScenarioError
from simulator.model import ModelSpec, load_model
from simulator.planner.inventory import MAX_GPUS, Inventory
from simulator.planner.layout import Layout, Mode, Shape
from simulator.scenario import Scenario

MOST_LAYOUTS = 200_000
"""More are refused: a narrower inventory or space answers sooner and as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What may vary besides GPU types, TP degrees and numbers of instances.

    Attributes:
        max_num_seqs: sequences a decode or colocated step may hold.
        max_num_batched_tokens: new tokens a prefill or colocated step may compute.
        modes: whether to consider disaggregated and colocated layouts.
        tps: tensor-parallel degrees to consider; None for all that are legal.
        most_instances: instances of a pool at most; None for no limit.
    """

    max_num_seqs: tuple[int, ...] = (64, 128, 256)
    max_num_batched_tokens: tuple[int, ...] = (4096, 8192, 16384)
    modes: tuple[Mode, ...] = ("disaggregated", "colocated")
    tps: tuple[int, ...] | None = None
    most_instances: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "modes", "tps"):
            if getattr(self, name) == ():
                raise ScenarioError(f"space.{name}: is empty; allowed: at least one entry.")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one layout.

    Attributes:
        gpus: GPUs of all types together.
        usd_per_hour: price [USD/h]; None for no limit.
        count: GPUs by type; types without an entry have no limit of their own.
    """

    gpus: int
    usd_per_hour: float | None
    count: dict[str, int]

    @classmethod
    def of(cls, inventory: Inventory, max_gpus: int | None) -> Limits:
        """The inventory's limits, made tighter by an option."""
        most = [n for n in (max_gpus, inventory.constraints.max_gpus) if n is not None]
        return cls(
            gpus=min(most, default=MAX_GPUS),
            usd_per_hour=inventory.constraints.max_usd_per_hour,
            count={g: s.count for g, s in inventory.gpus.items() if s.count is not None},
        )

    def allow(self, layout: Layout, prices: dict[str, float]) -> bool:
        """Whether a layout stays within all of them."""
        if layout.gpus > self.gpus:
            return False
        for gpu, count in self.count.items():
            if sum(s.gpus for s in layout.shapes if s.gpu == gpu) > count:
                return False
        most = self.usd_per_hour
        return most is None or layout.usd_per_hour(prices) <= most * (1 + 1e-9)

    def of_type(self, gpu: str) -> int:
        """GPUs of one type at most."""
        return min(self.gpus, self.count.get(gpu, self.gpus))


def legal_tps(inventory: Inventory, gpu: str, model: ModelSpec, space: Space) -> tuple[int, ...]:
    """TP degrees of a GPU type that the model, the node, the inventory and the space allow."""
    node = inventory.node_size(gpu)
    wanted = inventory.gpus[gpu].tp
    return tuple(
        tp
        for tp in model.allowed_tp()
        if tp <= node
        and (wanted is None or tp in wanted)
        and (space.tps is None or tp in space.tps)
    )


def families(
    scenario: Scenario, inventory: Inventory, space: Space
) -> tuple[tuple[Layout, ...], tuple[str, ...]]:
    """One layout with one instance per pool for every choice of everything else that can be built.

    Returns:
        The layouts, and for GPU types and TP degrees that cannot serve the model, why.
    """
    fits, notes = _fitting(scenario, inventory, space)
    found = [
        layout
        for seqs, tokens in itertools.product(space.max_num_seqs, space.max_num_batched_tokens)
        for layout in _kinds(fits, inventory.links_for(scenario), seqs, tokens, space.modes)
        if _builds(layout, scenario)
    ]
    return tuple(found), notes


def _kinds(
    fits: list[Shape], links: tuple[str, ...], seqs: int, tokens: int, modes: tuple[Mode, ...]
) -> Iterator[Layout]:
    if "disaggregated" in modes:
        for prefill, decode, link in itertools.product(fits, fits, links):
            yield _layout((prefill, decode), link, seqs, tokens)
    if "colocated" in modes:
        for shape in fits:
            yield _layout((shape,), None, seqs, tokens)


def _layout(shapes: tuple[Shape, ...], link: str | None, seqs: int, tokens: int) -> Layout:
    """Prefill and decode, or one colocated pool."""
    if len(shapes) == 1:
        return Layout(
            mode="colocated",
            colocated=shapes[0],
            max_num_seqs=seqs,
            max_num_batched_tokens=tokens,
        )
    return Layout(
        mode="disaggregated",
        prefill=shapes[0],
        decode=shapes[1],
        link=link,
        max_num_seqs=seqs,
        max_num_batched_tokens=tokens,
    )


def _fitting(
    scenario: Scenario, inventory: Inventory, space: Space
) -> tuple[list[Shape], tuple[str, ...]]:
    """Instances that hold the model and some KV cache with the smallest limits of the space."""
    model = load_model(scenario.config.model)
    fits: list[Shape] = []
    notes: list[str] = []
    least = (min(space.max_num_seqs), min(space.max_num_batched_tokens))
    for gpu in inventory.gpus:
        caution = load_gpu(gpu).caution
        if caution is not None:
            notes.append(caution)
        tps = legal_tps(inventory, gpu, model, space)
        if not tps:
            notes.append(f"{load_gpu(gpu).name}: no legal TP degree is allowed.")
        for shape in _shapes(scenario, gpu, tps, model):
            try:
                _layout((shape,), None, *least).scenario(scenario)
                fits.append(shape)
            except InputError as error:
                notes.append(f"{shape.label}: {str(error).split(':', 2)[-1].strip()}")
    return fits, tuple(notes)


def _shapes(
    scenario: Scenario, gpu: str, tps: tuple[int, ...], model: ModelSpec
) -> tuple[Shape, ...]:
    """Instances of a GPU type with these TP degrees.

    A mixture of experts is tried with its experts cut over the TP ranks, and spread over them. What
    else the scenario's pools of the type do (pipeline stages, attention ranks, wider expert
    parallelism) is tried too.
    """
    shapes = [Shape(gpu, tp, 1, ep=ep) for tp in tps for ep in ((1, tp) if model.is_moe else (1,))]
    for pool in scenario.config.pools.values():
        own = load_gpu(pool.gpu).name == load_gpu(gpu).name
        if own and pool.tp in tps and (pool.pp > 1 or pool.attention_dp > 1 or pool.ep > 1):
            shapes.append(Shape(gpu, pool.tp, 1, pool.pp, pool.ep, pool.attention_dp))
    return tuple(dict.fromkeys(shape for shape in shapes if _shards(shape, model)))


def _shards(shape: Shape, model: ModelSpec) -> bool:
    try:
        model.check_parallel(shape.parallel)
    except ModelError:
        return False
    return True


def _builds(layout: Layout, scenario: Scenario) -> bool:
    try:
        layout.scenario(scenario)
    except InputError:
        return False  # larger steps leave no room for KV blocks
    return True


def members(
    family: Layout, limits: Limits, prices: dict[str, float], space: Space
) -> Iterator[Layout]:
    """Every layout of a family within the limits, by numbers of instances."""
    shapes = family.shapes
    most = [limits.of_type(s.gpu) // s.instance_gpus for s in shapes]
    if space.most_instances is not None:
        most = [min(n, space.most_instances) for n in most]
    for counts in itertools.product(*(range(1, n + 1) for n in most)):
        layout = with_instances(family, counts)
        if limits.allow(layout, prices):
            yield layout


def with_instances(family: Layout, counts: tuple[int, ...]) -> Layout:
    """The layout of a family with these numbers of instances, prefill before decode."""
    shapes = tuple(s.times(n) for s, n in zip(family.shapes, counts, strict=True))
    return _layout(shapes, family.link, family.max_num_seqs, family.max_num_batched_tokens)


def check_size(count: int) -> None:
    """Refuse a space that is too large to list.

    Raises:
        ScenarioError: it holds more than ``MOST_LAYOUTS``.
    """
    if count > MOST_LAYOUTS:
        raise ScenarioError(
            f"the space holds more than {MOST_LAYOUTS:,} layouts; allowed: fewer GPUs, GPU types, "
            "links or TP degrees (inventory gpus.<name>.tp)."
        )

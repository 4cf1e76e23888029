"""From a parsed YAML file to a GPU profile, a link profile or a price book."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hwprofiles import schema
from hwprofiles.links import LinkProfile
from hwprofiles.node import Node
from hwprofiles.param import Field, Param, Source
from hwprofiles.prices import PriceBook
from hwprofiles.profile import (
    AllReduceParams,
    BusAllReduce,
    DecodeAttentionParams,
    ElementwiseParams,
    GemmParams,
    GpuProfile,
    KernelFamily,
    NvlinkAllReduce,
    PrefillAttentionParams,
)

SCHEMA_VERSION = 1
_VERSION = Field("schema", "1", SCHEMA_VERSION, SCHEMA_VERSION, "version", integer=True)
_PRICE = Field("usd_per_gpu_hour", "USD/h", 0.0, 1e4, "price")

T = TypeVar("T")


def gpu_profile(node: Node) -> GpuProfile:
    """A GPU profile.

    Raises:
        ProfileError: one sentence with file, field path, what was found and what is allowed.
    """
    sources = _head(node, ("aliases", "gpu", "kernels"))
    aliases = node.get("aliases")
    kernels = node.child("kernels")
    families = tuple(_family(kernels.child(name), name, sources) for name in kernels.keys())  # noqa: SIM118 (not a dict)
    if not families:
        kernels.fail("no kernel family", "at least one is required")
    profile = GpuProfile(
        name=node.child("name").text().lower(),
        aliases=() if aliases is None else tuple(a.lower() for a in aliases.texts()),
        description=node.child("description").text(),
        kernels=families,
        **node.child("gpu").params(schema.GPU, sources),
    )
    _check_consistent(profile, node)
    return profile


def link_profile(node: Node) -> LinkProfile:
    """A link profile.

    Raises:
        ProfileError: as in ``gpu_profile``.
    """
    sources = _head(node, ("link", "coalesced"))
    return LinkProfile(
        name=node.child("name").text().lower(),
        description=node.child("description").text(),
        coalesced=node.child("coalesced").boolean(),
        **node.child("link").params(schema.LINK, sources),
    )


def price_book(node: Node, aliases: tuple[tuple[str, str], ...]) -> PriceBook:
    """A price file.

    Raises:
        ProfileError: as in ``gpu_profile``.
    """
    node.keys(("schema", "date", "note", "usd_per_gpu_hour"))
    node.child("schema").number(_VERSION)
    prices = node.child("usd_per_gpu_hour")
    return PriceBook(
        where=node.where,
        date=str(node.child("date").value),
        note=node.child("note").text(),
        usd=tuple((gpu.lower(), prices.child(gpu).number(_PRICE)) for gpu in prices.keys()),  # noqa: SIM118 (not a dict)
        aliases=aliases,
    )


def _head(node: Node, more: tuple[str, ...]) -> dict[str, Source]:
    """Check what every profile file has, and read its sources."""
    node.keys(("schema", "name", "description", "sources", *more))
    node.child("schema").number(_VERSION)
    sources = node.get("sources")
    if sources is None:
        return {}
    return {key: sources.child(key).source({}) for key in sources.keys()}  # noqa: SIM118 (not a dict)


def _family(node: Node, name: str, sources: dict[str, Source]) -> KernelFamily:
    node.keys(("gemm", "decode_attention", "prefill_attention", "all_reduce", "elementwise"))
    all_reduce = node.get("all_reduce")
    return KernelFamily(
        name=name,
        gemm=_typed(node.child("gemm"), schema.GEMM, sources, GemmParams),
        decode_attention=_typed(
            node.child("decode_attention"), schema.DECODE_ATTENTION, sources, DecodeAttentionParams
        ),
        prefill_attention=_typed(
            node.child("prefill_attention"),
            schema.PREFILL_ATTENTION,
            sources,
            PrefillAttentionParams,
        ),
        elementwise=ElementwiseParams(
            **node.child("elementwise").params(schema.ELEMENTWISE, sources)
        ),
        all_reduce=None if all_reduce is None else _all_reduce(all_reduce, sources),
    )


def _typed(
    node: Node, fields: tuple[Field, ...], sources: dict[str, Source], make: Callable[..., T]
) -> tuple[tuple[str, T], ...]:
    """Parameters by type; those of bf16 are required."""
    node.keys(schema.DTYPES)
    node.child("bf16")
    return tuple(
        (dtype, make(**found.params(fields, sources)))
        for dtype in schema.DTYPES
        if (found := node.get(dtype)) is not None
    )


def _all_reduce(node: Node, sources: dict[str, Source]) -> AllReduceParams:
    kinds = node.keys(("nvlink", "bus"))
    if len(kinds) != 1:
        node.fail(f"found {len(kinds)} kinds", "allowed: exactly one of nvlink, bus")
    if kinds[0] == "nvlink":
        return NvlinkAllReduce(**node.child("nvlink").params(schema.NVLINK_ALL_REDUCE, sources))
    bus = node.child("bus")
    entries = [_bus(bus, key, sources) for key in bus.keys()]  # noqa: SIM118 (not a dict)
    if not entries:
        bus.fail("no entry", "at least one number of GPUs is required")
    return tuple(sorted(entries, key=lambda entry: entry.gpus))


def _bus(node: Node, key: str, sources: dict[str, Source]) -> BusAllReduce:
    if not key.removeprefix("n").isdecimal() or int(key.removeprefix("n")) < 2:
        node.fail(f"key '{key}'", "allowed: n2, n3, … (a number of GPUs)")
    params: dict[str, Param] = node.child(key).params(schema.BUS_ALL_REDUCE, sources)
    return BusAllReduce(gpus=int(key.removeprefix("n")), **params)


def _check_consistent(profile: GpuProfile, node: Node) -> None:
    """What one field says must not contradict another."""
    for family in profile.kernels:
        path = f"kernels.{family.name}"
        if isinstance(family.all_reduce, NvlinkAllReduce) and profile.nvlink_bytes_per_s is None:
            Node(None, node.where, f"{path}.all_reduce.nvlink").fail(
                "found without gpu.nvlink_bytes_per_s", "give both or neither"
            )
        if "fp8" in dict(family.gemm) and not profile.has_fp8:
            Node(None, node.where, f"{path}.gemm.fp8").fail(
                "found without gpu.fp8_flops", "give both or neither"
            )

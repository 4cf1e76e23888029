"""From a parsed YAML file to a GPU profile, a link profile or a price book."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from hwprofiles import schema
from hwprofiles.borrow import Terms, borrow_all_reduce, borrow_families, borrowing_of
from hwprofiles.consistency import check_consistent
from hwprofiles.joint import read_correlations
from hwprofiles.links import LinkProfile
from hwprofiles.node import Node
from hwprofiles.param import Field, Param, Source
from hwprofiles.prices import PriceBook
from hwprofiles.profile import (
    TYPED,
    AllReduceParams,
    AllToAllParams,
    Borrowing,
    BusAllReduce,
    DecodeAttentionParams,
    ElementwiseParams,
    GemmParams,
    GpuProfile,
    KernelFamily,
    MlaDecodeParams,
    MlaPrefillParams,
    MoeParams,
    NvlinkAllReduce,
    PrefillAttentionParams,
)
from simulator.errors import ProfileError

SCHEMA_VERSION = 1
_VERSION = Field("schema", "1", SCHEMA_VERSION, SCHEMA_VERSION, "version", integer=True)
_SIZE = Field("size", "1", 0.0, 1e15, "a size")
_COUNT = Field("count", "1", 1, 1e6, "a number of experts, or a width", integer=True)
_PRICE = Field("usd_per_gpu_hour", "USD/h", 0.0, 1e4, "price")

T = TypeVar("T")


Lend = Callable[[str], GpuProfile]
"""How a profile that borrows finds its lender by name."""


def gpu_profile(node: Node, lend: Lend) -> GpuProfile:
    """A GPU profile.

    Args:
        node: the file.
        lend: the profile of a GPU by name.

    Raises:
        ProfileError: one sentence with file, field path, what was found and what is allowed.
    """
    sources = _head(node, ("aliases", "gpu", "kernels"))
    aliases = node.get("aliases")
    name = node.child("name").text().lower()
    sheet = node.child("gpu").params(schema.GPU, sources)
    families, borrowing = _kernels(node.child("kernels"), name, sheet, sources, lend)
    profile = GpuProfile(
        name=name,
        aliases=() if aliases is None else tuple(a.lower() for a in aliases.texts()),
        description=node.child("description").text(),
        kernels=families,
        borrowing=borrowing,
        **sheet,
    )
    check_consistent(profile, node)
    return profile


def _kernels(
    node: Node, name: str, sheet: dict[str, Param], sources: dict[str, Source], lend: Lend
) -> tuple[tuple[KernelFamily, ...], Borrowing | None]:
    """Kernel families: the file's own, or another GPU's where it says ``borrow``."""
    names = node.keys()
    if not names:
        node.fail("no kernel family", "at least one is required (or borrow: a calibrated GPU)")
    if "borrow" not in names:
        return tuple(_family(node.child(key), key, sources) for key in names), None
    node.keys(("borrow", "all_reduce", "scale", "note"))
    scale = node.get("scale")
    terms = Terms(
        name=name,
        lender=_lender(node.child("borrow"), lend),
        sheet=sheet,
        scale={} if scale is None else _scale(scale, sources),
    )
    reduce_node = node.get("all_reduce")
    found, other = _borrowed_all_reduce(reduce_node, terms, sources, lend)
    if reduce_node is None and isinstance(found, NvlinkAllReduce) != (
        "nvlink_bytes_per_s" in sheet
    ):
        node.fail(
            f"{terms.lender.name} has another fabric than {name}",
            "allowed: with all_reduce, say whose it is or give its parameters",
        )
    note = node.get("note")
    said = "" if note is None else note.text()
    return borrow_families(terms, found), borrowing_of(terms.lender, other, said)


def _lender(node: Node, lend: Lend) -> GpuProfile:
    try:
        lender = lend(node.text())
    except ProfileError as error:
        raise ProfileError(f"{node.where}: {node.path}: {error}") from error
    if not lender.calibrated:
        node.fail(f"{lender.name} is not calibrated itself", "allowed: a calibrated GPU")
    return lender


def _scale(node: Node, sources: dict[str, Source]) -> dict[str, Param]:
    known = [f"{op}.{f.name}" for op in _OPERATORS for f in schema.SECTIONS[op]]
    return {key: node.child(key).param(schema.SCALE, sources) for key in node.keys(known)}


_OPERATORS = ("gemm", "decode_attention", "prefill_attention", "elementwise")


def _borrowed_all_reduce(
    node: Node | None, terms: Terms, sources: dict[str, Source], lend: Lend
) -> tuple[AllReduceParams | None, str | None]:
    """The all-reduce of a borrower, and whose it is where another GPU's than its kernels'."""
    if node is None:
        return borrow_all_reduce(terms), None
    if "borrow" not in node.keys():  # noqa: SIM118 (not a dict)
        return _all_reduce(node, sources), None
    node.keys(("borrow",))
    lender = _lender(node.child("borrow"), lend)
    return borrow_all_reduce(replace(terms, lender=lender)), lender.name


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
    node.keys((*TYPED, "all_reduce", "elementwise", "all_to_all"))
    all_reduce, all_to_all = node.get("all_reduce"), node.get("all_to_all")
    return KernelFamily(
        name=name,
        gemm=_typed(
            node.child("gemm"), schema.GEMM, sources, GemmParams, dtypes=schema.GEMM_DTYPES
        ),
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
        moe=_experts(node.get("moe"), sources),
        mla_decode=_optional(node.get("mla_decode"), schema.MLA_DECODE, sources, MlaDecodeParams),
        mla_prefill=_optional(
            node.get("mla_prefill"), schema.MLA_PREFILL, sources, MlaPrefillParams
        ),
        all_to_all=(
            None
            if all_to_all is None
            else AllToAllParams(**_block(all_to_all, schema.ALL_TO_ALL, sources))
        ),
    )


def _optional(
    node: Node | None,
    fields: tuple[Field, ...],
    sources: dict[str, Source],
    make: Callable[..., T],
    dtypes: tuple[str, ...] = schema.DTYPES,
) -> tuple[tuple[str, T], ...]:
    """Parameters by type of an operator that need not have been measured, nor in every type."""
    if node is None:
        return ()
    node.keys(dtypes)
    return _by_type(node, fields, sources, make, dtypes)


def _experts(node: Node | None, sources: dict[str, Source]) -> tuple[tuple[str, MoeParams], ...]:
    """Parameters of experts by type, with the shapes an engine ships tiles for."""
    if node is None:
        return ()
    known = node.keys(schema.MOE_DTYPES)
    found = []
    for dtype in (name for name in schema.MOE_DTYPES if name in known):
        block = node.child(dtype)
        tuned, tiles = block.get("tuned"), block.get("tiles")
        assert isinstance(block.value, dict)
        rest = {key: value for key, value in block.value.items() if key not in ("tuned", "tiles")}
        params = MoeParams(
            **_block(Node(rest, block.where, block.path), schema.MOE, sources),
            tuned=None if tuned is None else _tuned(tuned),
            tiles=None if tiles is None else _tiles(tiles),
        )
        found.append((dtype, params))
    return tuple(found)


def _tiles(node: Node) -> tuple[int, ...]:
    """Whole numbers, ascending."""
    if not isinstance(node.value, list) or not node.value:
        node.fail("found no list", "allowed: rows of each tile, ascending")
    found = tuple(
        int(Node(item, node.where, f"{node.path}[{i}]").number(_COUNT))
        for i, item in enumerate(node.value)
    )
    if list(found) != sorted(set(found)):
        node.fail("found rows out of order", "allowed: rows of each tile, ascending")
    return found


def _tuned(node: Node) -> tuple[tuple[int, int], ...]:
    """Pairs of whole numbers: experts on a rank, width."""
    if not isinstance(node.value, list):
        node.fail("found no list", "allowed: [[experts on the rank, width], …]")
    pairs = []
    for i, item in enumerate(node.value):
        path = f"{node.path}[{i}]"
        if not isinstance(item, list) or len(item) != 2:
            Node(item, node.where, path).fail("found no pair", "allowed: [experts, width]")
        experts, width = (int(Node(n, node.where, path).number(_COUNT)) for n in item)
        pairs.append((experts, width))
    return tuple(pairs)


def _block(node: Node, fields: tuple[Field, ...], sources: dict[str, Source]) -> dict[str, Any]:
    """Parameters of an operator, the sizes they were fitted to, and how their errors go together."""
    beside = ("ranges", "correlations")
    node.keys((*(f.name for f in fields), *beside))
    assert isinstance(node.value, dict)
    rest = {key: value for key, value in node.value.items() if key not in beside}
    params = Node(rest, node.where, node.path).params(fields, sources)
    found: dict[str, Any] = dict(params)
    found["correlations"] = read_correlations(node.get("correlations"), params)
    ranges = node.get("ranges")
    if ranges is not None:
        found["ranges"] = tuple((key, *_bounds(ranges.child(key))) for key in ranges.keys())  # noqa: SIM118 (not a dict)
    return found


def _bounds(node: Node) -> tuple[float, float]:
    """Two numbers, ascending."""
    if not isinstance(node.value, list) or len(node.value) != 2:
        node.fail("found no pair of sizes", "allowed: [smallest, largest]")
    low, high = (
        Node(item, node.where, f"{node.path}[{i}]").number(_SIZE)
        for i, item in enumerate(node.value)
    )
    if low > high:
        node.fail(f"found {low:g} above {high:g}", "allowed: [smallest, largest]")
    return low, high


def _typed(
    node: Node,
    fields: tuple[Field, ...],
    sources: dict[str, Source],
    make: Callable[..., T],
    dtypes: tuple[str, ...] = schema.DTYPES,
) -> tuple[tuple[str, T], ...]:
    """Parameters by type; those of bf16 are required."""
    node.keys(dtypes)
    node.child("bf16")
    return _by_type(node, fields, sources, make, dtypes)


def _by_type(
    node: Node,
    fields: tuple[Field, ...],
    sources: dict[str, Source],
    make: Callable[..., T],
    dtypes: tuple[str, ...],
) -> tuple[tuple[str, T], ...]:
    return tuple(
        (dtype, make(**_block(found, fields, sources)))
        for dtype in dtypes
        if (found := node.get(dtype)) is not None
    )


def _all_reduce(node: Node, sources: dict[str, Source]) -> AllReduceParams:
    kinds = node.keys(("nvlink", "bus"))
    if len(kinds) != 1:
        node.fail(f"found {len(kinds)} kinds", "allowed: exactly one of nvlink, bus")
    if kinds[0] == "nvlink":
        return NvlinkAllReduce(**_block(node.child("nvlink"), schema.NVLINK_ALL_REDUCE, sources))
    bus = node.child("bus")
    entries = [_bus(bus, key, sources) for key in bus.keys()]  # noqa: SIM118 (not a dict)
    if not entries:
        bus.fail("no entry", "at least one number of GPUs is required")
    return tuple(sorted(entries, key=lambda entry: entry.gpus))


def _bus(node: Node, key: str, sources: dict[str, Source]) -> BusAllReduce:
    if not key.removeprefix("n").isdecimal() or int(key.removeprefix("n")) < 2:
        node.fail(f"key '{key}'", "allowed: n2, n3, … (a number of GPUs)")
    params = _block(node.child(key), schema.BUS_ALL_REDUCE, sources)
    return BusAllReduce(gpus=int(key.removeprefix("n")), **params)

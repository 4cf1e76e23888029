"""The bundled GPUs, links and prices side by side, as data and as tables."""

from __future__ import annotations

from typing import Any

from hwprofiles import (
    GpuProfile,
    LinkProfile,
    Param,
    PriceBook,
    gpu_names,
    link_names,
    load_gpu,
    load_link,
    load_prices,
)
from simulator.errors import ProfileError
from simulator.report.block import Block
from simulator.report.text import MISSING, byte_size, number, seconds, usd

SCHEMA = 1
OWN = "own"


def hardware_list() -> dict[str, Any]:
    """Bundled GPUs, links and prices, in SI units.

    Returns:
        ``schema, gpus, links, prices``; a missing value is None.
    """
    book = load_prices()
    return {
        "schema": SCHEMA,
        "gpus": [_gpu(load_gpu(name), book) for name in gpu_names()],
        "links": [_link(load_link(name)) for name in link_names()],
        "prices": {"date": book.date, "note": book.note, "where": book.where},
    }


def _price(book: PriceBook, gpu: str) -> float | None:
    try:
        return book.usd_per_gpu_hour(gpu)
    except ProfileError:  # a GPU without an example price
        return None


def _value(param: Param | None) -> float | None:
    return None if param is None else param.value


def _gpu(gpu: GpuProfile, book: PriceBook) -> dict[str, Any]:
    return {
        "name": gpu.name,
        "aliases": list(gpu.aliases),
        "description": gpu.description,
        "memory_bytes": gpu.memory_bytes.value,
        "memory_bytes_per_s": gpu.memory_bytes_per_s.value,
        "bf16_flops": gpu.bf16_flops.value,
        "fp8_flops": _value(gpu.fp8_flops),
        "fp4_flops": _value(gpu.fp4_flops),
        "int8_ops": _value(gpu.int8_ops),
        "nvlink_bytes_per_s": _value(gpu.nvlink_bytes_per_s),
        "pcie_bytes_per_s": gpu.pcie_bytes_per_s.value,
        "gpus_per_node": gpu.gpus_per_node.value,
        "tdp_w": gpu.tdp_w.value,
        "calibrated": gpu.calibrated,
        "borrowed_from": gpu.borrowed_from,
        "usd_per_gpu_hour": _price(book, gpu.name),
    }


def _link(link: LinkProfile) -> dict[str, Any]:
    return {
        "name": link.name,
        "description": link.description,
        "nic_bytes_per_s": link.nic_bytes_per_s.value,
        "efficiency": link.efficiency.value,
        "usable_bytes_per_s": link.usable_bytes_per_s,
        "base_latency_s": link.base_latency_s.value,
        "message_s": link.message_s.value,
        "coalesced": link.coalesced,
    }


def hardware_blocks(found: dict[str, Any]) -> tuple[Block, Block]:
    """GPUs with their prices, and links, as tables."""
    return _gpu_block(found), _link_block(found)


def _gpu_block(found: dict[str, Any]) -> Block:
    def tera(flops: float | None) -> str:
        return MISSING if flops is None else number(flops / 1e12)

    def rate(bytes_per_s: float | None) -> str:
        return MISSING if bytes_per_s is None else byte_size(bytes_per_s) + "/s"

    rows = tuple(
        (
            g["name"],
            byte_size(g["memory_bytes"]),
            rate(g["memory_bytes_per_s"]),
            tera(g["bf16_flops"]),
            tera(g["fp8_flops"]),
            tera(g["fp4_flops"]),
            rate(g["nvlink_bytes_per_s"]),
            f"{g['tdp_w']:.0f} W",
            g["borrowed_from"] or OWN,
            usd(g["usd_per_gpu_hour"]),
        )
        for g in sorted(found["gpus"], key=lambda g: (not g["calibrated"], g["name"]))
    )
    header = (
        "GPU",
        "memory",
        "bandwidth",
        "bf16",
        "fp8",
        "fp4",
        "NVLink",
        "TDP",
        "kernels",
        "per h",
    )
    prices = found["prices"]
    note = (
        "bf16, fp8, fp4: dense TFLOP/s. NVLink (AMD: xGMI) one way. kernels: 'own' were fitted to "
        "measurements of that GPU; a name is the GPU they are borrowed from, with the errors "
        f"`xpyd hardware NAME` states. Prices of {prices['date']}: {prices['note']}"
    )
    return Block("GPUs", header, rows, note)


def _fastest(link: dict[str, Any]) -> tuple[float, float, str]:
    return -link["usable_bytes_per_s"], link["base_latency_s"], link["name"]


def _link_block(found: dict[str, Any]) -> Block:
    rows = tuple(
        (
            link["name"],
            byte_size(link["nic_bytes_per_s"]) + "/s",
            byte_size(link["usable_bytes_per_s"]) + "/s",
            seconds(link["base_latency_s"]),
            seconds(link["message_s"]),
            "one per rank pair" if link["coalesced"] else "layer by layer",
        )
        for link in sorted(found["links"], key=_fastest)
    )
    header = ("link", "NIC", "usable", "latency", "per message", "messages")
    return Block("Links (per NIC and direction)", header, rows, "Sources: xpyd hardware LINK")

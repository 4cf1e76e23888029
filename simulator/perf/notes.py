"""Sentences on what a step model had to substitute, for reports."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.model import MlaAttention
from simulator.perf.experts import moe_params
from simulator.perf.operators import Operators


def notes(ops: Operators) -> tuple[str, ...]:
    """All of them, without repetition.

    Args:
        ops: the bound kernels.
    """
    return tuple(dict.fromkeys([*_arithmetic(ops), *_attention(ops), *_fabric(ops)]))


def _arithmetic(ops: Operators) -> Iterator[str]:
    gpu = ops.gpu.name
    for how in (ops.how.attention, ops.how.ffn, ops.how.experts):
        wanted = ops.precision.wanted(how.stored)
        if how.compute != wanted:
            yield (
                f"{gpu} has no {wanted} GEMM: {how.stored} weights are weight-only, computed in "
                "bf16."
            )
        elif how.compute == "fp8" and ops.precision.activations == "static":
            yield (
                "fp8 GEMMs with static scales are not measured: the bf16 kernel's fixed cost and "
                "corner with the fp8 peak (assumed)."
            )
        elif not how.exact:
            yield (
                f"{gpu} has no measured {how.compute} GEMM: efficiencies of {how.kernel}, at the "
                f"{how.compute} peak."
            )
    if ops.model.is_moe:
        yield from _experts(ops)


def _experts(ops: Operators) -> Iterator[str]:
    how = ops.how.experts
    params = moe_params(ops.family, how)
    if params is None:
        yield (
            f"{ops.gpu.name} has no measured expert kernels: grouped GEMMs take the efficiencies of "
            f"{how.kernel} GEMMs."
        )
    elif how.compute == "bf16" != how.stored and dict(ops.family.moe).get("bf16") is params:
        yield (
            f"Experts stored in {how.stored} take the parameters of bf16 expert kernels, with the "
            "bytes of their format."
        )


def _attention(ops: Operators) -> Iterator[str]:
    gpu, kv = ops.gpu.name, ops.precision.kv
    if kv not in dict(ops.family.decode_attention):
        yield (
            f"{gpu} has no measured {kv} KV attention: bf16 parameters, with the bytes of the KV "
            "type."
        )
    latent = any(isinstance(group.group.attention, MlaAttention) for group in ops.attention)
    if latent and not (ops.family.mla_decode and ops.family.mla_prefill):
        yield (
            f"{gpu} has no measured latent attention: efficiencies of grouped-query attention, "
            "with the bytes and arithmetic of the latent."
        )


def _fabric(ops: Operators) -> Iterator[str]:
    parallel, node = ops.parallel, int(ops.gpu.gpus_per_node.value)
    if parallel.attention_dp > 1 and ops.family.all_to_all is None:
        yield (
            "The exchange of tokens between attention ranks and experts takes the link share of "
            "an all-reduce; it was not measured."
        )
    if parallel.gpus > node:
        yield (
            f"An instance of {parallel.gpus} GPUs spans nodes of {node}: what crosses them takes "
            "80 % of a NIC a GPU and 20 µs a message, assumed."
        )

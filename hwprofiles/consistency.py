"""What one field of a GPU profile says must not contradict another."""

from __future__ import annotations

from hwprofiles.node import Node
from hwprofiles.profile import GpuProfile, KernelFamily, NvlinkAllReduce

DENSE_RATIO = 2.1
"""Dense fp8 and int8 peaks are at most twice the dense bf16 peak of the same accumulation; four times
is a figure with sparsity. GeForce cards halve bf16 but not int8, so int8 is not held to it."""

POWER = ("idle_w", "memory_bound_w", "compute_bound_w")


def check_consistent(profile: GpuProfile, node: Node) -> None:
    """Refuse a profile whose parts contradict one another.

    Args:
        profile: as read.
        node: the file, for the error sentence.

    Raises:
        ProfileError: the first contradiction found.
    """
    for family in profile.kernels:
        _check_units(profile, family, node)
    _check_dense(profile, node)
    _check_power(profile, node)


def _check_units(profile: GpuProfile, family: KernelFamily, node: Node) -> None:
    path = f"kernels.{family.name}"
    if isinstance(family.all_reduce, NvlinkAllReduce) and profile.nvlink_bytes_per_s is None:
        _at(node, f"{path}.all_reduce.nvlink").fail(
            "found without gpu.nvlink_bytes_per_s", "give both or neither"
        )
    known = dict(family.gemm)
    for dtype, has in (
        ("fp8", profile.has_fp8),
        ("fp8_block", profile.has_fp8),
        ("fp4", profile.has_fp4),
    ):
        if dtype in known and not has:
            _at(node, f"{path}.gemm.{dtype}").fail(
                f"found without gpu.{dtype.removesuffix('_block')}_flops", "give both or neither"
            )


def _check_dense(profile: GpuProfile, node: Node) -> None:
    if profile.fp8_flops is None:
        return
    ratio = profile.fp8_flops.value / profile.bf16_flops.value
    if not 1.0 <= ratio <= DENSE_RATIO:
        _at(node, "gpu.fp8_flops.value").fail(
            f"found {ratio:.3g} times gpu.bf16_flops",
            "allowed: 1 to 2 times; give dense peaks, as many data sheets print sparse ones",
        )


def _check_power(profile: GpuProfile, node: Node) -> None:
    given = [getattr(profile, name) for name in POWER]
    if all(param is None for param in given):
        return
    for name, param in zip(POWER, given, strict=True):
        if param is None:
            _at(node, "gpu").fail(f"key '{name}' is missing", f"give all of {', '.join(POWER)}")
    low, middle, high = (param.value for param in given)
    if not low <= middle <= high <= 1.1 * profile.tdp_w.value:
        _at(node, "gpu").fail(
            f"found {low:g}, {middle:g} and {high:g} W for {', '.join(POWER)}",
            f"allowed: ascending, up to the tdp_w of {profile.tdp_w.value:g} W (and 10 % over)",
        )


def _at(node: Node, path: str) -> Node:
    return Node(None, node.where, path)

"""The ways people spread one instance of a model over GPUs."""

from __future__ import annotations

from simulator.errors import ModelError
from simulator.model.parallel import Parallel
from simulator.model.spec import ModelSpec

LARGEST_NODE = 16
"""A node of more GPUs than this is an NVLink domain, which instances stay inside."""


def usual_layouts(model: ModelSpec, node_gpus: int) -> tuple[Parallel, ...]:
    """Legal layouts of one instance, on powers of two of GPUs up to a node and on two nodes.

    Tensor parallelism alone; of a mixture of experts also with its experts spread whole, and with
    one attention rank a GPU. On two nodes: tensor parallelism in each and a pipeline between them,
    or attention ranks and experts over all GPUs.

    Args:
        model: the model.
        node_gpus: GPUs of a node.
    """
    largest = 1 << (node_gpus.bit_length() - 1)
    sizes = [1 << i for i in range(largest.bit_length())]
    found = [Parallel(tp=n) for n in sizes]
    if model.is_moe:
        found += [Parallel(tp=n, ep=n) for n in sizes[1:]]
        found += [Parallel(ep=n, attention_dp=n) for n in sizes[1:]]
    if node_gpus <= LARGEST_NODE:
        found.append(Parallel(tp=largest, pp=2))
        if model.is_moe:
            found.append(Parallel(ep=2 * largest, attention_dp=2 * largest))
    return tuple(layout for layout in found if _legal(model, layout))


def _legal(model: ModelSpec, layout: Parallel) -> bool:
    try:
        model.check_parallel(layout)
    except ModelError:
        return False
    return True

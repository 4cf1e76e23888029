"""Bytes of weights on each GPU of an instance.

Matrices are stored in the format of their part; embedding, LM head, routers, norms and biases in 16
bits. Inside a pipeline stage every GPU holds the same number of bytes:

- attention, dense FFN and shared experts are cut over ``tp`` and repeated on every attention rank;
- routed experts are spread over ``ep`` groups and cut over the ``moe_tp`` GPUs of each;
- embedding and LM head are cut by rows of the padded vocabulary over ``tp``;
- encoders of images are cut over ``tp``, on the first stage;
- routers, norms and biases are whole on every GPU.
"""

from __future__ import annotations

from simulator.model.counting import dense, small
from simulator.model.formats import BF16_BYTES, FORMAT_BYTES, WeightFormats
from simulator.model.layers import LayerKind, MoeFfn
from simulator.model.parallel import Parallel


def layer_bytes(
    kind: LayerKind,
    *,
    hidden: int,
    norms_per_layer: int,
    parallel: Parallel,
    formats: WeightFormats,
) -> float:
    """Weights of one layer on each GPU of its stage [bytes]."""
    attention = kind.attention.linear_per_gpu(hidden, parallel.tp)
    held = attention * FORMAT_BYTES[formats.attention]
    held += small(kind, hidden, norms_per_layer) * BF16_BYTES
    if not isinstance(kind.ffn, MoeFfn):
        return held + dense(kind.ffn, hidden) // parallel.tp * FORMAT_BYTES[formats.ffn]
    held += kind.ffn.shared(hidden) // parallel.tp * FORMAT_BYTES[formats.ffn]
    held += kind.ffn.router(hidden) * BF16_BYTES
    return held + expert_bytes(kind.ffn, hidden, parallel, formats)


def expert_bytes(ffn: MoeFfn, hidden: int, parallel: Parallel, formats: WeightFormats) -> float:
    """Routed experts of one layer on each GPU of its stage [bytes].

    Of the biases of an expert that is cut, gate's and up's are cut with it and down's is whole.
    """
    each = ffn.expert(hidden) // parallel.moe_tp * FORMAT_BYTES[formats.experts]
    if ffn.expert_bias:
        each += (2 * ffn.expert_width // parallel.moe_tp + hidden) * BF16_BYTES
    return ffn.experts // parallel.ep * each

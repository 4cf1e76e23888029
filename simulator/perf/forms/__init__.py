"""Time of one kernel as a function of its shape: few physical parameters, vectorised.

Every function broadcasts NumPy arrays over shapes, returns seconds, and costs nothing for an empty
shape (no kernel is launched). Time never falls when a size grows, but where a kernel stops to split
contexts (``decode_attention_s``). Efficiencies are fractions of the
data sheet, so a parameter set reads as "how much of the silicon this kernel family reaches".

The forms were chosen on measured kernels of the ``aiconfigurator-core`` 0.12.0 operator tables
(Apache-2.0), held out by weight shape, head configuration or batch: see docs/accuracy.md. What fits
them is in ``simulator.perf.fits``, a module of the same name for each.
"""

from simulator.perf.forms.arrays import Array, Size
from simulator.perf.forms.attention import (
    BLOCK_TOKENS,
    DecodeTerms,
    causal_pairs,
    chained_s,
    decode_attention_coefficients,
    decode_attention_s,
    prefill_attention_coefficients,
    prefill_attention_s,
)
from simulator.perf.forms.collective import (
    CUSTOM_MOST_BYTES,
    all_reduce_ring_s,
    all_reduce_s,
    all_to_all_s,
)
from simulator.perf.forms.elementwise import elementwise_s
from simulator.perf.forms.gemm import gemm_s, gemm_terms, padded_rows, sustained_share
from simulator.perf.forms.mla import (
    mla_decode_coefficients,
    mla_decode_s,
    mla_prefill_coefficients,
    mla_prefill_s,
)
from simulator.perf.forms.moe import (
    chosen_tile,
    default_tiles,
    moe_gemm_s,
    moe_terms,
    uniform_experts,
)

__all__ = [
    "BLOCK_TOKENS",
    "CUSTOM_MOST_BYTES",
    "Array",
    "DecodeTerms",
    "Size",
    "all_reduce_ring_s",
    "all_reduce_s",
    "all_to_all_s",
    "causal_pairs",
    "chained_s",
    "chosen_tile",
    "decode_attention_coefficients",
    "decode_attention_s",
    "default_tiles",
    "elementwise_s",
    "gemm_s",
    "gemm_terms",
    "mla_decode_coefficients",
    "mla_decode_s",
    "mla_prefill_coefficients",
    "mla_prefill_s",
    "moe_gemm_s",
    "moe_terms",
    "padded_rows",
    "prefill_attention_coefficients",
    "prefill_attention_s",
    "sustained_share",
    "uniform_experts",
]

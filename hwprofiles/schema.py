"""The fields of GPU and link profiles, as tables: read by the loader, the tests and the docs."""

from __future__ import annotations

from hwprofiles.param import Field

GPU = (
    Field("memory_bytes", "bytes", 1e8, 1e13, "device memory, as the driver reports it"),
    Field("memory_bytes_per_s", "bytes/s", 1e9, 1e15, "memory bandwidth"),
    Field("l2_bytes", "bytes", 1e5, 1e11, "L2 cache"),
    Field("sms", "1", 1, 1e5, "streaming multiprocessors (AMD: compute units)", integer=True),
    Field(
        "bf16_flops", "FLOP/s", 1e8, 1e17, "dense (not sparse) bf16 tensor peak; fp16 is the same"
    ),
    Field("fp8_flops", "FLOP/s", 1e11, 1e17, "dense fp8 tensor peak; absent: no fp8 units", False),
    Field("fp4_flops", "FLOP/s", 1e11, 1e18, "dense fp4 tensor peak; absent: no fp4 units", False),
    Field("int8_ops", "OP/s", 1e11, 1e17, "dense int8 tensor peak", False),
    Field(
        "nvlink_bytes_per_s", "bytes/s", 1e9, 1e14, "NVLink (AMD: xGMI) of one GPU, one way", False
    ),
    Field("pcie_bytes_per_s", "bytes/s", 1e8, 1e13, "PCIe of one GPU, one way"),
    Field("nic_bytes_per_s", "bytes/s", 1e7, 1e13, "network interface per GPU, one way"),
    Field("gpus_per_node", "1", 1, 1024, "GPUs that share the intra-node fabric", integer=True),
    Field("tdp_w", "W", 1, 1e5, "board power limit"),
    Field("idle_w", "W", 0, 1e5, "draw with a model loaded and no step running", False),
    Field("memory_bound_w", "W", 1, 1e5, "draw of a kernel that saturates memory", False),
    Field(
        "compute_bound_w", "W", 1, 1e5, "draw of a kernel that saturates the tensor cores", False
    ),
)

_T0 = Field("t0_s", "s", 0, 1e-2, "fixed cost of a call")
_COMPUTE = Field("compute_eff", "1", 0.001, 1, "fraction of the dense peak reached")
_MEMORY = Field("memory_eff", "1", 0.001, 4, "fraction of the memory bandwidth reached")
_ERROR = Field("error", "1", 0, 5, "mean relative error on held-out shapes", False)

GEMM = (
    _T0,
    _COMPUTE,
    _MEMORY,
    Field("p", "1", 1, 16, "sharpness of the roofline's corner"),
    Field("quant_eff", "1", 0.01, 8, "bandwidth fraction of activation quantisation", False),
    Field("k_ramp", "1", 0, 1e5, "inner size that fills and drains a tile's pipeline", False),
    Field("wave_exponent", "1", 0, 1, "share of the last wave's idle SMs lost", False),
    Field("wave_limit", "1", 1, 1e3, "most that idle SMs cost, since k is split", False),
    Field("row_tile", "1", 0, 4096, "rows are padded to whole tiles of so many", False),
    _ERROR,
)
DECODE_ATTENTION = (
    _T0,
    Field("tile_s", "s", 0, 0.1, "cost of a (sequence, KV head) on one multiprocessor"),
    _MEMORY,
    Field("split_s", "s", 0, 1e-2, "cost of splitting contexts over SMs and combining", False),
    Field("split_fill", "1", 0, 8, "contexts are split while tiles fill fewer SMs x this", False),
    Field("gather_s", "s", 0, 1e-2, "copies of Q and O: several sequences and KV heads", False),
    Field("cold_s", "s", 0, 1e-2, "first touches of a KV cache in memory, not in the L2", False),
    Field("fill_s", "s", 0, 0.1, "cost of the first wave of tiles; absent: tile_s", False),
    Field("wave_exponent", "1", 0, 2, "share of the last wave's idle SMs lost", False),
    Field("block_s", "s", 0, 0.1, "least cost of a tile of one block of keys", False),
    _ERROR,
)
_CHAIN = Field("chain", "1", 0, 20, "time of the longest row of tiles, at an SM's peak 1", False)
PREFILL_ATTENTION = (
    _T0,
    _COMPUTE,
    _MEMORY,
    Field("head_dim_exponent", "1", 0, 2, "compute_eff scales with (head_dim/128) to this power"),
    Field("l2_spill", "1", 0, 20, "how much slower bytes beyond an L2 of them move", False),
    _CHAIN,
    _ERROR,
)
NVLINK_ALL_REDUCE = (
    _T0,
    Field("rank_s", "s", 0, 1e-3, "cost of each further rank"),
    Field("one_shot_eff", "1", 0.01, 2, "fraction of NVLink reached one-shot"),
    Field("two_shot_s", "s", 0, 1e-2, "extra fixed cost of two-shot"),
    Field("two_shot_eff", "1", 0.01, 2, "fraction of NVLink reached two-shot"),
    Field("large_s", "s", 0, 1e-2, "extra fixed cost of a message over 8 MiB", False),
    Field("ring_eff", "1", 0.01, 2, "fraction of NVLink a ring reaches over 8 MiB", False),
    Field("switch_eff", "1", 0.01, 2, "the same where the switch sums", False),
    Field("custom_bytes", "bytes", 1, 1e12, "instead of 8 MiB", False),
    _ERROR,
)
BUS_ALL_REDUCE = (
    Field("alpha_s", "s", 0, 1, "fixed cost at this number of GPUs"),
    Field("bus_bytes_per_s", "bytes/s", 1e6, 1e13, "bus bandwidth at this number of GPUs"),
    _ERROR,
)
ELEMENTWISE = (
    _T0,
    _MEMORY,
    Field("kernels_per_layer", "1", 0, 100, "elementwise kernels of a decoder layer"),
)

MOE = (
    _T0,
    Field("expert_s", "s", 0, 1e-3, "fixed cost of an expert visited"),
    _COMPUTE,
    _MEMORY,
    Field("p", "1", 1, 16, "sharpness of the roofline's corner"),
    Field("tile_rows", "1", 0, 1e4, "rows of padding an expert visited costs"),
    Field("own_passes", "1", 0, 1e3, "passes over the activations of the rank's own pairs"),
    Field("all_passes", "1", 0, 1e3, "passes over the outputs of the pairs of all ranks"),
    Field("untuned_compute", "1", 0.01, 1, "share of compute_eff shapes not in tuned keep", False),
    Field("untuned_memory", "1", 0.01, 1, "share of memory_eff shapes not in tuned keep", False),
    Field("foreign_rows", "1", 0, 1, "share of a visitor's pairs for other ranks computed", False),
    _ERROR,
)
MLA_DECODE = (
    _T0,
    Field("sequence_s", "s", 0, 1e-3, "cost of a sequence"),
    _COMPUTE,
    _MEMORY,
    Field("p", "1", 1, 16, "sharpness of the roofline's corner"),
    Field("head_tile", "1", 0, 1e3, "fewer heads cost as much arithmetic as so many"),
    Field("head_s", "s", 0, 1e-3, "cost of a head of a sequence", False),
    _ERROR,
)
MLA_PREFILL = (
    _T0,
    _COMPUTE,
    _MEMORY,
    Field("row_s", "s", 0, 1e-3, "cost of a token computed, whatever the heads", False),
    _CHAIN,
    _ERROR,
)
ALL_TO_ALL = (
    _T0,
    Field("rank_s", "s", 0, 1e-3, "cost of each further rank"),
    Field("eff", "1", 0.001, 2, "fraction of the link reached"),
    _ERROR,
)

LINK = (
    Field("nic_bytes_per_s", "bytes/s", 1e6, 1e14, "raw bandwidth of one NIC, one way"),
    Field("efficiency", "1", 0.01, 1, "fraction of it a KV transfer reaches"),
    Field("base_latency_s", "s", 0, 10, "last byte sent to KV usable at the receiver"),
    Field("message_s", "s", 0, 1, "NIC time of a message, besides its bytes"),
)

SCALE = Field("scale", "1", 0.01, 10, "factor on a borrowed parameter", False)

DTYPES = ("bf16", "fp8")
"""Types an attention kernel's parameters are given for (its KV cache)."""

GEMM_DTYPES = ("bf16", "fp8", "fp8_block", "fp4")
"""Types a GEMM's parameters are given for (what it multiplies in)."""

MOE_DTYPES = (*GEMM_DTYPES, "int4_weight_only")
"""Types the parameters of experts' kernels are given for: what they multiply in, or what they read
their weights in where they multiply in bf16."""

SECTIONS = {
    "gpu": GPU,
    "gemm": GEMM,
    "decode_attention": DECODE_ATTENTION,
    "prefill_attention": PREFILL_ATTENTION,
    "all_reduce (nvlink)": NVLINK_ALL_REDUCE,
    "all_reduce (bus, per number of GPUs)": BUS_ALL_REDUCE,
    "elementwise": ELEMENTWISE,
    "moe": MOE,
    "mla_decode": MLA_DECODE,
    "mla_prefill": MLA_PREFILL,
    "all_to_all": ALL_TO_ALL,
    "link": LINK,
}

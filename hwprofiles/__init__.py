"""Hardware as data: GPU profiles, links and prices, each number with its unit and its source."""

from hwprofiles.borrow import as_borrower
from hwprofiles.library import (
    gpu_names,
    link_names,
    load_gpu,
    load_link,
    load_prices,
)
from hwprofiles.links import LinkProfile
from hwprofiles.param import Param, Source
from hwprofiles.prices import PriceBook
from hwprofiles.profile import (
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

__all__ = [
    "AllReduceParams",
    "AllToAllParams",
    "Borrowing",
    "BusAllReduce",
    "DecodeAttentionParams",
    "ElementwiseParams",
    "GemmParams",
    "GpuProfile",
    "KernelFamily",
    "LinkProfile",
    "MlaDecodeParams",
    "MlaPrefillParams",
    "MoeParams",
    "NvlinkAllReduce",
    "Param",
    "PrefillAttentionParams",
    "PriceBook",
    "Source",
    "as_borrower",
    "gpu_names",
    "link_names",
    "load_gpu",
    "load_link",
    "load_prices",
]

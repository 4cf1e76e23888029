"""Fits of the forms to measured rows, a module beside each of ``simulator.perf.forms``.

``fit_<form>(rows, sheet)`` takes rows in the columns of the operator tables and a data sheet, and
returns a ``FitResult``: values, standard errors, and the error on rows of groups it never saw.
"""

from simulator.perf.fits.attention import fit_decode_attention, fit_prefill_attention
from simulator.perf.fits.collective import fit_all_reduce, fit_all_to_all, fit_bus_all_reduce
from simulator.perf.fits.elementwise import fit_elementwise
from simulator.perf.fits.gemm import fit_gemm
from simulator.perf.fits.kernel import Sheet
from simulator.perf.fits.mla import fit_mla_decode, fit_mla_prefill
from simulator.perf.fits.moe import fit_moe_gemm
from simulator.perf.fits.result import FitResult, Fitted, Score
from simulator.perf.fits.split import LeakError, Split

__all__ = [
    "FitResult",
    "Fitted",
    "LeakError",
    "Score",
    "Sheet",
    "Split",
    "fit_all_reduce",
    "fit_all_to_all",
    "fit_bus_all_reduce",
    "fit_decode_attention",
    "fit_elementwise",
    "fit_gemm",
    "fit_mla_decode",
    "fit_mla_prefill",
    "fit_moe_gemm",
    "fit_prefill_attention",
]

"""Which function builds the calls of which operator."""

from __future__ import annotations

from calibration.case import Case
from calibration.device import Device, Program
from calibration.kernels.attention import decode_program, prefill_program
from calibration.kernels.gemm import gemm_program
from calibration.kernels.moe import moe_program
from calibration.kernels.moves import copy_program, elementwise_program, launch_program

_BUILDERS = {
    "gemm": gemm_program,
    "attn_prefill": prefill_program,
    "attn_decode": decode_program,
    "moe": moe_program,
    "elementwise": elementwise_program,
    "copy": copy_program,
    "launch": launch_program,
}


def prepare(device: Device, case: Case) -> Program:
    """The calls of ``case`` on ``device``, their operands in place.

    Raises:
        RuntimeError: the device has no room, or does not compute this.
    """
    device.arena.begin()
    return _BUILDERS[case.operator](device, case)

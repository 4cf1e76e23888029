"""torch, asked for only when something is measured."""

from __future__ import annotations

from typing import Any

from simulator.errors import InputError

INSTALL = "python -m pip install 'xpyd[calibration]'"


def torch_module() -> Any:
    """The ``torch`` package.

    Raises:
        InputError: it is not installed; the sentence says what to install.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"calibrate bench needs PyTorch, which cannot be imported ({error}); install it with "
            f"{INSTALL}, or with the command pytorch.org gives for your GPU's driver."
        ) from None
    return torch

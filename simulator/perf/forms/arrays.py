"""Broadcasting, and the smooth maximum of two limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Size = npt.ArrayLike


def as_float(x: Size) -> Array:
    """Sizes as floats."""
    return np.asarray(x, dtype=np.float64)


def p_norm(a: Array, b: Array, p: float) -> Array:
    """``(a^p + b^p)^(1/p)`` without overflow or underflow, for a, b >= 0 and not both 0."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    ratio = np.divide(low, high, out=np.zeros_like(high), where=high > 0.0)
    return np.asarray(high * (1.0 + ratio**p) ** (1.0 / p), dtype=np.float64)

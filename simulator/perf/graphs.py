"""CUDA graphs: which step sizes an engine captured, and what it runs for the others.

A captured step replays its kernels at the captured number of tokens, so a batch in between is padded
to the next one. A step without a graph runs at its own size, and its kernels are launched one by one
from the host: it takes no less than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.perf.forms import Array, Size


@dataclass(frozen=True, slots=True)
class Graphs:
    """Captured step sizes.

    Attributes:
        sizes: tokens of a captured step, ascending; empty: nothing is captured.
        padding: a batch in between is padded to the next size; False: it runs without a graph.
        mixed: steps that prefill are captured too (piecewise: attention runs outside the graph).
    """

    sizes: tuple[int, ...]
    padding: bool = True
    mixed: bool = False

    @property
    def mixed_tokens(self) -> int:
        """Largest step that prefills and has a graph [tokens]; 0: none has."""
        return self.sizes[-1] if self.mixed and self.sizes else 0

    def run(self, tokens: Size) -> Array:
        """Tokens a step over ``tokens`` new ones is computed at: the captured size, or its own."""
        n = np.asarray(tokens, dtype=np.float64)
        if not self.sizes:
            return n
        sizes = np.asarray(self.sizes, dtype=np.float64)
        at = sizes[np.minimum(np.searchsorted(sizes, n), sizes.size - 1)]
        return np.where((n > 0.0) & ~self.eager(n), at, n)

    def eager(self, tokens: Size) -> npt.NDArray[np.bool_]:
        """Whether a step over ``tokens`` new ones has no graph."""
        n = np.asarray(tokens, dtype=np.float64)
        if not self.sizes:
            return np.asarray(n > 0.0)
        captured = n <= self.sizes[-1] if self.padding else np.isin(n, self.sizes)
        return np.asarray((n > 0.0) & ~captured)

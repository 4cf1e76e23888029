"""Prompt blocks that requests share: the ids of a trace, one ragged row a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.errors import InputError

MOONCAKE_BLOCK_TOKENS = 512
"""Tokens of one block in the Mooncake traces."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Ids of the leading blocks of every prompt; equal ids are equal content after equal prefixes.

    Attributes:
        ids: the ids of all requests one after another, int64.
        starts: shape (n + 1,), int64; request i has ``ids[starts[i]:starts[i + 1]]``.
        block_tokens: tokens of one block; the last block of a prompt may be shorter.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    block_tokens: int = MOONCAKE_BLOCK_TOKENS

    def __post_init__(self) -> None:
        for name in ("ids", "starts"):
            values = np.array(getattr(self, name), dtype=np.int64)
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        starts = self.starts
        if not starts.size or starts[0] != 0 or starts[-1] != self.ids.size:
            raise InputError("the starts of blocks must run from 0 to the number of ids.")
        if (np.diff(starts) < 0).any():
            raise InputError("the starts of blocks must not decrease.")

    @classmethod
    def of(
        cls,
        rows: Iterable[Sequence[int] | NDArray[np.int64]],
        block_tokens: int = MOONCAKE_BLOCK_TOKENS,
    ) -> Blocks:
        """From one sequence of ids a request."""
        listed = list(rows)
        sizes = np.fromiter((len(row) for row in listed), np.int64, len(listed))
        none = np.zeros(0, dtype=np.int64)
        ids = np.concatenate([none, *(np.asarray(row, dtype=np.int64) for row in listed)])
        return cls(ids, np.concatenate([[0], np.cumsum(sizes)]), block_tokens)

    def __len__(self) -> int:
        return int(self.starts.size) - 1

    def row(self, i: int) -> NDArray[np.int64]:
        """The ids of request ``i``."""
        return self.ids[self.starts[i] : self.starts[i + 1]]

    def between(self, first: int, last: int) -> Blocks:
        """The rows from ``first`` on, before ``last``."""
        starts = self.starts[first : last + 1]
        return Blocks(self.ids[starts[0] : starts[-1]], starts - starts[0], self.block_tokens)

    def rows(self, chosen: NDArray[np.int64]) -> Blocks:
        """The rows of some requests, in the order given."""
        return Blocks.of([self.row(int(i)) for i in chosen], self.block_tokens)

    def ideal_hit_tokens(self, prompt_tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Prompt tokens each request would find in a cache that never forgets [tokens].

        Blocks hit as long as all before them do. A block is in the cache as soon as an earlier
        request (in order of the rows) has it. The last token of a prompt is always computed.

        Args:
            prompt_tokens: length of every prompt, shape (n,).
        """
        seen: set[int] = set()
        found = np.zeros(len(self), dtype=np.int64)
        for i in range(len(self)):
            row = self.row(i).tolist()
            hits = 0
            for block in row:
                if block not in seen:
                    break
                hits += 1
            found[i] = hits * self.block_tokens
            seen.update(row)
        return np.minimum(found, np.maximum(prompt_tokens - 1, 0))

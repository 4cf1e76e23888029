"""The step table as arrays: the times of many (and of fractional) batches at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.perf.table import StepTable

FloatArray = npt.NDArray[np.float64]
Numbers = float | FloatArray


class StepTimes:
    """``StepTable`` vectorised; sizes between two entries are interpolated linearly.

    Args:
        table: the table the engine uses.
    """

    def __init__(self, table: StepTable) -> None:
        self.table = table
        self._decode_a = np.asarray(table.decode_a)
        self._decode_b = np.asarray(table.decode_b)
        self._token = np.asarray(table.token_s)
        self._head = np.asarray(table.head_s)
        group = table.groups[0]
        self._attn = np.asarray(group.decode[0].fixed_s)
        self._attn_token_s = group.decode[0].token_s

    def decode_s(self, batch: FloatArray, kv_tokens: FloatArray) -> FloatArray:
        """Time [s] of a pure decode step of ``batch`` sequences reading ``kv_tokens`` together."""
        t = _at(self._decode_a, batch) + _at(self._decode_b, batch) * kv_tokens
        return np.maximum(t, self.table.host_s)

    def mixed_s(
        self,
        *,
        batch: Numbers,
        kv_tokens: Numbers,
        new: Numbers,
        pairs: Numbers,
        read: Numbers,
        chunks: Numbers,
        rows: Numbers,
    ) -> FloatArray:
        """Time [s] of a step that decodes ``batch`` sequences and prefills ``new`` prompt tokens.

        Args:
            batch: decoding sequences (0: prefill only).
            kv_tokens: KV tokens they read together.
            new: prompt tokens computed, more than 0.
            pairs: their query-key pairs.
            read: KV tokens read back by the chunks.
            chunks: prefilling sequences.
            rows: tokens sampled.
        """
        x = self.table
        group = x.groups[0]
        batch_ = np.asarray(batch, dtype=np.float64)
        decode = np.where(
            batch_ > 0.0, _at(self._attn, batch_) + self._attn_token_s * kv_tokens, 0.0
        )
        t = (
            _at(self._token, batch_ + new)
            + _at(self._head, np.asarray(rows, dtype=np.float64))
            + x.seq_s * (batch_ + chunks)
            + decode
            + group.prefill_t0_s
            + group.prefill_pair_s * pairs
            + group.prefill_new_s * new
            + group.prefill_read_s * read
        )
        return np.asarray(np.maximum(t, x.host_s), dtype=np.float64)

    def lone_prefill_s(self, prompt: int, chunk: int) -> float:
        """Time [s] of one prompt alone, in steps of at most ``chunk`` new tokens."""
        done, total = 0, 0.0
        while done < prompt:
            c = min(chunk, prompt - done)
            total += self.table.mixed_s(0, 0, [(done, c)], 1 if done + c == prompt else 0)
            done += c
        return total

    def lone_decode_s(self, context: float) -> float:
        """Time [s] of a decode step of one sequence with ``context`` resident tokens."""
        return float(self.decode_s(np.ones(1), np.array([context]))[0])


def _at(column: FloatArray, index: FloatArray) -> FloatArray:
    return np.asarray(np.interp(index, np.arange(column.size), column), dtype=np.float64)

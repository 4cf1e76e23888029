"""The step-time model as plain Python floats, the only form the engine's hot loop touches.

A *step* is one forward pass of one instance. With ``B`` decoding sequences that read ``S`` resident
KV tokens together (the current token of each counts), a pure decode step takes

    max(host_s, decode_a[B] + decode_b[B] * S)          [s]

and a step that also prefills chunks takes

    max(host_s, token_s[B + Σc] + head_s[rows] + seq_s·(sequences)
                + decode attention(B, S) + prefill attention(chunks))

where a chunk ``(p, c)`` computes ``c`` new tokens after ``p`` cached ones. ``StepModel`` (the
vectorised form) builds the table; a test holds both to the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, repr=False)
class StepTable:
    """Step-time coefficients of one kind of instance, tabulated up to its limits.

    Attributes:
        host_s: lower bound of any step set by the host loop [s]; 0 when the host never binds.
        decode_a: index ``B`` = 0..max_num_seqs: everything in a pure decode step that does not
            depend on the resident context, ``c0`` and ``c1·B`` included [s]. ``decode_a[0]`` is 0.
        decode_b: index ``B``: time per resident KV token read [s/token].
        token_s: index ``m`` = 0..max tokens of a step: GEMMs, elementwise kernels, collectives and
            ``c0`` of a step over ``m`` new tokens, language-model head apart [s].
        head_s: index ``rows`` of sampled tokens: the language-model head [s].
        seq_s: overhead per sequence in a step, ``c1`` [s].
        decode_attn_s: index ``B``: the part of decode attention that does not depend on S [s].
        decode_attn_token_s: decode attention per resident KV token [s/token].
        prefill_attn_t0_s: fixed cost of the prefill-attention kernels of one step [s].
        prefill_attn_pair_s: per query-key pair under the causal mask, ``c·p + c²/2`` [s/pair].
        prefill_attn_new_s: per new token: Q, O and the KV written [s/token].
        prefill_attn_read_s: per KV token read back, ``p + c`` of each chunk [s/token].
    """

    host_s: float
    decode_a: list[float]
    decode_b: list[float]
    token_s: list[float]
    head_s: list[float]
    seq_s: float
    decode_attn_s: list[float]
    decode_attn_token_s: float
    prefill_attn_t0_s: float
    prefill_attn_pair_s: float
    prefill_attn_new_s: float
    prefill_attn_read_s: float

    def __repr__(self) -> str:
        return f"StepTable(≤ {len(self.decode_a) - 1} sequences, ≤ {self.max_tokens} tokens)"

    @property
    def max_tokens(self) -> int:
        """Largest number of new tokens one step may compute."""
        return len(self.token_s) - 1

    def decode_s(self, batch: int, kv_tokens: int) -> float:
        """Time [s] of a step that decodes ``batch`` sequences reading ``kv_tokens`` KV tokens."""
        t = self.decode_a[batch] + self.decode_b[batch] * kv_tokens
        return t if t > self.host_s else self.host_s

    def mixed_s(
        self, batch: int, kv_tokens: int, chunks: Sequence[tuple[int, int]], rows: int
    ) -> float:
        """Time [s] of a step that decodes ``batch`` sequences and prefills ``chunks``.

        Args:
            batch: decoding sequences.
            kv_tokens: KV tokens they read together.
            chunks: ``(cached tokens p, new tokens c)`` of every prefilling sequence.
            rows: tokens sampled at the end of the step: ``batch`` plus the prefills that end in it.
        """
        new = 0
        pairs = 0.0
        read = 0
        for p, c in chunks:
            new += c
            pairs += c * (p + 0.5 * c)
            read += p + c
        t = self.token_s[batch + new] + self.head_s[rows] + self.seq_s * (batch + len(chunks))
        if batch:
            t += self.decode_attn_s[batch] + self.decode_attn_token_s * kv_tokens
        if chunks:
            t += (
                self.prefill_attn_t0_s
                + self.prefill_attn_pair_s * pairs
                + self.prefill_attn_new_s * new
                + self.prefill_attn_read_s * read
            )
        return t if t > self.host_s else self.host_s

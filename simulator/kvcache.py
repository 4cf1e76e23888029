"""The KV blocks of one instance, without a clock: how many are used now and after k more steps.

A decoding sequence with context ``L`` (the current token counts) holds ``ceil(L / block)`` blocks and
its context grows by one token a step. Write ``L = offset + n`` with ``n`` the instance's step counter:
the sequence takes a new block when it steps from a multiple of the block size, that is when
``(offset + n) % block == 0``. Counting sequences by ``offset % block`` therefore gives the blocks
taken in any number of steps without touching a sequence: every ``block`` steps take one block for
each sequence, and the remainder is a short sum over residues.
"""

from __future__ import annotations


class BlockLedger:
    """Blocks of one instance: those of decoding sequences grow with steps, the others are held.

    Attributes:
        block: tokens per block.
        capacity: blocks of the instance.
        growing: blocks of decoding sequences at the current step.
        held: blocks promised to transfers, landed and waiting, or under chunked prefill.
        batch: decoding sequences.
    """

    __slots__ = ("batch", "block", "capacity", "growing", "held", "residues")

    def __init__(self, block: int, capacity: int) -> None:
        self.block = block
        self.capacity = capacity
        self.growing = 0
        self.held = 0
        self.batch = 0
        # counts by residue, twice over, so that a cyclic window is one slice
        self.residues = [0] * (2 * block)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens."""
        return -(-tokens // self.block)

    def join(self, offset: int, context: int) -> None:
        """A sequence with this offset starts to decode at ``context`` tokens."""
        r = offset % self.block
        self.residues[r] += 1
        self.residues[r + self.block] += 1
        self.growing -= -context // self.block
        self.batch += 1

    def leave(self, offset: int, context: int) -> None:
        """It stops decoding at ``context`` tokens (as counted by the current step)."""
        r = offset % self.block
        self.residues[r] -= 1
        self.residues[r + self.block] -= 1
        self.growing += -context // self.block
        self.batch -= 1

    def growth(self, n: int, steps: int) -> int:
        """Blocks taken by decoding sequences from step counter ``n`` to ``n + steps``."""
        block = self.block
        whole, rest = divmod(steps, block)
        taken = whole * self.batch
        if rest:
            # residues (-n), (-n-1), ... : a window that ends at (-n) % block in the second copy
            last = block + (-n) % block
            taken += sum(self.residues[last - rest + 1 : last + 1])
        return taken

    def steps_within(self, n: int, headroom: int) -> int:
        """Largest number of further steps that take at most ``headroom`` blocks, from counter ``n``.

        With no sequence decoding there is no limit; the answer is then a very large number.
        """
        if not self.batch:
            return 1 << 60
        whole, left = divmod(headroom, self.batch)
        at = self.block + (-n) % self.block
        steps = whole * self.block
        left -= self.residues[at]
        while left >= 0:
            steps += 1
            at -= 1
            left -= self.residues[at]
        return steps

    @property
    def free(self) -> int:
        """Blocks neither used nor promised at the current step."""
        return self.capacity - self.growing - self.held

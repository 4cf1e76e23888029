"""The KV blocks of one instance, without a clock: how many are used now and after k more steps.

KV memory is handed out in blocks of ``block`` tokens, counted in *units*: a block of attention group
``g`` takes ``units_g`` of them, and a group with a window keeps no more than its window. With one
group that keeps everything a unit is a block.

A decoding sequence with context ``L`` (the current token counts) grows by one token a step. Write
``L = offset + n`` with ``n`` the instance's step counter: the sequence takes new blocks when it steps
from a multiple of the block size, that is when ``(offset + n) % block == 0``; they weigh
``Σ_g units_g`` over the groups whose window it does not fill yet. Adding up these weights by
``offset % block`` therefore gives the units taken in any number of steps without touching a
sequence: every ``block`` steps take each sequence's weight once, and the remainder is a short sum
over residues.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """How much KV memory a sequence takes.

    Attributes:
        block: tokens per block.
        groups: for each attention group, the units its blocks take and the most tokens it keeps of
            a sequence (None: all of them).
    """

    block: int
    groups: tuple[tuple[int, int | None], ...] = ((1, None),)

    @property
    def plain(self) -> bool:
        """Whether a unit is a block: one group that keeps everything."""
        return self.groups == ((1, None),)

    def units_for(self, tokens: int) -> int:
        """Units that hold ``tokens`` tokens of one sequence."""
        return sum(
            units * -(-(tokens if span is None else min(tokens, span)) // self.block)
            for units, span in self.groups
        )

    def weight(self, context: int) -> int:
        """Units a sequence takes with the first token of a block, coming from ``context`` tokens."""
        return sum(units for units, span in self.groups if span is None or context < span)

    def tokens_within(self, units: int) -> int:
        """Most tokens of one sequence that ``units`` units hold; 2^60 where windows hold it all."""
        high = 1 << 60
        if self.units_for(high) <= units:
            return high
        low = 0
        while high - low > 1:
            middle = (low + high) // 2
            if self.units_for(middle) <= units:
                low = middle
            else:
                high = middle
        return low


class BlockLedger:
    """Units of one instance: those of decoding sequences grow with steps, the others are held.

    This one counts plain blocks; ``ledger`` finds the right kind for a footprint.

    Attributes:
        block: tokens per block.
        capacity: units of the instance.
        growing: units of decoding sequences at the current step.
        held: units promised to transfers, landed and waiting, or under chunked prefill.
        weight: units that decoding sequences take every ``block`` steps.
    """

    __slots__ = ("block", "capacity", "growing", "held", "residues", "weight")

    def __init__(self, block: int, capacity: int) -> None:
        self.block = block
        self.capacity = capacity
        self.growing = 0
        self.held = 0
        self.weight = 0
        # weights by residue, twice over, so that a cyclic window is one slice
        self.residues = [0] * (2 * block)

    def units_for(self, tokens: int) -> int:
        """Units that hold ``tokens`` tokens."""
        return -(-tokens // self.block)

    def join(self, offset: int, context: int) -> None:
        """A sequence with this offset starts to decode at ``context`` tokens."""
        r = offset % self.block
        self.residues[r] += 1
        self.residues[r + self.block] += 1
        self.growing -= -context // self.block
        self.weight += 1

    def leave(self, offset: int, context: int) -> None:
        """It stops decoding at ``context`` tokens (as counted by the current step)."""
        r = offset % self.block
        self.residues[r] -= 1
        self.residues[r + self.block] -= 1
        self.growing += -context // self.block
        self.weight -= 1

    def stop_growing(self, offset: int, units: int) -> None:
        """A decoding sequence fills a window: it takes ``units`` units less with each block."""
        r = offset % self.block
        self.residues[r] -= units
        self.residues[r + self.block] -= units
        self.weight -= units

    def growth(self, n: int, steps: int) -> int:
        """Units taken by decoding sequences from step counter ``n`` to ``n + steps``."""
        block = self.block
        whole, rest = divmod(steps, block)
        taken = whole * self.weight
        if rest:
            # residues (-n), (-n-1), ... : a window that ends at (-n) % block in the second copy
            last = block + (-n) % block
            taken += sum(self.residues[last - rest + 1 : last + 1])
        return taken

    def steps_within(self, n: int, headroom: int) -> int:
        """Largest number of further steps that take at most ``headroom`` units, from counter ``n``.

        With no sequence growing there is no limit; the answer is then a very large number.
        """
        if not self.weight:
            return 1 << 60
        whole, left = divmod(headroom, self.weight)
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
        """Units neither used nor promised at the current step."""
        return self.capacity - self.growing - self.held


class GroupedLedger(BlockLedger):
    """Units of several attention groups, some of them with a window."""

    __slots__ = ("footprint",)

    def __init__(self, footprint: Footprint, capacity: int) -> None:
        super().__init__(footprint.block, capacity)
        self.footprint = footprint

    def units_for(self, tokens: int) -> int:
        """Units that hold ``tokens`` tokens."""
        return self.footprint.units_for(tokens)

    def join(self, offset: int, context: int) -> None:
        """A sequence with this offset starts to decode at ``context`` tokens."""
        self.growing += self.footprint.units_for(context)
        self.stop_growing(offset, -self.footprint.weight(context))

    def leave(self, offset: int, context: int) -> None:
        """It stops decoding at ``context`` tokens; it has stopped growing where it fills a window."""
        self.growing -= self.footprint.units_for(context)
        self.stop_growing(offset, self.footprint.weight(context))


def ledger(footprint: Footprint, capacity: int) -> BlockLedger:
    """The ledger of an instance with ``capacity`` units, for sequences with this footprint."""
    if footprint.plain:
        return BlockLedger(footprint.block, capacity)
    return GroupedLedger(footprint, capacity)

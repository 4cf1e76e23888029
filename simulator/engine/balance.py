"""TensorRT-LLM's balance of attention ranks: prompts wait until every rank has one.

In a step where one rank computes a prompt all wait for it, so prompts are better computed on all ranks
in the same step. At every boundary: if each rank could start a prompt, all do (after
``batching_wait_iters`` further steps, for more to come); otherwise none does, until ``timeout_iters``
steps have passed since prompts last had their turn. A rank with nothing to decode ends the wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.engine.core import Batch
from simulator.scenario.deployment import Balance


class Balancer:
    """What the ranks of an instance remember from boundary to boundary.

    Args:
        rule: how long they wait.
    """

    __slots__ = ("all_decode", "batching", "before", "rule", "waited", "waiting")

    def __init__(self, rule: Balance) -> None:
        self.rule = rule
        self.waited = 0  # boundaries at which not every rank had a prompt, since the last turn
        self.waiting = 0  # boundaries at which every rank had one, and all waited for more
        self.batching = False  # whether the latest boundary was one of these
        self.all_decode = False
        self.before = (0, 0)

    def passed(self, boundaries: int) -> None:
        """As many boundaries were alike: nobody came or left."""
        if self.batching:
            self.waiting += boundaries
        elif self.all_decode:
            self.waited = (self.waited + boundaries) % self.rule.timeout_iters

    def holds(self, ranks: Sequence[Batch]) -> bool:
        """Whether no prompt may start at this boundary."""
        self.before = (self.waited, self.waiting)
        self.all_decode = all(rank.batch for rank in ranks)
        self.batching = False
        if all(rank.batch < rank.max_seqs and rank.could_start() for rank in ranks):
            self.waited = 0
            self.batching = self.all_decode and self.waiting < self.rule.batching_wait_iters
            if self.batching:
                self.waiting += 1
            elif self.all_decode:
                self.waiting = 0
            return self.batching
        self.waited += 1
        if self.waited < self.rule.timeout_iters and self.all_decode:
            return True
        self.waited = 0
        return False

    def undo(self) -> None:
        """The boundary is going to be decided again."""
        self.waited, self.waiting = self.before

    def steps(self) -> int:
        """Steps after which a wait ends that goes on at the latest boundary."""
        if self.batching:
            return self.rule.batching_wait_iters - self.waiting + 1
        return self.rule.timeout_iters - self.waited

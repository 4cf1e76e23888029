"""What requests ask of a deployment: tokens, decode steps, resident context, blocks, messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.analysis.windows import (
    cumulative_blocks,
    cumulative_reads,
    prompt_pairs,
    units_for,
)
from simulator.perf.table import AttentionGroupPlan
from simulator.scenario.deployment import Deployment
from simulator.workload import Requests

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Plans = tuple[AttentionGroupPlan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Requests as work: one row a request.

    Attributes:
        prompt: prompt tokens.
        steps: decode steps: every output token, or all but the first where prefill samples it.
        first_context: tokens in the cache during the first decode step, the current one included.
        sent: whether its KV is transferred: not if prefill emits its only token.
    """

    prompt: IntArray
    steps: IntArray
    first_context: IntArray
    sent: BoolArray

    @classmethod
    def of(cls, deployment: Deployment, requests: Requests) -> Demand:
        """The demand of ``requests`` under the deployment's ``first_token`` rule.

        ``decode``: the first step recomputes the last prompt token, so OSL steps start at context
        ISL. Otherwise (``prefill``, ``handoff``, colocated) the prefill samples token 1 and OSL−1
        steps start at ISL + 1.
        """
        own = deployment.mode == "disaggregated" and deployment.first_token == "decode"
        skipped = 0 if own else 1
        prompt, output = requests.prompt_tokens, requests.output_tokens
        split = deployment.mode == "disaggregated"
        sent = split & ((deployment.first_token != "prefill") | (output > 1))
        return cls(prompt, output - skipped, prompt + skipped, sent)

    def rows(self, which: slice | BoolArray) -> Demand:
        """Some of the requests."""
        return Demand(
            self.prompt[which], self.steps[which], self.first_context[which], self.sent[which]
        )

    def __len__(self) -> int:
        return int(self.prompt.size)

    @property
    def mean_prompt(self) -> float:
        """E[P] [tokens]."""
        return float(self.prompt.mean())

    @property
    def mean_steps(self) -> float:
        """Mean decode steps of a request."""
        return float(self.steps.mean())

    @property
    def mean_context(self) -> float:
        """Mean resident context of a *running* sequence [tokens]: E[Σ L over its steps]/E[steps].

        Long outputs run longer and count for more, which is what a batch sees. NaN without steps.
        """
        if not self.steps.any():
            return float("nan")
        total = self.steps * self.first_context + self.steps * (self.steps - 1) // 2
        return float(total.sum() / self.steps.sum())

    @property
    def steps_cv(self) -> float:
        """Standard deviation of a request's decode steps over their mean."""
        return float(self.steps.std() / self.steps.mean())

    @property
    def context_std(self) -> float:
        """Standard deviation of the resident context of a running sequence [tokens]."""
        n = self.steps.astype(np.float64)
        middle = self.first_context + 0.5 * (n - 1.0)
        square = float(np.sum(n * (middle**2 + (n**2 - 1.0) / 12.0)) / np.sum(n))
        return math.sqrt(max(square - self.mean_context**2, 0.0))

    def mean_reads(self, groups: Plans) -> tuple[float, ...]:
        """Mean tokens a running sequence reads in each attention group, as ``mean_context``."""
        if not self.steps.any():
            return tuple(float("nan") for _ in groups)
        before = self.first_context - 1
        read = (
            cumulative_reads(g, before + self.steps) - cumulative_reads(g, before) for g in groups
        )
        return tuple(float(total.sum() / self.steps.sum()) for total in read)

    def reads_each(self, groups: Plans) -> tuple[FloatArray, ...]:
        """Mean tokens each request reads in a decode step, by attention group; its first if none."""
        steps = np.maximum(self.steps, 1)
        before = self.first_context - 1
        return tuple(
            (cumulative_reads(g, before + steps) - cumulative_reads(g, before)) / steps
            for g in groups
        )

    def mean_prompt_pairs(self, groups: Plans) -> tuple[float, ...]:
        """Mean query-key pairs of a prompt in each attention group [pairs]."""
        return tuple(float(prompt_pairs(g, self.prompt).mean()) for g in groups)

    def mean_running_blocks(self, block: int, groups: Plans | None = None) -> float:
        """Mean KV blocks of a running sequence, weighted by steps like ``mean_context``.

        Args:
            block: tokens of a block.
            groups: attention groups, for their units; None: one that keeps everything.
        """
        if not self.steps.any():
            return float("nan")
        before = self.first_context - 1
        held = 0
        for units, span in _kept(groups):
            some = cumulative_blocks(before + self.steps, block, span)
            held += units * int((some - cumulative_blocks(before, block, span)).sum())
        return held / float(self.steps.sum())

    def mean_prompt_blocks(self, block: int, groups: Plans | None = None) -> float:
        """E[ceil(P / block)], or the KV units of a prompt [blocks]."""
        return float(_blocks(self.prompt, block, groups).mean())

    def mean_promised_blocks(self, block: int, groups: Plans | None = None) -> float:
        """Mean KV blocks promised on a decode instance for a transfer [blocks]."""
        return float(np.mean(self.sent * _blocks(self.first_context, block, groups)))

    def reserved_blocks(self, block: int, groups: Plans | None = None) -> IntArray:
        """KV blocks of each request's prompt and whole output [blocks]."""
        return _blocks(self.first_context + self.steps, block, groups)

    def mean_reserved_blocks(self, block: int, groups: Plans | None = None) -> float:
        """Mean KV blocks of a running sequence that holds those of its end, weighted by steps."""
        if not self.steps.any():
            return float("nan")
        held = self.steps * self.reserved_blocks(block, groups)
        return float(held.sum() / self.steps.sum())

    def mean_sent_tokens(self) -> float:
        """Mean tokens whose KV a request puts on the wire [tokens]."""
        return float(np.mean(self.sent * self.prompt))

    def mean_sent_blocks(self, block: int) -> float:
        """Mean KV blocks a request puts on the wire [blocks]."""
        return float(np.mean(self.sent * -(-self.prompt // block)))

    def scv(self) -> float:
        """Largest squared coefficient of variation of prompts and of decode steps."""
        found = [0.0]
        for values in (self.prompt, self.steps):
            mean = float(values.mean())
            if mean > 0.0:
                found.append(float(values.var()) / mean**2)
        return max(found)


def _kept(groups: Plans | None) -> list[tuple[int, int | None]]:
    """Units and span of each group."""
    return [(1, None)] if groups is None else [(g.units, g.span) for g in groups]


def _blocks(tokens: IntArray, block: int, groups: Plans | None) -> IntArray:
    if groups is None:
        return np.asarray(-(-tokens // block), dtype=np.int64)
    return units_for(groups, tokens, block)

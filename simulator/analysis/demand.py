"""What requests ask of a deployment: tokens, decode steps, resident context, blocks, messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simulator.scenario.deployment import Deployment
from simulator.workload import Requests

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def cumulative_blocks(tokens: IntArray, block: int) -> IntArray:
    """``Σ_{L=1..tokens} ceil(L / block)``, elementwise [blocks]."""
    whole, rest = np.divmod(tokens, block)
    return np.asarray(block * whole * (whole + 1) // 2 + rest * (whole + 1), dtype=np.int64)


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
    def mean_pairs(self) -> float:
        """E[P²/2]: causal query-key pairs of a prompt, however it is cut into chunks [pairs]."""
        return float(np.mean(self.prompt.astype(np.float64) ** 2)) / 2.0

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

    def mean_running_blocks(self, block: int) -> float:
        """Mean KV blocks of a running sequence, weighted by steps like ``mean_context``."""
        if not self.steps.any():
            return float("nan")
        before = self.first_context - 1
        held = cumulative_blocks(before + self.steps, block) - cumulative_blocks(before, block)
        return float(held.sum() / self.steps.sum())

    def mean_prompt_blocks(self, block: int) -> float:
        """E[ceil(P / block)] [blocks]."""
        return float((-(-self.prompt // block)).mean())

    def mean_promised_blocks(self, block: int) -> float:
        """Mean KV blocks promised on a decode instance for a transfer [blocks]."""
        return float(np.mean(self.sent * -(-self.first_context // block)))

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

"""How one instance spreads a model over its GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import ModelError


@dataclass(frozen=True, slots=True)
class Parallel:
    """Degrees of parallelism of one instance, which has ``tp · pp · attention_dp`` GPUs.

    Attributes:
        tp: tensor parallelism of attention, dense FFN and shared experts, inside one attention
            rank.
        pp: pipeline stages of whole layers.
        ep: groups the routed experts of a layer are spread over; inside a group each expert is
            cut in ``tp · attention_dp / ep``.
        attention_dp: attention ranks of a stage, each with its own sequences and KV cache.

    Raises:
        ModelError: a degree below 1, or ``ep`` does not divide ``tp · attention_dp``.
    """

    tp: int = 1
    pp: int = 1
    ep: int = 1
    attention_dp: int = 1

    def __post_init__(self) -> None:
        for field in ("pp", "ep", "attention_dp"):
            if getattr(self, field) < 1:
                raise ModelError(
                    f"{field}: found {getattr(self, field)}; allowed: a whole number from 1."
                )
        if self.tp > 0 and self.stage_gpus % self.ep:
            allowed = ", ".join(str(n) for n in divisors(self.stage_gpus))
            raise ModelError(
                f"ep: {self.ep} does not divide the {self.stage_gpus} GPUs of a stage "
                f"(tp {self.tp} times attention_dp {self.attention_dp}); allowed: {allowed}."
            )

    @property
    def stage_gpus(self) -> int:
        """GPUs that hold one layer."""
        return self.tp * self.attention_dp

    @property
    def gpus(self) -> int:
        """GPUs of the instance."""
        return self.stage_gpus * self.pp

    @property
    def label(self) -> str:
        """``TP8``, ``TP8 EP8``, ``TP8 PP2``, ``DP8 EP8``: the degrees that are not 1."""
        degrees = {"TP": self.tp, "DP": self.attention_dp, "EP": self.ep, "PP": self.pp}
        named = [f"{name}{n}" for name, n in degrees.items() if n > 1]
        return " ".join(named) or "TP1"

    @property
    def moe_tp(self) -> int:
        """GPUs one routed expert is cut over."""
        return self.stage_gpus // self.ep


def divisors(number: int) -> list[int]:
    """Divisors of a positive whole number, ascending."""
    return [n for n in range(1, number + 1) if number % n == 0]

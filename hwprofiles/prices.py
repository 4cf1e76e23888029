"""What a GPU costs an hour. The bundled file is an example; bring your own contract's prices."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.errors import ProfileError, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBook:
    """Prices of GPU hours.

    Attributes:
        where: the file they were read from.
        date: the day they stand for, ISO 8601.
        note: what they are and are not.
        usd: (GPU name, USD per GPU hour) pairs.
        aliases: (alias, GPU name) pairs of the bundled profiles.
    """

    where: str
    date: str
    note: str
    usd: tuple[tuple[str, float], ...]
    aliases: tuple[tuple[str, str], ...] = ()

    def usd_per_gpu_hour(self, gpu: str) -> float:
        """Price of one hour of one GPU [USD/h].

        Args:
            gpu: a GPU's name or alias, in any case.

        Raises:
            ProfileError: the file has no price for it.
        """
        prices = dict(self.usd)
        name = gpu.lower()
        for key in (name, dict(self.aliases).get(name, name)):
            if key in prices:
                return prices[key]
        raise ProfileError(f"{self.where}: no price for GPU '{gpu}'; {suggest(name, prices)}")

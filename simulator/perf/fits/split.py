"""Rows to fit to and rows never fitted, told apart by what they have in common.

Neighbouring rows of a table (one weight shape at many batch sizes) share their error, so a random
half of the rows predicts the other half too well. Rows are held out by *group*: a weight shape, a
head configuration, a number of GPUs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.errors import InputError

FEWEST = 5
"""Of so many groups and more one at least is held out [1]."""

Mask = npt.NDArray[np.bool_]


class LeakError(InputError):
    """Rows of one group are in the fitted part and in the held-out part."""


def group_keys(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Name of each row's group, e.g. ``"n=4096 k=14336"``.

    Args:
        rows: measured rows.
        keys: columns that make a group.

    Raises:
        InputError: a column is missing.
    """
    for key in keys:
        if key not in rows.columns:
            raise InputError(f"rows: column '{key}' is missing; groups are made of {list(keys)}.")
    texts = [key + "=" + rows[key].astype(str) for key in keys]
    return [" ".join(parts) for parts in zip(*texts, strict=True)]


def in_share(names: Sequence[str], share: float, salt: str = "") -> Mask:
    """Which groups fall into a share of all, by a hash of their names: for ever the same ones."""
    found = {name: _hash(salt + name) < share * 2**32 for name in set(names)}
    return np.array([found[name] for name in names], dtype=np.bool_)


def _hash(text: str) -> int:
    """A number below 2**32, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@dataclass(frozen=True)
class Split:
    """Fitted and held-out rows; no group is in both.

    Attributes:
        train: rows to fit to.
        held_out: rows to score on, never fitted.
        keys: columns that make a group.

    Raises:
        LeakError: a group of ``train`` is in ``held_out``.
    """

    train: pd.DataFrame
    held_out: pd.DataFrame
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        known = set(group_keys(self.held_out, self.keys))
        leaked = sorted(known.intersection(group_keys(self.train, self.keys)))
        if leaked:
            more = "" if len(leaked) == 1 else f" and {len(leaked) - 1} more"
            raise LeakError(
                f"held-out rows leak into the fit: group {leaked[0]}{more} is in both parts; "
                "allowed: groups apart."
            )

    @classmethod
    def by_hash(
        cls, rows: pd.DataFrame, keys: Sequence[str], share: float = 0.2, salt: str = ""
    ) -> Split:
        """Hold out about a share of the groups, the same ones whatever else is in the table.

        Args:
            rows: measured rows.
            keys: columns that make a group.
            share: of the groups, held out.
            salt: another salt holds out other groups.
        """
        names = group_keys(rows, keys)
        held = in_share(names, share, salt)
        if not held.any() and len(set(names)) >= FEWEST:
            first = min(set(names), key=lambda name: _hash(salt + name))
            held = np.array([name == first for name in names], dtype=np.bool_)
        return cls(rows[~held], rows[held], tuple(keys))

"""Typed reads of a parsed ``config.json``; every failure is one sentence with file and key."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.errors import ModelError

MOST = 10_000_000
"""No width, count or vocabulary is larger; a larger number is a mistake."""

MOST_LAYERS = 10_000


class ConfigReader:
    """One JSON object of a config.

    Attributes:
        config: the object.
        where: the file, and the key inside it where the object is not the whole file.
    """

    def __init__(self, config: Mapping[str, object], where: str) -> None:
        self.config = config
        self.where = where

    def error(self, sentence: str) -> ModelError:
        """A refusal that begins with the file."""
        return ModelError(f"{self.where}: {sentence}")

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.config.get(key) is not None

    def integer(self, key: str, *, default: int | None = None, most: int = MOST) -> int:
        """A whole number from 1 to ``most``."""
        value = self.config.get(key)
        if value is None:
            if default is None:
                raise self.error(f"key '{key}' is missing.")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.error(f"{key} is {value!r}; allowed: a whole number from 1 to {most:,}.")
        return value

    def layers(self) -> int:
        """Number of decoder layers."""
        return self.integer("num_hidden_layers", most=MOST_LAYERS)

    def count(self, key: str, *, default: int | None = None) -> int:
        """A whole number from 0, for what may be absent."""
        return 0 if self.config.get(key) == 0 else self.integer(key, default=default)

    def optional(self, key: str) -> int | None:
        """A whole number from 1, or null; the key itself must be there."""
        if key not in self.config:
            raise self.error(f"key '{key}' is missing.")
        return self.integer(key) if self.has(key) else None

    def boolean(self, key: str, *, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(f"{key} is {value!r}; allowed: true, false.")
        return value

    def integers(self, key: str, length: int | None = None) -> list[int] | None:
        """A list of whole numbers from 0, of that length; None where it is null or empty."""
        value = self.config.get(key)
        if value is None or value == []:
            return None
        if not isinstance(value, list) or not all(
            isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value
        ):
            raise self.error(f"{key} is {value!r}; allowed: a list of whole numbers.")
        self._check_length(key, value, length)
        return value

    def words(self, key: str, allowed: tuple[str, ...], length: int) -> list[str] | None:
        """A list of words, one a layer; None where it is null."""
        value = self.config.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(f"{key} is {value!r}; allowed: a list of {', '.join(allowed)}.")
        for word in value:
            if word not in allowed:
                raise self.error(f"{key} has {word!r}; allowed: {', '.join(allowed)}.")
        self._check_length(key, value, length)
        return value

    def inner(self, key: str) -> ConfigReader | None:
        """A JSON object inside; None where it is null."""
        value = self.config.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(f"{key} is {value!r}; allowed: null or a JSON object.")
        return ConfigReader(value, f"{self.where}: {key}")

    def _check_length(self, key: str, value: list[object], length: int | None) -> None:
        if length is not None and len(value) != length:
            raise self.error(f"{key} has {len(value)} entries for {length} layers.")

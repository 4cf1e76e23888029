"""Checked access to the JSON of a benchmark result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulator.errors import InputError


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON object of a file.

    Keys are dotted paths: ``input_config.loadgen.concurrency``.

    Attributes:
        file: where it was read.
        line: 1-based line it begins at; 0 where the file is one object.
        value: its content.
    """

    file: Path
    line: int
    value: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The file, and the line where it has several results."""
        return f"{self.file.name}:{self.line}" if self.line else self.file.name

    def bad(self, key: str, found: object, allowed: str) -> InputError:
        """The error of one value that cannot be used."""
        line = f" line {self.line}," if self.line else ""
        return InputError(
            f"{self.file}:{line} {key}: found {_shown(found)}; allowed: {allowed.removesuffix('.')}."
        )

    def get(self, key: str) -> Any:
        """The value under a dotted key; None where it is absent or null."""
        found: Any = self.value
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def first(self, keys: Sequence[str]) -> tuple[str, Any]:
        """The first of several keys that has a value, and that; the first key and None without."""
        for key in keys:
            found = self.get(key)
            if found is not None:
                return key, found
        return keys[0], None

    def text(self, *keys: str) -> str:
        """A text or a number as text, the first that is there; a list of one counts as its item."""
        _, found = self.first(keys)
        if isinstance(found, list) and found:
            found = found[0]
        return "" if found is None or isinstance(found, list | dict | bool) else str(found).strip()

    def number(self, *keys: str) -> float | None:
        """A finite number of at least 0, the first that is there; None without.

        Raises:
            InputError: something else.
        """
        key, found = self.first(keys)
        if found is None:
            return None
        value = _float(found)
        if not math.isfinite(value) or value < 0.0:
            raise self.bad(key, found, "a number of at least 0")
        return value

    def count(self, *keys: str) -> int | None:
        """A whole number of at least 1; None where there is none.

        Raises:
            InputError: something else.
        """
        key, found = self.first(keys)
        if found is None:
            return None
        value = _float(found)
        if not (1 <= value < 1e9 and value == int(value)):
            raise self.bad(key, found, "a whole number of at least 1")
        return int(value)

    def rate(self, *keys: str) -> float | None:
        """A request rate [1/s], ``inf`` where the file says so; None without.

        Raises:
            InputError: something else.
        """
        key, found = self.first(keys)
        if found is None:
            return None
        value = _float(found)
        if not value > 0.0:
            raise self.bad(key, found, "a rate above 0, or inf")
        return value

    def listed(self, key: str, n: int | None = None) -> list[Any] | None:
        """A list, of ``n`` items where given; None where it is absent or empty.

        Raises:
            InputError: something else.
        """
        found = self.get(key)
        if found is None or found == []:
            return None
        if not isinstance(found, list) or (n is not None and len(found) != n):
            size = "" if n is None else f" of {n} entries"
            raise self.bad(key, found, f"a list{size}")
        return found

    def numbers(self, key: str, n: int | None = None) -> list[float] | None:
        """A list of finite numbers; None where it is absent or empty.

        Raises:
            InputError: something else.
        """
        found = self.listed(key, n)
        if found is None:
            return None
        values = [_float(item) for item in found]
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise self.bad(f"{key}[{i}]", found[i], "a number")
        return values


def read_entries(file: Path) -> list[Entry]:
    """The objects of a JSON file, or of one with an object a line.

    Raises:
        InputError: no such file, not text, not JSON, or not objects.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{file}: no such file of results.") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not text; allowed: JSON in UTF-8.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({(error.strerror or '').lower()}).") from None
    if not text.strip():
        raise InputError(f"{file}: is empty; allowed: the result of a benchmark client.")
    try:
        return [_entry(file, 0, json.loads(text))]
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise InputError(
                f"{file}: line {error.lineno}: is not JSON ({error.msg.lower()})."
            ) from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                found.append(_entry(file, number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{file}: line {number}: is not JSON ({error.msg.lower()})."
                ) from None
    return found


def _entry(file: Path, line: int, value: object) -> Entry:
    if not isinstance(value, dict):
        at = f" line {line}:" if line else ""
        raise InputError(f"{file}:{at} found {_shown(value)}; allowed: an object.")
    return Entry(file, line, value)


def _float(value: object) -> float:
    """A JSON number, or a text that is one, as a float; NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""Fitted constants into the bundled engine profiles, line by line: nothing else in them changes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from calibration.engines.fit import Constant


def rounded(value: float, stderr: float) -> float:
    """A value to the second digit of its standard error."""
    if not stderr > 0.0:
        return value
    digits = 1 - math.floor(math.log10(stderr))
    return round(value, digits)


def line_of(constant: Constant, source: str) -> str:
    """A constant as a profile writes it."""
    unit = "1" if constant.name.startswith("sustained") else "s"
    value, stderr = (
        rounded(constant.value, constant.stderr),
        rounded(constant.stderr, constant.stderr),
    )
    return (
        f"{constant.name}: {{value: {_number(value)}, stderr: {_number(stderr)}, "
        f'unit: "{unit}", source: {source}}}'
    )


def written(text: str, constants: Sequence[Constant], version: str, source: str) -> str:
    """A profile's text with other values.

    Args:
        text: the YAML file.
        constants: what to change in it.
        version: beginning of the versions they hold for, whose block gains lines it lacks; empty: the
            numbers of the profile.
        source: key of their source in the file.

    Raises:
        ValueError: a constant or version has no line in the file.
    """
    start = text.index("\nnumbers:")
    stop = text.find("\nversions:", start)
    if version:
        start = text.index(f'\n  "{version}":', stop)
        stop = len(text)
        after = re.search(r'\n  "', text[start + 1 :])
        if after:
            stop = start + 1 + after.start()
    elif stop < 0:
        stop = len(text)
    block = text[start:stop]
    for constant in constants:
        new = line_of(constant, source)
        line = re.compile(rf"^( +){constant.name}: .*$", re.MULTILINE)
        block, count = line.subn(rf"\g<1>{new}", block)
        if count == 0 and version:
            block = block.rstrip("\n") + f"\n    {new}\n"
        elif count != 1:
            raise ValueError(f"{constant.name} has {count} lines in the profile")
    return text[:start] + block + text[stop:]


def write(file: Path, constants: Sequence[Constant], version: str, source: str) -> None:
    """Rewrite a profile in place."""
    text = file.read_text(encoding="utf-8")
    file.write_text(written(text, constants, version, source), encoding="utf-8")


def _number(value: float) -> str:
    """As YAML reads it back: an exponent needs a point."""
    text = f"{value:.6g}"
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text

"""A mistake with the place it is at, before the name of the file is put in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from simulator.errors import InputError


class Problem(Exception):  # noqa: N818 - never leaves this package; it becomes a ScenarioError
    """Something wrong with a scenario.

    Attributes:
        path: keys from the top of the scenario down.
        text: the sentence, without file and path.
    """

    def __init__(self, path: tuple[str, ...], text: str) -> None:
        super().__init__(text)
        self.path = path
        self.text = text


@contextmanager
def at(*path: str) -> Iterator[None]:
    """Give an ``InputError`` raised inside (by a loader, a trace, a model) its place."""
    try:
        yield
    except InputError as error:
        # some sentences begin with the name of the field; the path says it already
        raise Problem(path, str(error).removeprefix(f"{path[-1]}: ")) from error

"""The exception tree. Every error a user can cause is an ``XpydError`` and reads as one sentence.

    XpydError
    ├── InputError            a file, key, name or value the user gave is wrong
    │   ├── ScenarioError     in a scenario or inventory file, or a --set override
    │   ├── ModelError        in a model's config.json, or a parallelism it does not allow
    │   ├── ProfileError      in a hardware, link or price file
    │   └── TraceError        in a request trace
    └── LifecycleError        a request was moved along an edge its lifecycle does not have (a bug)

The command line prints ``str(error)`` for an ``InputError`` and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XpydError(Exception):
    """Root of all errors raised on purpose by this project."""


class InputError(XpydError):
    """Something the user supplied cannot be used; the message is one clear sentence."""


class ScenarioError(InputError):
    """A scenario, an inventory or an override is wrong."""


class ModelError(InputError):
    """A model description is wrong, or does not allow the requested parallelism."""


class ProfileError(InputError):
    """A hardware, link or price file is wrong, or a name in it is unknown."""


class TraceError(InputError):
    """A request trace cannot be read."""


class LifecycleError(XpydError):
    """A request was asked to make a transition that its lifecycle does not contain."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """End of an error sentence: the nearest allowed name, and the allowed names.

    Args:
        name: the unknown name found.
        allowed: the names that would have been accepted.

    Returns:
        ``"did you mean 'x'? Allowed: a, b, x."`` or, with no near name, ``"allowed: a, b, x."``.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listed = ", ".join(names)
    return f"did you mean '{near[0]}'? Allowed: {listed}." if near else f"allowed: {listed}."

"""Lists of modules in a ``quantization_config``: exclusions and targets, as patterns of names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache


class Patterns:
    """Patterns of module names, compiled.

    ``re:`` begins a regular expression, which matches from the start of a name; ``*`` is a wildcard
    over a name or any module that holds it; anything else is a run of whole words between dots, such
    as ``lm_head``, ``mlp.gate`` or ``model.layers.0.self_attn``. ``Linear`` is every matrix.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Compile them.

        Raises:
            re.error: what follows ``re:`` is no regular expression.
        """
        plain, compiled = set(), []
        for pattern in patterns:
            if pattern.startswith("re:"):
                compiled.append(re.compile(pattern.removeprefix("re:")))
            elif "*" in pattern:
                compiled += [re.compile(translate(p)) for p in (pattern, f"{pattern}.*")]
            else:
                plain.add(pattern.strip("."))
        self._plain, self._compiled = frozenset(plain), tuple(compiled)
        self.every = "Linear" in plain

    def names(self, module: str) -> bool:
        """Whether any of them names this module."""
        return (
            self.every
            or not self._plain.isdisjoint(_runs(module))
            or any(pattern.match(module) for pattern in self._compiled)
        )

    def names_any(self, modules: Iterable[str]) -> bool:
        """Whether any of them names any of these modules."""
        return any(map(self.names, modules))


@lru_cache(maxsize=4096)
def _runs(module: str) -> frozenset[str]:
    """Every run of whole words of a dotted name."""
    words = module.split(".")
    ends = range(1, len(words) + 1)
    return frozenset(".".join(words[a:b]) for b in ends for a in range(b))

"""How the fitted parameters of an operator may be off together.

Rows that say little about one parameter often say much about a combination of two: a larger fixed cost
with a higher bandwidth fits them as well. A profile keeps the correlations of such errors beside the
standard errors; drawn together, parameters move along what the rows cannot tell apart and not across
what they can.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from hwprofiles.node import Node
from hwprofiles.param import Field, Param

Array = npt.NDArray[np.float64]
Correlations = tuple[tuple[str, str, float], ...]
"""(parameter, parameter, correlation of their errors), each pair once; pairs left out are independent."""

DIGITS = 3
"""Decimals that profiles keep of a correlation."""

ROUNDING = 0.02
"""How far below zero rounding may bring the smallest eigenvalue of a correlation matrix [1]."""

MOST_STDERR = 0.5
"""Standard deviation of the logarithm of a parameter before it is fitted [1]: data that say little of it
leave it so, and its draws do not leave what is physical."""

_CORRELATION = Field("correlation", "1", -1.0, 1.0, "correlation of two errors")


def read_correlations(node: Node | None, params: dict[str, Param]) -> Correlations:
    """The ``correlations`` of an operator: ``{compute_eff: {memory_eff: -0.3}}``.

    Args:
        node: the mapping; None where the profile has none.
        params: the operator's parameters.

    Raises:
        ProfileError: a parameter without a standard error, a pair given twice, a number beyond -1 to
            1, or correlations no set of errors can have.
    """
    if node is None:
        return ()
    known = [name for name, param in params.items() if param.stderr and name != "error"]
    found: dict[frozenset[str], tuple[str, str, float]] = {}
    for one in node.keys(known):
        inner = node.child(one)
        for two in inner.keys(known):
            child = inner.child(two)
            if one == two or frozenset((one, two)) in found:
                child.fail("found the same pair again", "allowed: each pair of parameters once")
            found[frozenset((one, two))] = (one, two, child.number(_CORRELATION))
    pairs = tuple(found.values())
    least = float(np.linalg.eigvalsh(matrix_of(known, pairs)).min()) if known else 0.0
    if least < -ROUNDING:
        node.fail(
            f"found correlations with the eigenvalue {least:.2g}",
            "allowed: a positive semi-definite matrix, as errors of parameters have",
        )
    return pairs


def matrix_of(names: list[str], pairs: Correlations) -> Array:
    """The correlation matrix of some parameters; pairs of others are left out."""
    at = {name: i for i, name in enumerate(names)}
    found = np.eye(len(names))
    for one, two, value in pairs:
        if one in at and two in at:
            found[at[one], at[two]] = found[at[two], at[one]] = value
    return found


def correlations_of(names: list[str], covariance: Array) -> Correlations:
    """Correlations as a profile keeps them; of parameters without a variance there are none.

    Args:
        names: parameters in the order of ``covariance``.
        covariance: of their errors.
    """
    spread = np.sqrt(np.diag(covariance))
    known = [i for i, s in enumerate(spread) if np.isfinite(s) and s > 0.0]
    pairs = []
    for at, i in enumerate(known):
        for j in known[at + 1 :]:
            value = round(float(covariance[i, j] / (spread[i] * spread[j])), DIGITS)
            if value != 0.0:  # NaN has no place in a profile either
                pairs.append((names[i], names[j], min(1.0, max(-1.0, value))))
    return tuple(pair for pair in pairs if pair[2] == pair[2])


def log_covariance(params: Any) -> tuple[list[str], Array]:
    """Parameters of an operator that have a standard error, and the covariance of their logarithms.

    What the fit says (relative standard errors and correlations) with a prior of ``MOST_STDERR`` on
    each: ``(Σ⁻¹ + 1/s²)⁻¹``, which is ``Σ`` where the fit knows better.

    Args:
        params: an operator of a profile.
    """
    found = {f.name: getattr(params, f.name) for f in fields(params)}
    spread = {
        name: param.stderr / param.value
        for name, param in found.items()
        if isinstance(param, Param) and param.stderr and param.value > 0.0 and name != "error"
    }
    names = list(spread)
    scale = np.array(list(spread.values()))
    sigma = matrix_of(names, found.get("correlations", ())) * np.outer(scale, scale)
    values, vectors = np.linalg.eigh(sigma)
    values = np.maximum(values, 0.0)  # rounding of the profile
    prior = MOST_STDERR**2
    return names, (vectors * (values * prior / (values + prior))) @ vectors.T

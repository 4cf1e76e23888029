"""Little's law as an identity of one sample path that starts and ends empty.

References:
    [1] J. D. C. Little, A proof for the queuing formula L = λW, Operations Research 9(3), 1961.
    [2] S. Stidham, A last word on L = λW, Operations Research 22(2), 1974 (the sample-path form).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class LittleSides(NamedTuple):
    """The two sides of the identity.

    Attributes:
        area: ∫ N(t) dt over the path [customer·s].
        sojourns: Σ (departure − arrival) over the customers [customer·s].
    """

    area: float
    sojourns: float


def number_in_system(
    arrival_s: npt.ArrayLike, departure_s: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """The path N(t): instants at which it changes [s], and its value from each one on.

    >>> t, n = number_in_system([0.0, 1.0], [3.0, 2.0])
    >>> t.tolist(), n.tolist()
    ([0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 1.0, 0.0])
    """
    arrivals = np.asarray(arrival_s, dtype=np.float64)
    departures = np.asarray(departure_s, dtype=np.float64)
    t = np.concatenate([arrivals, departures])
    change = np.concatenate([np.ones(arrivals.size), -np.ones(departures.size)])
    order = np.argsort(t, kind="stable")  # at one instant arrivals come before departures
    return t[order], np.cumsum(change[order])


def little(arrival_s: npt.ArrayLike, departure_s: npt.ArrayLike) -> LittleSides:
    """Both sides of ∫ N dt = Σ sojourn, computed by different routes [1, 2].

    The first is integrated over the merged events and never pairs an arrival with its departure;
    the second is summed customer by customer. Equal (to rounding) whatever the order of service,
    provided that everyone who came has left.

    >>> little([0.0, 1.0], [3.0, 2.0])
    LittleSides(area=4.0, sojourns=4.0)
    """
    arrivals = np.asarray(arrival_s, dtype=np.float64)
    departures = np.asarray(departure_s, dtype=np.float64)
    if arrivals.shape != departures.shape:
        raise ValueError(
            f"{arrivals.size} arrivals and {departures.size} departures: the path must end empty"
        )
    t, n = number_in_system(arrivals, departures)
    area = float(np.dot(n[:-1], np.diff(t))) if t.size else 0.0
    return LittleSides(area, float(np.sum(departures - arrivals)))

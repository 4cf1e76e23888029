"""What the clients send: arrival instants and token counts, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simulator.errors import InputError
from simulator.workload.blocks import Blocks

LATEST_ARRIVAL_S = 1e8
"""Later arrivals [s] (three years) are refused: a tie window is relative to the instant."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """A client that keeps a fixed number of requests in flight.

    It opens with a burst of ``concurrency`` requests at time 0 and sends the next one in the
    instant one finishes (zero think time), so the engine decides the arrivals.

    Attributes:
        concurrency: requests in flight, at least 1.
    """

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InputError(
                f"a closed loop needs a concurrency of at least 1, found {self.concurrency}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """A workload of ``n`` requests. The arrays are copied in and read-only.

    Attributes:
        arrival_s: shape (n,), float64, non-decreasing, from 0 [s]; zeros in a closed loop.
        prompt_tokens: shape (n,), int64, at least 1 [tokens].
        output_tokens: shape (n,), int64, at least 1 [tokens].
        source: where they come from, for reports.
        stationary: whether rate and lengths have one distribution over the whole run (a replayed
            trace has not).
        closed_loop: the client's concurrency, or None when arrivals do not wait for anything.
        notes: what was changed or ignored while reading, one sentence each.
        classes: names of the request classes; empty where requests are of one kind.
        class_index: shape (n,), int64, the class of each request as a position in ``classes``; empty
            without classes.
        blocks: ids of the prompts' blocks, where a trace tells which prompts share them.

    Raises:
        InputError: if the arrays differ in length, are empty, or break a bound above.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    source: str
    stationary: bool = True
    closed_loop: ClosedLoop | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    class_index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        arrival = np.array(self.arrival_s, dtype=np.float64)
        prompt = _tokens("prompt_tokens", self.prompt_tokens)
        output = _tokens("output_tokens", self.output_tokens)
        _check_arrivals(arrival, self.closed_loop)
        if not arrival.shape == prompt.shape == output.shape:
            raise InputError(
                "arrival_s, prompt_tokens and output_tokens must have one length, found "
                f"{arrival.shape}, {prompt.shape} and {output.shape}."
            )
        index = _class_index(self.class_index, len(self.classes), prompt.size)
        if self.blocks is not None and len(self.blocks) != prompt.size:
            raise InputError(
                f"blocks hold {len(self.blocks)} rows for {prompt.size} requests; allowed: one each."
            )
        for name, array in (
            ("arrival_s", arrival),
            ("prompt_tokens", prompt),
            ("output_tokens", output),
            ("class_index", index),
        ):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return int(self.arrival_s.size)

    @property
    def rate_rps(self) -> float:
        """Mean arrival rate [1/s], ``(n - 1) / (last - first arrival)``.

        ``nan`` where it means nothing: a closed loop, a single request, one burst.
        """
        span_s = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span_s if span_s > 0 else float("nan")

    def head(self, count: int) -> Requests:
        """The first ``count`` requests (all, if there are fewer).

        Raises:
            InputError: if ``count`` is less than 1.
        """
        return self._rows(slice(0, max(count, 0)), shift_s=0.0)

    def between(self, start_s: float, end_s: float) -> Requests:
        """Requests that arrive in ``[start_s, end_s)``, with ``start_s`` as the new time 0.

        Raises:
            InputError: if none arrives there, or in a closed loop, which has no clock of its own.
        """
        if self.closed_loop is not None:
            raise InputError("a closed loop cannot be cut by time; its arrivals are not known.")
        first, last = np.searchsorted(self.arrival_s, [start_s, end_s], side="left")
        if first >= last:
            until = "on" if end_s == float("inf") else f"to {end_s:g} s"
            raise InputError(
                f"no request arrives from {start_s:g} s {until}; arrivals span "
                f"{self.arrival_s[0]:g} s to {self.arrival_s[-1]:g} s."
            )
        return self._rows(slice(int(first), int(last)), shift_s=start_s)

    def faster(self, rate_scale: float) -> Requests:
        """The same requests ``rate_scale`` times as fast: arrival times divided by it.

        Raises:
            InputError: unless ``rate_scale`` is positive and finite.
        """
        if not 0 < rate_scale < float("inf"):
            raise InputError(f"rate_scale must be positive and finite, found {rate_scale:g}.")
        return replace(self, arrival_s=self.arrival_s / rate_scale)

    def class_shares(self) -> dict[str, float]:
        """Share of the requests each class has; empty without classes."""
        counts = np.bincount(self.class_index, minlength=len(self.classes))
        return dict(zip(self.classes, (counts / len(self)).tolist(), strict=True))

    def _rows(self, rows: slice, shift_s: float) -> Requests:
        blocks = self.blocks
        return replace(
            self,
            arrival_s=self.arrival_s[rows] - shift_s,
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            class_index=self.class_index[rows],
            blocks=None if blocks is None else blocks.between(*rows.indices(len(self))[:2]),
        )


def _class_index(values: ArrayLike, classes: int, n: int) -> NDArray[np.int64]:
    """A copy of the class of each request, refused unless each is one of the classes."""
    index = np.array(values, dtype=np.int64)
    if index.shape != ((n,) if classes else (0,)):
        raise InputError(
            f"class_index must hold one class a request where there are classes, and nothing where "
            f"there are none, found {index.size} for {n} requests and {classes} classes."
        )
    if classes and (index.min() < 0 or index.max() >= classes):
        raise InputError(f"class_index must lie between 0 and {classes - 1}.")
    return index


def _tokens(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """A copy of token counts as int64, refused unless whole, at least 1 and one-dimensional."""
    given = np.asarray(values)
    if given.ndim != 1 or given.size == 0:
        raise InputError(f"{name} must hold at least one request in one dimension.")
    if given.dtype.kind not in "iu":
        raise InputError(f"{name} must be an array of integers, found {given.dtype}.")
    tokens = np.array(given, dtype=np.int64)
    if tokens.min() < 1:
        row = int(tokens.argmin())
        raise InputError(f"{name} of request {row} is {tokens[row]}; at least 1 is allowed.")
    return tokens


def _check_arrivals(arrival_s: NDArray[np.float64], closed_loop: ClosedLoop | None) -> None:
    """Raise ``InputError`` unless arrivals are finite, sorted, from 0 (and 0 in a closed loop)."""
    if not np.isfinite(arrival_s).all():
        raise InputError("arrival_s holds a value that is not finite.")
    if closed_loop is not None and arrival_s.any():
        raise InputError("arrival_s of a closed loop must be all zeros; the engine decides it.")
    if arrival_s.size and (arrival_s.min() < 0 or arrival_s.max() > LATEST_ARRIVAL_S):
        raise InputError(
            f"arrival_s must lie between 0 and {LATEST_ARRIVAL_S:g} s, found "
            f"{arrival_s.min():g} to {arrival_s.max():g} s."
        )
    if (np.diff(arrival_s) < 0).any():
        row = int((np.diff(arrival_s) < 0).argmax()) + 1
        raise InputError(f"arrival_s must not decrease, but does at request {row}.")

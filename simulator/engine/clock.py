"""The simulated clock: SimPy's environment with versioned timers at absolute instants.

SimPy schedules by delay, and ``now + (t - now)`` is not ``t`` in floating point. Instances compute
their boundaries in closed form and must meet them exactly, so the clock puts absolute instants into
SimPy's own queue. Timers carry a version: an owner that changes its mind raises its version and the
superseded timer fires and is ignored, which costs less than an interrupt or a cancelled event.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import EventPriority

NORMAL = EventPriority(1)
"""Priority of arrivals, landings and everything else that may join a batch."""

BOUNDARY = 2
"""Priority of step boundaries, plus the instance's index: at one instant everything that may join
comes first, then the instances' boundaries in the order of their indices."""


class Timer(simpy.Event):
    """An event that is going to happen at a known instant. ``version`` is the owner's to check."""

    __slots__ = ("callbacks", "payload", "version")

    _ok = True
    _value = None

    def __init__(self, callbacks: Any, version: int, payload: Any) -> None:
        # Event.__init__ is not called: it allocates a list of callbacks and keeps the environment,
        # neither of which a timer needs; ``callbacks`` is a tuple shared by all timers of an owner
        self.callbacks = callbacks
        self.version = version
        self.payload = payload


Callbacks = tuple[Callable[[Timer], None], ...]


class Clock(simpy.Environment):
    """SimPy environment that schedules timers at absolute instants."""

    def at(
        self,
        t_s: float,
        callbacks: Callbacks,
        version: int = 0,
        payload: Any = None,
        priority: Any = NORMAL,
    ) -> None:
        """Call ``callbacks`` with a ``Timer`` at the instant ``t_s`` [s].

        An instant that has just passed (by rounding, within a tie) fires now.
        """
        if t_s < self._now:
            t_s = self._now
        heappush(
            self._queue,  # SimPy has no public way to schedule at an absolute instant
            (t_s, priority, next(self._eid), Timer(callbacks, version, payload)),
        )

    def drain(self) -> None:
        """Run until nothing is scheduled: ``run()`` without its cost per event for timers.

        SimPy's ``step`` guards against failed events and callbacks added late; a timer has neither.
        Every other event is left to it.
        """
        queue = self._queue
        while queue:
            if type(queue[0][3]) is Timer:
                self._now, _, _, timer = heappop(queue)
                timer.callbacks[0](timer)
            else:
                self.step()

    @property
    def scheduled(self) -> int:
        """Number of events scheduled so far (reading it uses one number of the sequence)."""
        return next(self._eid)

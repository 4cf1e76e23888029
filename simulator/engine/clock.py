"""The simulated clock: SimPy's environment with versioned timers at absolute instants.

SimPy schedules by delay, and ``now + (t - now)`` is not ``t`` in floating point. Instances compute
their boundaries in closed form and must meet them exactly, so the clock puts absolute instants into
SimPy's own queue. An owner has one ``Timer`` and sets it as often as it likes, with a payload: its
version, which it raises when it changes its mind, so that a superseded setting fires and is ignored.
That costs less than an interrupt, a cancelled event, or an event of its own for each setting.
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


class Timer:
    """Something to call at known instants, with what it was set with."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[Any], None]) -> None:
        self.call = call


class Clock(simpy.Environment):
    """SimPy environment that schedules timers at absolute instants."""

    _queue: list[Any]  # SimPy's events in fours, timers in fives

    def at(self, t_s: float, timer: Timer, payload: Any = None, priority: Any = NORMAL) -> None:
        """Call ``timer`` with ``payload`` at the instant ``t_s`` [s].

        An instant that has just passed (by rounding, within a tie) fires now.
        """
        if t_s < self._now:
            t_s = self._now
        # SimPy has no public way to schedule at an absolute instant
        heappush(self._queue, (t_s, priority, next(self._eid), timer, payload))

    def step(self) -> None:
        """Handle the next event or timer."""
        if self._queue and type(self._queue[0][3]) is Timer:
            self._now, _, _, timer, payload = heappop(self._queue)
            timer.call(payload)
        else:
            super().step()

    def drain(self) -> None:
        """Run until nothing is scheduled: ``run()`` without its cost per event for timers.

        SimPy's ``step`` guards against failed events and callbacks added late; a timer has neither.
        Every other event is left to it.
        """
        queue = self._queue
        while queue:
            if type(queue[0][3]) is Timer:
                self._now, _, _, timer, payload = heappop(queue)
                timer.call(payload)
            else:
                super().step()

    @property
    def scheduled(self) -> int:
        """Number of events scheduled so far (reading it uses one number of the sequence)."""
        return next(self._eid)

"""Strides: several steps at once, known in closed form, and one timer at their end.

Between two changes of its batches an instance runs a *stride*: ``k`` steps, of which step ``j`` takes
``d0 + rise·j`` seconds, so boundary ``j`` lies at ``t0 + j·d0 + rise·j(j-1)/2``. A stride ends at the
first of: a sequence's last token, KV blocks running out, a window's edge, another affine piece of the
step time (or the host bound) giving way, a newcomer (at the first boundary not before it). A step that
prefills chunks is a stride of one. ``docs/ties.md`` says what happens at equal instants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from math import ceil, sqrt

from simulator.engine.admission import take_back
from simulator.engine.clock import BOUNDARY, Clock, Timer
from simulator.engine.core import Batch, Line
from simulator.engine.hooks import Hooks
from simulator.records import StrideLog
from simulator.request import NEVER, Request
from simulator.scenario.deployment import PoolPlan
from simulator.units import TIE_REL, tie_s


def lead(lines: Sequence[Line], k: int) -> tuple[float, float, int]:
    """The line that is highest in the first step, and how many of ``k`` steps it stays so.

    Args:
        lines: (time of the first step, growth per step) [s], at least one.
        k: steps asked for, at least 1.

    Returns:
        Time of the first step, growth per step, and steps: at least 1.
    """
    d0, rise = max(lines)
    for first, growth in lines:
        if growth > rise:  # ahead from the step (d0 - first)/(growth - rise) on
            after = ceil((d0 - first) / (growth - rise))
            if after < k:
                k = after
    return d0, rise, k


class Strider(ABC):
    """An instance's stride under way, and when it ends.

    Args:
        index: position among all instances of the run.
        plan: the pool it belongs to.
        clock: the simulated clock.
        hooks: the cluster.
        log: where strides are written.

    Attributes:
        overlap: a step is scheduled when the one before it begins, so newcomers wait one step longer.
        staged: newcomers whose step is still to be scheduled: instant, batch, queue and request.
        woken: the instance was idle when the step under way began: nothing was scheduled before it.
    """

    __slots__ = (  # noqa: RUF023 -- as grouped in the constructor
        "index", "plan", "clock", "hooks", "log", "table", "timer", "version",
        "k", "t0", "t_end", "d0", "rise", "wake_s", "overlap", "staged", "woken",
    )  # fmt: skip

    def __init__(
        self, index: int, plan: PoolPlan, clock: Clock, hooks: Hooks, log: StrideLog
    ) -> None:
        self.index = index
        self.plan = plan
        self.clock = clock
        self.hooks = hooks
        self.log = log
        self.table = plan.table
        self.timer = Timer(self._on_timer)
        self.version = 0
        self.k = 0  # 0: idle
        self.t0 = 0.0
        self.t_end = 0.0
        self.d0 = 0.0
        self.rise = 0.0
        self.wake_s = NEVER
        self.overlap = plan.overlap
        self.staged: deque[tuple[float, Batch, deque[Request], Request]] = deque()
        self.woken = False

    @abstractmethod
    def begin(self, t: float) -> None:
        """Decide what the step that starts at ``t`` does, and how many like it follow."""

    @abstractmethod
    def _again(self, batch: Batch) -> None:
        """Decide the boundary at ``t0`` again, after ``batch`` took its admissions back."""

    @abstractmethod
    def _end(self) -> None:
        """The boundary at ``t_end``: account for the stride, begin the next."""

    # ------------------------------------------------------------------ time

    def _arrives(self, batch: Batch, queue: deque[Request], request: Request, t: float) -> None:
        """A request is to join a queue of ``batch``."""
        if self.overlap and self.k and not (self.woken and t <= self.t0 + tie_s(t)):
            self._stage(batch, queue, request, t)
        else:
            queue.append(request)
            self._newcomer(batch, t)

    def _stage(self, batch: Batch, queue: deque[Request], request: Request, t: float) -> None:
        """The step after the one under way at ``t`` is scheduled: the newcomer joins the next."""
        self.staged.append((t, batch, queue, request))
        tie = tie_s(t)
        if self.t_end <= t + tie or len(batch.running) >= batch.max_seqs:
            return
        j = self._first_boundary(t - tie) + 1 if t > self.t0 + tie else 1
        if j < self.k:
            self._cut(j)

    def _unstage(self, last_s: float) -> None:
        """A step has ended that began at ``last_s``: who was there by then queues."""
        staged = self.staged
        x = last_s + tie_s(last_s)
        while staged and staged[0][0] <= x:
            _, _, queue, request = staged.popleft()
            queue.append(request)

    def _hold(self) -> None:
        """Some newcomer came too late for the step that begins: the next boundary is for it."""
        if self.k > 1 and any(len(b.running) < b.max_seqs for _, b, _, _ in self.staged):
            self._cut(1)

    def _newcomer(self, batch: Batch, t: float) -> None:
        """Somebody wants to join ``batch``: at this boundary, or the next one not before ``t``."""
        k = self.k
        if not k:
            if self.wake_s < 0.0:
                self.wake_s = t
                self.version += 1
                self.clock.at(t, self.timer, self.version, BOUNDARY + self.index)
            return
        tie = TIE_REL * t if t > 1.0 else TIE_REL
        if self.t_end <= t + tie:
            return  # the boundary is at this very instant and will see the queues
        if t <= self.t0 + tie:
            take_back(batch)
            self.version += 1
            self._again(batch)
        elif k > 1 and len(batch.running) < batch.max_seqs:
            j = self._first_boundary(t - tie)
            if j < k:
                self._cut(j)

    def _first_boundary(self, y: float) -> int:
        """Number of the first boundary not before ``y``, at least 1."""
        j = self._steps_until(y)
        return j + 1 if not j or self._boundary_s(j) < y else j

    def _stride(self, t: float, k: int, d0: float, rise: float) -> None:
        """Run ``k`` steps from ``t`` on, of ``d0 + rise·j`` seconds."""
        self.k = k
        self.d0 = d0
        self.rise = rise
        self.t_end = end = t + k * d0 + 0.5 * rise * (k * (k - 1))
        self.version += 1
        self.clock.at(end, self.timer, self.version, BOUNDARY + self.index)

    def _cut(self, j: int) -> None:
        """End the stride after its step ``j`` instead of ``k``."""
        self.k = j
        self.t_end = t = self._boundary_s(j)
        self.version += 1
        self.clock.at(t, self.timer, self.version, BOUNDARY + self.index)

    def _on_timer(self, version: int) -> None:
        if version == self.version:
            if self.k:
                self._end()
            else:
                self.woken = True
                self.begin(self.wake_s)

    def sync(self, t_s: float) -> None:
        """If a boundary is due at ``t_s``, take it before anything is read."""
        if self.k and self.t_end <= t_s + tie_s(t_s):
            self._end()

    def _boundary_s(self, j: int) -> float:
        return self.t0 + j * self.d0 + 0.5 * self.rise * (j * (j - 1))

    def _steps_until(self, x: float) -> int:
        """Largest ``j`` ≤ k whose boundary is not after ``x``."""
        tau = x - self.t0
        d0 = self.d0
        if tau < d0:
            return 0
        half = 0.5 * self.rise
        if half:  # the positive root of half·j² + (d0 - half)·j = tau, in its stable form
            p = d0 - half
            j = int(2.0 * tau / (p + sqrt(p * p + 4.0 * half * tau)))
        else:
            j = int(tau / d0)
        k = self.k
        if j > k:
            j = k
        t0 = self.t0  # the root may be off by one in the last place: settle it by the boundaries
        while j < k and t0 + (j + 1) * d0 + half * ((j + 1) * j) <= x:
            j += 1
        while j and t0 + j * d0 + half * (j * (j - 1)) > x:
            j -= 1
        return j

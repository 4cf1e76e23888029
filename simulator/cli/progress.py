"""A progress bar that appears only where someone watches, and only on long work."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 2.0


class LateProgress:
    """A bar on standard error that appears once work has taken ``PATIENCE_S``.

    Use as a context manager, and call it with what is done; it does nothing where standard error
    is not a terminal.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> LateProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` requests of the run called ``what`` have ended."""
        if self._bar is None and not self._due():
            return
        if self._bar is None or self._task is None:
            self._bar, self._task = _shown(what, total)
        self._bar.update(self._task, description=what, completed=done, total=total)

    def simulating(self, done: int, total: int) -> None:
        """The same for a single run."""
        self("simulating", done, total)

    def drawing(self, done: int, total: int) -> None:
        """The same for runs that differ in what was drawn."""
        self("drawing", done, total)

    def _due(self) -> bool:
        if self._quiet or time.monotonic() - self._started < PATIENCE_S:
            return False
        from rich.console import Console

        self._quiet = not Console(stderr=True).is_terminal
        return not self._quiet


def _shown(what: str, total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), MofNCompleteColumn(), Remaining())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)
    bar.start()
    return bar, task

"""Measure the cases of a device one by one, keep what is known, and write the rows.

Nothing measured is lost: every row is on disk before the next case starts, and a run that goes on
measures only what is missing. What a device has no room for, or cannot compute, is left out and
named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calibration import comm, plan
from calibration.case import Case, work
from calibration.clocks import ClockMonitor, Clocks
from calibration.device import Device, is_out_of_memory, open_device
from calibration.journal import Journal, open_journal
from calibration.kernels import prepare
from calibration.rows import row, write_rows
from calibration.timing import RETRIES, Protocol, Timing, is_cache_warm, measure, steadiest
from calibration.torch_module import torch_module
from simulator.errors import InputError

Progress = Callable[[str, int, int], None]
"""Called with what is measured, cases done and cases in all."""

SUSTAINED = Protocol(block_s=0.012, warm_s=0.050)
"""For work bound by arithmetic: over 50 ms of running first, so that clocks are those of load."""
SHORT = Protocol(block_s=0.005, warm_s=0.010)
QUICK = Protocol(block_s=0.002, warm_s=0.002)
LEAST_CALLS = 10
"""Calls of a graph at least: what starting it costs is spread over them."""
BOUND_BY_ARITHMETIC = 64.0
"""FLOP/byte from which a case counts as bound by arithmetic; a GPU's own corner lies at 150-600."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a run left behind.

    Attributes:
        out: the file of rows.
        rows: rows in it.
        measured: rows this run added.
        left: cases not measured because the time was up.
        skipped: why a case was left out, by its key.
        gpu: name of the device.
        seconds: duration of this run [s].
    """

    out: Path
    rows: int
    measured: int
    left: int
    skipped: dict[str, str]
    gpu: str
    seconds: float


def bench(
    out: Path,
    *,
    device: str | None = None,
    quick: bool = False,
    operators: Sequence[str] | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Bench:
    """Measure this machine's operators and write the rows to ``out``.

    Args:
        out: Parquet file; a journal beside it (``OUT.journal``) holds what is measured so far, and a
            second run with the same ``out`` goes on where the first ended.
        device: ``"cuda"``, ``"cuda:N"`` or ``"cpu"``; the first CUDA device when None.
        quick: a third of the shapes, in shorter blocks.
        operators: of ``calibration.case.OPERATORS``; all when None.
        minutes: start no further case after so long [min]; None: measure all.
        progress: told before each case.

    Raises:
        InputError: torch is missing, there is no such device, or ``out`` cannot be used.
    """
    started = time.monotonic()
    asked = plan.chosen_operators(None if operators is None else ",".join(operators))
    if not out.absolute().parent.is_dir():
        raise InputError(f"cannot write --out {out}: the folder {out.parent} does not exist.")
    if out.is_dir():
        raise InputError(f"cannot write --out {out}: it is a folder, not a file.")
    found = open_device(torch_module(), device)
    until = None if minutes is None else started + 60.0 * minutes
    with ExitStack() as stack:
        journal = stack.enter_context(open_journal(out, found.machine))
        monitor = stack.enter_context(ClockMonitor(found.clock_id))
        before = len(journal.rows)
        todo = plan.cases(found, asked, quick=quick)
        session = Session(found, journal, monitor, quick=quick)
        left = session.run(todo, until, progress or _silent)
        write_rows(journal.rows, out)
        return Bench(
            out=out,
            rows=len(journal.rows),
            measured=len(journal.rows) - before,
            left=left,
            skipped=journal.skipped,
            gpu=found.machine.gpu,
            seconds=time.monotonic() - started,
        )


class Session:
    """A device, a journal, and the cases that go from one into the other."""

    def __init__(
        self, device: Device, journal: Journal, monitor: ClockMonitor, *, quick: bool = False
    ) -> None:
        self._device = device
        self._journal = journal
        self._monitor = monitor
        self._quick = quick

    def run(self, cases: Sequence[Case], until: float | None, progress: Progress) -> int:
        """Measure what is missing.

        Args:
            cases: what to measure.
            until: no further case starts after this instant of ``time.monotonic`` [s].
            progress: told before each case.

        Returns:
            How many cases the time did not suffice for.
        """
        done = self._journal.done
        todo = [case for case in cases if case.key not in done]
        alone = [case for case in todo if case.operator != "comm"]
        together = [case for case in todo if case.operator == "comm"]
        known = len(cases) - len(todo)
        for position, case in enumerate(alone):
            if until is not None and time.monotonic() >= until:
                return len(todo) - position
            progress(str(case), known + position, len(cases))
            self._journal.append(self._entry(case))
        self._device.arena.clear()
        left = self._collectives(together, until, progress, known + len(alone), len(cases))
        progress("done", len(cases) - left, len(cases))
        return left

    def _entry(self, case: Case) -> dict[str, Any]:
        """The journal's line of a case: a row, or why there is none."""
        need, free = work(case).held_bytes, self._device.free_bytes()
        if need > free:
            reason = f"out of memory: needs {need / 1e9:.1f} GB of {free / 1e9:.1f} GB"
            return {"case": case.key, "skipped": reason}
        try:
            return {"case": case.key, "row": self._measured(case)}
        except (RuntimeError, NotImplementedError, MemoryError) as error:
            full = is_out_of_memory(self._device.torch, error)
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        self._recovered(case, first)
        reason = "out of memory" if full else f"not computed here: {first}"
        return {"case": case.key, "skipped": reason}

    def _recovered(self, case: Case, reason: str) -> None:
        """Go on after an error, unless the device itself has failed."""
        try:
            self._device.recover()
        except RuntimeError:
            self._journal.append({"case": case.key, "skipped": f"the device failed: {reason}"})
            raise InputError(
                f"the device failed at {case} ({reason}); what was measured is kept, and the same "
                "command goes on after this case."
            ) from None

    def _measured(self, case: Case) -> dict[str, Any]:
        device = self._device
        program = prepare(device, case)
        copies = len(program.calls)
        calls = device.calls_per_replay(program, 100 if case.operator == "launch" else LEAST_CALLS)
        with device.timed(program, calls) as (run, how):
            retries = 0 if self._quick else RETRIES
            timing = steadiest(lambda: measure(run, calls, self._protocol(case)), retries)
        cache = device.machine.cache_bytes
        warm = is_cache_warm(program.held_bytes, copies, cache)
        return self._row(case, timing, how, copies, l2_warm=warm)

    def _protocol(self, case: Case) -> Protocol:
        if self._quick:
            return QUICK
        return SUSTAINED if work(case).intensity >= BOUND_BY_ARITHMETIC else SHORT

    def _row(
        self, case: Case, timing: Timing, how: str, copies: int, *, l2_warm: bool
    ) -> dict[str, Any]:
        return row(
            case,
            timing,
            self._device.machine,
            how=how,
            copies=copies,
            l2_warm=l2_warm,
            clocks=self._monitor.latest if self._device.clock_id else Clocks(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _collectives(
        self, cases: Sequence[Case], until: float | None, progress: Progress, done: int, total: int
    ) -> int:
        """Measure collectives, each number of ranks in processes of its own."""
        left = len(cases)
        for world in sorted({case.sizes["n_gpus"] for case in cases}):
            group = [case for case in cases if case.sizes["n_gpus"] == world]
            if until is not None and time.monotonic() >= until:
                break
            progress(str(group[0]), done + len(cases) - left, total)
            kind = self._device.machine.kind
            for result in comm.measured(group, kind=kind, quick=self._quick, until=until):
                self._journal.append(self._collective_entry(result))
                left -= 1
                progress(str(result.case), done + len(cases) - left, total)
        return left

    def _collective_entry(self, result: comm.Result) -> dict[str, Any]:
        if result.timing is None:
            return {"case": result.case.key, "skipped": result.how}
        found = self._row(result.case, result.timing, result.how, result.copies, l2_warm=False)
        return {"case": result.case.key, "row": found}


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""

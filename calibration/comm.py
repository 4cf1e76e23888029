"""Collectives: one process a rank, which this one starts, listens to and ends.

The ranks are processes of their own (``calibration.ranks``) rather than forks: CUDA does not survive
a fork, and a caller's ``__main__`` need not be importable. They end when this process does, however
it ends, because they watch their standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.case import Case
from calibration.timing import Timing

MARK = "xpyd-rank "
"""Starts the lines that carry results: libraries print lines of their own."""


@dataclass(frozen=True, slots=True)
class Result:
    """One collective measured, or not.

    Attributes:
        case: which.
        timing: what rank 0 saw; None: skipped.
        how: ``"graph"``, ``"eager"`` or ``"loop"``; why, if it was skipped.
        copies: sets of buffers rotated over.
    """

    case: Case
    timing: Timing | None
    how: str
    copies: int = 0


def measured(
    cases: Sequence[Case], *, kind: str, quick: bool, until: float | None
) -> Iterator[Result]:
    """Measure collectives of one number of ranks.

    Args:
        cases: all with the same ``n_gpus``.
        kind: ``"cuda"`` (NCCL) or ``"cpu"`` (gloo).
        quick: shorter blocks.
        until: no further case starts after this instant of ``time.monotonic`` [s].

    Yields:
        One result a case, in order; fewer when the time is up. If the ranks fail, the cases they
        did not reach are skipped with the reason.
    """
    world = int(cases[0].sizes["n_gpus"])
    spec = {
        "world": world,
        "kind": kind,
        "quick": quick,
        "seconds": None if until is None else until - time.monotonic(),
        "cases": [{**case.sizes, "dtype": case.dtype} for case in cases],
    }
    with tempfile.TemporaryDirectory(prefix="xpyd-ranks-") as folder, _Ranks(spec, folder) as ranks:
        reached = 0
        for found in ranks.results():
            case = cases[reached]
            reached += 1
            if "skipped" in found:
                yield Result(case, None, str(found["skipped"]))
            else:
                timing = Timing(found["call_s"], found["spread"], found["blocks"], found["calls"])
                yield Result(case, timing, str(found["how"]), int(found["copies"]))
        reason = ranks.failure()
    if reason is not None:
        for case in cases[reached:]:
            yield Result(case, None, f"not computed here: {reason}")


class _Ranks:
    """The processes of one group."""

    def __init__(self, spec: dict[str, Any], folder: str) -> None:
        self._spec = spec
        self._folder = Path(folder)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> _Ranks:
        for rank in range(self._spec["world"]):
            with (self._folder / f"stderr{rank}").open("w") as errors:
                process = subprocess.Popen(
                    [sys.executable, "-m", "calibration.ranks"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
                    stderr=errors,
                    text=True,
                    start_new_session=True,  # Ctrl-C is this process's to handle
                )
            self._processes.append(process)
            meeting = str(self._folder / "meeting")
            line = json.dumps({**self._spec, "rank": rank, "meeting": meeting})
            assert process.stdin is not None
            try:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            except BrokenPipeError:  # it died at once; failure() says why
                break
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    _close(pipe)

    def results(self) -> Iterator[dict[str, Any]]:
        """What rank 0 reports, until it ends."""
        stdout = self._processes[0].stdout
        assert stdout is not None
        for line in stdout:
            if line.startswith(MARK):
                yield json.loads(line[len(MARK) :])

    def failure(self) -> str | None:
        """Why rank 0 ended before its time; None if it did not."""
        if self._processes[0].wait() == 0:
            return None
        for rank in range(len(self._processes)):
            text = (self._folder / f"stderr{rank}").read_text(errors="replace").strip()
            if text:
                return f"rank {rank}: {text.splitlines()[-1][:200]}"
        return f"rank 0 ended with code {self._processes[0].returncode}"


def _close(pipe: Any) -> None:
    with suppress(OSError):
        pipe.close()

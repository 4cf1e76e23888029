"""Clocks, power and temperature of a GPU, seen while it is measured."""

from __future__ import annotations

import math
import subprocess
import threading
from dataclasses import dataclass
from types import TracebackType

_FIELDS = "clocks.sm,clocks.mem,power.draw,temperature.gpu"
_EVERY_MS = 100


@dataclass(frozen=True, slots=True)
class Clocks:
    """One reading; NaN where the driver gives none.

    Attributes:
        sm_mhz: clock of the multiprocessors [MHz].
        memory_mhz: clock of the memory [MHz].
        power_w: power drawn [W].
        temperature_c: temperature [°C].
    """

    sm_mhz: float = math.nan
    memory_mhz: float = math.nan
    power_w: float = math.nan
    temperature_c: float = math.nan


def parsed(line: str) -> Clocks | None:
    """A line of ``nvidia-smi`` in CSV without units; None if it is not one."""
    cells = line.split(",")
    if len(cells) != 4:
        return None
    return Clocks(*(_number(cell) for cell in cells))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # "[N/A]"
        return math.nan


class ClockMonitor:
    """The latest reading of one GPU, from an ``nvidia-smi`` that runs beside the measurements.

    Reading its output costs the measured process nothing that matters; asking for each case anew
    would cost a process start every time. Without ``nvidia-smi`` every reading is NaN.
    """

    def __init__(self, gpu: str | None) -> None:
        """``gpu``: its UUID or index, as ``nvidia-smi -i`` takes it; None: nothing to watch."""
        self._gpu = gpu
        self._latest = Clocks()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ClockMonitor:
        if self._gpu is None:
            return self
        command = ["nvidia-smi", "-i", self._gpu, f"--query-gpu={_FIELDS}"]
        command += ["--format=csv,noheader,nounits", "-lms", str(_EVERY_MS)]
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            return self
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    @property
    def latest(self) -> Clocks:
        """The last reading."""
        return self._latest

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found = parsed(line)
            if found is not None:
                self._latest = found

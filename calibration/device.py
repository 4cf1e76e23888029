"""The device measured: how programs run and are timed on it, and where their operands come from.

A program is a list of calls, each on operands of its own. On a CUDA device it is captured in a graph
on a side stream and replayed between two device events; on a CPU it is a loop between two readings
of the clock. Everything else is the same for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Protocol

from calibration.arena import Arena
from calibration.machine import Machine, cpu_machine, cuda_machine, free_cpu_bytes
from calibration.timing import calls_of_program
from simulator.errors import InputError

Call = Callable[[], object]
Scope = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Program:
    """Calls to time, made in turn.

    Attributes:
        calls: one per set of operands.
        held_bytes: memory of one set [bytes].
        scope: entered around every use of the calls.
        graph: whether the calls may be captured in a CUDA graph.
        host: whether what is timed is the host's time to issue the calls.
    """

    calls: Sequence[Call]
    held_bytes: float
    scope: Scope = field(default=nullcontext)
    graph: bool = True
    host: bool = False


class Device(Protocol):
    """What the harness asks of a device."""

    torch: Any
    name: str
    machine: Machine
    arena: Arena
    clock_id: str | None

    def calls_per_replay(self, program: Program, least: int) -> int:
        """Calls of one replay, where ``least`` are wanted."""

    def free_bytes(self) -> float:
        """Memory that can still be taken [bytes]."""

    def timed(
        self, program: Program, calls: int
    ) -> AbstractContextManager[tuple[Callable[[int], float], str]]:
        """A stopwatch for ``calls`` calls of the program, and how it times them."""

    def recover(self) -> None:
        """Give back the memory of a case that failed.

        Raises:
            RuntimeError: the device no longer works.
        """


def open_device(torch: Any, asked: str | None) -> Device:
    """The device to measure.

    Args:
        torch: the ``torch`` package.
        asked: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; None: the first CUDA device.

    Raises:
        InputError: there is no such device; the sentence says what to do.
    """
    name = (asked or "cuda").lower()
    kind, _, number = name.partition(":")
    if name == "cpu":
        return CpuDevice(torch)
    if kind != "cuda" or (number and not number.isdecimal()):
        raise InputError(f"--device '{asked}' is unknown; allowed: cuda, cuda:0, cuda:1, …, cpu.")
    count = _cuda_devices(torch)
    if count == 0:
        raise InputError(
            f"no CUDA GPU can be used from this PyTorch ({torch.__version__}); give --device cpu to "
            "measure the processor, or run this where a GPU and a CUDA build of PyTorch are."
        )
    index = int(number or 0)
    if index >= count:
        raise InputError(
            f"--device {asked}: there are {count} CUDA devices; allowed: cuda:0 to cuda:{count - 1}."
        )
    return CudaDevice(torch, index)


def _cuda_devices(torch: Any) -> int:
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


class CpuDevice:
    """This machine's processor, through torch's own kernels."""

    clock_id: str | None = None

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.name = "cpu"
        self.machine = cpu_machine(torch)
        self.arena = Arena(torch, self.name)

    def free_bytes(self) -> float:
        """Half of what is available: Linux would kill the process rather than refuse."""
        return 0.5 * free_cpu_bytes()

    def calls_per_replay(self, program: Program, least: int) -> int:
        """One: issuing it costs little beside its time, and replays go on through the sets."""
        return 1

    @contextmanager
    def timed(self, program: Program, calls: int) -> Iterator[tuple[Callable[[int], float], str]]:
        """A loop between two readings of the monotonic clock."""
        turn = cycle(program.calls)

        def run(replays: int) -> float:
            start = time.perf_counter()
            for call in islice(turn, replays * calls):
                call()
            return time.perf_counter() - start

        with self.torch.inference_mode(), program.scope():
            yield run, "loop"

    def recover(self) -> None:
        """Drop the operands."""
        self.arena.clear()


class CudaDevice:
    """A CUDA device; times with device events around replays of a graph."""

    def __init__(self, torch: Any, index: int) -> None:
        self.torch = torch
        self.name = f"cuda:{index}"
        self.index = index
        torch.cuda.set_device(index)
        self.machine = cuda_machine(torch, index)
        uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
        self.clock_id: str | None = str(index) if uuid is None else f"GPU-{uuid}"
        self.arena = Arena(torch, self.name)

    def free_bytes(self) -> float:
        """What the driver has free and what torch has cached."""
        free, _ = self.torch.cuda.mem_get_info(self.index)
        cached = self.torch.cuda.memory_reserved(self.index)
        used = self.torch.cuda.memory_allocated(self.index)
        return float(free) + float(cached - used)

    def calls_per_replay(self, program: Program, least: int) -> int:
        """Whole turns over the sets, for a graph always replays the same calls."""
        return calls_of_program(len(program.calls), least)

    @contextmanager
    def timed(self, program: Program, calls: int) -> Iterator[tuple[Callable[[int], float], str]]:
        """Replays of a graph of the calls, or the calls one by one where they cannot be captured."""
        with self.torch.inference_mode(), program.scope():
            if program.host:
                yield self._issuing(program, calls), "issue"
                return
            graph = self._captured(program, calls) if program.graph else None
            if graph is None:
                yield self._between_events(lambda: _turns(program, calls)), "eager"
                return
            try:
                yield self._between_events(graph.replay), "graph"
            finally:
                self.torch.cuda.synchronize(self.index)
                graph.reset()

    def recover(self) -> None:
        """Drop the operands and torch's cache, and see that the device still answers."""
        self.torch.cuda.synchronize(self.index)
        self.arena.clear()
        self.torch.cuda.empty_cache()

    def _captured(self, program: Program, calls: int) -> Any | None:
        """A graph of the calls; None where an operation cannot be captured."""
        cuda = self.torch.cuda
        side = cuda.Stream(device=self.index)
        side.wait_stream(cuda.current_stream(self.index))
        with cuda.stream(side):  # libraries choose kernels and take workspaces outside the capture
            for call in program.calls[:3]:
                call()
        cuda.current_stream(self.index).wait_stream(side)
        cuda.synchronize(self.index)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, stream=side):
                _turns(program, calls)
        except RuntimeError as error:
            if is_out_of_memory(self.torch, error):
                raise
            cuda.synchronize(self.index)  # raises again if the device itself failed
            return None
        return graph

    def _between_events(self, once: Call) -> Callable[[int], float]:
        cuda = self.torch.cuda

        def run(replays: int) -> float:
            start = cuda.Event(enable_timing=True)
            end = cuda.Event(enable_timing=True)
            start.record()
            for _ in range(replays):
                once()
            end.record()
            end.synchronize()
            return 1e-3 * float(start.elapsed_time(end))

        return run

    def _issuing(self, program: Program, calls: int) -> Callable[[int], float]:
        """The host's time to issue the calls, with the device's queue empty at the start."""

        def run(replays: int) -> float:
            total_s = 0.0
            for _ in range(replays):
                self.torch.cuda.synchronize(self.index)
                start = time.perf_counter()
                _turns(program, calls)
                total_s += time.perf_counter() - start
            self.torch.cuda.synchronize(self.index)
            return total_s

        return run


def _turns(program: Program, calls: int) -> None:
    for _ in range(calls // len(program.calls)):
        for call in program.calls:
            call()


def is_out_of_memory(torch: Any, error: BaseException) -> bool:
    """Whether the device or the host had no room, however torch words it.

    The end of a graph capture may raise an error of its own over that of the allocation.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if error.__context__ is not None and is_out_of_memory(torch, error.__context__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text
        for sign in ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    )

"""Machines, devices and a torch made up for tests of the calibration harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from calibration.arena import Arena
from calibration.device import CpuDevice, Program
from calibration.machine import Machine

H100 = Machine(
    gpu="NVIDIA H100 80GB HBM3",
    kind="cuda",
    driver="570.1",
    cuda="12.8",
    torch="2.13.0",
    devices=8,
    memory_bytes=85_000_000_000,
    cache_bytes=50_000_000,
    sms=132,
    capability=90,
)
SMALL = Machine(
    gpu="small",
    kind="cuda",
    driver="1",
    cuda="12",
    torch="2.13.0",
    devices=1,
    memory_bytes=8_000_000_000,
    cache_bytes=4_000_000,
    sms=24,
    capability=86,
)


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now_s = 0.0


class TinyDevice(CpuDevice):
    """The processor, whose programs are made once and take the time a function says."""

    def __init__(self, torch: Any, seconds: Callable[[Program], float]) -> None:
        super().__init__(torch)
        self._seconds = seconds
        self.measured = 0

    @contextmanager
    def timed(self, program: Program, calls: int) -> Iterator[tuple[Callable[[int], float], str]]:
        self.measured += 1
        with self.torch.inference_mode(), program.scope():
            for call in program.calls[:2]:
                call()
            yield lambda replays: replays * calls * self._seconds(program), "loop"


class FakeEvent:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at_s = -1.0

    def record(self) -> None:
        self.at_s = self._clock.now_s

    def synchronize(self) -> None:
        assert self.at_s >= 0.0

    def elapsed_time(self, end: FakeEvent) -> float:
        return 1e3 * (end.at_s - self.at_s)


class FakeStream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    def wait_stream(self, other: FakeStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class FakeGraph:
    def __init__(self, torch: FakeTorch) -> None:
        self._torch = torch
        self.calls = 0
        torch.graphs.append(self)

    def replay(self) -> None:
        self._torch.clock.now_s += self.calls * self._torch.call_s
        self._torch.log.append("replay")

    def reset(self) -> None:
        self._torch.log.append("reset")


class FakeCuda:
    """As much of ``torch.cuda`` as the harness uses; what it is asked goes to the log."""

    def __init__(self, torch: FakeTorch) -> None:
        self._torch = torch
        self.capturing: FakeGraph | None = None
        self.main = FakeStream(torch.log, "main")

    def set_device(self, index: int) -> None: ...

    def get_device_properties(self, index: int) -> Any:
        class Properties:
            name = "fake GPU"
            total_memory = 8_000_000_000
            multi_processor_count = 24
            L2_cache_size = 4_000_000
            uuid = "1234"

        return Properties

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return 8, 6

    def device_count(self) -> int:
        return self._torch.devices

    def is_available(self) -> bool:
        return self._torch.devices > 0

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 5_000_000_000, 8_000_000_000

    def memory_reserved(self, index: int) -> int:
        return 2_000_000_000

    def memory_allocated(self, index: int) -> int:
        return 500_000_000

    def Stream(self, device: int | None = None) -> FakeStream:
        return FakeStream(self._torch.log, "side")

    def current_stream(self, device: int | None = None) -> FakeStream:
        return self.main

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        self._torch.log.append(f"on {stream.name}")
        yield
        self._torch.log.append("on main")

    def synchronize(self, device: int | None = None) -> None:
        self._torch.log.append("synchronize")
        if self._torch.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def empty_cache(self) -> None:
        self._torch.log.append("empty cache")

    def Event(self, enable_timing: bool) -> FakeEvent:
        assert enable_timing
        return FakeEvent(self._torch.clock)

    def CUDAGraph(self) -> FakeGraph:
        return FakeGraph(self._torch)

    @contextmanager
    def graph(
        self, graph: FakeGraph, stream: FakeStream, capture_error_mode: str = "global"
    ) -> Iterator[None]:
        self._torch.log.append("capture")
        self.capturing = graph
        try:
            yield
        finally:
            self.capturing = None


class FakeTorch:
    """A torch with one CUDA device whose every call takes ``call_s``."""

    class OutOfMemoryError(RuntimeError):
        """Its own."""

    def __init__(self, *, devices: int = 1, call_s: float = 2e-5) -> None:
        self.log: list[str] = []
        self.graphs: list[FakeGraph] = []
        self.clock = Clock()
        self.call_s = call_s
        self.devices = devices
        self.broken = False
        self.refuses: Exception | None = None
        self.issued = 0
        self.cuda = FakeCuda(self)
        self.__version__ = "2.13.0"

        class Version:
            cuda = "12.8"

        self.version = Version

    @contextmanager
    def inference_mode(self) -> Iterator[None]:
        yield

    def call(self) -> None:
        """A kernel: recorded under capture, run otherwise."""
        if self.cuda.capturing is not None:
            if self.refuses is not None:
                raise self.refuses
            self.cuda.capturing.calls += 1
        else:
            self.issued += 1
            self.clock.now_s += self.call_s


def arena_of(device: Any) -> Arena:
    """Its arena, typed."""
    found = device.arena
    assert isinstance(found, Arena)
    return found

"""Machines, devices and a torch made up for tests of the calibration harness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from calibration import rows, shapes
from calibration.case import Case
from calibration.clocks import Clocks
from calibration.device import CpuDevice, Program
from calibration.machine import Machine
from calibration.shapes import Limits
from calibration.timing import Timing
from simulator.perf import forms

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


def synthetic_rows(machine: Machine, noise: float, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a GPU that obeys the H100 profile's parameters, with log-normal noise on each."""
    rng = np.random.default_rng(seed)
    limits = Limits.of(machine)
    heads = ("n_heads", "n_kv_heads", "head_dim")
    found = []

    def add(operator: str, kernel: str, dtype: str, shape: Any, seconds: Any) -> None:
        case = Case(operator, kernel, dtype, shape)
        time_s = float(seconds) * float(np.exp(rng.normal(0.0, noise)))
        found.append(
            rows.row(
                case,
                Timing(time_s, 0.01, 5, 50),
                machine,
                how="graph",
                copies=4,
                l2_warm=False,
                clocks=Clocks(1980.0, 2619.0, 500.0, 60.0),
                date="2026-01-02T03:04:05+00:00",
            )
        )

    for dtype, kernel in (("bfloat16", "torch_mm"), ("fp8", "torch_scaled_mm")):
        width = 1.0 if dtype == "fp8" else 2.0
        for shape in shapes.gemm_shapes(limits, 48):
            s = dict(shape)
            time = forms.gemm_s(
                *(s["m"], s["n"], s["k"]),
                peak_flops=1979e12 if dtype == "fp8" else 989e12,
                bandwidth=3.35e12,
                weight_bytes=width,
                input_bytes=width,
                **GEMM,
            )
            add("gemm", kernel, dtype, shape, time)
    for slower, kernel in ((1.3, "torch_sdpa_flash"), (1.0, "torch_sdpa_cudnn")):
        for shape in shapes.decode_shapes(limits, 20):
            s = dict(shape)
            h, kv, dim = (s[name] for name in heads)
            time = forms.decode_attention_s(
                s["batch"],
                s["batch"] * s["kv_len"],
                heads=h,
                kv_heads=kv,
                head_dim=dim,
                bandwidth=3.35e12,
                sms=132,
                **DECODE,
            )
            add("attn_decode", kernel, "bfloat16", shape, slower * time)
        for shape in shapes.prefill_shapes(limits, 12):
            s = dict(shape)
            h, kv, dim = (s[name] for name in heads)
            tokens = s["batch"] * s["isl"]
            time = forms.prefill_attention_s(
                tokens,
                0.5 * tokens * s["isl"],
                tokens,
                heads=h,
                kv_heads=kv,
                head_dim=dim,
                peak_flops=989e12,
                bandwidth=3.35e12,
                head_dim_exponent=0.45,
                **PREFILL,
            )
            add("attn_prefill", kernel, "bfloat16", shape, slower * time)
    for size in shapes.byte_sizes(48 * 1024, 256e6, 8):
        time = forms.elementwise_s(size, t0_s=3e-6, memory_eff=0.8, bandwidth=3.35e12)
        add("elementwise", "torch_mul", "bfloat16", (("bytes", size),), time)
    for world in (2, 4, 8):
        for size in shapes.byte_sizes(4096, 64 * 2.0**20, 12):
            time = forms.all_reduce_s(size, world, link_bytes_per_s=450e9, **NVLINK)
            sizes = (
                ("op", "all_reduce"),
                ("n_gpus", world),
                ("elements", size // 2),
                ("bytes", size),
            )
            add("comm", "NCCL", "bfloat16", sizes, time)
    return found


GEMM = {"t0_s": 3.5e-6, "compute_eff": 0.8, "memory_eff": 0.85, "p": 2.5}
DECODE = {"t0_s": 1.2e-5, "tile_s": 2e-6, "memory_eff": 0.9}
PREFILL = {"t0_s": 1.3e-5, "compute_eff": 0.65, "memory_eff": 0.48}
NVLINK = {
    "t0_s": 4.3e-6,
    "rank_s": 4e-7,
    "one_shot_eff": 0.59,
    "two_shot_s": 4.6e-6,
    "two_shot_eff": 0.73,
}
"""What the made-up GPU obeys."""

"""What is measured on: facts of the machine that every row carries."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CPU_CACHE_BYTES = 32e6
"""Last-level cache assumed where the system does not say."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts of the device and the software, as they go into every row.

    Attributes:
        gpu: name of the device; of the processor where that was measured.
        kind: ``"cuda"`` or ``"cpu"``.
        driver: version of the driver, of the operating system's kernel on a CPU.
        cuda: CUDA (or ROCm) version torch was built with; empty on a CPU.
        torch: version of torch.
        devices: devices of this kind.
        memory_bytes: memory of one device, as the driver reports it [bytes].
        cache_bytes: last-level cache [bytes].
        sms: streaming multiprocessors; the threads torch uses on a CPU [1].
        capability: CUDA compute capability times ten; 0 on a CPU.
    """

    gpu: str
    kind: str
    driver: str
    cuda: str
    torch: str
    devices: int
    memory_bytes: int
    cache_bytes: int
    sms: int
    capability: int

    def to_dict(self) -> dict[str, Any]:
        """The facts by name."""
        return asdict(self)

    @property
    def identity(self) -> tuple[str, ...]:
        """What must not change within one set of rows."""
        return self.gpu, self.driver, self.cuda, self.torch


def cpu_machine(torch: Any) -> Machine:
    """The machine's processor."""
    return Machine(
        gpu=_processor(),
        kind="cpu",
        driver=f"{platform.system()} {platform.release()}",
        cuda="",
        torch=str(torch.__version__),
        devices=1,
        memory_bytes=_memory_bytes(),
        cache_bytes=_cache_bytes(),
        sms=int(torch.get_num_threads()),
        capability=0,
    )


def cuda_machine(torch: Any, index: int) -> Machine:
    """A CUDA (or ROCm) device."""
    found = torch.cuda.get_device_properties(index)
    major, minor = torch.cuda.get_device_capability(index)
    return Machine(
        gpu=str(found.name),
        kind="cuda",
        driver=_driver(),
        cuda=str(torch.version.cuda or getattr(torch.version, "hip", "") or ""),
        torch=str(torch.__version__),
        devices=int(torch.cuda.device_count()),
        memory_bytes=int(found.total_memory),
        cache_bytes=int(getattr(found, "L2_cache_size", 0)) or int(_CPU_CACHE_BYTES),
        sms=int(found.multi_processor_count),
        capability=10 * int(major) + int(minor),
    )


def free_cpu_bytes() -> float:
    """Memory a program may still take without swapping [bytes]."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * float(line.split()[1])
    except OSError:
        pass
    return 0.5 * _memory_bytes()


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip().splitlines()[0].strip() if found.stdout.strip() else "unknown"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _memory_bytes() -> int:
    try:
        return int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return int(8e9)


def _cache_bytes() -> int:
    """The largest cache the first processor reports."""
    sizes = []
    for file in _CACHES.glob("index*/size"):
        try:
            text = file.read_text(encoding="ascii").strip().upper()
            unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1:], 1)
            sizes.append(int(text.rstrip("KMG")) * unit)
        except (OSError, ValueError):
            continue
    return max(sizes, default=int(_CPU_CACHE_BYTES))

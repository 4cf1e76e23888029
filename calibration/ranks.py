"""One rank of a group that measures collectives: ``python -m calibration.ranks``.

Its orders come as one line of JSON on standard input; rank 0 answers on standard output. Rank 0
decides how often a program is replayed and tells the others through a gloo group, so that all ranks
always make the same calls. With NCCL, whose kernels are shorter than the time to issue them, the
calls are captured in a CUDA graph; where any rank cannot, all issue them one by one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from typing import Any

from calibration.arena import torch_type
from calibration.comm import MARK
from calibration.device import is_out_of_memory
from calibration.timing import Protocol, calls_of_program, copies_needed, measure

PATIENCE_S = 120
"""A rank that waits longer than this for another gives up [s]."""
MOST_COPIES = 16
_CPU = (Protocol(block_s=0.004, warm_s=0.005), Protocol(block_s=0.001, warm_s=0.001))
_CUDA = (Protocol(block_s=0.004, warm_s=0.020), Protocol(block_s=0.002, warm_s=0.004))


def main() -> None:
    """Take the orders, measure, and end with the process that gave them."""
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _use_loopback()
    import torch
    import torch.distributed as dist

    cuda = spec["kind"] == "cuda"
    rank, world = spec["rank"], spec["world"]
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"file://{spec['meeting']}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=PATIENCE_S),
    )
    control = dist.new_group(backend="gloo") if cuda else dist.group.WORLD
    member = Member(torch, dist, control, rank, world, cuda=cuda)
    protocol = (_CUDA if cuda else _CPU)[1 if spec["quick"] else 0]
    until = None if spec["seconds"] is None else time.monotonic() + spec["seconds"]
    for case in spec["cases"]:
        if not member.agreed(until is None or time.monotonic() < until):
            break
        found = member.measured(case, protocol)
        if rank == 0:
            print(MARK + json.dumps(found), flush=True)
    dist.barrier(group=control)
    dist.destroy_process_group()


class Member:
    """What one rank does together with the others."""

    def __init__(
        self, torch: Any, dist: Any, control: Any, rank: int, world: int, *, cuda: bool
    ) -> None:
        self._torch = torch
        self._dist = dist
        self._control = control
        self._rank = rank
        self._world = world
        self._cuda = cuda
        self._device = f"cuda:{rank}" if cuda else "cpu"
        self._cache = self._cache_bytes()

    def agreed(self, mine: bool) -> bool:
        """Whether every rank says yes."""
        flag = self._torch.tensor([int(mine)])
        self._dist.all_reduce(flag, op=self._dist.ReduceOp.MIN, group=self._control)
        return bool(flag.item())

    def measured(self, case: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
        """Measure one collective; only rank 0's answer counts."""
        copies = copies_needed(2.0 * case["bytes"], self._cache, MOST_COPIES)
        calls = calls_of_program(copies, 20 if self._cuda else 4)
        program = self._program(case, copies)
        if not self.agreed(program is not None):
            del program
            return {"skipped": "out of memory"}
        assert program is not None
        with self._torch.inference_mode() if self._cuda else nullcontext():
            run, how = self._runner(program, calls)
            if self._rank != 0:
                while (replays := self._told(0)) > 0:
                    run(replays)
                return {}
            timing = measure(lambda replays: run(self._told(replays)), calls, protocol)
            self._told(0)
        return {
            "call_s": timing.call_s,
            "spread": timing.spread,
            "blocks": timing.blocks,
            "calls": timing.calls,
            "copies": copies,
            "how": how,
        }

    def _told(self, replays: int) -> int:
        """The number rank 0 says; all ranks leave this together."""
        number = self._torch.tensor([replays])
        self._dist.broadcast(number, src=0, group=self._control)
        return int(number.item())

    def _program(self, case: dict[str, Any], copies: int) -> list[Callable[[], Any]] | None:
        """A call per set of buffers; None if there is no room for them."""
        dist, dtype = self._dist, torch_type(self._torch, case["dtype"])
        count = case["elements"]

        def buffer() -> Any:
            return self._torch.randn(count, device=self._device).to(dtype)

        try:
            if case["op"] == "all_reduce":  # sums grow without bound; their time does not
                sent = [buffer() for _ in range(copies)]
                return [partial(dist.all_reduce, x) for x in sent]
            pairs = [(buffer(), buffer()) for _ in range(copies)]
            return [partial(dist.all_to_all_single, y, x) for x, y in pairs]
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(self._torch, error):
                return None
            raise

    def _runner(
        self, program: list[Callable[[], Any]], calls: int
    ) -> tuple[Callable[[int], float], str]:
        def turn() -> None:
            for _ in range(calls // len(program)):
                for call in program:
                    call()

        if not self._cuda:
            return self._by_clock(turn), "loop"
        graph = self._captured(program, turn)
        if not self.agreed(graph is not None):
            return self._by_events(turn), "eager"
        assert graph is not None
        return self._by_events(graph.replay), "graph"

    def _captured(self, program: list[Callable[[], Any]], turn: Callable[[], None]) -> Any | None:
        """A graph of the calls; thread-local capture leaves NCCL's own threads alone."""
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):  # communicators are made outside the capture
            for call in program[:2]:
                call()
        cuda.synchronize()
        self._dist.barrier(group=self._control)
        graph = cuda.CUDAGraph()
        try:
            with cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                turn()
        except RuntimeError:
            return None
        return graph

    def _by_events(self, once: Callable[[], Any]) -> Callable[[int], float]:
        cuda = self._torch.cuda

        def run(replays: int) -> float:
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            start.record()
            for _ in range(replays):
                once()
            end.record()
            end.synchronize()
            return 1e-3 * float(start.elapsed_time(end))

        return run

    def _by_clock(self, once: Callable[[], Any]) -> Callable[[int], float]:
        def run(replays: int) -> float:
            start = time.perf_counter()
            for _ in range(replays):
                once()
            return time.perf_counter() - start

        return run

    def _cache_bytes(self) -> float:
        if not self._cuda:
            return 4e6
        found = self._torch.cuda.get_device_properties(self._rank)
        return float(getattr(found, "L2_cache_size", 0) or 50e6)


def _end_with_parent() -> None:
    """Standard input ends when the process that started this one does."""
    sys.stdin.read()
    os._exit(1)


def _use_loopback() -> None:
    """All ranks are on this machine: gloo need not resolve its name."""
    names = {name for _, name in socket.if_nameindex()}
    if "GLOO_SOCKET_IFNAME" not in os.environ and "lo" in names:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"


if __name__ == "__main__":
    main()

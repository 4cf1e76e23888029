"""Repetition, rotation and CUDA graphs, with clocks of our own: nothing here measures time."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.clocks import parsed
from calibration.device import CudaDevice, Program, is_out_of_memory, open_device
from calibration.timing import (
    MOST_REPLAYS,
    Protocol,
    Timing,
    calls_of_program,
    copies_needed,
    is_cache_warm,
    measure,
    steadiest,
)
from simulator.errors import InputError
from tests.calibration_kit import FakeTorch

PROTOCOL = Protocol(blocks=5, block_s=0.010, warm_s=0.050)


def test_blocks_last_as_long_as_asked_after_as_much_warming() -> None:
    asked: list[int] = []

    def run(replays: int) -> float:
        asked.append(replays)
        return 0.001 * replays

    found = measure(run, 20, PROTOCOL)
    assert found.call_s == pytest.approx(0.001 / 20)
    assert found.spread == pytest.approx(0.0, abs=1e-12)
    warm, blocks = asked[1:-5], asked[-5:]
    assert sum(warm) * 0.001 >= PROTOCOL.warm_s
    assert blocks == [10] * 5
    assert (found.blocks, found.calls) == (5, 200)


def test_one_slow_block_does_not_count() -> None:
    times = iter([1.0, 0.06, 0.01, 0.01, 0.05, 0.01, 0.01])
    found = measure(lambda replays: next(times), 1, Protocol(5, 0.001, 0.05))
    assert found.call_s == pytest.approx(0.01)
    assert found.spread == pytest.approx(4.0)


def test_a_disturbed_measurement_is_tried_again() -> None:
    tries = [Timing(2.0, 0.9, 5, 1), Timing(1.0, 0.1, 5, 1), Timing(3.0, 0.0, 5, 1)]
    left = iter(tries)
    assert steadiest(lambda: next(left)) is tries[1]
    assert next(left) is tries[2]  # a steady one is the last
    noisy = iter([Timing(2.0, 0.9, 5, 1), Timing(1.0, 0.5, 5, 1), Timing(3.0, 0.7, 5, 1)])
    assert steadiest(lambda: next(noisy)).call_s == 1.0


def test_a_first_use_that_compiles_does_not_count() -> None:
    times = iter([30.0, *[0.1] * 6])
    assert measure(lambda replays: next(times), 10, Protocol(5, 0.001, 0.05)).call_s == 0.01


def test_a_clock_that_stands_still_ends() -> None:
    most = 0

    def run(replays: int) -> float:
        nonlocal most
        most = max(most, replays)
        return 0.0

    assert measure(run, 1, PROTOCOL).call_s == 0.0
    assert most <= MOST_REPLAYS


@given(size=st.floats(1.0, 1e10), cache=st.floats(1e5, 1e9))
def test_rotation_leaves_the_cache(size: float, cache: float) -> None:
    copies = copies_needed(size, cache)
    assert copies == 256 or copies * size >= 4.0 * cache
    assert copies == 1 or (copies - 1) * size < 4.0 * cache
    assert copies == 256 or not is_cache_warm(size, copies, cache)


@given(copies=st.integers(1, 300), least=st.integers(1, 300))
def test_a_graph_holds_whole_turns(copies: int, least: int) -> None:
    calls = calls_of_program(copies, least)
    assert calls % copies == 0
    assert least <= calls < least + copies


# --- CUDA ---------------------------------------------------------------------------------------


def program(torch: FakeTorch, copies: int = 4, **kinds: bool) -> Program:
    return Program([torch.call] * copies, 1e6, **kinds)


def test_a_graph_is_captured_once_and_replayed_between_events() -> None:
    torch = FakeTorch(call_s=2e-5)
    device = CudaDevice(torch, 0)
    calls = device.calls_per_replay(program(torch), 10)
    assert calls == 12
    with device.timed(program(torch), calls) as (run, how):
        assert how == "graph"
        assert torch.issued == 3  # the warm-up, on the side stream
        assert run(7) == pytest.approx(7 * 12 * 2e-5)
    assert [graph.calls for graph in torch.graphs] == [12]
    assert torch.log.count("capture") == 1
    assert torch.log.index("on side") < torch.log.index("capture")
    assert torch.log[-1] == "reset"
    waits = [line for line in torch.log if "waits" in line]
    assert waits == ["side waits for main", "main waits for side"]


def test_what_cannot_be_captured_is_issued_and_says_so() -> None:
    torch = FakeTorch()
    torch.refuses = RuntimeError("operation not permitted when stream is capturing")
    with CudaDevice(torch, 0).timed(program(torch), 12) as (run, how):
        assert how == "eager"
        assert run(2) == pytest.approx(24 * torch.call_s)


def test_no_capture_is_tried_where_none_is_wanted() -> None:
    torch = FakeTorch()
    with CudaDevice(torch, 0).timed(program(torch, graph=False), 12) as (_, how):
        assert how == "eager"
    assert not torch.graphs


def test_no_room_while_capturing_is_no_reason_to_issue() -> None:
    torch = FakeTorch()
    torch.refuses = torch.OutOfMemoryError("CUDA out of memory")
    timed = CudaDevice(torch, 0).timed(program(torch), 12)
    with pytest.raises(torch.OutOfMemoryError), timed:
        pass


def test_issuing_time_is_the_hosts() -> None:
    torch = FakeTorch()
    with CudaDevice(torch, 0).timed(program(torch, host=True), 100) as (run, how):
        assert how == "issue"
        assert run(1) >= 0.0
    assert torch.issued == 100
    assert not torch.graphs


def test_recovering_tells_a_broken_device() -> None:
    torch = FakeTorch()
    device = CudaDevice(torch, 0)
    device.recover()
    assert torch.log[-1] == "empty cache"
    torch.broken = True
    with pytest.raises(RuntimeError, match="illegal memory access"):
        device.recover()


def test_free_memory_counts_what_torch_keeps() -> None:
    assert CudaDevice(FakeTorch(), 0).free_bytes() == 6.5e9


def test_machine_facts() -> None:
    machine = CudaDevice(FakeTorch(), 0).machine
    assert (machine.gpu, machine.kind, machine.sms) == ("fake GPU", "cuda", 24)
    assert (machine.capability, machine.cache_bytes, machine.cuda) == (86, 4_000_000, "12.8")


@pytest.mark.parametrize(
    ("asked", "devices", "sentence"),
    [
        (None, 0, "no CUDA GPU can be used from this PyTorch .*; give --device cpu"),
        ("cuda", 0, "no CUDA GPU can be used"),
        ("cuda:2", 2, "--device cuda:2: there are 2 CUDA devices; allowed: cuda:0 to cuda:1"),
        ("gpu", 1, "--device 'gpu' is unknown; allowed: cuda, cuda:0"),
        ("cuda:x", 1, "--device 'cuda:x' is unknown"),
    ],
)
def test_no_such_device(asked: str | None, devices: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        open_device(FakeTorch(devices=devices), asked)


def test_no_room_by_any_name() -> None:
    torch = FakeTorch()
    hidden = RuntimeError("capture was invalidated")
    hidden.__context__ = torch.OutOfMemoryError("CUDA out of memory")
    known = [
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        hidden,
    ]
    assert all(map(partial(is_out_of_memory, torch), known))
    assert not is_out_of_memory(torch, RuntimeError("no kernel"))


def test_clocks_of_nvidia_smi() -> None:
    found = parsed("1980, 2619, 512.33, 61\n")
    assert found is not None
    assert (found.sm_mhz, found.memory_mhz, found.power_w) == (1980.0, 2619.0, 512.33)
    missing = parsed("1980, [N/A], [N/A], 61")
    assert missing is not None
    assert missing.memory_mhz != missing.memory_mhz
    assert parsed("No devices were found") is None

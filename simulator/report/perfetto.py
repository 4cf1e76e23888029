"""A run as a Chrome Trace Event file, to open in Perfetto (ui.perfetto.dev) or chrome://tracing.

What is in it:

- one process per pool, one track per instance, one slice per stride (its steps, batch, KV tokens);
- a process "KV transfers" with the tracks of each decode instance's ingress; transfers that share
  the endpoint lie on parallel tracks, so that no two slices of one track overlap;
- flow arrows along each request: last prefill step → transfer → first decode step;
- a process "requests" with one async span per request, and inside it one per phase of its life;
- counters: decoding sequences, KV blocks, queue length, outgoing transfers per instance.

The format counts microseconds; instants are rounded to whole nanoseconds, so that strides which
follow one another share their boundary exactly. Events are generated and written one by one: memory
does not grow with the file.

References: [1] "Trace Event Format", the Chromium project. [2] "Importing custom data", Perfetto
documentation.
"""

from __future__ import annotations

import gzip
import heapq
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pandas as pd

from simulator.request import State
from simulator.run import Run

IntArray = npt.NDArray[np.int64]

PID_REQUESTS = 1
PID_TRANSFERS = 2
PID_POOLS = 10

_CHUNK = 4096
_PHASES = (
    ("router", "queued_s"),
    ("prefill queue", "prefill_start_s"),
    ("prefill", "prefill_end_s"),
    ("transfer wait", "transfer_start_s"),
    ("KV transfer", "landed_s"),
    ("decode queue", "decode_start_s"),
    ("decode", "last_token_s"),
)


def write_trace(run: Run, path: Path) -> int:
    """Write the trace of a run; a name that ends in ``.gz`` is compressed.

    Args:
        run: a run made with ``keep_strides=True``.
        path: file to write (overwritten).

    Returns:
        Number of events written.

    Raises:
        ValueError: the run kept no strides.
        OSError: the file cannot be written.
    """
    with path.open("wb") as raw:
        return write_trace_to(run, raw, compress=path.suffix == ".gz")


def write_trace_to(run: Run, raw: IO[bytes], *, compress: bool = False) -> int:
    """Write the trace of a run to an open binary file; returns the number of events.

    Raises:
        ValueError: the run kept no strides.
    """
    if run.strides is None:
        raise ValueError("a trace needs a run made with keep_strides=True")
    if not compress:
        return _write_text(run, raw)
    # no name and no date in the header: the same run gives the same bytes
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as packed:
        return _write_text(run, packed)


def _write_text(run: Run, raw: IO[bytes] | gzip.GzipFile) -> int:
    text = io.TextIOWrapper(raw, encoding="utf-8", write_through=False)
    about = {"scenario": run.deployment.name, "seed": run.seed, "requests": len(run.requests)}
    text.write(f'{{"displayTimeUnit":"ms","otherData":{json.dumps(about)},"traceEvents":[\n')
    n = 0
    for event in trace_events(run):
        text.write(event if n == 0 else ",\n" + event)
        n += 1
    text.write("\n]}\n")
    text.detach()  # flushes; the file itself belongs to the caller
    return n


def trace_events(run: Run) -> Iterator[str]:
    """Every event of the trace as one JSON object in text, tracks before what lies on them."""
    layout = _Layout(run)
    yield from layout.names()
    yield from layout.strides()
    yield from layout.transfers()
    yield from layout.flows()
    yield from _request_spans(run.requests)
    yield from layout.queue_counters()


def _ns(t_s: npt.ArrayLike) -> IntArray:
    """Instants [s] as whole nanoseconds; -1 for NaN."""
    t = np.asarray(t_s, dtype=np.float64)
    return np.where(np.isnan(t), -1, np.rint(np.nan_to_num(t) * 1e9)).astype(np.int64)


def _us(ns: int) -> str:
    """Nanoseconds as the decimal microseconds of the format, exactly."""
    return f"{ns // 1000}.{ns % 1000:03d}"


def _metadata(pid: int, tid: int, kind: str, **args: str | int) -> str:
    return json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": args})


def _counter(pid: int, name: str, unit: str, ns: int, value: int) -> str:
    return (
        f'{{"ph":"C","pid":{pid},"tid":0,"ts":{_us(ns)},"name":"{name}",'
        f'"args":{{"{unit}":{value}}}}}'
    )


def _steps(pid: int, name: str, unit: str, up: IntArray, down: IntArray) -> Iterator[str]:
    """Counter of a population that grows at the instants ``up`` and shrinks at ``down`` [ns]."""
    at = np.concatenate([up, down])
    change = np.concatenate([np.ones_like(up), -np.ones_like(down)])
    instants, where = np.unique(at, return_inverse=True)
    level = np.cumsum(np.bincount(where, weights=change, minlength=instants.size)).astype(np.int64)
    before = 0
    for ns, value in zip(instants.tolist(), level.tolist(), strict=True):
        if value != before:
            yield _counter(pid, name, unit, ns, value)
            before = value


class _Layout:
    """Where everything lies: process, track and label of each instance, and its strides in time."""

    def __init__(self, run: Run) -> None:
        assert run.strides is not None
        instances = run.instances
        pools = list(dict.fromkeys(instances["pool"]))
        self.requests = run.requests
        self.id = run.requests["id"].to_numpy()
        self.prefill = run.requests["prefill_instance"].to_numpy()
        self.decode = run.requests["decode_instance"].to_numpy()
        self.pools = pools
        self.pool = [pools.index(p) for p in instances["pool"]]
        self.label: list[str] = []
        seen = dict.fromkeys(pools, 0)
        for pool in instances["pool"]:
            self.label.append(f"{pool} {seen[pool]}")
            seen[pool] += 1
        rows = run.strides["instance"].to_numpy()
        self.of = [run.strides[rows == i] for i in range(len(instances))]
        self.start: list[IntArray] = []
        self.end: list[IntArray] = []
        for table in self.of:
            start, end = _ns(table["t_start_s"]), _ns(table["t_end_s"])
            # a boundary computed by two roads may round to neighbouring nanoseconds
            touching = np.abs(start[1:] - end[:-1]) <= 2
            start[1:] = np.where(touching, end[:-1], start[1:])
            self.start.append(start)
            self.end.append(np.maximum(end, start))
        self._place_transfers()

    def pid(self, instance: int) -> int:
        """Process of an instance's pool."""
        return PID_POOLS + self.pool[instance]

    def _place_transfers(self) -> None:
        """Give each transfer the lowest free lane of its destination (greedy interval colouring)."""
        r = self.requests
        start, end = _ns(r["transfer_start_s"]), _ns(r["landed_s"])
        self.moved = np.flatnonzero((start >= 0) & (end >= start))
        self.moved = self.moved[np.lexsort((self.moved, start[self.moved]))]
        self.transfer_start, self.transfer_end = start, end
        self.lane = np.full(len(r), -1, dtype=np.int64)
        self.lanes = [0] * len(self.pool)
        running: list[list[tuple[int, int]]] = [[] for _ in self.pool]
        free: list[list[int]] = [[] for _ in self.pool]
        for i in self.moved.tolist():
            to = int(self.decode[i])
            while running[to] and running[to][0][0] <= start[i]:
                heapq.heappush(free[to], heapq.heappop(running[to])[1])
            if not free[to]:
                heapq.heappush(free[to], self.lanes[to])
                self.lanes[to] += 1
            self.lane[i] = heapq.heappop(free[to])
            # a transfer of no length still owns its nanosecond
            heapq.heappush(running[to], (max(int(end[i]), int(start[i]) + 1), int(self.lane[i])))
        self.first_tid = (np.cumsum([1, *self.lanes])[:-1]).astype(np.int64)

    def names(self) -> Iterator[str]:
        """Names and order of processes and tracks."""
        for i, pool in enumerate(self.pools):
            yield _metadata(PID_POOLS + i, 0, "process_name", name=f"pool {pool}")
            yield _metadata(PID_POOLS + i, 0, "process_sort_index", sort_index=i)
        for instance, label in enumerate(self.label):
            yield _metadata(self.pid(instance), instance + 1, "thread_name", name=label)
        if self.moved.size:
            yield _metadata(PID_TRANSFERS, 0, "process_name", name="KV transfers")
            yield _metadata(PID_TRANSFERS, 0, "process_sort_index", sort_index=len(self.pools))
        for instance, lanes in enumerate(self.lanes):
            for lane in range(lanes):
                tid = int(self.first_tid[instance]) + lane
                name = f"into {self.label[instance]}" + (f" ({lane + 1})" if lane else "")
                yield _metadata(PID_TRANSFERS, tid, "thread_name", name=name)
        yield _metadata(PID_REQUESTS, 0, "process_name", name="requests")
        yield _metadata(PID_REQUESTS, 0, "process_sort_index", sort_index=len(self.pools) + 1)

    def strides(self) -> Iterator[str]:
        """One complete event per stride, and the counters that change with it."""
        for instance, table in enumerate(self.of):
            head = f'{{"ph":"X","pid":{self.pid(instance)},"tid":{instance + 1},"ts":'
            batch, blocks = _Level(self, instance, "batch"), _Level(self, instance, "KV blocks")
            columns = ("steps", "batch", "kv_tokens", "new_tokens", "blocks", "prefills")
            for at in range(0, len(table), _CHUNK):
                part = slice(at, at + _CHUNK)
                begin, end = self.start[instance][part].tolist(), self.end[instance][part].tolist()
                values = [table[c].to_numpy()[part].tolist() for c in columns]
                for t0, t1, n, b, kv, new, used, chunks in zip(begin, end, *values, strict=True):
                    name = "decode" if not new else "mixed" if b else "prefill"
                    yield (
                        f'{head}{_us(t0)},"dur":{_us(t1 - t0)},"cat":"stride","name":"{name}",'
                        f'"args":{{"steps":{n},"batch":{b},"kv_tokens":{kv},"new_tokens":{new},'
                        f'"blocks":{used},"prefills":{chunks}}}}}'
                    )
                    yield from batch.at(t0, b, idle_from=True)
                    yield from blocks.at(t0, used)
                    batch.until = t1
            yield from batch.at(batch.until, 0)

    def transfers(self) -> Iterator[str]:
        """One complete event per KV transfer, on the tracks of its destination's ingress."""
        prompt = self.requests["prompt_tokens"].to_numpy()
        source, to = self.prefill, self.decode
        for i in self.moved.tolist():
            t0, t1 = int(self.transfer_start[i]), int(self.transfer_end[i])
            yield (
                f'{{"ph":"X","pid":{PID_TRANSFERS},"tid":{self._lane_tid(i)},"ts":{_us(t0)},'
                f'"dur":{_us(t1 - t0)},"cat":"transfer","name":"from {self.label[source[i]]}",'
                f'"args":{{"request":{self.id[i]},"prompt_tokens":{prompt[i]},'
                f'"to":"{self.label[to[i]]}"}}}}'
            )
        for instance in sorted(set(source[self.moved].tolist())):
            mine = self.moved[source[self.moved] == instance]
            name = f"outgoing transfers {self.label[instance]}"
            up, down = self.transfer_start[mine], self.transfer_end[mine]
            yield from _steps(PID_TRANSFERS, name, "transfers", up, down)

    def _lane_tid(self, row: int) -> int:
        to = int(self.decode[row])
        return int(self.first_tid[to]) + int(self.lane[row])

    def _ending_slice(self, instance: int, ns: int) -> int | None:
        """An instant inside the stride that ends at ``ns``, just before its end."""
        k = int(np.searchsorted(self.end[instance], ns - 2))
        if k < self.end[instance].size and self.start[instance][k] < ns:
            return max(int(self.start[instance][k]), min(ns, int(self.end[instance][k])) - 1)
        return None

    def _starting_slice(self, instance: int, ns: int) -> int | None:
        """An instant inside the stride that starts at ``ns``."""
        k = int(np.searchsorted(self.start[instance], ns + 2, side="right")) - 1
        if k >= 0 and self.end[instance][k] > ns:
            return max(int(self.start[instance][k]), ns)
        return None

    def flows(self) -> Iterator[str]:
        """Arrows prefill → transfer → decode; none for a request with no slice to bind to."""
        prefill, decode = self.prefill, self.decode
        end, begin = _ns(self.requests["prefill_end_s"]), _ns(self.requests["decode_start_s"])
        for i, name in enumerate(self.id.tolist()):
            if prefill[i] < 0 or decode[i] < 0 or end[i] < 0 or begin[i] < 0:
                continue
            p, d = int(prefill[i]), int(decode[i])
            first = self._ending_slice(p, int(end[i]))
            last = self._starting_slice(d, int(begin[i]))
            if first is None or last is None:
                continue
            flow = f'"cat":"request","name":"request","id":{name}'
            yield f'{{"ph":"s","pid":{self.pid(p)},"tid":{p + 1},"ts":{_us(first)},{flow}}}'
            if self.lane[i] >= 0:
                # a layer-wise transfer starts before its prefill ends; arrows only go forward
                at = max(int(self.transfer_start[i]), min(first, int(self.transfer_end[i]) - 1))
                tid = self._lane_tid(i)
                yield f'{{"ph":"t","pid":{PID_TRANSFERS},"tid":{tid},"ts":{_us(at)},{flow}}}'
            yield (
                f'{{"ph":"f","bp":"e","pid":{self.pid(d)},"tid":{d + 1},"ts":{_us(last)},{flow}}}'
            )

    def queue_counters(self) -> Iterator[str]:
        """Requests that wait for prefill, and for decode, at each instance."""
        for what, instance, enter, leave in (
            ("prefill", "prefill_instance", "queued_s", "prefill_start_s"),
            ("decode", "decode_instance", "landed_s", "decode_start_s"),
        ):
            up, down = _ns(self.requests[enter]), _ns(self.requests[leave])
            where = self.requests[instance].to_numpy()
            for i in range(len(self.pool)):
                mine = (where == i) & (up >= 0)
                name = f"{what} queue {self.label[i]}"
                left = down[mine & (down >= 0)]
                yield from _steps(self.pid(i), name, "requests", up[mine], left)


class _Level:
    """A counter of one instance that is written only when it changes."""

    def __init__(self, layout: _Layout, instance: int, what: str) -> None:
        self.pid = layout.pid(instance)
        self.name = f"{what} {layout.label[instance]}"
        self.unit = what.replace(" ", "_")
        self.value = 0
        self.until = 0

    def at(self, ns: int, value: int, *, idle_from: bool = False) -> Iterator[str]:
        """The counter is ``value`` from ``ns`` on; it was 0 since ``until`` if it was idle."""
        if idle_from and ns > self.until:
            yield from self.at(self.until, 0)
        if value != self.value:
            yield _counter(self.pid, self.name, self.unit, ns, value)
            self.value = value


def _request_spans(requests: pd.DataFrame) -> Iterator[str]:
    """Nested async spans: the request, and its phases one after another inside it."""
    facts = ["id", "prompt_tokens", "output_tokens", "preemptions", "state"]
    instants = ["arrival_s", "first_token_s", *(column for _, column in _PHASES)]
    for at in range(0, len(requests), _CHUNK):
        part = requests.iloc[at : at + _CHUNK]
        about = part[facts].to_numpy().tolist()
        times = np.stack([_ns(part[column]) for column in instants], axis=1).tolist()
        for row, (arrival, first, *reached) in zip(about, times, strict=True):
            yield from _request_span(row, arrival, first, reached)


def _request_span(facts: list[int], arrival: int, first: int, reached: list[int]) -> Iterator[str]:
    """The spans of one request; instants in nanoseconds, -1 for what never happened."""
    name, prompt, output, preempted, state = facts
    common = f'"pid":{PID_REQUESTS},"tid":0,"cat":"request","id":{name}'
    yield (
        f'{{"ph":"b",{common},"ts":{_us(arrival)},"name":"request",'
        f'"args":{{"prompt_tokens":{prompt},"output_tokens":{output},'
        f'"preemptions":{preempted},"state":"{State(state).name.lower()}"}}}}'
    )
    now = arrival
    for (phase, _), at in zip(_PHASES, reached, strict=True):
        if at > now:
            yield f'{{"ph":"b",{common},"ts":{_us(now)},"name":"{phase}"}}'
            yield f'{{"ph":"e",{common},"ts":{_us(at)},"name":"{phase}"}}'
            now = at
    if first >= 0:
        yield f'{{"ph":"n",{common},"ts":{_us(first)},"name":"first token"}}'
    yield f'{{"ph":"e",{common},"ts":{_us(now)},"name":"request"}}'

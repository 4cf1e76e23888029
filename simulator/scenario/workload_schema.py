"""The ``workload`` section of the scenario file: what the clients send."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from simulator.scenario.arrival_schema import Arrivals, Process, arrival_keys, is_profile
from simulator.scenario.class_schema import Classes, TraceLengths
from simulator.scenario.length_schema import Lengths
from simulator.scenario.values import (
    Count,
    Name,
    PositiveReal,
    PositiveSeconds,
    Seconds,
    Section,
    refuse,
)
from simulator.workload.traces import TraceFormat

OnTooLong = Literal["error", "reject"]


class Trace(Section):
    """Replay of a recorded trace. Cut first (in the trace's own time), then made faster."""

    path: Annotated[
        Name,
        Field(description="bundled trace, or a file (relative to the scenario file)"),
    ]
    format: Annotated[TraceFormat, Field(description="file format; auto reads the header")] = "auto"
    rate_scale: Annotated[
        PositiveReal, Field(description="arrival times are divided by this [ratio]")
    ] = 1.0
    start_s: Annotated[
        Seconds | None,
        Field(description="requests before this are left out, and it is time 0 [s]; default: none"),
    ] = None
    end_s: Annotated[
        PositiveSeconds | None,
        Field(description="requests from this on are left out [s]; default: none"),
    ] = None
    max_requests: Annotated[
        Count | None, Field(description="only the first so many are kept; default: all")
    ] = None

    @model_validator(mode="after")
    def _ordered(self) -> Trace:
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            start = f"{self.start_s or 0.0:g}"
            raise refuse("end_s", f"found {self.end_s:g}; allowed: more than start_s, {start}.")
        return self


class ClosedLoopClient(Section):
    """A client that keeps a number of requests in flight, with no think time."""

    concurrency: Annotated[Count, Field(description="requests in flight")]
    requests: Annotated[
        Count | None,
        Field(description="requests sent in all; default: 10 × concurrency"),
    ] = None

    @model_validator(mode="after")
    def _enough(self) -> ClosedLoopClient:
        if self.requests is not None and self.requests < self.concurrency:
            raise refuse(
                "requests",
                f"found {self.requests}; allowed: at least the concurrency, {self.concurrency}.",
            )
        return self


class Workload(Section):
    """What the clients send: an arrival process, a trace, or a closed loop."""

    arrivals: Annotated[
        Arrivals | None,
        Field(
            description="arrival process: a name, or a mapping with its process and its numbers; "
            "default: poisson when rate_rps is given"
        ),
    ] = None
    rate_rps: Annotated[
        PositiveReal | None,
        Field(
            description="mean arrival rate; a process with rates of its own is scaled to it [1/s]; "
            "default: none, or the mean of the process"
        ),
    ] = None
    cv: Annotated[
        float | None,
        Field(gt=0, le=10, description="standard deviation over mean of the gaps, gamma only"),
    ] = None
    requests: Annotated[
        Count | None,
        Field(description="how many requests arrive, unless the process, trace or client says it"),
    ] = None
    prompt_tokens: Annotated[
        Lengths | None, Field(description="distribution of prompt lengths")
    ] = None
    output_tokens: Annotated[
        Lengths | None, Field(description="distribution of output lengths")
    ] = None
    lengths: Annotated[
        TraceLengths | None, Field(description="instead: both lengths from a trace")
    ] = None
    classes: Annotated[
        Classes | None,
        Field(min_length=1, description="instead of lengths: kinds of requests, by name"),
    ] = None
    trace: Annotated[Trace | None, Field(description="replay a trace instead")] = None
    closed_loop: Annotated[
        ClosedLoopClient | None, Field(description="a fixed number in flight instead")
    ] = None
    on_too_long: Annotated[
        OnTooLong,
        Field(description="requests that can never fit the KV cache: refuse the run, or them"),
    ] = "error"

    @model_validator(mode="after")
    def _one_source(self) -> Workload:
        source, needed, allowed = self._source()
        if source != "a trace":
            lengths = self._length_keys()
            needed, allowed = needed + lengths, allowed + lengths
        for key in ("arrivals", "rate_rps", "cv", "requests", *LENGTH_KEYS):
            given = getattr(self, key) is not None
            if given and key not in allowed:
                cause = source
                if key in LENGTH_KEYS and source != "a trace":
                    cause = " and ".join(self._length_keys())
                raise refuse(key, f"has no effect with {cause}; allowed: leave it out.")
            if not given and key in needed:
                raise refuse(key, f"is missing; {source} needs {', '.join(needed)}.")
        return self

    def _source(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What the requests come from, and the keys it needs and allows, those of lengths apart."""
        rate = "rate_rps" if self.rate_rps is not None else "arrivals"
        opened = self.rate_rps is not None or self.arrivals is not None
        given = [
            name
            for name, there in (
                (rate, opened),
                ("rates of its classes", self._own_rates()),
                ("trace", self.trace is not None),
                ("closed_loop", self.closed_loop is not None),
            )
            if there
        ]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise refuse(
                "", f"found {found}; allowed: exactly one of rate_rps, trace, closed_loop."
            )
        if given == ["trace"]:
            return "a trace", (), ()
        if given == ["closed_loop"]:
            return "a closed loop", (), ()
        if given == ["rates of its classes"]:
            ends = all(is_profile(c.arrivals) for c in (self.classes or {}).values())
            count = () if ends else ("requests",)
            return "classes with rates of their own", count, count
        return arrival_keys(self.arrivals)

    @property
    def mean_rate_rps(self) -> float | None:
        """Mean rate of a resolved workload [1/s]; None for a trace or a closed loop."""
        if self.rate_rps is not None or self.classes is None or self.closed_loop is not None:
            return self.rate_rps
        return sum(c.rate_rps or 0.0 for c in self.classes.values())

    @property
    def processes(self) -> tuple[tuple[str | Process, float | None], ...]:
        """Arrival processes of a resolved workload, each with its cv; empty without any."""
        own = [(c.arrivals, c.cv) for c in (self.classes or {}).values()]
        found = [(self.arrivals, self.cv), *own]
        return tuple((process, cv) for process, cv in found if process is not None)

    def _own_rates(self) -> bool:
        """Whether the classes have arrivals of their own; all or none may."""
        own = {
            name: c.rate_rps is not None or c.arrivals is not None
            for name, c in (self.classes or {}).items()
        }
        if len(set(own.values())) > 1:
            odd = next(name for name, has in own.items() if not has)
            raise refuse(
                "classes",
                f"found classes with rates of their own and class '{odd}' without; allowed: a "
                "rate_rps (or arrivals) for every class, or for none.",
            )
        return any(own.values())

    def _length_keys(self) -> tuple[str, ...]:
        """Which keys say the lengths."""
        if self.classes is not None:
            return ("classes",)
        return ("lengths",) if self.lengths is not None else ("prompt_tokens", "output_tokens")


LENGTH_KEYS = ("prompt_tokens", "output_tokens", "lengths", "classes")

"""The ``workload`` section of the scenario file: what the clients send."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

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

ArrivalName = Literal["poisson", "gamma", "constant"]
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
        ArrivalName | None,
        Field(description="arrival process; default: poisson when rate_rps is given"),
    ] = None
    rate_rps: Annotated[
        PositiveReal | None,
        Field(description="mean arrival rate, unless trace or closed_loop [1/s]"),
    ] = None
    cv: Annotated[
        float | None,
        Field(gt=0, le=10, description="standard deviation over mean of the gaps, gamma only"),
    ] = None
    requests: Annotated[
        Count | None, Field(description="how many requests arrive, with rate_rps")
    ] = None
    prompt_tokens: Annotated[
        Lengths | None, Field(description="distribution of prompt lengths, unless trace")
    ] = None
    output_tokens: Annotated[
        Lengths | None, Field(description="distribution of output lengths, unless trace")
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
        for key in ("arrivals", "rate_rps", "cv", "requests", *_LENGTHS):
            given = getattr(self, key) is not None
            if given and key not in allowed:
                raise refuse(key, f"has no effect with {source}; allowed: leave it out.")
            if not given and key in needed:
                raise refuse(key, f"is missing; {source} needs {', '.join(needed)}.")
        return self

    def _source(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What the requests come from, and the keys it needs and allows."""
        rate = "rate_rps" if self.rate_rps is not None else "arrivals"
        opened = self.rate_rps is not None or self.arrivals is not None
        given = [
            name
            for name, there in (
                (rate, opened),
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
            return "a closed loop", _LENGTHS, _LENGTHS
        needed = ("rate_rps", "requests", *_LENGTHS)
        if self.arrivals == "gamma":
            return "arrivals: gamma", (*needed, "cv"), (*needed, "cv", "arrivals")
        return f"arrivals: {self.arrivals or 'poisson'}", needed, (*needed, "arrivals")


_LENGTHS = ("prompt_tokens", "output_tokens")

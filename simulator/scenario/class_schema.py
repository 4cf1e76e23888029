"""Request classes of the scenario file: kinds of requests with lengths and targets of their own."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from simulator.scenario.arrival_schema import Arrivals, arrival_keys
from simulator.scenario.length_schema import Lengths
from simulator.scenario.target_schema import ClassTargets
from simulator.scenario.values import Name, PositiveReal, Seconds, Section, Tokens, refuse


class TraceLengths(Section):
    """Prompt and output lengths drawn together, with replacement, from the requests of a trace."""

    trace: Annotated[
        Name, Field(description="bundled trace, or a file (relative to the scenario file)")
    ]


class Session(Section):
    """Several turns: each prompt holds the conversation so far. Gaps do not wait for answers."""

    turns: Annotated[Lengths, Field(description="turns of a session")]
    new_tokens: Annotated[
        Lengths, Field(description="what the prompt of a later turn adds to the conversation")
    ]
    gap_s: Annotated[
        Seconds, Field(description="mean time from one turn to the next, answer included [s]")
    ]
    gap_cv: Annotated[
        float, Field(ge=0, le=10, description="its standard deviation over mean, lognormal [ratio]")
    ] = 1.0
    max_context_tokens: Annotated[
        Tokens,
        Field(ge=2, description="a session ends before prompt and answer exceed this [tokens]"),
    ]


def _preset(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


class RequestClass(Section):
    """A kind of request. What it leaves out is its preset's."""

    preset: Annotated[
        Name | None,
        Field(description="bundled kind to start from (`xpyd presets`); a bare name is enough"),
    ] = None
    weight: Annotated[
        PositiveReal | None,
        Field(description="share of the requests, relative to the other classes'; default: 1"),
    ] = None
    rate_rps: Annotated[
        PositiveReal | None,
        Field(description="instead of a weight: mean rate of arrivals of its own [1/s]"),
    ] = None
    arrivals: Annotated[
        Arrivals | None,
        Field(description="process of arrivals of its own; default: poisson with a rate_rps"),
    ] = None
    cv: Annotated[
        float | None,
        Field(gt=0, le=10, description="standard deviation over mean of the gaps, gamma only"),
    ] = None
    prompt_tokens: Annotated[
        Lengths | None, Field(description="prompt lengths (of a session: the first turn's)")
    ] = None
    output_tokens: Annotated[Lengths | None, Field(description="output lengths")] = None
    lengths: Annotated[
        TraceLengths | None, Field(description="instead: both lengths from a trace")
    ] = None
    session: Annotated[Session | None, Field(description="several turns; default: one")] = None
    slo: Annotated[
        ClassTargets | None,
        Field(description="latency targets of its own; default: the scenario's slo"),
    ] = None

    @model_validator(mode="after")
    def _one_way(self) -> RequestClass:
        given = self.prompt_tokens is not None or self.output_tokens is not None
        if self.lengths is not None and given:
            raise refuse("lengths", "found with prompt_tokens or output_tokens; allowed: not both.")
        if self.lengths is not None and self.session is not None:
            raise refuse("lengths", "has no effect with a session; allowed: leave it out.")
        own = self.rate_rps is not None or self.arrivals is not None
        if self.weight is not None and own:
            raise refuse("weight", "found with rate_rps or arrivals; allowed: not both.")
        self._own_keys(own)
        return self

    def _own_keys(self, own: bool) -> None:
        """Refuse keys of an arrival process that has no use for them, or lacks some."""
        source = "a weight"
        needed: tuple[str, ...] = ()
        allowed = needed
        if own:
            source, needed, allowed = arrival_keys(self.arrivals, own=True)
        for key in ("rate_rps", "cv"):
            given = getattr(self, key) is not None
            if given and key not in allowed:
                raise refuse(key, f"has no effect with {source}; allowed: leave it out.")
            if not given and key in needed:
                raise refuse(key, f"is missing; {source} needs {', '.join(needed)}.")


Classes = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")],
    Annotated[RequestClass, BeforeValidator(_preset)],
]

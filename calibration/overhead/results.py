"""A measured run as the file of its benchmark client tells it.

==================  ====================================================================
client              files
==================  ====================================================================
``vllm``            ``vllm bench serve --save-result``, with or without ``--save-detailed`` [1]
``sglang``          ``sglang.bench_serving --output-file``: one result a line [2]
``aiperf``          ``profile_export_aiperf.json``, or ``profile_export.jsonl`` [3]
``genai-perf``      ``profile_export_genai_perf.json`` [4]
``inference-perf``  ``stage_N_lifecycle_metrics.json`` [5]
==================  ====================================================================

References:
    [1] vLLM documentation, "Benchmark CLI".
    [2] SGLang documentation, "Bench Serving Guide".
    [3] NVIDIA AIPerf documentation, "Working with profile export files", "JSON export schema".
    [4] NVIDIA GenAI-Perf documentation, "Outputs".
    [5] kubernetes-sigs/inference-perf, ``docs/reports.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.overhead.entry import Entry

METRICS = ("ttft", "tpot", "itl", "e2e")
"""Time to first token; per output token of a request; between tokens of all; of a whole request."""
STATS = ("mean", "median")


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Token counts of a run's requests.

    Attributes:
        mean: of the requests that completed [tokens].
        recorded: one a request, in the order sent; None where the file has none.
        quantiles: (probability, tokens), ascending, where the file has a distribution or says how
            wide it was; empty: not known.
        said: what says so, for notes.
    """

    mean: float
    recorded: NDArray[np.int64] | None = None
    quantiles: tuple[tuple[float, float], ...] = ()
    said: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """Something a file says of the deployment.

    Attributes:
        key: the field that says it.
        value: what it says.
    """

    key: str
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One measured run.

    Attributes:
        entry: where it was read.
        client: what wrote it (see above).
        requests: requests that completed.
        prompt: their prompt lengths.
        output: their output lengths.
        measured: by metric and statistic, ``("ttft", "mean")`` ... [s].
        concurrency: most requests in flight; None: not limited, or not said.
        rate_rps: arrivals [1/s]; ``inf``: all at once, as far as ``concurrency`` lets; None: not said.
        burstiness: shape of the gaps' gamma law, 1 for a Poisson process.
        start_s: when requests were sent [s], from 0, in the order of ``recorded`` lengths.
        model: name of the model, if the file says it.
        engine: serving engine, if the file leaves no doubt.
        tp: tensor parallelism, if the file says it.
        version: of the engine, if the file says it.
        date: of the run, if the file says it.
        notes: what was left out or assumed in reading.
        name: for tables, where the file's name is not unique.
    """

    entry: Entry
    client: str
    requests: int
    prompt: Lengths
    output: Lengths
    measured: Mapping[tuple[str, str], float]
    concurrency: int | None = None
    rate_rps: float | None = None
    burstiness: float = 1.0
    start_s: NDArray[np.float64] | None = None
    model: Said | None = None
    engine: Said | None = None
    tp: Said | None = None
    version: str = ""
    date: str = ""
    notes: tuple[str, ...] = field(default=())
    name: str = ""

    @property
    def label(self) -> str:
        """What tables call it: its file, unless it has a name."""
        return self.name or self.entry.label


def uniform(mean: float, ratio: float, said: str) -> Lengths:
    """Lengths uniform between ``ratio`` times the longest and the longest, of this mean."""
    longest = 2.0 * mean / (1.0 + ratio)
    return Lengths(mean, quantiles=((0.0, ratio * longest), (1.0, longest)), said=said)


def recorded(values: Sequence[int]) -> Lengths:
    """Lengths that the file lists."""
    array = np.array(values, dtype=np.int64)
    return Lengths(float(array.mean()), array, said="recorded")

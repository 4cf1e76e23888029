"""A measured run, simulated as what it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.overhead.results import Lengths, Result, uniform
from calibration.overhead.setup import Setup, any_workload
from simulator.engine import simulate_deployment
from simulator.errors import InputError
from simulator.scenario import Scenario
from simulator.scenario.deployment import Deployment
from simulator.scenario.fit import never_fits
from simulator.workload import ClosedLoop, Requests, arrivals, stream

Values = Mapping[str, float]
"""Constants of an engine profile by name."""
Times = dict[tuple[str, str], float]
"""By metric and statistic (``results.METRICS``, ``results.STATS``) [s]."""

MEAN_AGREES = 0.1
"""How far the mean length of a scenario may be from the file's, relative."""

FIXED_SPREAD = 0.02
"""Relative standard deviation of output lengths below which requests move in step."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the user says of the client, where a file does not.

    Attributes:
        concurrency: requests in flight.
        rate_rps: arrivals [1/s].
        ratio: lengths are uniform between this share of the longest and the longest.
    """

    concurrency: int | None = None
    rate_rps: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """A run that can be simulated with any constants.

    Attributes:
        result: what was measured.
        setup: on what.
        requests: what the client sent.
        client: what it did, in words.
        waves: whether all requests have one length and so move in waves, which no simulation
            predicts well.
        notes: what was assumed.
        seed: of the router.
    """

    result: Result
    setup: Setup
    requests: Requests
    client: str
    waves: bool
    notes: tuple[str, ...]
    seed: int

    def deployment(self, values: Values) -> Deployment:
        """The deployment with these constants.

        Raises:
            InputError: the scenario cannot be built.
        """
        raw = dict(self.setup.raw)
        given = raw["engine"]
        named = given if isinstance(given, Mapping) else {"name": given}
        added = self.setup.added
        raw["engine"] = {**named, **_engine(values, added["c0_s"])}
        if "front_s" in values:
            latency_s = values["front_s"] + added["front_s"]
            raw["routing"] = {**raw.get("routing", {}), "latency_s": latency_s}
        longest = self.requests.prompt_tokens.max(), self.requests.output_tokens.max()
        raw["workload"] = any_workload(*map(int, longest))
        raw["pools"] = {name: self._pool(pool) for name, pool in raw["pools"].items()}
        return Scenario.from_dict(raw, source=self.setup.source).deployment()

    def _pool(self, pool: Mapping[str, Any]) -> dict[str, Any]:
        """No more sequences than the client can fill: the same run, and a smaller table."""
        loop = self.requests.closed_loop
        most = len(self.requests) if loop is None else loop.concurrency
        default = self.setup.engine.whole("max_num_seqs")
        return {"max_num_seqs": min(default, most), **pool}

    def check(self, values: Values) -> None:
        """Refuse a run that this deployment cannot have served.

        Raises:
            InputError: a request does not fit the KV cache.
        """
        for pool in self.deployment(values).pools:
            bad = never_fits(self.requests, pool)
            if bad.any():
                raise InputError(
                    f"{self.result.entry.file}: {int(bad.sum())} of {len(bad)} requests are longer "
                    f"than the {pool.holds_tokens} tokens an instance of pool '{pool.name}' holds; "
                    "allowed: the deployment they were measured on."
                )

    def predict(self, values: Values) -> Times:
        """Simulate with these constants."""
        run = simulate_deployment(self.deployment(values), self.requests, seed=self.seed)
        table: Any = run.requests
        first, last = table["first_token_s"].to_numpy(), table["last_token_s"].to_numpy()
        arrival, output = table["arrival_s"].to_numpy(), table["output_tokens"].to_numpy()
        ended = np.isfinite(last)
        several = ended & (output > 1)
        found: Times = {}
        _add(found, "ttft", (first - arrival)[ended])
        _add(found, "tpot", (last - first)[several] / (output[several] - 1))
        _add(found, "e2e", (last - arrival)[ended])
        if run.itl.n:
            found["itl", "mean"] = run.itl.mean_s()
            found["itl", "median"] = run.itl.quantile_s(0.5)
        return found


def replay_of(
    result: Result, setup: Setup, load: Load, *, seed: int, workload: Any = None
) -> Replay:
    """A run with what its client sent.

    Args:
        result: what was measured.
        setup: on what.
        load: what the user says of the client.
        seed: of lengths and arrivals that the file does not list.
        workload: requests drawn from a scenario's distributions, for a file without lengths.

    Raises:
        InputError: the client cannot be replayed, or options and file disagree.
    """
    concurrency = _one(
        result, "max_concurrency", "--concurrency", result.concurrency, load.concurrency
    )
    rate = _one(result, "request_rate", "--request-rate", result.rate_rps, load.rate_rps)
    notes = list(result.notes)
    n = result.requests
    prompt, more = _drawn(result.prompt, n, load, workload, stream(seed, "prompt"), "prompt_tokens")
    output, also = _drawn(result.output, n, load, workload, stream(seed, "output"), "output_tokens")
    notes += list(dict.fromkeys((*more, *also)))
    _same_mean(result, prompt, output)
    requests, client, note = _client(result, concurrency, rate, prompt, output, seed)
    notes += note
    spread = float(output.std() / output.mean())
    waves = spread < FIXED_SPREAD and requests.closed_loop is not None and len(requests) > 1
    if waves:
        waves = requests.closed_loop is not None and requests.closed_loop.concurrency > 1
    if waves:
        notes.append("outputs of one length move in waves: its TTFT counts a third")
    return Replay(result, setup, requests, client, waves, tuple(notes), seed)


def _one(
    result: Result, key: str, option: str, found: float | None, given: float | None
) -> float | None:
    """What the file says, else what the user says."""
    if found is not None and given is not None and found != given:
        raise InputError(
            f"{result.entry.file}: {key}: found {found:g}; allowed: {given:g}, as {option} says."
        )
    return given if found is None else found


def _client(
    result: Result,
    concurrency: float | None,
    rate: float | None,
    prompt: NDArray[np.int64],
    output: NDArray[np.int64],
    seed: int,
) -> tuple[Requests, str, list[str]]:
    """Requests as the client sent them, what it did in words, and notes."""
    n = prompt.size
    limited = rate is not None and np.isfinite(rate)
    label = result.label
    if not limited and concurrency is not None:
        slots = min(int(concurrency), n)
        requests = Requests(np.zeros(n), prompt, output, label, closed_loop=ClosedLoop(slots))
        return requests, f"{slots} in flight", []
    if result.start_s is not None:
        order = np.argsort(result.start_s, kind="stable")
        start = result.start_s[order]
        requests = Requests(start, prompt[order], output[order], label)
        note = [] if limited else ["neither concurrency nor rate is known: sent as recorded"]
        return requests, "as recorded", note
    if limited and concurrency is not None:
        raise InputError(
            f"{result.entry.file}: max_concurrency: found {concurrency:g} and a request_rate of "
            f"{rate:g}; allowed: one of the two, or recorded start_times (--save-detailed)."
        )
    if limited:
        assert rate is not None
        rng = stream(seed, "arrivals")
        cv = 1.0 / np.sqrt(result.burstiness)
        start = arrivals.gamma(n, rate, float(cv), rng)
        note = ["arrivals are not recorded: drawn at the rate"]
        return Requests(start, prompt, output, label), f"{rate:g} requests/s", note
    if rate is not None:
        return Requests(np.zeros(n), prompt, output, label), f"all {n} at once", []
    raise InputError(
        f"{result.entry.file}: says neither concurrency nor request rate; allowed: --concurrency N, "
        "--request-rate R."
    )


# --- lengths ------------------------------------------------------------------------------------


def _drawn(
    lengths: Lengths,
    n: int,
    load: Load,
    workload: Any,
    rng: np.random.Generator,
    key: str,
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Token counts of ``n`` requests, their mean the file's; notes."""
    if lengths.recorded is not None:
        return lengths.recorded, ()
    if workload is not None:
        values = np.resize(np.asarray(getattr(workload, key), dtype=np.float64), n)
        if abs(values.mean() / lengths.mean - 1.0) > MEAN_AGREES:
            raise InputError(
                f"workload.{key} of the scenario: found a mean of {values.mean():.0f} tokens; "
                f"allowed: {lengths.mean:.0f}, as the file says."
            )
        return _scaled(values, lengths.mean), ("lengths are the scenario's",)
    note: tuple[str, ...] = ()
    if load.ratio is not None:
        lengths = uniform(lengths.mean, load.ratio, "--range-ratio")
    if not lengths.quantiles:
        note = ("lengths are not recorded: all as long as their mean",)
        lengths = replace(lengths, quantiles=((0.0, lengths.mean), (1.0, lengths.mean)))
    probability, tokens = zip(*lengths.quantiles, strict=True)
    even = rng.permutation(n)  # one in each of n equal parts: a small run has the mean too
    values = np.interp((even + 0.5) / n, probability, tokens)
    return _scaled(values, lengths.mean), note


def _scaled(values: NDArray[np.float64], mean: float) -> NDArray[np.int64]:
    scaled = values * (mean / values.mean())
    whole: NDArray[np.int64] = np.maximum(1, np.rint(scaled)).astype(np.int64)
    return whole


def _same_mean(result: Result, prompt: NDArray[np.int64], output: NDArray[np.int64]) -> None:
    """Refuse lists that are not as long as one another."""
    if prompt.size != output.size:
        raise InputError(
            f"{result.entry.file}: found {prompt.size} prompts and {output.size} outputs; allowed: as "
            "many of each."
        )


def _engine(values: Values, added_s: float) -> dict[str, float]:
    """Keys of a scenario's engine for constants of a profile."""
    names = {"sustained_bf16": "sustained", "sustained_fp8": "sustained"}
    found = {names.get(key, key): value for key, value in values.items() if key != "front_s"}
    if "c0_s" in found:
        found["c0_s"] = max(0.0, found["c0_s"] + added_s)
    return found


def _add(found: Times, metric: str, values: NDArray[np.float64]) -> None:
    if values.size:
        found[metric, "mean"] = float(values.mean())
        found[metric, "median"] = float(np.median(values))


def predict_all(replays: Sequence[Replay], values: Values, jobs: int = 1) -> list[Times]:
    """Simulate runs, in order.

    Args:
        replays: the runs.
        values: constants, the same for all.
        jobs: processes.
    """
    if jobs == 1 or len(replays) == 1:
        return [replay.predict(values) for replay in replays]
    import joblib  # type: ignore[import-untyped]  # no stubs are published

    pool = joblib.Parallel(n_jobs=jobs)
    found: list[Times] = pool(joblib.delayed(r.predict)(values) for r in replays)
    return found

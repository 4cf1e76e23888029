"""What a search amounts to: disaggregate or not, by how much, and what came closest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from simulator.planner.candidate import Candidate
from simulator.planner.intervals import mean_interval
from simulator.planner.layout import Mode

Disaggregate = Literal["yes", "no", "too close to call", "neither", "undecided"]
Objective = Literal["cost", "gpus"]


def objective_key(c: Candidate, objective: Objective) -> tuple[float, float]:
    """What is minimised, then what breaks ties."""
    price, gpus = c.usd_per_hour, float(c.layout.gpus)
    return (price, gpus) if objective == "cost" else (gpus, price)


def disaggregate(
    best: dict[Mode, Candidate],
    candidates: Sequence[Candidate],
    objective: Objective,
    target: float,
    complete: bool,
) -> tuple[Disaggregate, str]:
    """The answer in a word and in a sentence.

    Args:
        best: by mode, the cheapest layout that holds.
        candidates: all layouts.
        objective: what was minimised.
        target: attainment wanted.
        complete: whether the search was; without, a mode that has no layout yet is undecided.
    """
    split, together = best.get("disaggregated"), best.get("colocated")
    if split is None and together is None:
        return _neither(candidates, complete)
    if split is None or together is None:
        return _one_sided(split, together, candidates, objective, target, complete)
    a, b = objective_key(split, objective)[0], objective_key(together, objective)[0]
    if a == b:
        return _equal(split, together, objective)
    cheap, dear = (split, together) if a < b else (together, split)
    saved = _saved(cheap, dear, objective)
    open_ = undecided_below(candidates, dear.layout.mode, cheap, objective, target)
    open_.sort(key=lambda c: -len(c.reps))  # quote what is known best
    if open_:
        return "too close to call", (
            f"Too close to call: {cheap.layout.label} saves {saved}, but "
            f"{open_[0].layout.full_label} may hold for no more ({open_[0].reason})."
        )
    if cheap is split:
        return "yes", (
            f"Disaggregate: {split.layout.label} saves {saved} against the cheapest colocated "
            f"layout that holds, {together.layout.label}."
        )
    return "no", (
        f"Do not disaggregate: {together.layout.label} saves {saved} against the cheapest "
        f"disaggregated layout that holds, {split.layout.label}."
    )


def undecided_below(
    candidates: Sequence[Candidate],
    mode: Mode | None,
    than: Candidate,
    objective: Objective,
    target: float,
) -> list[Candidate]:
    """Layouts of a mode (None: any) that cost no more than ``than`` and may hold, best first.

    They may hold if they do, or the 95 % interval of their attainment reaches the target.
    """
    most = objective_key(than, objective)[0]
    found = [
        c
        for c in candidates
        if c is not than
        and c.seen
        and (mode is None or c.layout.mode == mode)
        and c.verdict in ("marginal", "holds")
        and _reaches(c, target)
        and objective_key(c, objective)[0] <= most
    ]
    return sorted(found, key=lambda c: (objective_key(c, objective), _missed(c), c.layout.order))


def _reaches(c: Candidate, target: float) -> bool:
    found = c.attainment()
    return found is not None and found.hi >= target


def _one_sided(
    split: Candidate | None,
    together: Candidate | None,
    candidates: Sequence[Candidate],
    objective: Objective,
    target: float,
    complete: bool,
) -> tuple[Disaggregate, str]:
    holds = split or together
    assert holds is not None
    other: Mode = "colocated" if split else "disaggregated"
    word = "Disaggregate" if split else "Do not disaggregate"
    if not any(c.layout.mode == other for c in candidates):
        return "undecided", f"{holds.layout.label} holds; no {other} layout was considered."
    open_ = undecided_below(candidates, other, holds, objective, target)
    open_.sort(key=lambda c: -len(c.reps))  # quote what is known best
    if open_:
        return "too close to call", (
            f"Too close to call: {holds.layout.label} holds, and {open_[0].layout.full_label} may "
            f"for no more ({open_[0].reason})."
        )
    near = closest([c for c in candidates if c.layout.mode == other])
    tail = f"; closest came {near.layout.label} ({near.reason})" if near else ""
    if not complete:
        return ("yes" if split else "no"), (
            f"{word}: no {other} layout that costs as little as {holds.layout.label} holds; dearer "
            f"ones were not all tried{tail}."
        )
    return ("yes" if split else "no"), (
        f"{word}: {holds.layout.label} holds, and no {other} layout within the limits was found to"
        f"{tail}."
    )


def _neither(candidates: Sequence[Candidate], complete: bool) -> tuple[Disaggregate, str]:
    near = closest(candidates)
    if near is None:
        return "neither", "No layout is possible within the limits."
    what = "No layout within the limits holds" if complete else "No layout was found to hold yet"
    return ("neither" if complete else "undecided"), (
        f"{what}; closest came {near.layout.full_label}: {near.reason}."
    )


def _equal(split: Candidate, together: Candidate, objective: Objective) -> tuple[Disaggregate, str]:
    """Same objective: whoever meets the targets for more requests, if that can be told."""
    pairs = zip(split.reps, together.reps, strict=False)
    gain = mean_interval([a.attainment - b.attainment for a, b in pairs])
    same = "price" if objective == "cost" else "number of GPUs"
    both = f"{split.layout.label} and {together.layout.label} hold at the same {same}"
    if gain is None or gain.lo <= 0.0 <= gain.hi:
        return "too close to call", f"Too close to call: {both}."
    better = split if gain.mean > 0 else together
    word = "Disaggregate" if better is split else "Do not disaggregate"
    return ("yes" if better is split else "no"), (
        f"{word}: {both}, and {better.layout.label} meets the targets for "
        f"{100 * abs(gain.mean):.2f} % more of the requests."
    )


def _saved(cheap: Candidate, dear: Candidate, objective: Objective) -> str:
    a, b = objective_key(cheap, objective)[0], objective_key(dear, objective)[0]
    share = f"{100 * (1 - a / b):.0f} %" if b > 0 else "nothing"
    if objective == "cost":
        return f"${b - a:,.2f}/h ({share})"
    return f"{b - a:.0f} GPUs ({share})"


def closest(candidates: Sequence[Candidate]) -> Candidate | None:
    """Of layouts that do not hold, the one that came closest: by attainment, then by load."""
    seen = [c for c in candidates if c.reps] or [c for c in candidates if c.seen]
    if seen:
        return min(seen, key=lambda c: (_missed(c), c.load or 0.0, c.layout.order))
    known = [c for c in candidates if c.verdict == "rejected"]
    if not known:
        return None
    return min(known, key=lambda c: (-c.bound.best_share, c.load or 0.0, c.layout.order))


def _missed(c: Candidate) -> float:
    found = c.attainment()
    return 1.0 - found.mean if found else 1.0

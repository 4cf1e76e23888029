"""The page of errors belongs to the profiles and measurements that are bundled."""

from __future__ import annotations

from pathlib import Path

from simulator.report import accuracy

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"


def test_the_page_was_made_from_the_bundled_numbers() -> None:
    made_from = accuracy.MADE_FROM.format(accuracy.fingerprint())
    assert PAGE.read_text(encoding="utf-8").rstrip().endswith(made_from), (
        "docs/accuracy.md is older than a profile, an engine or a measurement: "
        "run 'python -m simulator.report.accuracy'"
    )


def test_sections_stand_between_introduction_and_weak_spots() -> None:
    page = accuracy.document([lambda: "## One", lambda: "## Two"])
    found = [
        page.index(text) for text in ("# How wrong is it?", "## One", "## Two", "## Where the")
    ]
    assert found == sorted(found)

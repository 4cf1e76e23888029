"""The page of a calibration: what was measured, what was fitted, how good it is, what is assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from calibration.figures import operator_figure
from calibration.fitted import Fitted
from calibration.sheet import provenance
from hwprofiles import schema
from hwprofiles.param import Param
from simulator.html import figures as digits
from simulator.html import share
from simulator.report import html, markdown, style
from simulator.report.block import Block, Verdict
from simulator.version import VERSION

WARN_ERROR = 0.15
"""Held-out error from which an operator is called out."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the page is made of.

    Attributes:
        name: of the profile.
        data: rows measured.
        sheet: data-sheet fields.
        operators: fitted operators.
        notes: sentences for the reader.
    """

    name: str
    data: pd.DataFrame
    sheet: Mapping[str, Param]
    operators: Sequence[Fitted]
    notes: Sequence[str]

    @property
    def title(self) -> str:
        """Headline."""
        return f"Calibration of {self.name}"

    def drawn(self) -> dict[str, bytes]:
        """A figure per fitted operator, as PNG, by file name."""
        return {
            f"{'_'.join(fitted.path)}.png": style.png_bytes(
                operator_figure(fitted, f"{self.name}: {fitted.name}")
            )
            for fitted in self.operators
            if not fitted.points.empty
        }

    def verdicts(self) -> list[Verdict]:
        """How good the fit is, in sentences."""
        known = [f for f in self.operators if f.held_out is not None]
        found = []
        for fitted in known:
            error = fitted.held_out or 0.0
            good = error <= WARN_ERROR
            found.append(
                Verdict(
                    good, f"{fitted.name}: {share(error)} mean error on shapes left out of the fit"
                )
            )
        return found

    def blocks(self) -> list[Block]:
        """The tables."""
        return [self._measured(), self._fits(), self._parameters(), self._sheet()]

    def _measured(self) -> Block:
        first = self.data.iloc[0]
        clocks = self.data["sm_mhz"].dropna()
        seen = f"{clocks.min():.0f}–{clocks.max():.0f} MHz" if len(clocks) else "not read"
        rows = (
            ("device, software, date", provenance(self.data)),
            ("memory", digits(float(first["memory_bytes"]) / 1e9, "GB")),
            ("clock of the multiprocessors", seen),
            ("rows", f"{len(self.data):,}"),
            ("median spread of the blocks of a row", share(float(self.data["spread"].median()))),
        )
        return Block("What was measured", (), rows)

    def _fits(self) -> Block:
        rows = tuple(
            (
                fitted.name,
                fitted.kernel or "–",
                f"{fitted.rows:,}" if fitted.rows else "–",
                share(fitted.held_out),
                share(fitted.fit_error),
                "–" if fitted.bias is None else f"{100 * fitted.bias:+.1f} %",
            )
            for fitted in self.operators
        )
        header = ("operator", "kernel", "rows", "error, held out", "error, fitted", "bias")
        return Block("Fits", header, rows, "Errors are means of |predicted / measured − 1|.")

    def _parameters(self) -> Block:
        rows = []
        for fitted in self.operators:
            for key, param in fitted.params.items():
                rows.append((f"{'.'.join(fitted.path)}.{key}", *_valued(param), param.source.kind))
        header = ("parameter", "value", "standard error", "unit", "source")
        return Block("Parameters", header, tuple(rows))

    def _sheet(self) -> Block:
        rows = tuple(
            (row.description, *_valued(self.sheet[row.name]), self.sheet[row.name].source.kind)
            for row in schema.GPU
            if row.name in self.sheet
        )
        return Block("Data sheet", ("field", "value", "standard error", "unit", "source"), rows)

    def html(self, drawn: Mapping[str, bytes], profile: str) -> str:
        """The page as one HTML file with its figures inside."""
        tables = [html.table(block) for block in self.blocks()]
        pictures = [html.image(png, _alt(name)) for name, png in drawn.items()]
        return html.page(
            self.title,
            verdicts=self.verdicts(),
            warnings=self.notes,
            sections=[*tables[:2], *pictures, *tables[2:], html.source("The profile", profile)],
            footer=f"xpyd {VERSION}",
        )

    def markdown(self, drawn: Mapping[str, bytes]) -> str:
        """The page as Markdown beside its figures."""
        tables = [markdown.table(block) for block in self.blocks()]
        pictures = [markdown.image(name, _alt(name)) for name in drawn]
        return markdown.page(
            self.title,
            verdicts=self.verdicts(),
            warnings=self.notes,
            sections=[*tables[:2], *pictures, *tables[2:]],
            footer=f"xpyd {VERSION}",
        )


def _valued(param: Param) -> tuple[str, str, str]:
    return f"{param.value:.4g}", "–" if param.stderr is None else f"{param.stderr:.2g}", param.unit


def _alt(name: str) -> str:
    operator = name.removesuffix(".png").replace("_", " ")
    return f"{operator}: measured against predicted time, and residual against intensity"

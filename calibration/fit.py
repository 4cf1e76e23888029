"""From measured rows to a hardware profile, its figures and its page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from calibration.fitted import Fitted
from calibration.fitting import fit_operators
from calibration.page import Page
from calibration.profile_yaml import profile_text
from calibration.rows import read_rows
from calibration.sheet import data_sheet
from hwprofiles import GpuProfile, load_gpu
from hwprofiles.param import Param, Source
from hwprofiles.profile import KernelFamily, NvlinkAllReduce
from simulator.errors import InputError

FAMILY = "torch"
"""Name of the kernel family a calibration makes."""
REQUIRED = ("gemm", "attn_decode", "attn_prefill")
"""Operators without which there is no profile."""
_NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted profile.

    Attributes:
        name: of the profile.
        text: its YAML.
        operators: what was fitted or taken over.
        page: the report.
    """

    name: str
    text: str
    operators: tuple[Fitted, ...]
    page: Page


def calibrate(data: pd.DataFrame, name: str, base: GpuProfile | None = None) -> Calibration:
    """Fit a profile to the rows of one machine.

    Args:
        data: rows, as ``read_rows`` returns them.
        name: of the profile: lower-case letters, digits and ``_ . -``.
        base: where data-sheet peaks come from, and parameters of operators that were not measured;
            None: the highest rates seen are the peaks.

    Raises:
        InputError: an unusable name, or too few rows of a required operator.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"--name '{name}' cannot name a profile; allowed: lower-case letters, digits, '_', '.' and "
            "'-', a letter first."
        )
    sheet = data_sheet(data, base)
    family = None if base is None else base.family()
    taken = {
        "head_dim_exponent": _head_dim_exponent(family),
        "kernels_per_layer": _kernels_per_layer(family),
    }
    operators = fit_operators(data, sheet, taken)
    fitted = {found.path[0] for found in operators}
    if "elementwise" not in fitted:
        operators += _elementwise(family)
    if "all_reduce" not in fitted:
        operators += _all_reduce(family)
    _complete(data, operators)
    first = data.iloc[0]
    description = f"{first['gpu']}, calibrated with torch {first['torch']}"
    text = profile_text(
        name=name, description=description, sheet=sheet, family=FAMILY, operators=operators
    )
    notes = _notes(data, base, operators)
    return Calibration(name, text, tuple(operators), Page(name, data, sheet, operators, notes))


def fitted_files(
    rows: Path, name: str, out: Path | None = None, base: str | None = None
) -> tuple[Calibration, list[Path]]:
    """Fit the rows in a file and write profile, figures and page, all or nothing.

    Args:
        rows: what ``calibrate bench`` wrote.
        name: of the profile; its file is ``NAME.yaml``.
        out: folder for the files; the current one when None.
        base: name or file of a GPU profile, see ``calibrate``.

    Returns:
        The calibration and the files written: profile, HTML page, Markdown page, figures.

    Raises:
        InputError: unusable rows, name, base or folder.
    """
    from simulator.report.files import output_folder

    data = read_rows(rows)
    sheet = None if base is None else load_gpu(base)
    folder = out or Path()
    with output_folder(folder) as staging:  # refused before the work, not after it
        found = calibrate(data, name, sheet)
        profile = staging / f"{name}.yaml"
        profile.write_text(found.text, encoding="utf-8")
        load_gpu(profile)  # what is written can be read
        drawn = {f"{name}_{file}": png for file, png in found.page.drawn().items()}
        for file, png in drawn.items():
            (staging / file).write_bytes(png)
        page = found.page.html(drawn, found.text)
        (staging / f"{name}.html").write_text(page, encoding="utf-8")
        (staging / f"{name}.md").write_text(found.page.markdown(drawn), encoding="utf-8")
        names = [f"{name}.yaml", f"{name}.html", f"{name}.md", *drawn]
    return found, [folder / file for file in names]


def _complete(data: pd.DataFrame, operators: Sequence[Fitted]) -> None:
    fitted = {found.path[:2] for found in operators}
    wanted = (("gemm", "bf16"), ("decode_attention", "bf16"), ("prefill_attention", "bf16"))
    for operator, path in zip(REQUIRED, wanted, strict=True):
        if path not in fitted:
            count = int(data["operator"].eq(operator).sum())
            raise InputError(
                f"{count} rows of {operator} are too few to fit {' '.join(path)}; measure more: xpyd "
                f"calibrate bench --operators {operator} with the same --out."
            )
    if ("elementwise",) not in fitted:
        raise InputError(
            "no rows of elementwise, and no --base to take them from; measure them: xpyd calibrate "
            "bench --operators elementwise with the same --out."
        )


def _head_dim_exponent(family: KernelFamily | None) -> Param:
    if family is None:
        text = "no effect of the head's width: two widths are too few to fit one"
        return Param(0.0, "1", Source("assumed", text))
    found = dict(family.prefill_attention)["bf16"].head_dim_exponent
    return replace(found, source=Source("borrowed", f"from the base profile ({found.source})"))


def _kernels_per_layer(family: KernelFamily | None) -> Param:
    if family is not None:
        return family.elementwise.kernels_per_layer
    text = "two fused add-and-norm, rotary embedding, gated activation"
    return Param(4.0, "1", Source("assumed", text))


def _elementwise(family: KernelFamily | None) -> list[Fitted]:
    """The base's, where it was not measured."""
    if family is None:
        return []
    note = "not measured: the base profile's"
    return [Fitted(("elementwise",), _taken(family.elementwise), note=note)]


def _all_reduce(family: KernelFamily | None) -> list[Fitted]:
    """The base's, where it was not measured."""
    if family is None or family.all_reduce is None:
        return []
    note = "not measured: the base profile's"
    if isinstance(family.all_reduce, NvlinkAllReduce):
        return [Fitted(("all_reduce", "nvlink"), _taken(family.all_reduce), note=note)]
    return [
        Fitted(("all_reduce", "bus", f"n{entry.gpus}"), _taken(entry), note=note)
        for entry in family.all_reduce
    ]


def _taken(holder: object) -> dict[str, Param]:
    """The parameters of a section, marked as the base's."""
    fields = getattr(type(holder), "__slots__", ())
    found = {}
    for field in fields:
        value = getattr(holder, field)
        if isinstance(value, Param):
            source = Source("borrowed", f"from the base profile ({value.source})")
            found[field] = Param(value.value, value.unit, source, value.stderr)
    return found


def _notes(data: pd.DataFrame, base: GpuProfile | None, operators: Sequence[Fitted]) -> list[str]:
    """What the reader must know before using the profile."""
    notes = []
    if base is None:
        notes.append(
            "Peaks and bandwidth are the highest rates seen here, not a data sheet's; predictions do "
            "not depend on that, MFU and MBU do. Give --base to use a data sheet."
        )
    if base is not None and base.caution:
        notes.append(
            f"The base is itself not calibrated; only its data sheet is used. {base.name}."
        )
    notes += [f"{found.name}: {found.note}." for found in operators if found.note]
    loose = [
        f"{found.name} {key}"
        for found in operators
        for key, param in found.params.items()
        if param.source.kind == "fitted" and param.stderr is None and key != "error"
    ]
    if loose:
        notes.append(f"The rows do not determine {', '.join(loose)}.")
    if "comm" not in set(data["operator"]) or not any(
        found.path[0] == "all_reduce" and found.rows for found in operators
    ):
        notes.append("No all-reduce was measured.")
    return notes

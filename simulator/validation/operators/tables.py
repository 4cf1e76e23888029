"""Tables of measured kernels: one Parquet file a GPU and operator, ``GPU_OPERATOR.parquet``.

The schema is that of the tables derived from aiconfigurator-core: shapes per GPU after sharding and
``latency_us`` of one call; docs/accuracy.md names the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from hwprofiles import GpuProfile, load_gpu
from simulator.errors import InputError, ProfileError

COLUMNS: dict[str, tuple[str, ...]] = {
    "gemm": ("dtype", "m", "n", "k"),
    "attn_decode": ("kv_dtype", "batch", "kv_len", "n_heads", "n_kv_heads", "head_dim", "window"),
    "attn_prefill": ("kv_dtype", "batch", "isl", "n_heads", "n_kv_heads", "head_dim", "window"),
    "comm": ("op", "n_gpus", "bytes"),
    "moe": ("dtype", "tokens", "hidden", "width", "topk", "experts"),
    "mla_decode": ("kv_dtype", "batch", "kv_len", "n_heads"),
    "mla_prefill": ("kv_dtype", "batch", "isl", "n_heads"),
}
"""Columns each operator's table needs, besides ``framework`` and ``latency_us``."""

GPU_NAMES = {"a100_sxm": "a100_sxm_80gb"}
"""Names of GPUs in file names that are not names of profiles."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One file of measured kernels.

    Attributes:
        stem: name of the file without its suffix.
        operator: a key of ``COLUMNS``.
        gpu: profile of the GPU measured.
        frame: the rows, as in the file, numbered from 0.
    """

    stem: str
    operator: str
    gpu: GpuProfile
    frame: pd.DataFrame


def read_tables(folder: Path) -> list[Table]:
    """Every table of a folder, in order of name.

    Raises:
        InputError: no such folder, no table in it, a name that is not ``GPU_OPERATOR``, a file
            that is not Parquet, or a missing column; one sentence naming the file.
    """
    if not folder.is_dir():
        raise InputError(f"--operators {folder}: no such folder.")
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise InputError(
            f"--operators {folder}: holds no .parquet file; expected GPU_OPERATOR.parquet with "
            f"OPERATOR one of {', '.join(COLUMNS)}."
        )
    return [read_table(path) for path in paths]


def read_table(path: Path) -> Table:
    """One table.

    Raises:
        InputError: as in ``read_tables``.
    """
    operator = next((name for name in COLUMNS if path.stem.endswith(f"_{name}")), None)
    if operator is None:
        raise InputError(
            f"{path}: the name says no operator; expected GPU_OPERATOR.parquet with OPERATOR one "
            f"of {', '.join(COLUMNS)}."
        )
    name = path.stem.removesuffix(f"_{operator}")
    try:
        gpu = load_gpu(GPU_NAMES.get(name, name))
    except ProfileError as error:
        raise InputError(f"{path}: {error}") from error
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error}).") from error
    needed = ("framework", "latency_us", *COLUMNS[operator])
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise InputError(
            f"{path}: column '{missing[0]}' is missing; {operator} tables have {', '.join(needed)}."
        )
    return Table(path.stem, operator, gpu, frame.reset_index(drop=True))


def bundled_tables() -> list[Table]:
    """The measured kernels that come with the project (``hwprofiles/measurements``)."""
    with as_file(files("hwprofiles").joinpath("measurements")) as folder:
        paths: Sequence[Path] = sorted(Path(folder).glob("*.parquet"))
        return [read_table(path) for path in paths if _is_operator(path)]


def _is_operator(path: Path) -> bool:
    return any(path.stem.endswith(f"_{name}") for name in COLUMNS)

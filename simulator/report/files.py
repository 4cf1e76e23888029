"""Result files that are complete or absent: staged beside their place, then renamed into it."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from simulator.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def jsonable(value: Any) -> Any:
    """``value`` with every float that JSON cannot carry (NaN, ±inf) as None, and plain types."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if hasattr(value, "item"):  # a NumPy scalar
        return jsonable(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def json_text(value: Any) -> str:
    """``value`` as indented JSON text without NaN, ending in a newline."""
    return json.dumps(jsonable(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "a file is where a folder should be"
    return (error.strerror or str(error)).lower()


@contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """An empty folder to write results into, whose files move to ``target`` if all goes well.

    The folder is made at once, inside ``target`` if that exists and beside it otherwise, so that
    an unusable ``target`` is known before any work is done. On success each file replaces the one
    of its name in ``target``; other files there stay. After an error nothing has changed.

    Raises:
        InputError: ``target`` is not a folder, or cannot be written.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"cannot write to --out {target}: it is a file, not a folder.")
    made: list[Path] = []
    try:
        parent = target if target.is_dir() else target.absolute().parent
        made = [p for p in (parent, *parent.parents) if not p.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".xpyd-", dir=parent))
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"cannot write to --out {target}: {_reason(error)}.") from error
    try:
        yield staging
        target.mkdir(exist_ok=True)
        for file in sorted(staging.iterdir()):
            os.replace(file, target / file.name)
    except OSError as error:
        raise InputError(f"cannot write to --out {target}: {_reason(error)}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # in use, or never made
            folder.rmdir()


@contextmanager
def output_file(target: Path, option: str) -> Iterator[IO[bytes]]:
    """An open binary file that becomes ``target`` if all goes well, and vanishes otherwise.

    Args:
        target: the file to write or replace; its folder must exist.
        option: the command-line option that named it, for the error sentence.

    Raises:
        InputError: ``target`` is a folder, or cannot be written.
    """
    if target.is_dir():
        raise InputError(f"cannot write to {option} {target}: it is a folder, not a file.")
    try:
        fd, name = tempfile.mkstemp(prefix=".xpyd-", dir=target.absolute().parent)
    except OSError as error:
        raise InputError(f"cannot write to {option} {target}: {_reason(error)}.") from error
    staging = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        staging.chmod(0o666 & ~umask)  # mkstemp makes private files
        os.replace(staging, target)
    except OSError as error:
        raise InputError(f"cannot write to {option} {target}: {_reason(error)}.") from error
    finally:
        staging.unlink(missing_ok=True)


def write_requests(requests: pd.DataFrame, path: Path) -> None:
    """Write the request table as Parquet; the same table gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(requests, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd", version="2.6")

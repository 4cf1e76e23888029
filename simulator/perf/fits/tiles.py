"""Shapes of experts an engine ships tables of tiles for.

Facts from the names of the files in ``…/fused_moe_triton/configs`` and ``…/triton_utils/configs`` of
the PyPI packages ``sglang`` 0.5.14 (H100, H200) and 0.5.10 (A100), Apache-2.0: those of 16-bit weights,
all Triton versions together, since the engine takes the next best one.
"""

from __future__ import annotations

import pandas as pd

from simulator.perf.forms import chosen_tile

Shapes = tuple[tuple[int, int], ...]

TUNED: dict[tuple[str, str, str], Shapes] = {
    ("h100_sxm", "sglang", "bf16"): (
        (1, 3072), (8, 1792), (8, 2048), (8, 3584), (8, 4096), (8, 7168), (16, 1024), (16, 1344),
        (16, 1856), (16, 2048), (16, 2688), (20, 2048), (24, 1024), (32, 224), (32, 448),
        (32, 896), (32, 928), (32, 1792), (32, 1856), (64, 192), (64, 320), (64, 384), (64, 464),
        (64, 640), (64, 768), (64, 928), (64, 1280), (64, 1536), (64, 1856), (64, 2688),
        (65, 1536), (128, 192), (128, 232), (128, 352), (128, 384), (128, 464), (128, 512),
        (128, 704), (128, 768), (128, 928), (128, 1344), (128, 1856), (128, 2688), (144, 512),
        (256, 672), (256, 1344), (256, 2688), (512, 64), (512, 128), (512, 336), (512, 672),
        (512, 1344), (512, 2688),
    ),
    ("h200_sxm", "sglang", "bf16"): (
        (8, 1792), (8, 2048), (8, 3584), (8, 4096), (8, 7168), (8, 14336), (16, 1024), (20, 1536),
        (64, 320), (64, 640), (64, 1280), (64, 2560), (128, 192), (128, 384), (128, 704),
        (128, 768), (129, 384), (161, 192), (512, 64), (512, 128), (512, 256),
    ),
    ("a100_sxm", "sglang", "bf16"): (
        (1, 1792), (1, 3584), (1, 7168), (1, 14336), (8, 1792), (8, 2048), (8, 3584), (8, 4096),
        (8, 7168), (16, 1344), (16, 1792), (16, 2688), (16, 3584), (16, 7168), (16, 14336),
        (64, 640), (64, 1280), (257, 64),
    ),
}  # fmt: skip
"""(experts on the rank, width) by GPU, kernel family and type in a profile."""


MARLIN = (8, 16, 32, 48, 64)
"""Rows of the tiles of the Marlin kernels that vLLM and SGLang run for experts in int4 [1]."""


def tiled(rows: pd.DataFrame, tiles: tuple[int, ...]) -> pd.DataFrame:
    """Rows with the column ``tile``: rows of the tile the kernel chooses [1].

    Args:
        rows: rows of experts, with ``tokens``, ``topk``, ``experts`` and ``ep``.
        tiles: rows of the tiles there are, ascending.
    """
    share = rows["tokens"] * rows["topk"] * rows["ep"] / rows["experts"]
    return rows.assign(tile=chosen_tile(share.to_numpy(), tiles))


def marked(rows: pd.DataFrame, tuned: Shapes) -> pd.DataFrame:
    """Rows with the column ``tuned``: whether their shape has a table of tiles.

    Args:
        rows: rows of experts, with ``experts``, ``ep`` and ``width``.
        tuned: (experts on the rank, width) with a table.
    """
    local = rows["experts"] // rows["ep"]
    shapes = zip(local.astype(int), rows["width"].astype(int), strict=True)
    return rows.assign(tuned=[shape in tuned for shape in shapes])

"""Independent named random streams: one seed, one stream for each thing that is random."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The random stream called ``name`` of the experiment ``seed``.

    Streams of different names are statistically independent, so candidates that differ in a
    router or a batch limit still see the same arrivals and lengths (common random numbers), and
    drawing more from one stream changes nothing in another. The name enters through its CRC-32,
    which is the same in every process and on every platform; Python's ``hash`` is not.

    Args:
        seed: experiment seed, at least 0.
        name: what the stream is for, such as ``"arrivals"`` or ``"router"``.

    Returns:
        A fresh generator at the beginning of the stream.
    """
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    )

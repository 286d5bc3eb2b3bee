"""Rows in pieces, so that the fp32 copies that an op needs for a moment stay small beside its inputs and outputs.

A kernel holds one row in registers. In torch every intermediate is a tensor; over a whole activation or a whole
``[tokens, vocabulary]`` matrix, fp32 intermediates would take several times the memory of the 16-bit inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

ELEMENTS = 1 << 22
"""Largest piece: 4 Mi elements, an intermediate of 16 MiB in fp32."""


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Consecutive slices over ``rows``, each of at most `ELEMENTS` elements or one row.

    While torch.compile traces there is one slice: the compiler fuses the intermediates away.
    """
    step = rows if torch.compiler.is_compiling() else max(1, ELEMENTS // max(1, columns))
    for start in range(0, rows, max(1, step)):
        yield slice(start, min(start + step, rows))

"""Random numbers that are a function of a counter: Philox4x32-10, and the mask of attention's dropout.

From Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). What a counter gives depends
on nothing but it and the key, so any part of a mask can be made again at any time.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
BUMPS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, seed: int) -> Words:
    """Four words of 32 bits for each counter of four such words, as int64; ``seed`` is the key, 64 bits.

    The counter's words are int64 tensors that broadcast. A product of two words has 64 bits: int64 arithmetic keeps
    them all, though not the sign, so its upper half is masked.
    """
    a, b, c, d = counter
    key = [seed & WORD, seed >> 32 & WORD]
    for _ in range(ROUNDS):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b = _upper(second) ^ b ^ key[0], second & WORD
        c, d = _upper(first) ^ d ^ key[1], first & WORD
        key = [(word + bump) & WORD for word, bump in zip(key, BUMPS, strict=True)]
    return a, b, c, d


def _upper(product: Tensor) -> Tensor:
    return (product >> 32) & WORD


def threshold(p: float) -> int:
    """A word below this one drops what it belongs to."""
    return round(p * 2**32)


def dropped(
    p: float, seed: int, batches: slice, heads: slice, rows: slice, keys: slice, device: torch.device
) -> Tensor:
    """Which weights of attention dropout drops: boolean ``[batches, heads, rows, keys]``.

    Weight ``(b, h, i, j)`` is dropped if word ``j % 4`` of counter ``(j // 4, i, h, b)`` is below `threshold`. Slices
    have a start and a stop.
    """
    quads = slice(keys.start // 4, -(-keys.stop // 4))
    b, h, i, quad = (torch.arange(part.start, part.stop, device=device) for part in (batches, heads, rows, quads))
    words = philox((quad, i[:, None], h[:, None, None], b[:, None, None, None]), seed)
    below = torch.stack([word < threshold(p) for word in words], -1).flatten(-2)
    skipped = keys.start - 4 * quads.start
    return below[..., skipped : skipped + keys.stop - keys.start]

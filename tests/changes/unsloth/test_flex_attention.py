"""Attention with soft-capped scores, against upstream's own and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.changes.unsloth.attention import EPS, distances, naive, tensors
from tests.oracle import INTERPRETED, PATCHED


def _causal(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    hidden = torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "keys", "per_row"), [(13, 13, False), (5, 13, False), (13, 13, True)])
def test_softcapped_attention_is_as_exact_as_upstreams(
    dtype: torch.dtype, queries: int, keys: int, per_row: bool
) -> None:
    """Grouped heads, a cache (fewer queries than keys), a mask per row: no farther from float64 than upstream's.

    Both share one final rounding (half an eps); in fp32 other orders of the sums add up to 4 eps.
    """
    q, k, v, dO = tensors(dtype, (2, 4, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8), (2, queries, 32))
    mask = _causal(keys, keys, dtype)
    if per_row:
        mask = mask.expand(2, 1, keys, keys).clone()
        mask[1, 0, :, :3] = torch.finfo(dtype).min  # left padding; its rows see no key at all
    arguments = (q, k, v, mask, 24, 3.0, dO)
    found = PATCHED.call("attention:softcapped", *arguments)
    theirs = INTERPRETED.call("attention:softcapped", *arguments)
    scale = torch.tensor(24**-0.5, dtype=dtype).item()
    exact = naive(q, k, v, mask[..., keys - queries :, :], scale, 3.0, dO)
    for ours, upstream in zip(distances(found, exact), distances(theirs, exact), strict=True):
        assert ours <= 1.1 * upstream + (4 * EPS[dtype] if dtype == torch.float32 else 0)

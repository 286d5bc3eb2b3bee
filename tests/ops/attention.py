"""Inputs of attention: tensors of given shapes, and the mask that Unsloth adds to the scores."""

from __future__ import annotations

import torch
from torch import Tensor


def tensors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def causal(queries: int, keys: int, dtype: torch.dtype) -> Tensor:
    """The lowest number where a query must not look; the last query sees every key."""
    hidden = torch.arange(keys) > torch.arange(queries)[:, None] + keys - queries
    return torch.zeros(queries, keys, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)

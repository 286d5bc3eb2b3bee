"""Heads and tables of angles, and their rotation in float64."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BATCH, TOKENS, HEADS, HEAD = 2, 5, 3, 6


def tables(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angles = torch.arange(11)[:, None] / 10 ** torch.linspace(0, 1, HEAD // 2)
    table = torch.cat((angles, angles), -1)
    return table.cos().to(dtype), table.sin().to(dtype)


def heads(dtype: torch.dtype, seed: int) -> Tensor:
    """``[batch, heads, tokens, head]``, heads not contiguous, as attention layers make it."""
    return (
        torch.randn(BATCH, TOKENS, HEADS, HEAD, generator=torch.Generator().manual_seed(seed)).to(dtype).transpose(1, 2)
    )


def rotated_in_float64(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None) -> Tensor:
    """Hugging Face's form: ``x * cos + rotate_half(x) * sin``."""
    rows = torch.arange(TOKENS).expand(BATCH, TOKENS) if positions is None else positions
    first, second = x.double().chunk(2, -1)
    return x.double() * cos.double()[rows][:, None] + torch.cat((-second, first), -1) * sin.double()[rows][:, None]

"""Small language-model heads, and how near their results are to float64's."""

from __future__ import annotations

import torch
from torch import Tensor

from patcher.ops.logit_tiles import Head, LogitTransform

ROWS, HIDDEN, VOCABULARY = 7, 24, 61


def head(seed: int, transform: LogitTransform, *, width: int = HIDDEN, bias: bool = True) -> Head:
    """A head in fp32 whose hidden states are not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(ROWS, 2 * width, generator=generator)[:, ::2]
    weight = torch.randn(VOCABULARY, width, generator=generator) / 2
    return Head(hidden, weight, torch.randn(VOCABULARY, generator=generator) if bias else None, transform, hidden.dtype)


def leaves_of(head: Head) -> list[Tensor]:
    """Hidden states, weight and bias in float64, to be differentiated."""
    return [t.double().requires_grad_() for t in (head.hidden, head.weight, head.bias) if t is not None]


def row_values(seed: int) -> Tensor:
    return torch.randn(ROWS, generator=torch.Generator().manual_seed(seed))


def assert_near(found: Tensor | None, exact: Tensor | None) -> None:
    """Up to 200 eps of the largest value, which cover fp32 sums of 61 terms and exponentials of logits up to 10."""
    assert found is not None and exact is not None and found.dtype == torch.float32
    scale = max(1.0, exact.abs().max().item())
    torch.testing.assert_close(found.double(), exact.detach(), rtol=0, atol=200 * 2**-23 * scale)

"""Attention in float64, and how far a result is from it."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def tensors(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator).to(dtype) for shape in shapes]


def naive(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, softcap: float | None, dO: Tensor
) -> list[Tensor]:
    """float64, with whole matrices and repeated heads; the output as [B, L, H D]."""
    leaves = [t.double().detach().requires_grad_() for t in (q, k, v)]
    groups = q.shape[1] // k.shape[1]
    K, V = (t.repeat_interleave(groups, 1) for t in leaves[1:])
    s = leaves[0] @ K.transpose(-1, -2) * scale
    s = s if softcap is None else softcap * torch.tanh(s / softcap)
    out = ((s + bias.double()).softmax(-1) @ V).transpose(1, 2).flatten(2)
    out.backward(dO.double())
    return [out.detach(), *(t.grad for t in leaves if t.grad is not None)]


def distances(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    assert [t.shape for t in found] == [t.shape for t in exact]
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]

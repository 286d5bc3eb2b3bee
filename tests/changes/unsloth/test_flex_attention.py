"""Attention with soft-capped scores, against upstream's own and against float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.ops.attention import causal, tensors
from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "keys", "per_row"), [(13, 13, False), (5, 13, False), (13, 13, True)])
def test_softcapped_attention_is_as_exact_as_upstreams(
    dtype: torch.dtype, queries: int, keys: int, per_row: bool
) -> None:
    """Grouped heads, a cache (fewer queries than keys), a mask per row: no farther from float64 than upstream's.

    Both share one final rounding (half an eps); in fp32 other orders of the sums add up to 4 eps.
    """
    q, k, v, dO = tensors(dtype, (2, 4, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8), (2, queries, 32))
    mask = causal(keys, keys, dtype)
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
